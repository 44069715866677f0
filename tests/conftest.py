"""Small volumes, prepared files and a trained run that several tests share. Nobody writes into them."""

import os
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from attent_kit import plugins
from attent_kit.cli import run
from attent_kit.engine.run import processor
from support.cases import write_case
from support.commands import SUITE, Command, Outcome, prepare_words, train_words

BEGUN_FIRST = (
    "test_slurm", "test_ray_cluster", "test_processes", "test_plugin_distributions", "test_streams", "test_comparisons",
    "test_docs", "test_plan", "test_export", "test_resume", "test_prepare_resume", "test_more_steps", "test_fuzz",
)  # fmt: skip
"""Files that take longest, the first of them waiting for other processes: begun at the end, they would run alone."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`--numprocesses auto`: one more than there are cores, since some tests wait."""
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: n for n, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison runs in this process unless a test names --devices."""
    monkeypatch.setattr(processor, "cores", lambda: 1)


@pytest.fixture
def attentkit(capsys: pytest.CaptureFixture[str]) -> Command:
    """`attentkit("train", ...)` in this process."""

    def command(*words: object) -> Outcome:
        capsys.readouterr()
        return Outcome(run([str(word) for word in words]), *capsys.readouterr())

    return command


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
