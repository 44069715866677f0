"""Options that several methods have in common, so that a row of a table differs from its neighbour in its idea alone."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from attent_kit.config import Choice, ComponentConfig
from attent_kit.interfaces import Discriminator, Segmentation, Segmentor, Translator
from attent_kit.objectives import cross_entropy, dice_loss


class SegmentOptions(ComponentConfig):
    """How the segmentor is built and trained."""

    segmentor: Choice[Segmentor] = Choice("smp")
    """Network that labels the pixels."""
    dice: float = Field(0.0, ge=0)
    """Weight of the Dice loss beside cross-entropy; the papers of AttENT, ADVENT and AdaptSegNet have none."""
    auxiliary: float = Field(0.1, ge=0)
    """Weight of the segmentation loss of the auxiliary head, where the segmentor has one."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the segmentor, one rate for all layers: adam (betas 0.9, 0.99) or sgd (momentum 0.9, weight decay 5e-4)."""
    learning_rate: float = Field(1e-3, gt=0)
    """Learning rate of the segmentor at the start; falls as poly 0.9. The papers' 1e-5 to 2.5e-4 presume ImageNet weights."""
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


def supervised_loss(output: Segmentation, labels: Tensor, config: SegmentOptions) -> Tensor:
    """CE(S(x), y) + dice * Dice(S(x), y), and `auxiliary` times the same for the auxiliary head."""
    loss = _segmentation_loss(output.logits, labels, config.dice)
    if output.auxiliary is not None:
        loss = loss + config.auxiliary * _segmentation_loss(output.auxiliary, labels, config.dice)
    return loss


def _segmentation_loss(logits: Tensor, labels: Tensor, dice: float) -> Tensor:
    loss = cross_entropy(logits, labels)
    return loss + dice * dice_loss(logits, labels) if dice else loss


def segmentor_optimizer(segmentor: nn.Module, config: SegmentOptions) -> Optimizer:
    """The optimizer that the options name, over the parameters of the segmentor."""
    if config.optimizer == "sgd":
        return SGD(segmentor.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=5e-4)
    return adam([segmentor], config.learning_rate, (0.9, 0.99))


def adam(networks: Iterable[nn.Module], learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Adam over the parameters of several networks."""
    parameters = [p for network in networks for p in network.parameters()]
    return Adam(parameters, lr=learning_rate, betas=betas, fused=True)
