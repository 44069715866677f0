"""`import attent_kit as ak`: the list of what it offers, and that each does what its command does."""

import io
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

import attent_kit as ak
from support.commands import SUITE, TINY

DOOR = [
    "AttentKitError", "ConfigError", "DataError", "INTERFACE_VERSION", "RunError", "__version__", "check", "compare",
    "components", "doctor", "hookimpl", "open_prepared", "open_run", "phantom", "prepare", "score", "train",
]  # fmt: skip
WORDS = [word.removeprefix("--set=") for word in TINY]


def test_the_door_is_this_list():
    assert sorted(ak.__all__) == DOOR == dir(ak)
    for name in ak.__all__:
        assert getattr(ak, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        ak.nothing_of_the_kind  # noqa: B018


def test_importing_it_imports_nothing_heavy():
    program = (
        "import json, sys; import attent_kit as ak; before = set(sys.modules); ak.ConfigError; dir(ak)\n"
        "print(json.dumps([m for m in ('torch', 'numpy', 'pydantic', 'attent_kit.door') if m in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(answer.stdout) == []


def test_components_are_those_of_the_registry():
    names = {component.name for component in ak.components("alignments")}
    assert {"attent", "source_only", "supervised"} <= names
    assert {"translators", "layouts", "suites"} <= {component.kind for component in ak.components()}
    with pytest.raises(ak.ConfigError, match="alignments"):
        ak.components("alignment")


def test_a_data_set_is_prepared_opened_and_checked(volumes, prepared, tmp_path):
    made = ak.prepare(
        volumes / "ct" / "images", tmp_path / "ct.h5", labels=volumes / "ct" / "labels", modality="ct", size=32,
        train="ct_1", val="ct_2", test="ct_3", preview=tmp_path / "ct.png",
    )  # fmt: skip
    assert made.ids("test") == ("ct_3",) and made.organs[0] == "liver"
    assert (tmp_path / "ct.png").stat().st_size > 0
    assert ak.open_prepared(tmp_path / "ct.h5").content_hash() == ak.open_prepared(prepared / "ct.h5").content_hash()
    assert ak.check(tmp_path / "ct.h5").cases == 3
    with pytest.raises(ak.ConfigError, match=r"modalty.*modality"):
        ak.prepare(volumes / "ct" / "images", tmp_path / "other.h5", modalty="ct")
    with pytest.raises(ak.DataError, match="nowhere"):
        ak.prepare(tmp_path / "nowhere", tmp_path / "other.h5")


def test_a_run_is_trained_opened_and_asked(volumes, prepared, tmp_path):
    files = {"source": prepared / "mr.h5", "target": prepared / "ct.h5"}
    trained = ak.train("source_only", **files, out=tmp_path / "run", device="cpu", set=WORDS)
    frame = trained.scores.to_frame()
    assert set(frame["case"]) == {"ct_3"} and len(frame) == len(trained.scores)
    assert "liver" in trained._repr_html_() and "average" in trained.scores._repr_html_()
    assert "<b>" not in trained.scores._repr_html_().partition("<tbody>")[2]

    run = ak.open_run(tmp_path / "run", device="cpu")
    path = volumes / "ct" / "images" / "ct_3.nii.gz"
    found = run.predict(nib.load(path))
    assert np.array_equal(found.labels.affine, nib.load(path).affine)
    assert np.array_equal(np.asarray(run.predict(path).labels.dataobj), np.asarray(found.labels.dataobj))
    scores = ak.score(found.labels, volumes / "ct" / "labels" / "ct_3.nii.gz")
    dice = {s.organ: s.value for s in scores if s.metric == "dice"}
    assert dice == {s.organ: s.value for s in trained.scores if s.metric == "dice"}
    with pytest.raises(ak.ConfigError, match="translat"):
        run.translate(path)


def test_a_method_that_is_misspelt_is_told_its_neighbour(prepared):
    with pytest.raises(ak.ConfigError, match=r"atent.*attent"):
        ak.train("atent", source=prepared / "mr.h5", target=prepared / "ct.h5")
    with pytest.raises(ak.ConfigError, match=r"sorce.*source"):
        ak.train("attent", sorce=prepared / "mr.h5")


def test_a_comparison_shows_itself(prepared, tmp_path):
    suite = tmp_path / "tiny.toml"
    suite.write_text(SUITE.format(prepared=prepared), encoding="utf-8")
    compared = ak.compare(suite, seeds=[0], directions=["mr2ct"], devices=["cpu"], out=tmp_path / "out", report=False)
    assert compared.check() is compared
    assert {score.alignment for score in compared.scores} == {"W/o adaptation", "AttENT"}
    dice = compared.tables[0].to_frame()
    assert list(dice.index) == ["W/o adaptation", "AttENT"] and list(dice.columns)[-1] == "average"
    assert "W/o adaptation" in compared._repr_html_() and "<table>" in compared._repr_html_()
    shown = rich_text(compared)
    assert "AttENT" in shown and "Boxes and noise." in shown
    assert {c.method for c in compared.comparisons} == {"AttENT"}


def test_what_others_call_things_is_no_markup(prepared, tmp_path):
    suite = tmp_path / "tiny.toml"
    text = SUITE.format(prepared=prepared).replace('label = "AttENT"', 'label = "<b>A[/]</b>"')
    suite.write_text(text, encoding="utf-8")
    compared = ak.compare(suite, seeds=[0], directions=["mr2ct"], devices=["cpu"], out=tmp_path / "out", report=False)
    assert "&lt;b&gt;A[/]&lt;/b&gt;" in compared._repr_html_()
    assert "<b>A[/]</b>" in rich_text(compared)


def rich_text(value):
    """What rich prints of a value."""
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(value)
    return console.export_text()
