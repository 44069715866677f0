"""A method, three networks and a layout that keep the contract, as small as they go.

They are at the top of a module, as those of a plugin are, so that other processes find them.
"""

from torch import nn
from torch.nn.functional import interpolate
from torch.optim import SGD

from attent_kit.config import Choice, ComponentConfig
from attent_kit.interfaces import Alignment, Discriminator, Segmentation, Segmentor, Stage, Translator
from attent_kit.layouts import Entry, Layout, Scan, read_volume
from attent_kit.objectives import cross_entropy, fake, real


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
    takes_partial_labels = True
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
        return Scan(read_volume(entry.images[0]))
