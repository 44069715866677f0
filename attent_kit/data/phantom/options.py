"""Which phantom is written, and how it lies on disk."""

from dataclasses import dataclass

from attent_kit.data.phantom.case import SIZES, PhantomSize
from attent_kit.data.sets.splits import named_split
from attent_kit.errors import ConfigError, did_you_mean

LAYOUTS = ("nifti", "chaos", "btcv", "nnunet", "msd")


@dataclass(frozen=True)
class PhantomOptions:
    """The options of `attentkit phantom` under their own names."""

    layout: str = "nifti"
    """The data set whose layout it has, one of `LAYOUTS`; BTCV is CT alone."""
    size: str = "small"
    """small (64 px), medium (128 px) or full (256 px)."""
    seed: int = 0
    """Which patients."""
    split: str = "sifa-abdominal"
    """For chaos and btcv, the named split whose test cases are there by their numbers."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            near = did_you_mean(self.layout, LAYOUTS)
            raise ConfigError(f"no layout is called '{self.layout}'.{near} Layouts: {', '.join(LAYOUTS)}.")
        if self.size not in SIZES:
            near = did_you_mean(self.size, SIZES)
            raise ConfigError(f"No phantom size is called '{self.size}'.{near} Sizes: {', '.join(SIZES)}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}: use a whole number, 0 or more.")
        named_split(self.split)

    @property
    def grid(self) -> PhantomSize:
        """Pixels and patients of the size."""
        return SIZES[self.size]
