"""For every check of a method one that fails it, and does little else wrong."""

from itertools import count

import numpy as np
import torch
from pydantic import field_validator
from torch.nn.functional import dropout, nll_loss
from torch.optim import SGD

from attent_kit.interfaces import Stage
from attent_kit.objectives import IGNORE, class_of, cross_entropy, real
from support.kept_contract import Good


class Undocumented(Good):
    class Config(Good.Config):
        """Options."""


class WithoutMeaning(Good):
    """An option that nobody explains."""

    class Config(Good.Config):
        """Options."""

        weight: float = 1.0


class Drifts(Good):
    """An option that is another one when it is read again."""

    class Config(Good.Config):
        """Options."""

        count: int = 1
        """Rises."""

        @field_validator("count")
        @classmethod
        def _rises(cls, count):
            return count + 1


class OldPreset(Good):
    """A preset of an option that is gone."""

    class Config(Good.Config):
        """Options."""

        presets = {"paper": {"wieght": 3.0}}


def local():
    """A class that no other process finds."""

    class Local(Good):
        """Local."""

    return Local


class TrainsNobody(Good):
    """A stage that names an optimizer that is not there."""

    def stages(self):
        return [Stage("segment", self.segment, 10, 2, trains=("S", "D", "G"))]


class LeavesOut(Good):
    """A bias that no optimizer owns."""

    def optimizers(self):
        own = [p for n, p in self.S.named_parameters() if "head.bias" not in n]
        return {"S": SGD(own, lr=0.1), "D": SGD(self.D.parameters(), lr=0.1)}


class Logarithm(Good):
    """A loss of log 0."""

    def segment(self, batch, update):
        return {**super().segment(batch, update), "L_log": batch.x_s.new_zeros(()).log()}


class SeesWhatItDenies(Good):
    """Target images in the step of a method that is said to use none."""

    uses_target_images = False


class ForgetsTheCritic(Good):
    """No update of the critic that it says it trains."""

    def segment(self, batch, update):
        L_seg = cross_entropy(self.S(batch.x_s).logits, batch.y_s)
        update("S", L_seg)
        return {"L_seg": L_seg}


class MovesTheCritic(Good):
    """Weights of the critic are averaged in a stage that does not train it."""

    def stages(self):
        return [Stage("segment", self.segment, 10, 2, trains=("S",))]

    def segment(self, batch, update):
        L_seg = cross_entropy(self.S(batch.x_s).logits, batch.y_s)
        update("S", L_seg)
        with torch.no_grad():
            for p in self.D.parameters():
                p.mul_(0.99)
        return {"L_seg": L_seg}


class UsesAGraphTwice(Good):
    """Two updates from one forward."""

    def segment(self, batch, update):
        s = self.S(batch.x_s)
        update("S", cross_entropy(s.logits, batch.y_s))
        update("S", real(self.D(s.features)))
        update("D", real(self.D(s.features.detach())))
        return {"L": s.logits.mean()}


class Peeks(Good):
    """Looks for target labels."""

    def segment(self, batch, update):
        losses = super().segment(batch, update)
        return losses if batch.y_t is None else {**losses, "L_t": batch.y_t.float().mean()}


class DeclaresForNothing(Good):
    """Says that it uses target labels, and does not."""

    uses_target_labels = True


class PerOrganPixel(Good):
    """Divides by the number of pixels that show an organ."""

    def segment(self, batch, update):
        organs = ((batch.y_s != 0) & (batch.y_s != IGNORE)).sum()
        return {**super().segment(batch, update), "L_o": batch.x_s.sum() / organs}


class Coarse(Good):
    """Answers at half the resolution."""

    predicts_with = ""

    def predict(self, x_t):
        return super().predict(x_t)[:, :, ::2, ::2]


class Noisy(Good):
    """Dropout that eval mode does not turn off."""

    predicts_with = ""

    def predict(self, x_t):
        return dropout(super().predict(x_t), 0.5)


class ClaimsTooMuch(Good):
    """Answers with more than the logits of its segmentor."""

    def predict(self, x_t):
        return 2 * super().predict(x_t)


class OldTerm(Good):
    """A term whose option is gone."""

    terms = {"weight": {"wieght": 0.0}}


class IdleTerm(Good):
    """A term that is off by default."""

    terms = {"nothing": {}}


class NoSuchLoss(Good):
    """Declares a discriminator that it has not."""

    def discriminator_losses(self):
        return {"L_D": "bce"}


class Glares(Good):
    """An image in source style beyond 1."""

    def as_source(self, x_t):
        return x_t + 2


class TranslatesTheFirst(Good):
    """Of a slice and its neighbours one alone."""

    def as_source(self, x_t):
        return x_t[:, :1]


class OneSliceOfMany(Good):
    """Of a volume the first slice alone."""

    dims = (2, 3)

    def segment(self, batch, update):
        L_seg = cross_entropy(self.S(batch.x_s).logits, batch.y_s)
        update("S", L_seg)
        return {"L_seg": L_seg}

    def predict(self, x_t):
        logits = self.S(x_t).logits
        return logits if x_t.ndim == 4 else logits[:, :, 0]


class RemembersInAnAttribute(Good):
    """Something of a step that no checkpoint holds."""

    predicts_with = ""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.scale = 1.0

    def segment(self, batch, update):
        self.scale *= 0.9
        return super().segment(batch, update)

    def predict(self, x_t):
        return self.scale * super().predict(x_t)


class OwnGenerator(Good):
    """Random numbers that nobody seeds."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.rng = np.random.default_rng()

    def segment(self, batch, update):
        return super().segment(batch._replace(x_s=batch.x_s * float(self.rng.uniform(0.5, 1))), update)


class OverTheBatch(Good):
    """A standard deviation over the batch."""

    def segment(self, batch, update):
        return {**super().segment(batch, update), "L_std": batch.x_s.std(dim=0).mean()}


class Asks(Good):
    """An `if` on a tensor."""

    def segment(self, batch, update):
        losses = super().segment(batch, update)
        return losses if losses["L_seg"] > 0 else {}


class CountsInPython(Good):
    """A weight that follows from a number which Python counts."""

    done = 0

    def segment(self, batch, update):
        self.done += 1
        L_seg = cross_entropy(self.S(batch.x_s).logits, batch.y_s) / self.done
        update("S", L_seg)
        L_dis = real(self.D(self.S(batch.x_s).features.detach()))
        update("D", L_dis)
        return {"L_seg": L_seg, "L_dis": L_dis}


class SteadyAfterAll(Good):
    """Says that it cannot be captured, but can."""

    capturable = False


class Climbs(Good):
    """A loss of the wrong sign."""

    sign = -0.1


class TakesUnknownForBackground(Good):
    """Says that it takes partial labels, and takes what may be another organ for background."""

    takes_partial_labels = True

    def segment(self, batch, update):
        return super().segment(batch._replace(y_s=class_of(batch.y_s)), update)


# Test-time adaptation


class Remembers(Good):
    """Its answer about a volume depends on how many came before."""

    seen = 0

    def adapt_to(self, volume):
        self.seen += 1
        return lambda x: self.predict(x) * self.seen


class NeedsTwo(Good):
    """It divides by the deviation of slices from each other."""

    def adapt_to(self, volume):
        spread = volume.std(0).mean()
        return lambda x: self.predict(x) / spread


# Labels of the whole target set


class InRounds(Good):
    """Learns from what it said of the whole set last, beside the source."""

    def stages(self):
        return [Stage("segment", self.segment, 10, 2, trains=("S", "D"), label=self.label, label_every=5)]

    def label(self, slices):
        return [self.S(x).logits.argmax(1) for x in slices]

    def segment(self, batch, update):
        L_pl = cross_entropy(self.S(batch.x_t).logits, batch.pseudo_t)
        update("S", L_pl)
        return {**super().segment(batch, update), "L_pl": L_pl}


HOURS = count()


class LabelsByTheClock(InRounds):
    """What it says depends on when it is asked."""

    def label(self, slices):
        return [torch.full_like(y, next(HOURS) % 5) for y in super().label(slices)]


class HasNoSuchClass(InRounds):
    """It knows more organs than there are."""

    def label(self, slices):
        return [torch.full_like(y, 9) for y in super().label(slices)]


class NeverLabels(Good):
    """Says how often, and not by what."""

    def stages(self):
        return [Stage("segment", self.segment, 10, 2, trains=("S", "D"), label_every=5)]


class MeanOfNothing(InRounds):
    """The mean over pixels that are known."""

    def segment(self, batch, update):
        known = batch.pseudo_t != IGNORE
        apart = nll_loss(self.S(batch.x_t).logits.log_softmax(1), batch.pseudo_t * known, reduction="none")
        return {**Good.segment(self, batch, update), "L_pl": apart[known].mean()}
