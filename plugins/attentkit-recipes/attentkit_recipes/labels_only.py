"""Labels only: images painted from source label maps with random appearance of each tissue; no source image is used.

In the spirit of SynthSeg (Billot et al., Medical Image Analysis 86, 2023, https://arxiv.org/abs/2107.09559), slice by slice:

    z        tissue of each pixel: the organs of y_s; the rest of a random ellipse split into random regions; air around it
    I        = mu_z + sigma_z n,  n ~ N(0, 1)                            mu, sigma of each tissue of each slice anew; air is 0
    I        = blur(I), each slice with a Gaussian of its own
    I        = (I b)^e^g                                                 b: exp of a smooth random map; g ~ N(0, gamma)
    x        = 2 I - 1, cut at -1 and 1
    L_seg    = CE(S(x), y_s)
    answer S(x_t)

Grey values are in [0, 1] until the last line. Means, deviations and bias field are those of the authors' code, which has 0 to
255. There every label map names all tissue of a head; of an abdomen organs alone are drawn, so that regions are made up: the n-th
is where the n-th of several smooth random maps is the largest. Slices are turned, scaled and moved as all slices are in training;
their low resolution in one direction is left out. Where channels are neighbouring slices, the labels of the middle one are known:
all of them are painted from these, with noise of their own.

`uses_source_images = False`: the images of the source's training cases are not even read, and `batch.x_s` is NaN.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.objectives import IGNORE, class_of
from attent_kit.options import SegmentOptions, segment_schedule, segmentor_optimizer, supervised_loss


class LabelsOnly(Alignment):
    """Images painted from source labels with random appearance of each tissue; no image of either domain."""

    paper = "Billot et al., MedIA 2023"
    aligns = "nothing: random appearances of source labels, no image of either domain"
    takes_partial_labels = True
    predicts_with = "S"
    uses_source_images = False
    uses_target_images = False
    terms = {
        "regions": {"regions": 1},
        "texture": {"texture": [0.0, 0.0]},
        "bias field": {"bias": 0.0},
        "blur": {"blur": 0.0},
    }
    bibtex = """@article{billot2023synthseg,
  title = {{SynthSeg}: Segmentation of brain {MRI} scans of any contrast and resolution without retraining},
  author = {Billot, Benjamin and Greve, Douglas N. and Puonti, Oula and Thielscher, Axel and Van Leemput, Koen and
    Fischl, Bruce and Dalca, Adrian V. and Iglesias, Juan Eugenio},
  journal = {Medical Image Analysis},
  volume = {86},
  year = {2023}
}"""

    class Config(SegmentOptions):
        """Options of the painting, besides those of the segmentor."""

        presets = {
            "paper": {
                # Code of Billot et al. 2023: 300 epochs of 1,000 steps with Dice alone, here beside cross-entropy, at one image a
                # step; the values of the painting are the defaults.
                "dice": 1.0,
                "optimizer": "adam",
                "learning_rate": 1e-4,
                "betas": [0.9, 0.999],
                "schedule": "constant",
                "segment_steps": 300_000,
                "segment_batch_size": 1,
            },
        }

        regions: int = Field(8, ge=1)
        """Made-up tissues of the background inside the body."""
        points: int = Field(8, ge=2)
        """Random numbers along each side of a map that regions are made from."""
        means: tuple[float, float] = (0.1, 0.88)
        """Between which the mean grey value of a tissue lies."""
        texture: tuple[float, float] = (0.02, 0.1)
        """Between which the standard deviation of a tissue's grey values lies."""
        blur: float = Field(1.0, ge=0)
        """Largest standard deviation of the blur, in pixels."""
        bias: float = Field(0.5, ge=0)
        """Standard deviation of the logarithm of the bias field."""
        gamma: float = Field(0.4, ge=0)
        """Standard deviation of g."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        schedule = segment_schedule(c)
        return [Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=schedule)]

    def segment(self, batch: Batch, update: Update) -> Losses:
        x = self.paint(class_of(batch.y_s))
        L_seg = supervised_loss(self.S(x), batch.y_s, self.config)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def as_seen(self, x_s: Tensor) -> None:
        return None

    @torch.no_grad()
    def paint(self, y: Tensor) -> Tensor:
        """An image for each label map: [B, H, W] int64 -> [B, C, H, W] in [-1, 1]."""
        c, B, C = self.config, len(y), self.task.channels
        organs = self.task.classes - 1
        z = tissues(y, organs, c.regions, c.points)
        mu, sigma = (
            low + (high - low) * torch.rand(B, organs + c.regions + 1, device=y.device)
            for low, high in (c.means, c.texture)
        )
        mu[:, 0] = sigma[:, 0] = 0  # air
        mu, sigma = (m.gather(1, z.flatten(1)).view_as(y).unsqueeze(1) for m in (mu, sigma))
        grey = blurred(mu + sigma * torch.randn(B, C, *y.shape[1:], device=y.device), c.blur)
        field = (c.bias * smooth(B, 1, 4, y)).exp()
        g = c.gamma * torch.randn(B, 1, 1, 1, device=y.device)
        return 2 * (grey * field).clamp(0, 1) ** g.exp() - 1


def tissues(y: Tensor, organs: int, regions: int, points: int) -> Tensor:
    """Tissue of each pixel of label maps [B, H, W]: 0 air, 1 to `organs` the organs, then the regions of the background. What has
    no label is background here."""
    B, H, W = y.shape
    region = organs + 1 + smooth(B, regions, points, y).argmax(1)
    v, u = torch.meshgrid(
        torch.linspace(-1, 1, H, device=y.device), torch.linspace(-1, 1, W, device=y.device), indexing="ij"
    )
    a, b, shift_v, shift_u = torch.rand(4, B, 1, 1, device=y.device).unbind(0)
    radius = ((v - 0.2 * shift_v + 0.1) / (0.55 + 0.45 * a)) ** 2 + ((u - 0.2 * shift_u + 0.1) / (0.65 + 0.35 * b)) ** 2
    body = radius + 0.1 * smooth(B, 1, points, y)[:, 0] < 1
    return torch.where((y > 0) & (y != IGNORE), y, torch.where(body, region, 0))


def smooth(B: int, maps: int, points: int, like: Tensor) -> Tensor:
    """Smooth random maps of about unit deviation, from `points` normal numbers along each side: [B, maps, H, W], for `like`
    [B, H, W]."""
    numbers = torch.randn(B, maps, points, points, device=like.device)
    return F.interpolate(numbers, like.shape[-2:], mode="bicubic", align_corners=True)


def blurred(x: Tensor, most: float) -> Tensor:
    """Each image of [B, C, H, W] after a Gaussian filter, seven pixels wide, of a deviation up to `most` pixels."""
    B, C, H, W = x.shape
    deviation = (most * torch.rand(B, 1, device=x.device)).clamp(min=0.1)
    weight = torch.exp(-(torch.arange(-3.0, 4.0, device=x.device) ** 2) / (2 * deviation**2))
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(C, 0)
    x = F.pad(x.reshape(1, B * C, H, W), (3, 3, 3, 3), mode="replicate")
    x = F.conv2d(x, weight.view(B * C, 1, 7, 1), groups=B * C)
    return F.conv2d(x, weight.view(B * C, 1, 1, 7), groups=B * C).view(B, C, H, W)
