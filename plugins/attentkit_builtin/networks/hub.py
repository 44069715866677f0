"""Fetching published weights without waiting for a network that is not there, and without other people's log lines."""

import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

SECONDS = 5.0
"""Within which the hub, or the proxy on the way to it, must take a connection."""
LOGGERS = ("huggingface_hub", "timm")


@contextmanager
def fetching() -> Iterator[None]:
    """Within, weights come from the cache alone if the hub cannot be reached, and nothing is logged of that."""
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    offline, seconds = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    try:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        # Its own retries take a minute and a half for two files.
        constants.HF_HUB_OFFLINE = offline or not reachable()
        # torch.hub waits for ever where packets are dropped.
        socket.setdefaulttimeout(seconds or 4 * SECONDS)
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(seconds)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def reachable() -> bool:
    """Whether the hub, or the proxy on the way to it, takes a connection within SECONDS."""
    hub = urlsplit(constants.ENDPOINT)
    proxies = {} if urllib.request.proxy_bypass(hub.hostname or "") else urllib.request.getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all")
    place = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else hub
    taken = threading.Event()

    def connect() -> None:
        try:
            port = place.port or (443 if place.scheme == "https" else 80)
            socket.create_connection((place.hostname or "", port), SECONDS).close()
            taken.set()
        except (OSError, ValueError):
            pass

    # In a thread, since no timeout holds for looking up a name.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return taken.is_set()
