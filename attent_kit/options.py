"""Options and helpers that several methods share, so that the rows of a table differ in their idea alone.

    class Mine(Alignment):
        class Config(SegmentOptions):
            weight: float = Field(1.0, ge=0)
            '''Weight of L_mine.'''

A method inherits the options that it has in common with others, and calls the functions that read them.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from attent_kit.config import Choice, ComponentConfig
from attent_kit.interfaces import Discriminator, Patch, Segmentation, Segmentor, Translator
from attent_kit.objectives import (
    IGNORE,
    Gan,
    balanced_cross_entropy,
    class_of,
    cross_entropy,
    dice_loss,
    exclusion_loss,
    several_classes,
)
from attent_kit.schedules import Schedule, constant, first_part, poly

__all__ = [
    "ContrastOptions", "PatchOptions", "SegmentOptions", "SegmentorOptions", "TranslateOptions", "adam", "labels_as_asked",
    "segment_schedule", "segmentor_groups", "segmentor_optimizer", "supervised_loss", "translation_recipe",
]  # fmt: skip


class SegmentorOptions(ComponentConfig):
    """The segmentor and how it learns from labels."""

    segmentor: Choice[Segmentor] = Choice("smp")
    """Network that labels the pixels."""
    cross_entropy: Literal["plain", "balanced"] = "plain"
    """With "plain" every pixel counts the same; with "balanced" less, the more of the batch its class covers (SIFA)."""
    dice: float = Field(0.0, ge=0)
    """Weight of the Dice loss beside cross-entropy; the papers of AttENT, ADVENT and AdaptSegNet have none."""
    partial: Literal["marginal", "ignore", "background"] = "marginal"
    """What the background of a case is that does not annotate every organ: with "marginal" background or one of these organs,
    whose probabilities are added up (Shi et al. 2021); with "ignore" nothing that counts; with "background" just that, which is
    wrong wherever such an organ is."""
    exclusion: float = Field(0.0, ge=0)
    """Weight of the exclusion loss beside "marginal": an organ that a case does not annotate is not where it labels another."""
    auxiliary: float = Field(0.1, ge=0)
    """Weight of the auxiliary head's segmentation loss, if the segmentor has such a head."""
    learning_rate: float = Field(1e-3, gt=0)
    """Initial learning rate of the segmentor. The papers' 1e-5 to 2.5e-4 assume ImageNet weights."""


class SegmentOptions(SegmentorOptions):
    """How the segmentor is built, and trained in a stage of its own."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the segmentor."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of adam's two averages."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight of L2 / 2 of the segmentor's weights; the papers' SGD has 5e-4."""
    schedule: Literal["poly", "constant"] = "poly"
    """Learning rates of the segmentation stage fall as poly 0.9, or stay."""
    schedule_steps: int | None = Field(None, ge=1)
    """Steps after which poly reaches 0, if that is not the end of the stage."""
    segment_steps: int = Field(20_000, ge=1)
    """Steps of the segmentation stage."""
    segment_batch_size: int = Field(4, ge=1)
    """Slices of each domain in one step of the segmentation stage."""


class PatchOptions(ComponentConfig):
    """What a segmentor of volumes sees at once; its `__init__` says `self.patch = config.seen_at_once`."""

    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 128, 128)
    """Slices, rows and columns of a patch; more than the slices of a case, or than the pixels of a slice, repeat its edge."""
    foreground: float = Field(1 / 3, ge=0, le=1)
    """Part of the training patches with labels that lie around a voxel of an organ drawn at random; nnU-Net has a third."""
    overlap: float = Field(0.5, ge=0, lt=1)
    """Of neighbouring patches in prediction, as a part of each side."""

    @property
    def seen_at_once(self) -> Patch:
        """The same as the engine asks for it."""
        return Patch(self.patch, self.foreground, self.overlap)


class TranslateOptions(ComponentConfig):
    """How two translators are built and trained in a stage of their own: CycleGAN's defaults."""

    translator: Choice[Translator] = Choice("resnet")
    """Network of both translators."""
    image_discriminator: Choice[Discriminator] = Choice("patch")
    """Network of both image discriminators."""
    gan: Gan = "lsgan"
    """Adversarial loss of the images: least squares, or "bce", cross-entropy."""
    cycle: float = Field(10.0, ge=0)
    """Weight of the cycle loss, L1, each way."""
    identity: float = Field(5.0, ge=0)
    """Weight of the identity loss, L1, each way; AttENT's slides do not mention it, the authors' code has it."""
    pool: int = Field(50, ge=0)
    """Images in each discriminator's history."""
    translate_learning_rate: float = Field(2e-4, gt=0)
    """Learning rate of translators and image discriminators: constant, then linear to 0 in the second half."""
    translate_steps: int = Field(40_000, ge=1)
    """Steps of the translation stage."""
    translate_batch_size: int = Field(1, ge=1)
    """Slices of each domain in one step of the translation stage."""


class ContrastOptions(TranslateOptions):
    """The same of a method that takes CUT in place of CycleGAN where it is asked to (`attent_kit.contrast`)."""

    contrast: float | None = Field(None, gt=0)
    """Weight of the contrastive loss of patches, each way and for identity alike, in place of `cycle` and `identity`: CUT, whose
    weight is 1; left out: CycleGAN."""


def translation_recipe(config: TranslateOptions) -> tuple[Any, ...]:
    """`Stage.recipe` of a stage whose steps are those of CycleGAN, or of CUT where `contrast` is given: methods with equal
    options then share its result."""
    options = tuple((name, repr(getattr(config, name))) for name in TranslateOptions.model_fields)
    contrast = getattr(config, "contrast", None)
    return "translation", *options, *(() if contrast is None else (("contrast", repr(contrast)),))


def labels_as_asked(labels: Tensor, config: SegmentorOptions) -> Tensor:
    """Labels of a batch as `config.partial` wants them: classes that a pixel may be, [B, K, H, W] bool, or one class for each,
    [B, H, W] int64. Labels that are complete come as one class each and are left as they are."""
    if not several_classes(labels) or config.partial == "marginal":
        return labels
    classes = class_of(labels)
    return classes if config.partial == "background" else classes.masked_fill(labels.sum(1) > 1, IGNORE)


def supervised_loss(
    output: Segmentation, labels: Tensor, config: SegmentorOptions, weight: Tensor | None = None
) -> Tensor:
    """CE(S(x), y) + dice * Dice(S(x), y) + exclusion * Excl(S(x), y), plus `auxiliary` times the same for the auxiliary head.

    `labels`: y_s or y_t of a batch, in either form. `weight`: [K], of each class in plain cross-entropy.
    """
    labels = labels_as_asked(labels, config)
    loss = _segmentation_loss(output.logits, labels, config, weight)
    if output.auxiliary is not None:
        loss = loss + config.auxiliary * _segmentation_loss(output.auxiliary, labels, config, weight)
    return loss


def _segmentation_loss(logits: Tensor, labels: Tensor, config: SegmentorOptions, weight: Tensor | None) -> Tensor:
    balanced = config.cross_entropy == "balanced"
    loss = balanced_cross_entropy(logits, labels) if balanced else cross_entropy(logits, labels, weight)
    if config.dice:
        loss = loss + config.dice * dice_loss(logits, labels)
    return (
        loss + config.exclusion * exclusion_loss(logits, labels)
        if config.exclusion and several_classes(labels)
        else loss
    )


def segmentor_optimizer(segmentor: Segmentor, config: SegmentOptions) -> Optimizer:
    """A fresh optimizer of the chosen kind over the segmentor's parameters, each group at its own rate."""
    groups = segmentor_groups(segmentor, config.learning_rate)
    if config.optimizer == "sgd":
        return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return Adam(groups, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def segmentor_groups(segmentor: Segmentor, learning_rate: float) -> list[dict[str, Any]]:
    """The segmentor's parameter groups for any optimizer, each at its own factor of the learning rate."""
    return [{"params": own, "lr": factor * learning_rate} for factor, own in segmentor.learning_rate_factors()]


def segment_schedule(config: SegmentOptions) -> Schedule:
    """The chosen schedule, for the segmentor and for the discriminators that it is trained against."""
    if config.schedule == "constant":
        return constant
    return first_part(poly(0.9), config.segment_steps / (config.schedule_steps or config.segment_steps))


def adam(networks: Iterable[nn.Module | None], learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Adam over the parameters of several networks; None is one that the options leave out."""
    parameters = [p for network in networks if network is not None for p in network.parameters()]
    return Adam(parameters, lr=learning_rate, betas=betas, fused=True)
