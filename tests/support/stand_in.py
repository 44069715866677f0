"""A method that knows organs by their grey value alone, so that the answer to an image can be worked out by hand."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.optim import SGD

from attent_kit.config import ComponentConfig, read_toml
from attent_kit.engine.apply.volumes import PredictOptions, predict_volumes
from attent_kit.engine.run import checkpoint
from attent_kit.files import write_signed
from attent_kit.interfaces import Alignment, Segmentation, Segmentor, Stage, Translator
from attent_kit.registry import Component, Registry

LOW, HIGH = 0.0, 200.0
"""Grey values that become -1 and 1: v is v / 100 - 1."""
BOUNDS = (-0.5, 0.5)
"""50 and 150: above the first is organ 1, above the second organ 2."""
SHARP, SOFT = 1000.0, 2 * np.log(2)
"""Slopes: with the first a class is certain; with the second 100 is class 0, 1 and 2 with 1/4, 1/2 and 1/4."""


class Levels(Segmentor):
    """Class k in place of k - 1 where a pixel is above the k-th bound; classes without a bound are never answered."""

    feature_channels, feature_stride = 1, 1

    def __init__(self, slope=SHARP, classes=3):
        torch.nn.Module.__init__(self)
        self.classes = classes
        self.bounds = torch.nn.Parameter(torch.tensor(BOUNDS))
        self.slope = torch.nn.Parameter(torch.tensor(float(slope)))
        self.most = None
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        if self.most is not None and len(x) > self.most:
            raise torch.OutOfMemoryError("pretended")
        middle = x[:, x.shape[1] // 2]
        below = torch.cat([torch.zeros(1), self.bounds.cumsum(0)])
        logits = torch.stack([self.slope * (k * middle - b) for k, b in enumerate(below)], dim=1)
        unbounded = logits.new_full((len(x), self.classes - logits.shape[1], *x.shape[2:]), -1e4)
        return Segmentation(torch.cat([logits, unbounded], dim=1), x)


class Negative(Translator):
    """The negative of an image, which is its source style here."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return -x + 0 * self.unused


class Threshold(Alignment):
    """Organs by their grey value."""

    paper = "nobody, nowhere"
    aligns = "nothing"
    predicts_with = "S"

    class Config(ComponentConfig):
        note: str = ""
        """Words that change nothing."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = Levels()

    def optimizers(self):
        return {"S": SGD(self.S.parameters(), lr=1.0)}

    def stages(self):
        return [Stage("segment", lambda batch, update: {}, 7, 1, trains=("S",))]

    def predict(self, x_t):
        return self.S(x_t).logits


class Translating(Threshold):
    """The same, and images have a negative."""

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.G_ts = Negative()

    def optimizers(self):
        return {"S": SGD(self.S.parameters(), lr=1.0), "G": SGD(self.G_ts.parameters(), lr=1.0)}

    def as_source(self, x_t):
        return self.G_ts(x_t)


REGISTRY = Registry()
for _name, _class in (("threshold", Threshold), ("translating", Translating)):
    REGISTRY.add(Component("alignments", _name, _class, "stand-in", "attentkit-stand-in", "1.2"))


def stand_in_run(folder, size, slope=SHARP, alignment="threshold", **domain):
    """A run folder of three files; `domain` goes to domain.json."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'seed = 3\nprecision = "32-true"\n[alignment]\nname = "{alignment}"\n'
        '[data]\nsource = "/somewhere/else/mr.h5"\ntarget = "ct.h5"\nsource_hash = "aa"\ntarget_hash = "bb"\n'
    )
    facts = {
        "domain": "ct", "modality": "ct", "organs": ["middle", "bright"], "size": size, "channels": 1,
        "intensity": {"kind": "window", "low": LOW, "high": HIGH}, "pixel_mm": None, "training": None, "phantom": [],
        "source": {"domain": "mr", "modality": "mr", "cases": 1},
    }  # fmt: skip
    write_signed(folder / "domain.json", facts | domain)
    checkpoint.write_weights(folder / "segmentor.safetensors", Levels(slope).state_dict(), facts_of(folder))
    return folder


def facts_of(folder, **more):
    """What exported weights say about themselves."""
    return {"network": "S", "config": checkpoint.fingerprint(read_toml(folder / "config.toml"))} | more


def whole_run(folder, size, **more):
    """The same with a checkpoint of all networks."""
    folder = stand_in_run(folder, size, alignment="translating", **more)
    states = {"S": Levels().state_dict(), "G_ts": Negative().state_dict(), "": {}}
    checkpoint.write(
        folder / "checkpoint.ckpt",
        {"step": 7, "config": facts_of(folder)["config"], "networks": states, "optimizers": {}},
    )
    return folder


def greys(shape=(12, 10, 5), seed=0):
    """Random values 5, 15, ... 195, all of them far from a bound."""
    return np.random.default_rng(seed).integers(0, 20, shape).astype(np.float32) * 10 + 5


def expected(array):
    """The labels of an image, voxel by voxel."""
    return (array > 50).astype(np.uint8) + (array > 150)


def save(path, array, affine, change=lambda image: None, kind=nib.Nifti1Image):
    """Write an image with both codes 1, changed before."""
    image = kind(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    change(image)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def predict(run, images, out, **more):
    """The files that are written."""
    heard = {name: more.pop(name) for name in ("say", "report") if name in more}
    return predict_volumes(run, Path(images), Path(out), REGISTRY, PredictOptions("cpu", **more), **heard)
