"""CUT: translate source images to target style, one way, then train a segmentor on them with the source labels.

Park, Efros, Zhang, Zhu. Contrastive learning for unpaired image-to-image translation. ECCV 2020. https://arxiv.org/abs/2007.15651
As a row of a comparison it is what CycleGAN is: the segmentor is trained on G(x_s) and tested on raw target images.

    L_gan    = (D(G(x_s)) - 1)^2
    k_l, q_l = H_l(E_l(x)), H_l(E_l(G(x)))                               E_l: maps of the encoder of G, H_l: two layers, length 1
    L_nce(x) = mean over l, n of -log softmax_m(q_ln . k_lm / 0.07)[n]   256 places n, m of the same image; no gradient through k
    L_G      = L_gan + L_nce(x_s) + L_nce(x_t)                           the last is identity: G(x_t) stays x_t, patch by patch
    L_D      = ((D(x_t) - 1)^2 + D(G(x_s))^2) / 2
    L_seg    = CE(S(G(x_s)), y_s)

These are the paper's weights; the authors' code halves both contrasts (`contrast` and `contrast_identity` of 0.5 here). FastCUT
has L_G = L_gan + 10 L_nce(x_s), and flips half of the images on their way, which is left out here. G and D are CycleGAN's, whose
maps after the image, both halvings, the first and the middle block are those of the paper; the authors' halve and double through
a low-pass filter. The history of D's fakes is an option, `pool`, that they leave out.

The same translation is there for other methods, both ways: `contrast = 1` of `cyclegan`, `pixel`, `attent` and
`translate_selftrain`.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.config import Choice
from attent_kit.contrast import heads_of, patch_loss
from attent_kit.image_pool import ImagePool
from attent_kit.interfaces import Alignment, Batch, Build, Discriminator, Losses, Stage, Task, Translator, Update
from attent_kit.objectives import Gan, fake, real
from attent_kit.options import SegmentOptions, adam, segment_schedule, segmentor_optimizer, supervised_loss
from attent_kit.schedules import linear_after


class CUT(Alignment):
    """Source images in target style, by contrast of patches and one way, train the segmentor."""

    paper = "Park et al., ECCV 2020"
    aligns = "pixels: source images in target style, kept by contrast of patches, train the segmentor"
    backbones = "any segmentor; a translator that shows its encoder"
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"contrast": {"contrast": 0.0}, "identity": {"contrast_identity": 0.0}}
    bibtex = """@inproceedings{park2020contrastive,
  title = {Contrastive learning for unpaired image-to-image translation},
  author = {Park, Taesung and Efros, Alexei A. and Zhang, Richard and Zhu, Jun-Yan},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2020}
}"""

    class Config(SegmentOptions):
        """Options of the translation stage and of the segmentor."""

        presets = {
            "paper": {
                # Park et al. 2020; from their code: 400 epochs, the rate falls in the last 200.
                "translator": {"name": "resnet", "width": 64, "blocks": 9, "upsampling": "transposed"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3},
                "gan": "lsgan",
                "contrast": 1.0,
                "contrast_identity": 1.0,
                "patches": 256,
                "temperature": 0.07,
                "pool": 0,
                "translate_learning_rate": 2e-4,
                "translate_steps": 400_000,
                "translate_batch_size": 1,
            },
            "fast": {
                # FastCUT of the same paper: no identity, 200 epochs, the rate falls in the last 50.
                "translator": {"name": "resnet", "width": 64, "blocks": 9, "upsampling": "transposed"},
                "image_discriminator": {"name": "patch", "width": 64, "layers": 3},
                "gan": "lsgan",
                "contrast": 10.0,
                "contrast_identity": 0.0,
                "patches": 256,
                "temperature": 0.07,
                "pool": 0,
                "translate_learning_rate": 2e-4,
                "translate_steps": 200_000,
                "translate_batch_size": 1,
                "constant_part": 0.75,
            },
        }

        translator: Choice[Translator] = Choice("resnet")
        """Network of the translator."""
        image_discriminator: Choice[Discriminator] = Choice("patch")
        """Network of the image discriminator."""
        gan: Gan = "lsgan"
        """Adversarial loss of the images: least squares, or "bce", cross-entropy."""
        contrast: float = Field(1.0, ge=0)
        """Weight of L_nce(x_s)."""
        contrast_identity: float = Field(1.0, ge=0)
        """Weight of L_nce(x_t)."""
        patches: int = Field(256, ge=2)
        """Places of each map that are told from one another."""
        temperature: float = Field(0.07, gt=0)
        """What products of patches are divided by."""
        pool: int = Field(0, ge=0)
        """Images in the discriminator's history."""
        translate_learning_rate: float = Field(2e-4, gt=0)
        """Learning rate of translator and discriminator."""
        constant_part: float = Field(0.5, ge=0, le=1)
        """Part of the translation stage in which this rate stays; then it falls to 0."""
        translate_steps: int = Field(40_000, ge=1)
        """Steps of the translation stage."""
        translate_batch_size: int = Field(1, ge=1)
        """Slices of each domain in one step of the translation stage."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.G = build(config.translator)
        self.D = build(config.image_discriminator, channels=task.channels)
        self.H = heads_of(self.G, config.translator.name)
        self.pool = ImagePool(config.pool)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        return {
            "G": adam([self.G, self.H], c.translate_learning_rate, (0.5, 0.999)),
            "D": adam([self.D], c.translate_learning_rate, (0.5, 0.999)),
            "S": segmentor_optimizer(self.S, c),
        }

    def stages(self) -> Sequence[Stage]:
        c = self.config
        recipe = (
            "cut",
            *((n, repr(getattr(c, n))) for n in type(c).model_fields if n not in SegmentOptions.model_fields),
        )
        return [
            Stage(
                "translate", self.translate, c.translate_steps, c.translate_batch_size, trains=("G", "D"),
                schedule=linear_after(c.constant_part), recipe=recipe,
            ),
            Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=segment_schedule(c)),
        ]  # fmt: skip

    def translate(self, batch: Batch, update: Update) -> Losses:
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        x_st = self.G(x_s)

        L_D = (real(self.D(x_t), c.gan) + fake(self.D(self.pool(x_st)), c.gan)) / 2
        update("D", L_D)

        L_gan = real(self.D(x_st), c.gan)
        L_nce = patch_loss(self.G, self.H, x_s, x_st, c.patches, c.temperature)
        L_idt = patch_loss(self.G, self.H, x_t, self.G(x_t), c.patches, c.temperature)
        update("G", L_gan + c.contrast * L_nce + c.contrast_identity * L_idt)
        return {"L_gan": L_gan, "L_nce": L_nce, "L_nce_idt": L_idt, "L_D": L_D}

    def segment(self, batch: Batch, update: Update) -> Losses:
        with torch.no_grad():
            x_st = self.G(batch.x_s)
        L_seg = supervised_loss(self.S(x_st), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def as_target(self, x_s: Tensor) -> Tensor:
        return self.G(x_s)

    def as_seen(self, x_s: Tensor) -> Tensor:
        return self.G(x_s)

    def discriminator_losses(self) -> dict[str, Gan]:
        return {"L_D": self.config.gan}
