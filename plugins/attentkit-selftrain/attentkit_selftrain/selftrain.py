"""Self-training: a mean teacher labels target slices; its student learns from mixed and from masked ones.

In the spirit of DAFormer (Hoyer et al., CVPR 2022, https://arxiv.org/abs/2111.14887) and MIC (Hoyer et al., CVPR 2023,
https://arxiv.org/abs/2212.01322), on the segmentor of your choice; class mixing is DACS (Tranheden et al., WACV 2021).

    T     <- a T + (1 - a) S,  a = min(1 - 1 / (step + 1), 0.999)                        teacher, no gradient
    y_t   = argmax T(x_t),  q = share of pixels of the slice with max softmax T(x_t) > 0.968
    x_m   = half of the classes of x_s pasted onto x_t, y_m likewise; weight 1 where source, q where target
    L_seg = CE(S(g x_s), y_s)                                                            g: none, or a random network (GIN)
    L_mix = mean q_m CE(S(x_m), y_m)
    L_msk = mean q CE(S(M x_t), y_t)                                                     M blanks 70 % of the blocks
    L     = L_seg + L_mix + L_msk
    answer S(x_t)

Left out of DAFormer: rare class sampling and the feature distance to ImageNet. Both papers jitter and blur the colours of
mixed and masked slices; here brightness and contrast are jittered, since slices are grey.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from attent_kit.interfaces import Alignment, Batch, Build, Losses, Stage, Task, Update
from attent_kit.mixing import blocks, half_of_the_classes, jittered, painted
from attent_kit.objectives import class_of, cross_entropy_map, labels_where
from attent_kit.options import (
    SegmentOptions,
    labels_as_asked,
    segment_schedule,
    segmentor_optimizer,
    supervised_loss,
)
from attent_kit.teacher import mean_teacher, teach


class SelfTraining(Alignment):
    """Mean teacher, class mixing and masked-image consistency."""

    paper = "Hoyer et al., CVPR 2022 and 2023"
    aligns = "answers about the target with those of a mean teacher, on mixed and masked slices"
    dims = (2, 3)
    takes_partial_labels = True
    predicts_with = "S"
    terms = {"mixing": {"mixed": 0.0}, "masking": {"masked": 0.0}}
    bibtex = """@inproceedings{hoyer2022daformer,
  title = {{DAFormer}: Improving network architectures and training strategies for domain-adaptive semantic segmentation},
  author = {Hoyer, Lukas and Dai, Dengxin and Van Gool, Luc},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2022}
}

@inproceedings{hoyer2023mic,
  title = {{MIC}: Masked image consistency for context-enhanced domain adaptation},
  author = {Hoyer, Lukas and Dai, Dengxin and Wang, Haoran and Van Gool, Luc},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2023}
}"""

    class Config(SegmentOptions):
        """Options of the teacher, mixing and masking, besides those of the segmentor."""

        momentum_of_teacher: float = Field(0.999, ge=0, lt=1)
        """a, the fraction of the teacher that stays at each step."""
        threshold: float = Field(0.968, ge=0, le=1)
        """Probability above which the teacher counts as certain."""
        mixed: float = Field(1.0, ge=0)
        """Weight of L_mix."""
        masked: float = Field(1.0, ge=0)
        """Weight of L_msk."""
        mask_ratio: float = Field(0.7, ge=0, le=1)
        """Fraction of the blocks that M blanks."""
        mask_block: int = Field(32, ge=1)
        """Side of a block in pixels, of volumes in slices, too; MIC has 64 on slices four times as large."""
        painted: int = Field(0, ge=0)
        """Convolutions of the random network that paints x_s in L_seg (GIN of Ouyang et al., TMI 2022, has 4); 0 leaves x_s as it
        is. Not of DAFormer or MIC: without it the teacher knows what one modality looks like, and labels the other by that."""
        jitter: float = Field(0.2, ge=0)
        """Largest change of brightness, and of contrast as a part of it, in mixed and masked slices."""

    config: Config
    step: Tensor

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.capturable = not config.painted  # random networks, whose kernels a coin on the host decides
        self.S = build(config.segmentor)
        self.T = mean_teacher(self.S)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self) -> Sequence[Stage]:
        c = self.config
        schedule = segment_schedule(c)
        return [Stage("segment", self.segment, c.segment_steps, c.segment_batch_size, trains=("S",), schedule=schedule)]

    def segment(self, batch: Batch, update: Update) -> Losses:
        c, x_s, x_t = self.config, batch.x_s, batch.x_t
        y_s = labels_as_asked(batch.y_s, c)
        teach(self.T, self.S, self.step, c.momentum_of_teacher)
        with torch.no_grad():
            certainty, y_t = self.T(x_t).logits.softmax(1).max(1)
            q = (certainty > c.threshold).float().mean([*range(1, y_t.ndim)], keepdim=True).expand(y_t.shape)
            paste = half_of_the_classes(class_of(y_s), self.task.classes)
            x_m = jittered(torch.where(paste.unsqueeze(1), x_s, x_t), c.jitter)
            y_m, q_m = labels_where(paste, y_s, y_t), torch.where(paste, 1.0, q)
            x_p = painted(x_s, c.painted, 2) if c.painted else x_s
            x_k = jittered(x_t, c.jitter)
            x_k = torch.where(blocks(x_k, c.mask_block, c.mask_ratio), -1.0, x_k)

        L_seg = supervised_loss(self.S(x_p), y_s, c)
        L_mix = weighted_cross_entropy(self.S(x_m).logits, y_m, q_m)
        L_msk = weighted_cross_entropy(self.S(x_k).logits, y_t, q)
        update("S", L_seg + c.mixed * L_mix + c.masked * L_msk)
        return {"L_seg": L_seg, "L_mix": L_mix, "L_msk": L_msk, "certain": q.mean()}

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean over pixels of weight times cross-entropy: [B, K, H, W], labels in either form, [B, H, W] -> scalar."""
    return (weight * cross_entropy_map(logits, labels)).mean()
