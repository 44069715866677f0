"""Strangers' code, imported so that it cannot spoil what others print or compute, nor keep everybody waiting."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from attent_kit.errors import AttentKitError, ConfigError

VARIABLE = "ATTENTKIT_IMPORT_SECONDS"


class _TooSlow(BaseException):
    """Not an Exception, so that an `except Exception` of the code that hangs does not swallow it."""


@contextmanager
def guarded(seconds: float) -> Iterator[None]:
    """Import a plugin inside: what it prints goes to stderr, it has `seconds`, and it leaves torch's settings alone.

    AttentKitError if it takes longer, which is noticed in the main thread alone, or if it changed a setting, which is then
    put back.
    """
    before = {**_FRESH, **_settings()}
    try:
        with redirect_stdout(sys.stderr), _limited(seconds):
            yield
    finally:
        changed = [name for name, value in _settings().items() if value != before[name]]
        for name in changed:
            _SETTINGS[name][1](sys.modules["torch"], before[name])
    if changed:
        raise AttentKitError(
            f"importing it changes torch's {' and '.join(changed)}, for every method alike. Leave that out: the engine "
            f"chooses device and precision."
        )


def import_limit(seconds: float) -> float:
    """Seconds that an import may take: those of ATTENTKIT_IMPORT_SECONDS, or else `seconds`."""
    text = os.environ.get(VARIABLE, "")
    try:
        return float(text) if text else seconds
    except ValueError:
        raise ConfigError(f"{VARIABLE}={text}: write seconds, for example {VARIABLE}=60.") from None


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """AttentKitError after so many seconds, where an alarm can be set."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _TooSlow

    handler = signal.signal(signal.SIGALRM, ring)
    # Again every second: a first alarm may be lost in a finally or a bare except.
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    except _TooSlow:
        raise AttentKitError(
            f"it was still being imported after {seconds:g} s. Nothing may be computed, fetched or waited for on import; "
            f"if it is only slow, set {VARIABLE} to more."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _settings() -> dict[str, Any]:
    """What torch is set to, empty as long as nobody has imported it."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_device"):
        return {}
    return {name: get(torch) for name, (get, _) in _SETTINGS.items()}


_SETTINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    "default dtype": (
        lambda torch: str(torch.get_default_dtype()),
        lambda torch, value: torch.set_default_dtype(getattr(torch, value.partition(".")[2])),
    ),
    "default device": (
        lambda torch: str(torch.get_default_device()),
        # None and not "cpu": that would put a mode in place, which every later call passes through.
        lambda torch, value: torch.set_default_device(None if value == "cpu" else value),
    ),
    "gradients": (lambda torch: torch.is_grad_enabled(), lambda torch, value: torch.set_grad_enabled(value)),
    "deterministic algorithms": (
        lambda torch: torch.are_deterministic_algorithms_enabled(),
        lambda torch, value: torch.use_deterministic_algorithms(value),
    ),
    "matrix precision": (
        lambda torch: torch.get_float32_matmul_precision(),
        lambda torch, value: torch.set_float32_matmul_precision(value),
    ),
}
"""What of torch's state all methods share: how it is read and how it is put back."""

_FRESH = {
    "default dtype": "torch.float32", "default device": "cpu", "gradients": True, "deterministic algorithms": False,
    "matrix precision": "highest",
}  # fmt: skip
"""The same as torch starts with."""
