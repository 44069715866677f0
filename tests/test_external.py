"""Rows of label maps that another tool has made: scored through the protocol of every other row, and never trained."""

import copy
import csv
import dataclasses
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from attent_kit.cli import run
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.compare.suite import read_suite
from attent_kit.engine.conduct.compare import compare
from attent_kit.engine.conduct.grid import expanded
from attent_kit.engine.conduct.request import CompareRequest
from attent_kit.errors import ConfigError, DataError
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from support.cases import AFFINE, BOXES, contents, write_case
from support.commands import SUITE, says
from support.messages import quotes

REGISTRY = load().registry
ROW = """
[[rows]]
label = "Other tool"
predictions = {predictions}
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The label map of ct_3 as it is drawn but for its liver, which is shifted by two voxels: Dice of the others is 1."""
    folder = tmp_path_factory.mktemp("drawn")
    write_case(folder, "ct_3", "ct", seed=3)
    labels = np.asarray(nib.load(folder / "labels" / "ct_3.nii.gz").dataobj).copy()
    labels[labels == 1] = 0
    x, y, z = BOXES[1]
    labels[x.start : x.stop, y.start + 2 : y.stop + 2, z] = 1
    save(folder / "maps" / "ct_3.nii.gz", labels)
    return folder / "maps"


def save(path, labels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), path)


def values_of(maps):
    return np.asarray(nib.load(maps / "ct_3.nii.gz").dataobj)


def of_one_row(text):
    """Without its second row, and options that no other has."""
    return re.sub(r"(?m)^(translat|image_disc|entropy_disc).*\n", "", text[: text.rindex("[[rows]]")])


def suite_of(folder, prepared, predictions, more="", rows="", seeds="[0]", directions='["mr2ct"]'):
    """W/o adaptation and label maps."""
    text = SUITE.format(prepared=prepared).replace('["mr2ct", "ct2mr"]', directions).replace("[0, 1]", seeds)
    text = of_one_row(text)
    where = predictions if str(predictions).startswith("{") else f'"{predictions}"'
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "suite.toml"
    text = text.replace("settings =", f"{more}\nsettings =") + ROW.format(predictions=where) + rows
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def made(prepared, drawn, tmp_path_factory):
    """A finished comparison of two seeds with such a row, which says what it has seen; its suite and its folder."""
    folder = tmp_path_factory.mktemp("made")
    words = 'seen = "1204 CT of other people"\n'
    suite = suite_of(folder, prepared, drawn, 'attribution = "Boxes, CC BY 4.0."', words, seeds="[0, 1]")
    out = folder / "out"
    assert run(["compare", str(suite), "-o", str(out), "-d", "cpu"]) == 0
    return suite, out


def of_row(scores, row="Other tool"):
    return [score for score in scores if score.alignment == row]


# Scores


def test_label_maps_are_scored_by_the_protocol_of_every_other_row(made, drawn, prepared, volumes, attentkit):
    _, out = made
    own = of_row(read_scores(out / "scores.csv"))
    dice = {score.organ: score.value for score in own if score.metric == "dice"}
    assert dice.pop("liver") == pytest.approx(0.75, abs=1e-6)
    assert {*dice.values()} == {1.0}
    assert {(score.seed, score.selection, score.case) for score in own} == {(None, "external", "ct_3")}
    alone = attentkit("evaluate", drawn, volumes / "ct" / "labels", "--json")
    expected = {(s["organ"], s["metric"]): s["value"] for s in json.loads(alone.out)}
    assert {(s.organ, s.metric): s.value for s in own} == pytest.approx(expected)


def test_the_row_is_stamped_wherever_it_is_shown(made):
    _, out = made
    said = "Other tool: external"
    seen = "1204 CT of other people"
    table = (out / "table.md").read_text()
    assert said in table and seen in table
    assert re.search(r"\| Other tool \|.*\| external \|", table)
    with (out / "table.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["method"] == "Other tool"]
    assert {(line["origin"], line["selection"], line["source"]) for line in lines} == {("external", "external", seen)}
    latex = (out / "table.tex").read_text()
    assert said in latex and seen in latex and re.search(r"^Other tool &.*& external", latex, re.MULTILINE)
    page = (out / "report.html").read_text()
    assert ">external<" in page and seen in page and "Boxes, CC BY 4.0." in page
    figure = (out / "figure-mr2ct.svg").read_text()
    assert "Other tool (external)" in figure and "Boxes, CC BY 4.0." in figure
    assert all(word in figure for word in seen.split())


def test_it_has_one_value_a_patient_and_is_never_the_best(made):
    _, out = made
    table = (out / "table.md").read_text()
    assert not re.search(r"\| Other tool \|.*\*\*", table)
    assert not (out / "ranks.csv").exists()
    with (out / "comparisons.csv").open(newline="") as file:
        found = [line for line in csv.DictReader(file) if line["method"] == "Other tool"]
    assert {(line["cases"], line["seeds"], line["reference_seeds"]) for line in found if line["metric"] == "dice"} == {
        ("1", "", "2")
    }
    assert quotes(table, "Other tool: external", "one set of label maps", "2 seeds", "no SD")
    (said,) = {line["sentence"] for line in found if line["metric"] == "dice" and line["organ"] == "average"}
    assert quotes(said, "Other tool", "one set of label maps against ... 2 seeds")
    page = (out / "report.html").read_text()
    assert "one set of label maps against" in page and "Label maps of another tool are one set" in table


def test_where_nobody_says_what_it_has_seen_the_stamp_says_unknown(prepared, drawn, tmp_path, attentkit):
    out = tmp_path / "out"
    suite = suite_of(tmp_path, prepared, drawn)
    assert "seen: unknown" in attentkit("compare", suite, "-o", out, "--dry-run").out
    assert attentkit("compare", suite, "-o", out, "-d", "cpu", "--no-report").code == 0
    assert "trained on is unknown" in (out / "table.md").read_text()


# Commands


def test_a_dry_run_a_plan_status_and_the_report_know_it(made, attentkit):
    suite, out = made
    cells = json.loads(attentkit("compare", suite, "-o", out, "--dry-run", "--json").out)
    assert [(c["row"], c["seed"], c["done"]) for c in cells if c["alignment"] is None] == [("Other tool", None, True)]
    price = json.loads(attentkit("compare", suite, "-o", out, "--plan", "--json").out)
    assert [(e["row"], e["seconds"]) for e in price["external"]] == [("Other tool", 0)]
    assert "Other tool" not in {stage["row"] for stage in price["stages"]}
    states = json.loads(attentkit("status", out, "--json").out)
    assert [(s["row"], s["seed"], s["state"]) for s in states if s["seed"] is None] == [("Other tool", None, "done")]
    assert "external" in attentkit("status", out).out
    before = {name: text for name, text in contents(out).items() if name.startswith("table")}
    page = (out / "report.html").read_text()
    assert attentkit("report", out).code == 0
    assert {name: text for name, text in contents(out).items() if name.startswith("table")} == before
    assert (out / "report.html").read_text() == page


def test_what_is_scored_is_not_scored_again_until_a_file_or_its_meaning_changes(prepared, drawn, tmp_path, monkeypatch):
    maps = shutil.copytree(drawn, tmp_path / "maps")
    suite = suite_of(tmp_path, prepared, maps)
    out = tmp_path / "out"

    def scored():
        result = compare(CompareRequest(suite, out=out, devices=["cpu"], report=False), REGISTRY).check()
        return {s.organ: s.value for s in of_row(result.scores) if s.metric == "dice"}

    assert scored()["liver"] == pytest.approx(0.75)
    file = out / "mr2ct" / "other-tool" / "external" / "scores.csv"
    before = file.stat().st_mtime_ns
    assert scored()["liver"] == pytest.approx(0.75)
    assert file.stat().st_mtime_ns == before
    save(maps / "ct_3.nii.gz", np.where(values_of(maps) == 1, 0, values_of(maps)))
    assert scored()["liver"] == 0
    suite_of(tmp_path, prepared, maps, rows='organs = "liver=4,right kidney=2,left kidney=3,spleen=1"\n')
    assert scored()["spleen"] == 0


def test_a_folder_for_each_direction_or_for_some(prepared, drawn, tmp_path):
    both = '["mr2ct", "ct2mr"]'
    suite = suite_of(tmp_path, prepared, f'{{ mr2ct = "{drawn}" }}', directions=both)
    grid = expanded(CompareRequest(suite, out=tmp_path / "out"), REGISTRY)
    assert [(e.row, e.direction) for e in grid.externals] == [("Other tool", "mr2ct")]
    only = expanded(CompareRequest(suite, out=tmp_path / "out", directions=["ct2mr"]), REGISTRY)
    assert only.externals == ()


def test_values_of_another_tool_and_names_of_its_images(prepared, drawn, tmp_path):
    """TotalSegmentator's values, a spleen that is called otherwise, a file in another axis order, and organs of no interest."""
    theirs = np.zeros((32, 32, 4), np.uint8)
    for value, own in ((5, 1), (2, 2), (3, 3), (1, 4)):
        theirs[values_of(drawn) == own] = value
    theirs[0, 0, 0] = 90
    flipped = AFFINE @ np.array([[-1.0, 0, 0, 31], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    save(tmp_path / "maps" / "ct_3.nii.gz", theirs[::-1], flipped)
    words = 'organs = "liver=5,kidney_right=2,kidney_left=3,spleen=1,*=0"\n'
    suite = suite_of(tmp_path, prepared, tmp_path / "maps", rows=words)
    result = compare(CompareRequest(suite, out=tmp_path / "out", devices=["cpu"], report=False), REGISTRY).check()
    dice = {s.organ: s.value for s in of_row(result.scores) if s.metric == "dice"}
    assert dice["liver"] == pytest.approx(0.75) and dice["spleen"] == dice["left kidney"] == 1


def test_a_label_map_may_be_called_as_its_image(prepared, drawn, tmp_path):
    maps = tmp_path / "maps"
    save(maps / "scan7_0000.nii", values_of(drawn))
    shutil.copytree(drawn, tmp_path / "named")
    suite = suite_of(tmp_path, prepared, tmp_path / "named")
    (external,) = expanded(CompareRequest(suite, out=tmp_path / "out"), REGISTRY).externals
    external = dataclasses.replace(external, predictions=maps)
    with pytest.raises(DataError, match="ct_3"):
        external.files()
    manifest = copy.deepcopy(external.target.manifest)
    next(r for r in manifest["cases"] if r["id"] == "ct_3")["image"]["name"] = "images/scan7_0000.nii.gz"
    external.__dict__["target"] = Prepared(external.file, manifest)
    assert external.files() == {"ct_3": maps / "scan7_0000.nii"}


def test_with_folds_every_patient_is_scored(volumes, tmp_path, attentkit):
    for modality in ("ct", "mr"):
        words = ["prepare", volumes / modality / "images", "--labels", volumes / modality / "labels", "--train", "all"]
        words += ["-o", tmp_path / f"{modality}.h5", "--modality", modality, "--size", 32]
        assert run([str(word) for word in words]) == 0
    suite = suite_of(tmp_path, tmp_path, volumes / "ct" / "labels", more="folds = 3")
    out = tmp_path / "out"
    assert attentkit("compare", suite, "-o", out, "-d", "cpu", "--no-report").code == 0
    own = [s for s in of_row(read_scores(out / "scores.csv")) if s.metric == "dice"]
    assert {s.case for s in own} == {"ct_1", "ct_2", "ct_3"} and {s.value for s in own} == {1.0}
    assert "so far" not in (out / "table.md").read_text()


def test_the_phantom_of_a_suite_is_held_against_label_maps_before_anything_is_trained(tmp_path, attentkit):
    head, _, rest = of_one_row(SUITE.format(prepared="")).partition("[domains]")
    file = tmp_path / "suite.toml"
    rows = rest.partition("[options]")[2] + ROW.format(predictions='"maps"')
    file.write_text(head.replace(', "ct2mr"', "") + '[phantom]\nsize = "small"\n[options]' + rows)
    says(attentkit("compare", file, "-o", tmp_path / "out", "--dry-run"), 3, "'Other tool'", "maps is not a folder")


# Bad input


def refused(prepared, tmp_path, predictions, error=DataError, **more):
    with pytest.raises(error) as raised:
        expanded(CompareRequest(suite_of(tmp_path, prepared, predictions, **more), out=tmp_path / "out"), REGISTRY)
    assert not (tmp_path / "out").exists()
    return str(raised.value)


def test_a_folder_that_is_missing_and_a_case_that_is_missing(prepared, tmp_path):
    assert "'Other tool'" in refused(prepared, tmp_path, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    said = refused(prepared, tmp_path, tmp_path / "empty")
    assert "no label map of ct_3" in said and "ct_3.nii.gz" in said


def test_another_grid_and_unknown_values(prepared, drawn, tmp_path):
    save(
        tmp_path / "moved" / "ct_3.nii.gz",
        values_of(drawn),
        AFFINE + np.eye(4)[:, [3]] @ [[0, 0, 0, 0]] + 5 * np.eye(4, k=3),
    )
    assert "grid" in refused(prepared, tmp_path, tmp_path / "moved")
    save(tmp_path / "cut" / "ct_3.nii.gz", values_of(drawn)[1:])
    assert "31x32x4" in refused(prepared, tmp_path, tmp_path / "cut")
    save(tmp_path / "strange" / "ct_3.nii.gz", np.where(values_of(drawn) == 4, 7, values_of(drawn)))
    assert "value 7" in refused(prepared, tmp_path, tmp_path / "strange")


def test_organs_that_lack_one_and_values_that_are_none(prepared, drawn, tmp_path):
    said = refused(prepared, tmp_path, drawn, ConfigError, rows='organs = "liver=1,spleen=4,*=0"\n')
    assert "right kidney, left kidney" in said
    with pytest.raises(ConfigError, match="organ=value"):
        read_suite(suite_of(tmp_path, prepared, drawn, rows='organs = "liver"\n'), REGISTRY)


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ('alignment = "attent"\n', "alignment"),
        ("options = { segment_steps = 3 }\n", "options"),
        ('[[rows]]\nlabel = "Nothing"\n', "neither"),
        ('[[rows]]\nlabel = "Trained"\nalignment = "attent"\nseen = "all"\n', "seen"),
        ('seen = ""\n', "trained on"),
    ],
)
def test_a_row_is_trained_or_external_and_not_both(prepared, drawn, tmp_path, rows, word):
    with pytest.raises(ConfigError, match=word):
        read_suite(suite_of(tmp_path, prepared, drawn, rows=rows), REGISTRY)


def test_a_single_folder_for_two_directions_and_a_direction_that_there_is_not(prepared, drawn, tmp_path):
    both = '["mr2ct", "ct2mr"]'
    assert "predictions = { mr2ct" in refused(prepared, tmp_path, drawn, ConfigError, directions=both)
    with pytest.raises(ConfigError, match="mr2cd"):
        read_suite(suite_of(tmp_path, prepared, f'{{ mr2cd = "{drawn}" }}'), REGISTRY)


def test_scores_that_somebody_has_spoilt_are_made_again(made, tmp_path, attentkit):
    suite, out = made
    copy = shutil.copytree(out, tmp_path / "out")
    scores = copy / "mr2ct" / "other-tool" / "external" / "scores.csv"
    whole = scores.read_text()
    scores.write_text(whole[:200])
    assert attentkit("compare", suite, "-o", copy, "-d", "cpu", "--no-report").code == 0
    assert scores.read_text() == whole
