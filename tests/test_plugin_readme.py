"""The plugin that plugins/README.md shows is a plugin: found by entry point, kept to the contract, trained, scored."""

import re
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from attent_kit.engine.settings import run_settings
from attent_kit.engine.train import train
from attent_kit.plugins import load_from
from attent_kit.testing import check_alignment

README = Path(__file__).parent.parent / "plugins/README.md"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "attentkit_coral.py").write_text(code)
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
