"""What `attentkit prepare` can be told about a domain. No pydantic here: the processes of a `prepare` need not import it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.data.prepared.believed import LARGEST_SIDE, MOST_CHANNELS
from attent_kit.data.sets.labelmap import LabelMap, OrganNames, parse_organs
from attent_kit.data.sets.splits import SPLITS, Fold, Split
from attent_kit.data.space.geometry import PLANES
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import Slicing
from attent_kit.errors import ConfigError, did_you_mean

Organs = Mapping[str, int | Sequence[int]] | LabelMap | OrganNames | str
"""Organs with their values in the label files; a text is read as the command reads it."""
NOTHING = "-"
"""What stands for a value of `--add` that is left to the data set."""
ALL = "all"
"""Every case for training: a source, or a target that a suite deals into folds."""
Share = Sequence[str] | float
"""Cases of a split by name, or the share of all of them."""


class Addition(NamedTuple):
    """A data set that joins the domain of another: how it is found, and what its label maps annotate."""

    path: Path
    labels: Path | None = None
    """Folder or file of label maps, where `path` holds images alone."""
    organs: Organs | None = None
    """Organs with their values in its label files; None leaves them to the data set."""

    def __str__(self) -> str:
        """As it is typed, without the folders that it lies in."""
        parts = (self.path.name, self.labels and self.labels.name, self.organs and str(self.organs))
        return ", ".join(str(part or NOTHING) for part in parts)


Added = Addition | str | Path | Sequence[Any]
"""One of `add`: a path, or up to three values, path, labels and organs; None or "-" leaves one to the data set."""
AUTO = "auto"


@dataclass(frozen=True)
class PrepareOptions:
    """The options of `attentkit prepare` under their own names; a text is read as the command reads it.

    PrepareOptions(part="t2spir", split="sifa-abdominal")
    PrepareOptions(modality="ct", organs="liver=6,spleen=1,*=0", test=["img0004", "img0009"])
    """

    layout: str | None = None
    """How the data set is read; None recognises it."""
    part: str | None = None
    """Which of several data sets in the place, such as a sequence."""
    labels: Path | None = None
    """Folder or file of label maps, where the place holds images alone."""
    allow_unlabelled: bool = False
    """Accept images without a label map."""
    modality: str | None = None
    """ct or mr, where the data set does not say."""
    domain: str | None = None
    """Name in directions such as mr2ct; None is the modality."""
    organs: Organs | None = None
    """The organs of the task in order, with their values in the label files; None leaves them to the data set. A LabelMap
    from here on."""
    add: Sequence[Added] = ()
    """Other data sets whose cases join the same domain, which may annotate other organs. Additions from here on."""
    size: int = 256
    """Side of a slice in pixels."""
    pixel: float | None = None
    """Side of a pixel in mm; None divides the field of view by `size`."""
    plane: str | None = None
    """axial, sagittal or coronal, along which slices are cut; "auto" takes the plane that the scans were acquired in. None is
    axial where the data set says nothing."""
    centre: str = "grid"
    """"body": slices are centred on the patient's body, and what is not body becomes air."""
    channels: int = 1
    """Neighbouring slices as channels, an odd number."""
    window: tuple[float, float] | None = None
    """Low and high grey value; None leaves the rule to the modality."""
    per_volume: bool = False
    """Percentiles of each volume by itself, not of the training cases."""
    split: str | None = None
    """Name of a split."""
    fold: Fold | str | None = None
    """K/N: part K of N parts of the patients is for testing."""
    train: Share | str | None = None
    """Cases for training, "all", or their share. Without any of the three, `split` or `fold`, the data set decides; where it does
    not, 70 %, 10 % and 20 % are dealt by `seed`."""
    val: Share | str | None = None
    test: Share | str | None = None
    seed: int = 0
    """Seed of whatever is dealt."""
    foreground_only: bool = False
    """Train only on slices with an organ, where this is the source."""

    def __post_init__(self) -> None:
        read: dict[str, Any] = {"modality": modality_of(self.modality), "organs": organs_of(self.organs)}
        read["add"] = self.added
        if self.labels is not None:
            read["labels"] = Path(self.labels)
        if isinstance(self.fold, str):
            read["fold"] = Fold.parse(self.fold)
        for name in SPLITS:
            if isinstance(cases := getattr(self, name), str):
                if (name, cases.strip()) == ("train", ALL):
                    read[name] = 1.0
                    continue
                read[name] = tuple(case.strip() for case in cases.split(",") if case.strip())
        for name, value in read.items():
            object.__setattr__(self, name, value)
        self._refuse_what_cannot_be()

    @property
    def added(self) -> tuple[Addition, ...]:
        """What `add` names."""
        return additions(self.add)

    @property
    def divided(self) -> Split | Fold | str | None:
        """How the cases are divided, where anything is said about it."""
        if self.fold is not None:
            return self.fold
        return self._shares() or None if self.split is None else self.split

    def intensity(self, modality: str) -> Intensity:
        """The rule that is asked for, or else the one of the modality."""
        if self.window is not None:
            return Intensity("window", *self.window)
        return Intensity("percentiles-per-volume") if self.per_volume else Intensity.default(modality)

    def slicing(self, plane: str) -> Slicing:
        """How volumes become slices in a plane."""
        return Slicing(self.size, self.pixel, self.centre, plane)

    def words(self) -> dict[str, Any]:
        """What differs from the defaults, as it is typed and in plain values; a path is its last part."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name.replace("_", "-"): _word(value) for name, value in given.items() if value not in (None, defaults[name])
        }

    def _shares(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SPLITS if getattr(self, name) is not None}

    def _refuse_what_cannot_be(self) -> None:
        if self.window is not None and self.per_volume:
            raise ConfigError("--window and --per-volume exclude each other: type one of them.")
        if self.window is not None:
            self.intensity("")  # which refuses a low that is not below its high
        said = [name for name in ("split", "fold") if getattr(self, name) is not None] + list(self._shares())[:1]
        if len(said) > 1:
            raise ConfigError(f"--{said[0]} and --{said[1]} exclude each other: type one of them.")
        if not (_is_whole(self.size) and _is_whole(self.channels) and self.channels % 2):
            raise ConfigError(
                f"size is {self.size} and channels {self.channels}: use 1 or more, and an odd number, as in 256 and 1."
            )
        if self.size > LARGEST_SIDE or self.channels > MOST_CHANNELS:
            raise ConfigError(
                f"size is {self.size} and channels {self.channels}: a slice has at most {LARGEST_SIDE} pixels a side and "
                f"{MOST_CHANNELS - 1} channels."
            )
        if self.pixel is not None and not (math.isfinite(self.pixel) and self.pixel > 0):
            raise ConfigError(f"a pixel cannot have a side of {self.pixel:g} mm: give its side in mm, as in 1.5.")
        if self.plane not in (None, AUTO, *PLANES):
            raise ConfigError(
                f"there is no plane '{self.plane}'.{did_you_mean(str(self.plane), (*PLANES, AUTO))} There are: "
                f"{', '.join((*PLANES, AUTO))}."
            )
        self.slicing("axial")  # which refuses a centre that is not known


def modality_of(word: str | None) -> str | None:
    """A modality as it was typed, or None for nothing."""
    return word.lower() if word else None


def organs_of(organs: Organs | None) -> LabelMap | OrganNames | None:
    """Organs as they were typed or given, or None for none."""
    if organs is None or isinstance(organs, OrganNames):
        return organs
    return parse_organs(organs) if isinstance(organs, str) else LabelMap.of(organs)


def additions(add: Sequence[Added]) -> tuple[Addition, ...]:
    """What `add` names. ConfigError for what names no data set."""
    return tuple(map(_addition, add))


def _addition(value: Added) -> Addition:
    """One of `add` as it was typed or given."""
    if isinstance(value, Addition):
        return value
    parts = [value] if isinstance(value, str | Path) else list(value)
    if not 1 <= len(parts) <= 3:
        raise ConfigError(
            f"--add takes a path, its labels and its organs, not {len(parts)} values: write - for what is not needed."
        )
    given: list[Any] = [None if isinstance(part, str) and part in (NOTHING, "") else part for part in parts]
    path, labels, organs = given + [None] * (3 - len(parts))
    if path is None:
        raise ConfigError("--add names no data set: write its folder first, as in --add B/images B/labels liver=1.")
    return Addition(Path(path), None if labels is None else Path(labels), organs_of(organs))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _word(value: Any) -> Any:
    """A value of an option in a plain value."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, LabelMap | OrganNames):
        return str(value)
    if isinstance(value, Fold):
        return str(value)
    if isinstance(value, str | int | float):
        return value
    if value and isinstance(value[0], Addition):
        return [str(item) for item in value]
    return list(value) if all(isinstance(item, int | float) for item in value) and value else ",".join(value)


DEFAULTS = PrepareOptions()
