"""Tent: a trained segmentor adapts to one volume by lowering the entropy of its own answers, through its norm layers alone.

Wang, Shelhamer, Liu, Olshausen, Darrell. Tent: Fully test-time adaptation by entropy minimization. ICLR 2021.
https://arxiv.org/abs/2006.10726

Source-free: S is that of a trained run, and nothing is trained. For each volume v, from the weights of that run:
    S(x)   normalises with the statistics of the batch x, slices of v
    H(x)   = - sum_k p_k log p_k, p = softmax S(x)                     equation 1, mean over pixels
    g, b   <- Adam on H, for the scales g and the shifts b of the norm layers, and for nothing else
    answer S(x) with the statistics of all of v

The paper goes through a stream of test images once and never resets; here each volume starts from the run's weights again, so
that an answer depends on no other patient. The statistics of the answer are those of the volume rather than of a batch, so that
it does not depend on how slices are batched either.
"""

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from attent_kit.config import Choice, ComponentConfig
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment, Build, Segmentor, Stage, Task


class Tent(Alignment):
    """Entropy minimisation of the norm layers at test time, one volume at a time."""

    paper = "Wang et al., ICLR 2021"
    aligns = "nothing in training: at test time the norm layers, by the entropy of the answers about one volume"
    backbones = "segmentors with norm layers that scale and shift"
    uses_target_images = False
    source_free = True
    predicts_with = "S"
    terms = {"entropy": {"test_steps": 0}, "statistics": {"statistics": False}}
    bibtex = """@inproceedings{wang2021tent,
  title = {Tent: Fully test-time adaptation by entropy minimization},
  author = {Wang, Dequan and Shelhamer, Evan and Liu, Shaoteng and Olshausen, Bruno and Darrell, Trevor},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year = {2021}
}"""

    class Config(ComponentConfig):
        """The segmentor, which must be that of the run, and how it adapts."""

        presets = {"paper": {"test_steps": 10, "test_batch_size": 16, "test_learning_rate": 1e-3}}

        segmentor: Choice[Segmentor] = Choice("smp")
        """Network of the run that it starts from."""
        test_steps: int = Field(10, ge=0)
        """Steps for each volume."""
        test_batch_size: int = Field(8, ge=1)
        """Slices of the volume in a step."""
        test_learning_rate: float = Field(1e-3, gt=0)
        """Learning rate of the scales and shifts, Adam."""
        statistics: bool = True
        """Whether batch norms take the statistics of the volume; if not, they keep those of training."""

    config: Config

    def __init__(self, config: Config, build: Build, task: Task) -> None:
        super().__init__(config, build, task)
        self.S = build(config.segmentor).requires_grad_(False)
        if not affine(self.S):
            raise ConfigError(
                f"tent adapts the scales and shifts of norm layers, and the segmentor '{config.segmentor.name}' has none as it "
                "is set: choose another --set segmentor, or another method."
            )

    def optimizers(self) -> dict[str, Optimizer]:
        return {}

    def stages(self) -> Sequence[Stage]:
        return []

    def predict(self, x_t: Tensor) -> Tensor:
        return self.S(x_t).logits

    def adapt_to(self, volume: Tensor) -> Callable[[Tensor], Tensor]:
        c = self.config
        # Batch norm over a single value is undefined, and a slice of 32 pixels has one in the deepest layer.
        v = volume.repeat(2, 1, 1, 1) if len(volume) == 1 else volume
        norms = [m for m in self.S.modules() if isinstance(m, _BatchNorm)] if c.statistics else []
        for norm in norms:
            norm.train()
        parameters = [p.requires_grad_() for p in affine(self.S)]
        optimizer = Adam(parameters, lr=c.test_learning_rate)
        for _ in range(c.test_steps):
            chosen = torch.randperm(len(v))[: max(c.test_batch_size, 2)]
            L_ent = entropy(self.S(v[chosen.to(v.device)]).logits)
            optimizer.zero_grad()
            L_ent.backward()
            optimizer.step()
        measure(self.S, norms, v, c.test_batch_size)
        return self.predict


def affine(network: nn.Module) -> list[nn.Parameter]:
    """Scales and shifts of all norm layers."""
    kinds = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
    own = [p for m in network.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)]
    return list(dict.fromkeys(own))


def entropy(logits: Tensor) -> Tensor:
    """Mean over pixels of the entropy of softmax, nats: [B, K, H, W] -> scalar."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


@torch.no_grad()
def measure(network: nn.Module, norms: Sequence[_BatchNorm], volume: Tensor, batch_size: int) -> None:
    """Make the running statistics of batch norms those of the slices of a volume, the mean over batches of nearly equal size."""
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all that is seen
    for part in volume.chunk(-(-len(volume) // max(batch_size, 2))):
        network(part if len(part) > 1 else part.repeat(2, 1, 1, 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
