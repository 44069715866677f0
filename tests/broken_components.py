"""A method, three networks and a layout that keep the contract, and for every check one like them that does not.

They are at the top of a module, as those of a plugin are, so that other processes find them.
"""

import numpy as np
import torch
from pydantic import field_validator
from torch import nn
from torch.nn.functional import dropout, interpolate
from torch.optim import SGD

from attent_kit.config import Choice, ComponentConfig
from attent_kit.data.layout import Entry, Layout
from attent_kit.interfaces import Alignment, Discriminator, Segmentation, Segmentor, Stage, Translator
from attent_kit.objectives import IGNORE, cross_entropy, fake, real
from attent_kit.registry import Component, Registry


class Net(Segmentor):
    """Two convolutions, at half the resolution."""

    feature_channels, feature_stride = 4, 2

    def __init__(self, config, task):
        super().__init__(config, task)
        self.body = nn.Conv2d(task.channels, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, task.classes, 1)

    def forward(self, x):
        f = self.norm(self.body(x)).relu()
        return Segmentation(interpolate(self.head(f), size=x.shape[2:]), f)


class Critic(Discriminator):
    """One convolution."""

    def __init__(self, config, channels, heads=1):
        super().__init__(config, channels, heads)
        self.layer = nn.Conv2d(channels, heads, 3, 2, 1)

    def forward(self, x):
        return self.layer(x)


class Tint(Translator):
    """One convolution."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.layer = nn.Conv2d(task.channels, task.channels, 3, 1, 1)

    def forward(self, x):
        return self.layer(x).tanh()


class Good(Alignment):
    """A critic on features."""

    predicts_with = "S"
    sign, weight = 1.0, 0.01

    class Config(ComponentConfig):
        """Options."""

        segmentor: Choice[Segmentor] = Choice("net")
        """Network that labels the pixels."""
        critic: Choice[Discriminator] = Choice("critic")
        """Network that tells the domains apart."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        self.D = build(config.critic, channels=self.S.feature_channels)

    def optimizers(self):
        return {"S": SGD(self.S.parameters(), lr=0.1), "D": SGD(self.D.parameters(), lr=0.1)}

    def stages(self):
        return [Stage("segment", self.segment, 10, 2, trains=("S", "D"))]

    def segment(self, batch, update):
        s, t = self.S(batch.x_s), self.S(batch.x_t)
        L_seg = cross_entropy(s.logits, batch.y_s)
        update("S", self.sign * L_seg + self.weight * real(self.D(t.features)))
        L_dis = real(self.D(s.features.detach())) + fake(self.D(t.features.detach()))
        update("D", L_dis)
        return {"L_seg": L_seg, "L_dis": L_dis}

    def predict(self, x_t):
        return self.S(x_t).logits


class Plain(Layout):
    """A file a case."""

    @classmethod
    def recognises(cls, path):
        return any(path.glob("*.nii.gz"))

    def entries(self):
        return [Entry(file.name.partition(".")[0], (file,)) for file in sorted(self.path.glob("*.nii.gz"))]

    def read(self, entry):
        from attent_kit.data.layout import Scan
        from attent_kit.data.volumes import read_volume

        return Scan(read_volume(entry.images[0]))


# Methods


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


class Glares(Good):
    """An image in source style beyond 1."""

    def as_source(self, x_t):
        return x_t + 2


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


class Blends(Net):
    """A blend of features with a tensor that is float32 whatever they are."""

    def forward(self, x):
        f = self.body(x)
        f = torch.lerp(f, torch.zeros(f.shape), 0.1)
        return Segmentation(interpolate(self.head(f), size=x.shape[2:]), f)


class Doubles(Net):
    """Twice half of an odd size is another size."""

    def forward(self, x):
        f = self.norm(self.body(x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2])).relu()
        return Segmentation(interpolate(self.head(f), scale_factor=2), f)


class Grey(Net):
    """Images of one channel only."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.body = nn.Conv2d(1, 4, 3, 2, 1)


class Five(Net):
    """Five classes, whatever the task."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.head = nn.Conv2d(4, 5, 1)


def _with(network):
    """A method whose segmentor is that network."""
    return {"segmentor": {"name": network}}


class OverTheBatch(Good):
    """A standard deviation over the batch."""

    def segment(self, batch, update):
        return {**super().segment(batch, update), "L_std": batch.x_s.std(dim=0).mean()}


class Asks(Good):
    """An `if` on a tensor."""

    def segment(self, batch, update):
        losses = super().segment(batch, update)
        return losses if losses["L_seg"] > 0 else {}


class Climbs(Good):
    """A loss of the wrong sign."""

    sign = -0.1


class PastForward(Good):
    """Layers of the network are called one by one."""

    def segment(self, batch, update):
        S = getattr(self.S, "module", self.S)
        S = getattr(S, "module", S)
        L_seg = cross_entropy(S(batch.x_s).logits, batch.y_s)
        update("S", L_seg)
        L_dis = real(self.D(S(batch.x_s).features.detach()))
        update("D", L_dis)
        return {"L_seg": L_seg, "L_dis": L_dis}


# Networks


class Bright(Tint):
    """No tanh at the end."""

    def forward(self, x):
        return 5 + self.layer(x)


class Cuts(Critic):
    """No gradient to the image."""

    def forward(self, x):
        return self.layer(x.detach())


class Unused(Tint):
    """A layer that forward does not use."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.unused = nn.Linear(1, 1)


class Drops(Critic):
    """Dropout that eval mode does not turn off."""

    def forward(self, x):
        return dropout(super().forward(x), 0.5)


class Shifted(Tint):
    """A plain tensor that no checkpoint holds."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.shift = torch.randn(1)

    def forward(self, x):
        return (self.layer(x) + self.shift).tanh()


class Lambda(Critic):
    """A lambda in an attribute."""

    def __init__(self, config, channels, heads=1):
        super().__init__(config, channels, heads)
        self.activation = lambda x: x.relu()


class BlendingCritic(Critic):
    """A blend with a tensor that is float32 whatever the answer is."""

    def forward(self, x):
        y = super().forward(x)
        return torch.lerp(y, torch.zeros(y.shape), 0.1)


class Squeezes(Net):
    """A squeeze, which takes a batch of one away."""

    def forward(self, x):
        out = super().forward(x)
        return out._replace(logits=out.logits.squeeze())


class Branches(Critic):
    """An `if` on a tensor."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else -y


class HalfTheRates(Net):
    """A rate for the head alone."""

    def learning_rate_factors(self):
        return [(1.0, list(self.head.parameters()))]


# Layouts


class Insists(Plain):
    """Every folder is one of its own."""

    @classmethod
    def recognises(cls, path):
        return True


class Unsorted(Plain):
    """Cases in no order."""

    def entries(self):
        return super().entries()[::-1]


METHOD, SEGMENTOR, TRANSLATOR, CRITIC, LAYOUT = "alignments", "segmentors", "translators", "discriminators", "layouts"
BROKEN = [
    ("documented", METHOD, Undocumented, {}, "Undocumented has no docstring"),
    ("documented", METHOD, WithoutMeaning, {}, "WithoutMeaning.Config.weight: write its meaning"),
    ("options-written", METHOD, Drifts, {}, "does not survive being written to TOML"),
    ("presets-valid", METHOD, OldPreset, {}, "preset 'paper': wieght: no such option"),
    ("pickles", METHOD, local(), {}, "Local cannot be pickled"),
    ("stages-declared", METHOD, TrainsNobody, {}, "trains ['G'], which optimizers() does not return"),
    ("owned-once", METHOD, LeavesOut, {}, "head.bias is owned by no optimizer"),
    ("finite-losses", METHOD, Logarithm, {}, "loss L_log is -inf"),
    ("trains-move", METHOD, ForgetsTheCritic, {}, "says that it trains D, but no update moved"),
    ("others-stay", METHOD, MovesTheCritic, {}, "moves D."),
    ("graphs-are-fresh", METHOD, UsesAGraphTwice, {}, "step 0, uses a graph after its update"),
    ("target-labels-as-declared", METHOD, Peeks, {}, "reads batch.y_t, which is always None here"),
    ("target-labels-as-declared", METHOD, DeclaresForNothing, {}, "train it to the same weights: drop"),
    ("slices-without-organs", METHOD, PerOrganPixel, {}, "loss L_o is"),
    ("predict-answers", METHOD, Coarse, {}, "predict answers (2, 5, 32, 32), not (2, 5, 64, 64)"),
    ("predict-repeats", METHOD, Noisy, {}, "predict answers differently the second time"),
    ("predicts-with-what-it-says", METHOD, ClaimsTooMuch, {}, "predict does not answer with its logits"),
    ("as-source-is-an-image", METHOD, Glares, {}, "as_source leaves [-1, 1]"),
    ("state-is-all", METHOD, RemembersInAnAttribute, {}, "a copy from its state predicts differently"),
    ("resumes-exactly", METHOD, OwnGenerator, {}, "a copy from its state goes on differently in"),
    ("bfloat16", METHOD, Good, _with("blends"), "BFloat16"),
    ("odd-sizes", METHOD, Good, _with("doubles"), "size mismatch"),
    ("batch-of-one", METHOD, OverTheBatch, {}, "loss L_std is nan"),
    ("two-classes", METHOD, Good, _with("five"), "predict answers (2, 5, 64, 64), not (2, 2, 64, 64)"),
    ("eight-classes", METHOD, Good, _with("five"), "IndexError"),
    ("three-channels", METHOD, Good, _with("grey"), "to have 1 channels, but got 3"),
    ("waits-for-nobody", METHOD, Asks, {}, "Tensor.__bool__ waits for the device"),
    ("learns", METHOD, Climbs, {}, "the cross-entropy of predict was"),
    ("two-processes", METHOD, PastForward, {}, "differs between two processes"),
    ("forward-answers", TRANSLATOR, Bright, {}, "Bright leaves [-1, 1]: end with tanh"),
    ("gradients", CRITIC, Cuts, {}, "Cuts gives no gradient to its image"),
    ("gradients", TRANSLATOR, Unused, {}, "parameter unused.weight has no gradient"),
    ("eval-repeats", CRITIC, Drops, {}, "answers differently the second time in eval mode"),
    ("state-is-all", TRANSLATOR, Shifted, {}, "a copy from its state answers differently"),
    ("network-pickles", CRITIC, Lambda, {}, "Lambda cannot be pickled"),
    ("bfloat16", CRITIC, BlendingCritic, {}, "BFloat16"),
    ("odd-sizes", SEGMENTOR, Doubles, {}, "logits are (2, 5, 60, 68), not (2, 5, 61, 69)"),
    ("batch-of-one", SEGMENTOR, Squeezes, {}, "logits are (5, 64, 64), not (1, 5, 64, 64)"),
    ("two-classes", SEGMENTOR, Five, {}, "not (2, 2, 64, 64)"),
    ("eight-classes", SEGMENTOR, Five, {}, "not (2, 8, 64, 64)"),
    ("three-channels", SEGMENTOR, Grey, {}, "to have 1 channels, but got 3"),
    ("forward-waits-for-nobody", CRITIC, Branches, {}, "waits for the device"),
    ("learning-rate-factors", SEGMENTOR, HalfTheRates, {}, "learning_rate_factors() leaves body.weight out"),
    ("recognises-nothing-in-nothing", LAYOUT, Insists, {}, "answers True for an empty folder"),
    ("reads-a-data-set", LAYOUT, Unsorted, {}, "give each case an id of its own, sorted by id"),
]
"""The check, the kind, the component with its options, and what is said of it."""

REGISTRY = Registry()
for _kind, _class in [
    *((SEGMENTOR, c) for c in (Net, Blends, Doubles, Grey, Five)), (CRITIC, Critic), (TRANSLATOR, Tint), (METHOD, Good),
]:  # fmt: skip
    REGISTRY.add(Component(_kind, _class.__name__.lower(), _class, "broken", "attentkit-broken", "1.0"))
