"""For every check of a network or a layout one that fails it; and the table of all, with what is said of each."""

import torch
from torch import nn
from torch.nn.functional import dropout, interpolate

from attent_kit.interfaces import Segmentation
from attent_kit.registry import Component, Registry
from attent_kit.selectors import Selector
from support import broken_methods as m
from support.kept_contract import Critic, Good, Net, Plain, Tint


class Undecided(Selector):
    """Says not which score is better."""

    def score(self, look):
        return float(look.p_t.mean())


class Chance(Selector):
    """Draws a score."""

    better = "higher"

    def score(self, look):
        return float(torch.rand(()))


class Blends(Net):
    """A blend of features with a tensor that is float32 whatever they are."""

    def forward(self, x):
        f = self.body(x)
        f = torch.lerp(f, torch.zeros(f.shape), 0.1)
        return Segmentation(interpolate(self.head(f), size=x.shape[2:]), f)


class Compares(Net):
    """Takes the mean of the slices from each."""

    def forward(self, x):
        f = self.norm(self.body(x - x.mean(0, keepdim=True))).relu()
        return Segmentation(interpolate(self.head(f), size=x.shape[2:]), f)


class ShowsLess(Tint):
    """Says that its encoder has two channels more than it shows."""

    encoder_channels = (3,)

    def encode(self, x):
        return (self.layer(x),)


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


class WithoutPatch(Net):
    """Volumes, and nobody knows how much of them."""

    dims = 3


class Five(Net):
    """Five classes, whatever the task."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.head = nn.Conv2d(4, 5, 1)


def _with(network):
    """A method whose segmentor is that network."""
    return {"segmentor": {"name": network}}


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
    ("documented", METHOD, m.Undocumented, {}, "Undocumented has no docstring"),
    ("documented", METHOD, m.WithoutMeaning, {}, "WithoutMeaning.Config.weight"),
    ("options-written", METHOD, m.Drifts, {}, "Drifts.Config"),
    ("presets-valid", METHOD, m.OldPreset, {}, "preset 'paper': wieght: no such option"),
    ("pickles", METHOD, m.local(), {}, "Local cannot be pickled"),
    ("stages-declared", METHOD, m.TrainsNobody, {}, "trains ['G']"),
    ("owned-once", METHOD, m.LeavesOut, {}, "head.bias is owned"),
    ("finite-losses", METHOD, m.Logarithm, {}, "loss L_log is -inf"),
    (
        "finite-losses",
        METHOD,
        m.SeesWhatItDenies,
        {},
        "is nan. x_t is NaN here, since it declares uses_target_images = False",
    ),
    ("trains-move", METHOD, m.ForgetsTheCritic, {}, "trains D"),
    ("others-stay", METHOD, m.MovesTheCritic, {}, "moves D."),
    ("graphs-are-fresh", METHOD, m.UsesAGraphTwice, {}, "step 0, uses a graph"),
    ("target-labels-as-declared", METHOD, m.Peeks, {}, "reads batch.y_t"),
    ("target-labels-as-declared", METHOD, m.DeclaresForNothing, {}, "DeclaresForNothing declares uses_target_labels"),
    (
        "partial-labels-as-declared",
        METHOD,
        m.TakesUnknownForBackground,
        {},
        "takes what may be another organ for background",
    ),
    ("labels-the-whole-set", METHOD, m.LabelsByTheClock, {}, "label says something else the second time"),
    (
        "labels-the-whole-set",
        METHOD,
        m.HasNoSuchClass,
        {},
        "label answers with 9, which is none of 5 classes, nor IGNORE",
    ),
    ("labels-the-whole-set", METHOD, m.NeverLabels, {}, "has a label_every and no label"),
    ("labels-the-whole-set", METHOD, m.MeanOfNothing, {}, "where every label is IGNORE"),
    ("slices-without-organs", METHOD, m.PerOrganPixel, {}, "loss L_o is"),
    ("predict-answers", METHOD, m.Coarse, {}, "(2, 5, 32, 32), not (2, 5, 64, 64)"),
    ("predict-repeats", METHOD, m.Noisy, {}, "the second time"),
    ("predicts-with-what-it-says", METHOD, m.ClaimsTooMuch, {}, "predicts_with says 'S'"),
    ("adaptation-leaves-no-trace", METHOD, m.Remembers, {}, "answered differently after another one"),
    ("adapts-to-one-slice", METHOD, m.NeedsTwo, {}, "a volume of one slice"),
    ("terms-turn-off", METHOD, m.OldTerm, {}, "terms['weight']"),
    ("terms-turn-off", METHOD, m.IdleTerm, {}, "changes nothing"),
    ("discriminator-losses-are-there", METHOD, m.NoSuchLoss, {}, "names L_D"),
    ("scores-a-look", "selectors", Undecided, {}, "Undecided.better"),
    ("scores-a-look", "selectors", Chance, {}, "Chance.score"),
    ("translations-are-images", METHOD, m.Glares, {}, "as_source leaves [-1, 1]"),
    ("state-is-all", METHOD, m.RemembersInAnAttribute, {}, "RemembersInAnAttribute: a copy from its state"),
    ("resumes-exactly", METHOD, m.OwnGenerator, {}, "OwnGenerator: a copy from its state"),
    ("bfloat16", METHOD, Good, _with("blends"), "BFloat16"),
    ("odd-sizes", METHOD, Good, _with("doubles"), "size mismatch"),
    ("batch-of-one", METHOD, m.OverTheBatch, {}, "loss L_std is nan"),
    ("two-classes", METHOD, Good, _with("five"), "(2, 5, 64, 64), not (2, 2, 64, 64)"),
    ("eight-classes", METHOD, Good, _with("five"), "IndexError"),
    ("three-channels", METHOD, Good, _with("grey"), "to have 1 channels, but got 3"),
    ("three-channels", METHOD, m.TranslatesTheFirst, {}, "as_source made (2, 1, 64, 64) of (2, 3, 64, 64)"),
    ("volumes-as-declared", METHOD, m.OneSliceOfMany, {}, "(2, 5, 32, 32) to volumes, not (2, 5, 6, 32, 32)"),
    ("waits-for-nobody", METHOD, m.Asks, {}, "Tensor.__bool__ waits for the device"),
    ("capturable-as-declared", METHOD, m.CountsInPython, {}, "gives div something else from step to step (2 and 3)"),
    ("capturable-as-declared", METHOD, m.SteadyAfterAll, {}, "drop that"),
    ("learns", METHOD, m.Climbs, {}, "cross-entropy of predict"),
    ("two-processes", METHOD, Good, _with("compares"), "weight is not that of one (by "),
    ("forward-answers", TRANSLATOR, Bright, {}, "Bright leaves [-1, 1]"),
    ("gradients", CRITIC, Cuts, {}, "Cuts gives no gradient"),
    ("gradients", TRANSLATOR, Unused, {}, "unused.weight"),
    ("eval-repeats", CRITIC, Drops, {}, "Drops answers differently"),
    ("state-is-all", TRANSLATOR, Shifted, {}, "Shifted: a copy from its state"),
    ("network-pickles", CRITIC, Lambda, {}, "Lambda cannot be pickled"),
    ("bfloat16", CRITIC, BlendingCritic, {}, "BFloat16"),
    ("odd-sizes", SEGMENTOR, Doubles, {}, "logits are (2, 5, 60, 68), not (2, 5, 61, 69)"),
    ("batch-of-one", SEGMENTOR, Squeezes, {}, "logits are (5, 64, 64), not (1, 5, 64, 64)"),
    ("two-classes", SEGMENTOR, Five, {}, "not (2, 2, 64, 64)"),
    ("eight-classes", SEGMENTOR, Five, {}, "not (2, 8, 64, 64)"),
    ("patch-declared", SEGMENTOR, WithoutPatch, {}, "has no patch"),
    ("three-channels", SEGMENTOR, Grey, {}, "to have 1 channels, but got 3"),
    ("forward-waits-for-nobody", CRITIC, Branches, {}, "waits for the device"),
    ("encoder-shows", TRANSLATOR, ShowsLess, {}, "ShowsLess: encode returns maps of (1,) channels"),
    ("learning-rate-factors", SEGMENTOR, HalfTheRates, {}, "body.weight"),
    ("recognises-nothing-in-nothing", LAYOUT, Insists, {}, "Insists.recognises"),
    ("reads-a-data-set", LAYOUT, Unsorted, {}, "Unsorted.entries"),
]
"""The check, the kind, the component with its options, and what is said of it."""

REGISTRY = Registry()
for _kind, _class in [
    *((SEGMENTOR, c) for c in (Net, Blends, Compares, Doubles, Grey, Five)), (CRITIC, Critic), (TRANSLATOR, Tint), (METHOD, Good),
]:  # fmt: skip
    REGISTRY.add(Component(_kind, _class.__name__.lower(), _class, "broken", "attentkit-broken", "1.0"))
