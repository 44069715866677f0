"""Methods that adapt at test time or that never read the source, as small as they go."""

import torch
from torch.optim import SGD

from attent_kit.config import Choice, ComponentConfig
from attent_kit.interfaces import Alignment, Segmentor, Stage

SEGMENTOR = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}


class SourceFree(Alignment):
    """Makes the answers about the target certain, from the weights of a run on."""

    predicts_with = "S"
    source_free = True

    class Config(ComponentConfig):
        """Options."""

        segmentor: Choice[Segmentor] = Choice("smp")
        """Network of the run."""
        steps: int = 4
        """Steps of its only stage."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = build(config.segmentor)

    def optimizers(self):
        return {"S": SGD(self.S.parameters(), lr=0.01)}

    def stages(self):
        return [Stage("sharpen", self.sharpen, self.config.steps, 2, trains=("S",))]

    def sharpen(self, batch, update):
        assert len(batch.x_s) == 0 and len(batch.y_s) == 0 and len(batch.x_t) == 2
        log_p = self.S(batch.x_t).logits.log_softmax(1)
        loss = -(log_p.exp() * log_p).sum(1).mean() + 0.01 * torch.rand((), device=log_p.device)
        update("S", loss)
        return {"loss": loss}

    def predict(self, x_t):
        return self.S(x_t).logits


class AtTestTime(SourceFree):
    """Trains nothing; moves a weight by what is drawn for each volume."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S.requires_grad_(False)
        self.adapted = []

    def optimizers(self):
        return {}

    def stages(self):
        return []

    def adapt_to(self, volume):
        self.adapted.append(tuple(volume.shape))
        parameters = [p.requires_grad_() for p in self.S.parameters()]
        optimizer = SGD(parameters, lr=0.05)
        self.S(volume + 0.1 * torch.randn_like(volume)).logits.square().mean().backward()
        optimizer.step()
        return self.predict
