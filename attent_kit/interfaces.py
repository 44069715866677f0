"""The four kinds of component that a run is made of, and the values that pass between them and the engine.

Shapes: B batch, C image channels, K classes, F feature channels, N discriminator heads, H W pixels, h w a coarser grid. Where a
segmentor labels volumes (`dims` = 3), an image is a patch of D slices: [B, 1, D, H, W] in place of [B, C, H, W], labels
[B, D, H, W] in place of [B, H, W], and so on.
Domains: s source (labelled), t target (unlabelled); x_st is a source image in target style, x_ts the reverse.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import TypeVar

from attent_kit.backbone import Backbone
from attent_kit.config import Choice, ComponentConfig
from attent_kit.errors import ConfigError
from attent_kit.objectives import IGNORE, Gan
from attent_kit.schedules import Schedule, constant

Options = TypeVar("Options", bound=ComponentConfig, default=Any)
"""What a component is built with: an instance of its `Config`. An alignment whose Config stands outside it, as in
`class Mine(Alignment[MineConfig])`, has a `self.config` of that type; one with its Config inside says `config: Config`."""

Losses = Mapping[str, Tensor]
"""Name to scalar. A step returns them on the device; the engine reads them now and then."""


@dataclass(frozen=True)
class Task:
    """What is being segmented; every network is built from it."""

    channels: int = 1
    organs: tuple[str, ...] = ("liver", "right kidney", "left kidney", "spleen")

    def __post_init__(self) -> None:
        if not self.organs:
            raise ConfigError(
                "there are no organs to segment, only background: name at least one, as in --organs 'liver=1'."
            )

    @property
    def classes(self) -> int:
        """Number of classes K, background included."""
        return len(self.organs) + 1


class Batch(NamedTuple):
    """One step's images. Source and target slices are drawn independently: there are no pairs."""

    x_s: Tensor
    """[B, C, H, W] float in [-1, 1], source; [0, C, H, W] for an alignment that is `source_free`, and its labels [0, H, W]."""
    y_s: Tensor
    """[B, H, W] int64, 0 background, IGNORE where unknown. Where some training case does not annotate every organ, and only for
    an alignment that declares `takes_partial_labels`: [B, K, H, W] bool, the classes that each pixel may be."""
    x_t: Tensor
    """[B, C, H, W] float in [-1, 1], target."""
    y_t: Tensor | None = None
    """As `y_s`; present only if the alignment declares `uses_target_labels`."""
    pseudo_t: Tensor | None = None
    """[B, H, W] int64, what `Stage.label` last said of these slices, moved as `x_t` is, IGNORE where unknown; None in a stage
    without it."""


class Segmentation(NamedTuple):
    """A segmentor's answer."""

    logits: Tensor
    """[B, K, H, W], always at the resolution of the input."""
    features: Tensor
    """[B, F, h, w], the deepest map: what feature alignment aligns."""
    auxiliary: Tensor | None = None
    """[B, K, H, W], logits of a shallower head, for multi-level methods."""


class Patch(NamedTuple):
    """What a segmentor of volumes sees at once, and how the patches of a volume are drawn and put together."""

    size: tuple[int, int, int]
    """D slices of H x W pixels."""
    foreground: float = 1 / 3
    """Part of the training patches with labels that lie around a labelled voxel, of an organ drawn at random; the others lie
    anywhere. nnU-Net has a third."""
    overlap: float = 0.5
    """Of neighbouring patches in prediction, along each side; their probabilities are averaged with Gaussian weights."""

    @property
    def slab(self) -> int:
        """Slices, an odd number, of what is looked at where a single slice is asked for, the one in the middle of them."""
        return min(self.size[0] - 1 + self.size[0] % 2, THICKEST_SLAB)


THICKEST_SLAB = 15


class Translator(nn.Module, ABC, Generic[Options]):
    """Maps an image to the style of the other domain: [B, C, H, W] -> [B, C, H, W], both in [-1, 1]."""

    kind: ClassVar[str] = "translators"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    encoder_channels: tuple[int, ...] = ()
    """Channels of the maps of `encode`; empty if it shows none. An objective that compares patches asks for them."""

    def __init__(self, config: Options, task: Task) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """What it makes of an image before it decodes, shallow to deep: [B, C, H, W] -> maps [B, F, h, w], F of each as in
        `encoder_channels`. May be called like `forward`."""
        raise NotImplementedError


class Segmentor(nn.Module, ABC, Generic[Options]):
    """Labels each pixel: [B, C, H, W] in [-1, 1] -> Segmentation. Takes any H and W of at least 32, and of volumes any D."""

    kind: ClassVar[str] = "segmentors"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    dims: ClassVar[int] = 2
    """2 where it labels slices; 3 where it labels volumes: then C is 1, and it has a `patch`."""
    patch: Patch | None = None
    """What a segmentor of volumes sees at once; None for one of slices."""
    feature_channels: int
    """F, the channels of `Segmentation.features`."""
    feature_stride: int
    """Pixels of the image along one pixel of `Segmentation.features`, a power of two."""
    has_auxiliary: bool = False
    """Whether `Segmentation.auxiliary` is there: a capability that a multi-level method asks for."""

    def __init__(self, config: Options, task: Task) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Segmentation: ...

    @classmethod
    def backbones(cls) -> tuple[str, ...]:
        """Names of the networks that it can be built on, for `attentkit backbones`; empty if it is a network of its own."""
        return ()

    @classmethod
    def backbone(cls, name: str) -> Backbone:
        """What is known about one of `backbones`, without fetching or training anything."""
        raise NotImplementedError

    def learning_rate_factors(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Trainable parameters, grouped by the factor that multiplies their learning rate."""
        return [(1.0, [p for p in self.parameters() if p.requires_grad])]


class Discriminator(nn.Module, ABC, Generic[Options]):
    """Tells source from target: [B, channels, H, W] -> logits [B, heads, h, w], high where it sees 'real' or 'source'."""

    kind: ClassVar[str] = "discriminators"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: Options, channels: int, heads: int = 1) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class Build(Protocol):
    """`build(config.segmentor)`: the network that a Choice names, freshly initialised. A Discriminator also takes its channels,
    and so may a network that does not see the image itself but a descriptor of it with other channels.

    The n-th network of a kind starts from the same weights in every alignment that chooses the same one there.
    """

    def __call__(self, choice: Choice[Any], *, channels: int | None = None, heads: int = 1) -> Any: ...


class Update(Protocol):
    """`update("S", loss)`: one optimizer step that lowers `loss` over what optimizer "S" owns. Nothing else moves.

    The graph of `loss` is spent afterwards: reuse only detached tensors of it. With `when`, a boolean scalar on the
    device, nothing moves where it is false, as if the step had never been taken: a gate that nobody waits for.
    """

    def __call__(self, optimizer: str, loss: Tensor, when: Tensor | None = None) -> None: ...


class Stage(NamedTuple):
    """A part of training with one step function and one length."""

    name: str
    step: Callable[[Batch, Update], Losses]
    steps: int
    batch_size: int
    """Slices of each domain in one step."""
    trains: tuple[str, ...]
    """Optimizers stepped here. The networks they own are in train mode, every other network is in eval mode."""
    schedule: Schedule | Mapping[str, Schedule] = constant
    """Fraction of the stage that is done, 0 to 1 -> multiplier of each learning rate; or one for each optimizer."""
    recipe: tuple[Any, ...] | None = None
    """All options that shape this stage. First stages of equal recipe, data and seed end in equal weights: trained once."""
    label: Callable[[Iterable[Tensor]], Iterable[Tensor]] | None = None
    """Labels the whole target set now and then: called before the first step, and then every `label_every` steps. It is given
    every training slice of the target once, in order and not moved, as batches [B, C, H, W] that it may go through several times,
    and answers with labels for each batch, [B, H, W] int64, IGNORE where unknown. They are `pseudo_t` of batches until the next
    time, kept in the checkpoint of the run. All networks are in eval mode then, without gradients; it may change them."""
    label_every: int = 0
    """Steps from one call of `label` to the next; 0 for the one before the first step alone."""


class Alignment(nn.Module, ABC, Generic[Options]):
    """A method: its networks are attributes, its objective is a step, its answer is `predict`.

    Networks are direct attributes and are called only through `forward`, a translator also through `encode`: the engine wraps
    each of them.
    """

    kind: ClassVar[str] = "alignments"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    uses_target_labels: ClassVar[bool] = False
    dims: ClassVar[tuple[int, ...]] = (2,)
    """`dims` of segmentors that it takes: (2, 3) says that steps and `predict` are right for patches of volumes, too."""
    takes_partial_labels: ClassVar[bool] = False
    """Whether it learns from cases that do not annotate every organ: it gives the labels of a batch to functions of
    `attent_kit.options` and `attent_kit.objectives` alone, or knows both of their forms. Any other is refused such cases."""
    uses_source_images: ClassVar[bool] = True
    """False for a method that learns from source labels alone: `x_s` of its batches is NaN, and no image is read for them."""
    uses_target_images: ClassVar[bool] = True
    """False for a method that trains on no target image. Unless it adapts at test time, its answers show the shift before any
    alignment."""
    capturable: bool = True
    """Whether its steps do the same on the device each time, so that a CUDA graph can repeat one. False for a method whose steps
    draw on the host what shapes them; where an option decides that, `__init__` says so."""
    source_free: ClassVar[bool] = False
    """Whether it starts from a trained run or from other weights (`--from`) and never reads the source, whose file is not even
    opened. Each of its segmentors starts from the one that predicts there. It may have no stage: then it trains nothing."""
    paper: ClassVar[str] = ""
    """Where the method was published, for tables: authors, venue, year."""
    bibtex: ClassVar[str] = ""
    """BibTeX entries of what to cite for it, for reports."""
    aligns: ClassVar[str] = ""
    """What it aligns and where, for tables."""
    backbones: ClassVar[str] = "any segmentor"
    """Which segmentors it takes, for tables. Its `__init__` refuses others with a ConfigError."""
    predicts_with: ClassVar[str] = ""
    """Attribute of the segmentor whose logits `predict` returns, so that its exported weights are all that prediction, and
    `adapt_to`, need; empty if `predict` does more."""
    terms: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """What the method is made of, for `compare --ablate`: a term's name -> the options that turn it off."""

    def __init__(self, config: Options, build: Build, task: Task) -> None:
        super().__init__()
        self.config = config
        self.task = task

    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """One new optimizer per name. Every trainable parameter is owned by exactly one of them."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """The stages, in the order of training."""

    @abstractmethod
    def predict(self, x_t: Tensor) -> Tensor:
        """Target image [B, C, H, W] -> logits [B, K, H, W]."""

    def adapt_to(self, volume: Tensor) -> Callable[[Tensor], Tensor]:
        """Test-time adaptation: called once for each volume before its slices are predicted, and answers with what predicts them,
        [B, C, H, W] -> logits [B, K, H, W]; a method without it answers with `predict`.

        `volume`: [Z, C, H, W] in [-1, 1], every slice in its order, and Z may be 1. Networks of `predict` may be changed in any
        way, with gradients, in float32: they are in eval mode before and while slices are predicted, and the engine puts back
        their weights and buffers, to the bit, before the next volume. Whatever is drawn from torch, numpy or random follows
        from the content of the volume.
        """
        return self.predict

    @classmethod
    def adapts(cls) -> bool:
        """Whether it adapts to each volume at test time: whether `adapt_to` is its own."""
        return cls.adapt_to is not Alignment.adapt_to

    @classmethod
    def aligns_nothing(cls) -> bool:
        """Whether its answers show the shift before any alignment: no target image, nor its label, changes its networks."""
        return not (cls.uses_target_images or cls.uses_target_labels or cls.adapts())

    def as_source(self, x_t: Tensor) -> Tensor | None:
        """`x_t` in source style, [B, C, H, W] in [-1, 1]; None if the method has no such translator."""
        return None

    def as_target(self, x_s: Tensor) -> Tensor | None:
        """`x_s` in target style, [B, C, H, W] in [-1, 1]; None if the method has no such translator."""
        return None

    def as_seen(self, x_s: Tensor) -> Tensor | None:
        """`x_s` as the segmentor of `predict` is trained on it, [B, C, H, W]; None if it never sees one."""
        return x_s

    def discriminator_losses(self) -> Mapping[str, Gan]:
        """What the discriminators minimise, each under the name that a step returns it by, with its kind; training
        watches them. Each is the mean of `real` and `fake`, so that a discriminator that cannot tell is at ln 2 (bce) or 1/4
        (lsgan)."""
        return {}


__all__ = [
    "IGNORE", "INTERFACES", "Alignment", "Batch", "Build", "Discriminator", "Losses", "Patch", "Segmentation", "Segmentor",
    "Stage", "Task", "Translator", "Update",
]  # fmt: skip

INTERFACES: dict[str, type] = {c.kind: c for c in (Translator, Segmentor, Discriminator, Alignment)}
