"""Small volumes, prepared files and a trained run that several tests share. Nobody writes into them."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from attent_kit import plugins
from attent_kit.cli import run

AFFINE = np.array([[2.0, 0, 0, -31], [0, 2.0, 0, -31], [0, 0, 5.0, 10], [0, 0, 0, 1]])
"""RAS, 2 x 2 x 5 mm."""
BOXES = {
    1: (slice(18, 28), slice(18, 26), slice(1, 4)),
    2: (slice(19, 25), slice(6, 12), slice(1, 3)),
    3: (slice(7, 13), slice(6, 12), slice(1, 3)),
    4: (slice(4, 9), slice(16, 22), slice(1, 4)),
}
"""Liver, right kidney, left kidney and spleen; the patient's right is at high x."""
GREY = {"ct": (40, 110, 170, 170, 130), "mr": (200, 300, 520, 520, 620)}
"""Of the body and of each organ."""
TINY = [
    f"--set={option}"
    for option in (
        "segment_steps=3", "segment_batch_size=2", "segmentor.encoder=tu-test_resnet", "segmentor.encoder_depth=3",
        "segmentor.decoder_channels=[16,8,8]", "save_seconds=0", "log_steps=1", "precision=32-true",
    )
]  # fmt: skip
"""Options of a run that takes a second on a processor."""


class Outcome(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def attentkit(capsys: pytest.CaptureFixture[str]) -> Command:
    """`attentkit("train", ...)` in this process."""

    def command(*words: object) -> Outcome:
        capsys.readouterr()
        return Outcome(run([str(word) for word in words]), *capsys.readouterr())

    return command


def write_case(folder: Path, case: str, modality: str = "ct", seed: int = 0) -> None:
    """FOLDER/images/CASE.nii.gz and FOLDER/labels/CASE.nii.gz, 32 x 32 x 4 voxels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((32, 32, 4), np.uint8)
    for organ, box in BOXES.items():
        labels[box] = organ
    image = np.asarray(GREY[modality], np.float32)[labels] + rng.normal(0, 8, labels.shape).astype(np.float32)
    image[:2] = image[-2:] = -1000 if modality == "ct" else 0
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{case}.nii.gz")


def without_bytecode() -> dict[str, str]:
    """The environment of a process whose files are cut off: bytecode that is cut off too would be there for all later ones."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, hidden ones too, lock files left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """{ct,mr}/{images,labels}/<modality>_1..3.nii.gz."""
    folder = tmp_path_factory.mktemp("volumes")
    for n, modality in enumerate(("ct", "mr")):
        for case in (1, 2, 3):
            write_case(folder / modality, f"{modality}_{case}", modality, seed=10 * n + case)
    return folder


@pytest.fixture(scope="session")
def prepared(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mr.h5 and ct.h5: 32 x 32 pixels, case 1 for training, 2 for validation, 3 for testing."""
    folder = tmp_path_factory.mktemp("prepared")
    for modality in ("ct", "mr"):
        assert run(prepare_words(volumes / modality, folder / f"{modality}.h5", modality)) == 0
    return folder


@pytest.fixture(scope="session")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of source_only, MR to CT."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(train_words(prepared, folder)) == 0
    return folder


def prepare_words(folder: Path, out: Path, modality: str = "ct", *more: object) -> list[str]:
    """`prepare` of a folder of `write_case`, at its own 32 pixels, one case a split."""
    words = ["prepare", folder / "images", "--labels", folder / "labels", "--out", out, "--modality", modality]
    split = [f"--{name}={modality}_{n}" for n, name in enumerate(("train", "val", "test"), start=1)]
    return [str(word) for word in [*words, "--size", 32, *split, *more]]


def train_words(prepared: Path, out: Path, *more: object, alignment: str = "source_only") -> list[str]:
    """`train` from MR to CT with TINY options."""
    words = ["train", alignment, "-s", prepared / "mr.h5", "-t", prepared / "ct.h5", "-d", "cpu", "-o", out]
    return [str(word) for word in [*words, *TINY, *more]]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(name, source)` writes a distribution attentkit-<name>; the entry points so far are the answer."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = []

    def write(name, source, version="1.0"):
        module = f"attentkit_{name}_under_test"
        (site / f"{module}.py").write_text(source)
        info = site / f"attentkit_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: attentkit-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[attentkit]\n{name} = {module}\n")
        modules.append(module)
        return [point for each in distributions(path=[str(site)]) for point in each.entry_points]

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def found(monkeypatch):
    """`found(points, only)` makes these the installed plugins and the environment variable."""

    def these(points, only=None):
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)
        monkeypatch.delenv("ATTENTKIT_PLUGINS", raising=False)
        if only is not None:
            monkeypatch.setenv("ATTENTKIT_PLUGINS", only)
        plugins.load.cache_clear()

    yield these
    plugins.load.cache_clear()


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def suite(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two rows on `prepared`, both directions, two seeds."""
    file = tmp_path_factory.mktemp("suite") / "tiny.toml"
    file.write_text(SUITE.format(prepared=prepared), encoding="utf-8")
    return file


SUITE = """
name = "tiny"
title = "Tiny"
note = "Boxes and noise."
directions = ["mr2ct", "ct2mr"]
seeds = [0, 1]
settings = {{ precision = "32-true", save_seconds = 0.0 }}

[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"

[options]
segment_steps = 2
translate_steps = 2
segment_batch_size = 2
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
translator = {{ width = 4, blocks = 1 }}
image_discriminator = {{ width = 4, layers = 1 }}
entropy_discriminator = {{ width = 4 }}

[[rows]]
label = "W/o adaptation"
alignment = "source_only"

[[rows]]
label = "AttENT"
alignment = "attent"
"""
