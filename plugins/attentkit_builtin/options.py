"""Options that several methods have in common, so that a row of a table differs from its neighbour in its idea alone."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from attent_kit.config import Choice, ComponentConfig
from attent_kit.interfaces import Discriminator, Segmentation, Segmentor, Translator
from attent_kit.objectives import Gan, balanced_cross_entropy, cross_entropy, dice_loss
from attent_kit.schedules import Schedule, constant, first_part, poly


class SegmentorOptions(ComponentConfig):
    """The segmentor and what its labels teach it."""

    segmentor: Choice[Segmentor] = Choice("smp")
    """Network that labels the pixels."""
    cross_entropy: Literal["plain", "balanced"] = "plain"
    """Each pixel counts alike, or "balanced": the less, the more of the batch its class covers (SIFA)."""
    dice: float = Field(0.0, ge=0)
    """Weight of the Dice loss beside cross-entropy; the papers of AttENT, ADVENT and AdaptSegNet have none."""
    auxiliary: float = Field(0.1, ge=0)
    """Weight of the segmentation loss of the auxiliary head, where the segmentor has one."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the segmentor at the start. The papers' 1e-5 to 2.5e-4 presume ImageNet weights."""


class SegmentOptions(SegmentorOptions):
    """How the segmentor is built and trained in a stage of its own."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the segmentor."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of adam's two averages."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight of L2 / 2 of the segmentor's weights; the papers' SGD has 5e-4."""
    schedule: Literal["poly", "constant"] = "poly"
    """Learning rates of the segmentation stage fall as poly 0.9, or not at all."""
    schedule_steps: int | None = Field(None, ge=1)
    """Steps after which poly reaches 0, if not at the end of the stage."""
    segment_steps: int = Field(20_000, ge=1)
    """Steps of the segmentation stage."""
    segment_batch_size: int = Field(4, ge=1)
    """Slices of each domain in one step of the segmentation stage."""


class TranslateOptions(ComponentConfig):
    """How the two translators are built and trained: CycleGAN's defaults."""

    translator: Choice[Translator] = Choice("resnet")
    """Network of both translators."""
    image_discriminator: Choice[Discriminator] = Choice("patch")
    """Network of both image discriminators."""
    gan: Gan = "lsgan"
    """Adversarial loss of the images: least squares, or cross-entropy, "bce"."""
    cycle: float = Field(10.0, ge=0)
    """Weight of the cycle loss, L1, each way."""
    identity: float = Field(5.0, ge=0)
    """Weight of the identity loss, L1, each way; the slides do not name it, the authors' code has it."""
    pool: int = Field(50, ge=0)
    """Images that each discriminator's history holds."""
    translate_learning_rate: float = Field(2e-4, gt=0)
    """Learning rate of the translators and image discriminators: constant, then linear to 0 in the second half."""
    translate_steps: int = Field(40_000, ge=1)
    """Steps of the translation stage."""
    translate_batch_size: int = Field(1, ge=1)
    """Slices of each domain in one step of the translation stage."""


def translation_recipe(config: TranslateOptions) -> tuple[Any, ...]:
    """Everything that shapes a CycleGAN translation stage: methods of equal recipe may share its result."""
    return "cyclegan", *((name, repr(getattr(config, name))) for name in TranslateOptions.model_fields)


def supervised_loss(
    output: Segmentation, labels: Tensor, config: SegmentorOptions, weight: Tensor | None = None
) -> Tensor:
    """CE(S(x), y) + dice * Dice(S(x), y), and `auxiliary` times the same for the auxiliary head.

    `weight`: [K], of each class in plain cross-entropy.
    """
    loss = _segmentation_loss(output.logits, labels, config, weight)
    if output.auxiliary is not None:
        loss = loss + config.auxiliary * _segmentation_loss(output.auxiliary, labels, config, weight)
    return loss


def _segmentation_loss(logits: Tensor, labels: Tensor, config: SegmentorOptions, weight: Tensor | None) -> Tensor:
    balanced = config.cross_entropy == "balanced"
    loss = balanced_cross_entropy(logits, labels) if balanced else cross_entropy(logits, labels, weight)
    return loss + config.dice * dice_loss(logits, labels) if config.dice else loss


def segmentor_optimizer(segmentor: Segmentor, config: SegmentOptions) -> Optimizer:
    """The optimizer that the options name, over the segmentor's parameters at the rates that they want."""
    groups = segmentor_groups(segmentor, config.learning_rate)
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return Adam(groups, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def segmentor_groups(segmentor: Segmentor, learning_rate: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer: the segmentor's own, each at its factor of the learning rate."""
    return [{"params": own, "lr": factor * learning_rate} for factor, own in segmentor.learning_rate_factors()]


def segment_schedule(config: SegmentOptions) -> Schedule:
    """The schedule that the options name, of the segmentor and of the discriminators that it is trained against."""
    if config.schedule == "constant":
        return constant
    return first_part(poly(0.9), config.segment_steps / (config.schedule_steps or config.segment_steps))


def adam(networks: Iterable[nn.Module], learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Adam over the parameters of several networks."""
    parameters = [p for network in networks for p in network.parameters()]
    return Adam(parameters, lr=learning_rate, betas=betas, fused=True)
