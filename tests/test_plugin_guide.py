"""The plugin that the tutorial shows is a plugin: found by entry point, kept to the contract, trained, scored."""

import re
import shutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.layouts import Entry, Layout
from attent_kit.plugins import load
from attent_kit.scaffold import new_plugin
from attent_kit.testing import Subject, check_alignment, check_layout, check_selector, checks_of, judge
from support.commands import train_words

GUIDE = [Path(__file__).parent.parent / "docs" / page for page in ("tutorials/write_a_method.md", "howto/plugins.md")]


def guide():
    """Both pages."""
    return "\n".join(page.read_text(encoding="utf-8") for page in GUIDE)


def blocks():
    """The Python files that the guide shows, in its order."""
    return re.findall(r"```python\n(.*?)```", guide(), flags=re.DOTALL)


def block(name):
    """The file of that name that the guide shows."""
    (text,) = [text for text in blocks() if text.startswith(f"# {name}\n")]
    return text


@pytest.fixture
def site(tmp_path, monkeypatch, found):
    """The package of the guide, importable; it and the built-ins are what is installed."""
    package = tmp_path / "site/attentkit_coral"
    package.mkdir(parents=True)
    for name, text in zip(("__init__", "alignment"), blocks(), strict=False):
        assert text.startswith(f"# attentkit_coral/{name}.py\n")
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    points = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    found([*points, EntryPoint("coral", "attentkit_coral", "attentkit")])
    assert not load().quarantined
    yield package
    for name in ("attentkit_coral", "attentkit_coral.alignment"):
        sys.modules.pop(name, None)


def test_the_example_keeps_the_contract(site):
    registry = load().registry
    check_alignment(registry.alignment("coral"), {"segmentor": {"encoder_depth": 3}}, registry=registry)


def test_the_example_passes_the_checks_that_need_no_second_process(site):
    coral = Subject.small(load().registry.find("alignments", "coral"), load().registry, module="attentkit_coral")
    verdicts = [judge(check, coral) for check in checks_of("alignments") if check.name != "two-processes"]
    assert [(v.check, v.found) for v in verdicts if v.outcome != "pass"] == []
    assert 34 <= len(verdicts) <= 36  # "about thirty-five", as the texts say; two-processes is one more


def test_the_example_says_how_far_apart_covariances_are(site):
    from attentkit_coral.alignment import coral

    f_s = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 1, 2, 2)
    # Variance 4/3 with n - 1 = 3 in the denominator, against 0: (4/3)^2 / (4 * 1^2).
    assert coral(f_s, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(16 / 9 / 4)
    assert coral(f_s, f_s + 5).item() == 0


def test_the_example_is_a_row_of_the_table(attentkit, site, suite, tmp_path):
    words = ("-m", "source_only,coral", "--seeds", 0, "--directions", "mr2ct", "-d", "cpu", "-o", tmp_path / "out")
    outcome = attentkit("compare", suite, *words)
    assert outcome.code == 0, outcome.err
    rows = [line for line in (tmp_path / "out/table.md").read_text().splitlines() if line.startswith("| coral |")]
    assert len(rows) >= 2, "one in the table of Dice and one in that of distances"


def test_the_entry_point_is_that_of_a_new_project(tmp_path):
    new_plugin("coral", "alignment", tmp_path / "p")
    (declared,) = re.findall(r"```toml\n(.*?)```", guide(), flags=re.DOTALL)
    assert declared in (tmp_path / "p/pyproject.toml").read_text()


def test_the_layout_is_recognised_keeps_the_contract_and_is_prepared(attentkit, volumes, install, found, tmp_path):
    builtin = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    points = install(
        "export", block("attentkit_export.py").replace("attentkit_export:", "attentkit_export_under_test:")
    )
    found([*builtin, *points])
    for case in ("ct_1", "ct_2"):
        (tmp_path / "export" / case).mkdir(parents=True)
        for kind, name in (("images", "scan"), ("labels", "organs")):
            shutil.copy(volumes / "ct" / kind / f"{case}.nii.gz", tmp_path / "export" / case / f"{name}.nii.gz")
    check_layout(load().registry.layout("export"), tmp_path / "export", elsewhere=volumes)
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
    with pytest.raises(AssertionError, match="Unsorted.entries"):
        check_layout(Unsorted, tmp_path)
    with pytest.raises(AssertionError, match=f"Unsorted recognises {tmp_path}"):
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
            *install(
                "confidence",
                block("attentkit_confidence.py").replace("attentkit_confidence:", "attentkit_confidence_under_test:"),
            ),
        ]
    )
    check_selector(load().registry.selector("confidence"))
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--select", "confidence"))
    assert outcome.code == 0 and "'confidence' chose without target labels" in outcome.out
