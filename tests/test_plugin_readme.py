"""The plugin that plugins/README.md shows is a plugin: found by entry point, kept to the contract, trained, scored."""

import re
import shutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from conftest import train_words

from attent_kit.data.layout import Entry, Layout
from attent_kit.data.prepared import Prepared
from attent_kit.engine.settings import run_settings
from attent_kit.engine.train import train
from attent_kit.plugins import load, load_from
from attent_kit.testing import check_alignment, check_layout, check_selector

README = Path(__file__).parent.parent / "plugins/README.md"


def blocks():
    """The Python files that the guide shows, in its order."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    (tmp_path / "attentkit_coral.py").write_text(blocks()[0])
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("coral", "attentkit_coral", "attentkit")
    loaded = load_from([*entry_points(group="attentkit"), point])
    assert not loaded.quarantined
    yield loaded.registry
    sys.modules.pop("attentkit_coral", None)


def test_the_example_keeps_the_contract(registry):
    check_alignment(registry.resolve("alignments", "coral"), {"segmentor": {"encoder_depth": 3}}, registry=registry)


def test_the_example_trains_and_is_scored(registry, prepared, tmp_path):
    segmentor = {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]}
    options = {"name": "coral", "segmentor": segmentor, "segment_steps": 3}
    data = {"source": str(prepared / "mr.h5"), "target": str(prepared / "ct.h5")}
    scores = train(run_settings({"alignment": options, "data": data}, registry), tmp_path / "run", registry, "cpu")
    assert {score.alignment for score in scores} == {"coral"}


def test_the_layout_is_recognised_keeps_the_contract_and_is_prepared(attentkit, volumes, install, found, tmp_path):
    builtin = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    points = install("export", blocks()[1].replace("attentkit_export:", "attentkit_export_under_test:"))
    found([*builtin, *points])
    for case in ("ct_1", "ct_2"):
        (tmp_path / "export" / case).mkdir(parents=True)
        for kind, name in (("images", "scan"), ("labels", "organs")):
            shutil.copy(volumes / "ct" / kind / f"{case}.nii.gz", tmp_path / "export" / case / f"{name}.nii.gz")
    check_layout(load().registry.resolve("layouts", "export"), tmp_path / "export", elsewhere=volumes)
    outcome = attentkit("prepare", tmp_path / "export", "-o", tmp_path / "ct.h5", "--size", 8)
    assert outcome.code == 0 and "Background: stomach=5." in outcome.out
    domain = Prepared.open(tmp_path / "ct.h5")
    assert domain.modality == "ct" and domain.organs == ("liver", "right kidney", "left kidney", "spleen")
    # The boxes of these volumes: value 4, of 5 x 6 x 3 voxels, is the spleen's elsewhere and the liver's here.
    assert domain.manifest["cases"][0]["labels"]["voxels"]["liver"] == 90


class Unsorted(Layout):
    """Wrong in the order of its cases."""

    @classmethod
    def recognises(cls, path):
        return True

    def entries(self):
        return [Entry(name, (self.path,)) for name in ("b", "a")]

    def read(self, entry):
        raise NotImplementedError


def test_a_layout_that_breaks_the_contract_is_told_how(tmp_path):
    with pytest.raises(AssertionError, match="Unsorted.entries: give each case an id of its own, sorted by id"):
        check_layout(Unsorted, tmp_path)
    with pytest.raises(AssertionError, match="Unsorted recognises .*, which is none of its data sets"):
        check_layout(Unsorted, tmp_path, elsewhere=tmp_path)
    with pytest.raises(AssertionError, match="has no part 'T1', only"):
        check_layout(Unsorted, tmp_path, part="T1")


def test_the_selector_keeps_the_contract_scores_snapshots_and_can_be_chosen_by(
    attentkit, prepared, install, found, tmp_path
):
    builtin = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    found(
        [
            *builtin,
            *install("confidence", blocks()[2].replace("attentkit_confidence:", "attentkit_confidence_under_test:")),
        ]
    )
    check_selector(load().registry.resolve("selectors", "confidence"))
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--select", "confidence"))
    assert outcome.code == 0 and "'confidence' chose without target labels" in outcome.out
