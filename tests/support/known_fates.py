"""Methods that learn nothing and whose translations are known: identity, a negative, a lost organ, everything aside."""

import torch

from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train.train import TrainOptions, train
from attent_kit.interfaces import Stage, Translator
from attent_kit.registry import Component, Registry
from support.stand_in import Levels, Threshold


class Changes(Translator):
    """An image with something done to it."""

    def __init__(self, change):
        torch.nn.Module.__init__(self)
        self.change = change
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.change(x) + 0 * self.unused


class Known(Threshold):
    """A method that learns nothing in a step."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = Levels(classes=task.classes)

    def stages(self):
        return [Stage("segment", lambda batch, update: {"L": torch.zeros(())}, 1, 1, trains=("S",))]


def translating(change, source_style=True):
    """A method that translates so, whose segmentor learns from source images as they are, or in target style."""

    class Method(Known):
        predicts_with = ""

        def __init__(self, config, build, task):
            super().__init__(config, build, task)
            self.G_ts = Changes(change)

        def optimizers(self):
            return super().optimizers() | {"G": torch.optim.SGD(self.G_ts.parameters(), lr=1.0)}

        def as_source(self, x_t):
            return self.G_ts(x_t)

        def predict(self, x_t):
            return self.S(self.G_ts(x_t)).logits

        def as_seen(self, x_s):
            return x_s if source_style else x_s.clone()

    return Method


class SourceOnly(Known):
    uses_target_images = False


class Blind(SourceOnly):
    """A judge that finds organ 1 everywhere."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = Levels(classes=task.classes)
        self.S.bounds = torch.nn.Parameter(torch.tensor([-9.0, 9.0]))


class Undecided(Known):
    """A method that says only when asked that it has no translation."""

    def as_source(self, x_t):
        return None


METHODS = {
    "identity": translating(lambda x: x),
    "negative": translating(lambda x: -x),
    "lost": translating(lambda x: torch.where(x > 0.5, -torch.ones_like(x), x)),
    "aside": translating(lambda x: x.roll(2, dims=3)),
    "other-way": translating(lambda x: x, source_style=False),
    "nothing": Undecided,
    "alone": SourceOnly,
    "blind": Blind,
    "plain": Known,
}
REGISTRY = Registry()
for _name, _class in METHODS.items():
    REGISTRY.add(Component("alignments", _name, _class, "known-fates", "attentkit-known-fates", "1.0"))


def trained_as(name, place, source, target):
    """The folder of a finished run on two prepared files."""
    given = {
        "alignment": {"name": name},
        "precision": "32-true",
        "data": {"source": str(source), "target": str(target)},
    }
    train(run_settings(given, REGISTRY), place, REGISTRY, "cpu", TrainOptions(row=name))
    return place
