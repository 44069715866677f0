"""What the installed segmentors can be built on, and which alignments can use that: asked of both, remembered on disk.

A segmentor says what it can be built on (`Segmentor.backbones`). An alignment is built around a stand-in that has no
layers and the segmentor's capabilities, and refuses it or not. A remembered answer needs no torch: all are kept in one
file in the user's cache, and hold for the package versions and plugin sources that gave them.
"""

import fnmatch
import hashlib
import importlib.util
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from attent_kit.backbone import Backbone
from attent_kit.data.workers import ReportDone
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.files import read_json, write_text
from attent_kit.registry import KINDS, Component, Registry, installed_version

if TYPE_CHECKING:  # torch is imported when the first question is asked that is not remembered
    from attent_kit.engine.backbones.stand_ins import StandIns

SECONDS_BETWEEN_SAVES = 10.0
"""At most this much work is lost on Ctrl-C."""


class Use(NamedTuple):
    """One alignment with one backbone."""

    alignment: str
    options: dict[str, Any]
    """Options of the segmentor that it needs besides those that choose the backbone."""
    refused: str
    """Why it cannot be used; empty if it can."""


class Found(NamedTuple):
    """One line of the list."""

    segmentor: str
    name: str
    backbone: Backbone
    here: tuple[str, ...]
    """Pretrained weights that are already in the local cache."""
    uses: tuple[Use, ...]

    @property
    def weights(self) -> str:
        """ "here", "download" or "none"."""
        return "here" if self.here else "download" if self.backbone.weights else "none"


def find(
    registry: Registry, pattern: str = "", most: int | None = None, report: ReportDone = lambda what, done, total: None
) -> list[Found]:
    """Backbones whose name contains `pattern` or matches it as a glob, with at most `most` parameters, and all that is known.

    ConfigError with the nearest names if there is none. What is not in the cache is worked out, and reported.
    """
    memory = Memory(registry)
    known = [(segmentor, name) for segmentor in registry.of("segmentors") for name in memory.names(segmentor)]
    wanted = [(segmentor, name) for segmentor, name in known if _matches(name, pattern)]
    if not wanted:
        nearest = get_close_matches(pattern, [name for _, name in known], n=3, cutoff=0.5)
        said = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise ConfigError(f"no backbone is called '{pattern}'.{said} Part of a name is enough, or a glob.")
    found = []
    for done, (segmentor, name) in enumerate(wanted):
        if not memory.knows(segmentor, name):
            report(name, done, len(wanted))
        backbone = memory.backbone(segmentor, name)
        if most is None or (backbone.parameters is not None and backbone.parameters <= most):
            here = tuple(word for word, place in backbone.weights.items() if lies_here(place))
            found.append(Found(segmentor.name, name, backbone, here, tuple(memory.uses(segmentor, backbone))))
    memory.save()
    return found


def _matches(name: str, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return any(fnmatch.fnmatchcase(name.lower(), glob.lower()) for glob in (pattern, f"*{pattern}"))
    return pattern.lower() in name.lower()


class Memory:
    """All answers so far, from this process and earlier ones."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._path = cache_folder() / "backbones.json"
        self._fingerprint = fingerprint(registry)
        self._answers: dict[str, Any] = self._read()
        self._saved = time.monotonic()
        self._new = False

    def names(self, segmentor: Component) -> list[str]:
        """What it can be built on, or its own name if it is one network."""
        return self._ask(f"names {segmentor.name}", lambda: list(_backbones(segmentor)) or [segmentor.name])

    def knows(self, segmentor: Component, name: str) -> bool:
        """Whether `backbone` will answer at once."""
        return f"backbone {segmentor.name} {name}" in self._answers

    def backbone(self, segmentor: Component, name: str) -> Backbone:
        """The segmentor's own answer, or what building its one network shows."""
        return Backbone.model_validate(
            self._ask(f"backbone {segmentor.name} {name}", lambda: self._describe(segmentor, name).model_dump())
        )

    def uses(self, segmentor: Component, backbone: Backbone) -> Iterator[Use]:
        """How each alignment can use it: as it is, with a second head, or not at all."""
        if backbone.refused:
            return
        stride, channels = backbone.strides[-1], backbone.channels[-1]
        for alignment in self._registry.of("alignments"):
            heads = [False, True] if backbone.auxiliary is not None else [False]
            if backbone.auxiliary == {}:
                heads = [True]
            said = ""
            for head in heads:
                place = f"use {alignment.name} {segmentor.name} {stride} {channels} {head}"
                said = self._ask(place, lambda: self._asking(alignment, segmentor, stride, channels, head))  # noqa: B023
                if not said:
                    yield Use(alignment.name, (backbone.auxiliary or {}) if head else {}, "")
                    break
            else:
                yield Use(alignment.name, {}, said)

    def save(self) -> None:
        """Write new answers; a cache that cannot be written is not an error."""
        if self._new:
            text = json.dumps({"fingerprint": self._fingerprint, "answers": self._answers})
            with suppress(AttentKitError, OSError):
                write_text(self._path, text)
            self._saved, self._new = time.monotonic(), False

    def _read(self) -> dict[str, Any]:
        try:
            kept = read_json(self._path) or {}
            answers = kept["answers"] if kept["fingerprint"] == self._fingerprint else {}
            return answers if all(_is_whole(place, answer) for place, answer in answers.items()) else {}
        except (KeyError, TypeError, AttributeError):
            return {}

    def _ask(self, place: str, question: Callable[[], Any]) -> Any:
        if place not in self._answers:
            self._answers[place] = question()
            self._new = True
            if time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES:
                self.save()
        return self._answers[place]

    def _describe(self, segmentor: Component, name: str) -> Backbone:
        if name == segmentor.name and not _backbones(segmentor):
            return self._stand_ins.describe(segmentor)
        try:
            described: Backbone = segmentor.load().backbone(name)
            return described
        except Exception as error:
            from attent_kit.engine.backbones.stand_ins import in_words

            return Backbone(refused=in_words(error, segmentor))

    def _asking(self, alignment: Component, segmentor: Component, stride: int, channels: int, head: bool) -> str:
        return self._stand_ins.asked(alignment, segmentor, stride, channels, head)

    @cached_property
    def _stand_ins(self) -> "StandIns":
        from attent_kit.engine.backbones.stand_ins import StandIns

        return StandIns(self._registry)


def _backbones(segmentor: Component) -> tuple[str, ...]:
    """What the segmentor names; nothing if it cannot be imported, and then its own line says so."""
    try:
        named: tuple[str, ...] = segmentor.load().backbones()
        return named
    except Exception:
        return ()


def _is_whole(place: str, answer: Any) -> bool:
    """Whether an answer read from disk has the form of those that are written."""
    kind = place.partition(" ")[0]
    if kind == "backbone":
        try:
            return bool(Backbone.model_validate(answer))
        except ValidationError:
            return False
    return isinstance(answer, list if kind == "names" else str)


# Where files are


def cache_folder() -> Path:
    """This toolkit's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attent-kit"


def lies_here(place: str) -> bool:
    """Whether a backbone's weights are in the local cache of Hugging Face or torch.hub. Nothing is fetched."""
    hub = re.fullmatch(r"hf://([^/]+/[^/@]+)(?:@([^/]+))?/(.+)", place)
    if hub is None:
        folder = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
        return Path(folder, "hub", "checkpoints", place.rpartition("/")[2]).expanduser().is_file()
    from huggingface_hub import try_to_load_from_cache

    names = [hub[3], "pytorch_model.bin"] if hub[3] == "model.safetensors" else [hub[3]]
    return any(isinstance(try_to_load_from_cache(hub[1], name, revision=hub[2]), str) for name in names)


def fingerprint(registry: Registry) -> str:
    """What the answers depend on: the versions of the plugins and of everything they require, and the plugins' sources."""
    components = [component for kind in KINDS for component in registry.of(kind)]
    distributions = {"attent-kit", *(component.distribution for component in components)}
    for distribution in list(distributions):
        with suppress(PackageNotFoundError):
            distributions |= {re.split(r"[^\w.-]", need)[0] for need in requires(distribution) or ()}
    facts = [(name, installed_version(name) or "not installed") for name in sorted(distributions)]
    facts += [(f"{c.kind}:{c.name}", f"{c.target}") for c in components]
    facts += [(str(path), str(stat)) for path, stat in _sources(components)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _sources(components: Iterable[Component]) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Every source file of the frame and of the packages that offer components, with its size and time."""
    modules = {c.target.partition(":")[0] if isinstance(c.target, str) else c.target.__module__ for c in components}
    for top in sorted({"attent_kit", *(module.partition(".")[0] for module in modules)}):
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        for path in sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]:
            with suppress(OSError):
                yield path, (path.stat().st_size, path.stat().st_mtime_ns)
