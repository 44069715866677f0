"""The command line: what it prints, what it writes, and what it leaves alone."""

import importlib
import json
import shutil
import subprocess
import sys

import click
import nibabel as nib
import numpy as np
import pytest

from attent_kit.cli import COMMANDS
from attent_kit.describe import learns_from
from attent_kit.plugins import load
from attent_kit.registry import KINDS, Component
from attent_kit.report.scores import read_scores
from support.adapting_methods import AtTestTime, SourceFree
from support.cases import AFFINE, contents
from support.commands import prepare_words, train_words
from support.messages import quotes

COMPONENTS = [component.name for kind in KINDS for component in load().registry.of(kind)]


def strict(text):
    """JSON as the standard has it, without NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Commands and components


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_says_what_it_does(name, attentkit):
    command = importlib.import_module(f"attent_kit.cli.{name}").command
    assert isinstance(command, click.Command) and command.name == name
    assert all(p.help for p in command.params if isinstance(p, click.Option))
    outcome = attentkit(name, "--help")
    assert outcome.code == 0
    assert f"Usage: attentkit {name}" in outcome.out


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_lists_every_command_with_its_sentence(attentkit, words):
    attentkit("list")
    outcome = attentkit(*words)
    assert outcome.code == 0
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    assert [line for line in lines if line and line[0] in COMMANDS] == [[n, s] for n, s in COMMANDS.items()]


def test_without_a_command_help_is_shown(attentkit):
    attentkit("list")
    outcome = attentkit()
    assert outcome.code == 2
    assert "Commands:" in outcome.err


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list"], ["list", "--json"], ["plugins", "--json"], ["prepare", "--help"]]
)
def test_commands_that_compute_nothing_do_not_import_torch(words):
    script = f"import sys; from attent_kit.cli import run; sys.exit(run({words}) or 9 * ('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0


def test_list_names_every_component_and_suite(attentkit):
    listed = strict(attentkit("list", "--json").out)
    assert {(c["kind"], c["name"]) for c in listed} == {(c.kind, c.name) for c in load().registry}
    assert all(c["summary"] and c["distribution"] and c["version"] for c in listed)
    table = attentkit("list").out
    assert all(c["name"] in table and c["summary"] in table for c in listed)


def test_list_of_one_kind_names_no_other(attentkit):
    assert {c["kind"] for c in strict(attentkit("list", "alignments", "--json").out)} == {"alignments"}


def test_list_of_methods_or_segmentors_says_what_each_takes_and_of_methods_what_they_learn_from(attentkit):
    found = {c["name"]: c for c in strict(attentkit("list", "alignments", "--json").out)}
    for component in load().registry.of("alignments"):
        dims, takes = component.load().dims, found[component.name]["takes"]
        assert ("3-D" in takes) == (3 in dims) and ("2-D" in takes) == ("2.5-D" in takes) == (2 in dims)
    assert found["source_only"]["takes"] == ["2-D", "2.5-D", "3-D"] and found["source_only"]["learns_from"] == [
        "source"
    ]
    assert found["attent"]["takes"] == ["2-D", "2.5-D"] and found["attent"]["learns_from"] == ["source", "target"]
    assert found["supervised"]["learns_from"] == ["source", "target with labels"]
    segmentors = strict(attentkit("list", "segmentors", "--json").out)
    assert {tuple(c["takes"]) for c in segmentors if c["plugin"] == "builtin"} == {("2-D", "2.5-D")}
    table = attentkit("list", "alignments").out
    assert "learns from" in table and "2-D, 2.5-D, 3-D" in table
    assert "takes" not in strict(attentkit("list", "layouts", "--json").out)[0]


def test_show_says_what_a_method_takes_and_learns_from(attentkit):
    shown = attentkit("show", "supervised").out
    assert "takes: 2-D: slices, 2.5-D" in shown and "3-D: patches of volumes" in shown
    assert "learns from: source; target with labels" in shown


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (SourceFree, ["a run or other weights (--from), never the source", "target"]),
        (AtTestTime, ["a run or other weights (--from), never the source", "target", "each volume at test time"]),
    ],
)
def test_what_starts_from_a_run_and_what_adapts_at_test_time_is_said(method, words):
    assert learns_from(Component("alignments", "theirs", method, "p", "d", "0")) == words


def test_a_component_that_cannot_be_imported_is_still_listed(attentkit, monkeypatch):
    broken = Component("segmentors", "broken", "nowhere_at_all:Net", "p", "d", "0")
    monkeypatch.setattr("attent_kit.cli.list.components", lambda kind: [broken])
    outcome = attentkit("list", "segmentors")
    assert outcome.code == 0 and "broken" in outcome.out and "cannot be imported from nowhere_at_all:Net" in outcome.err


def test_plugins_says_what_the_built_in_one_offers(attentkit):
    (builtin,) = [p for p in strict(attentkit("plugins", "--json").out)["plugins"] if p["name"] == "builtin"]
    assert {"alignments:attent", "segmentors:smp", "suites:phantom"} <= set(builtin["offers"])
    assert "builtin" in attentkit("plugins").out


@pytest.mark.parametrize("name", sorted(set(COMPONENTS)))
def test_every_option_of_every_component_has_a_meaning(attentkit, name):
    for component in strict(attentkit("show", name, "--json").out):
        assert component["name"] == name
        for option in component["options"]:
            assert option["meaning"].strip(), f"{component['kind']} {name}: {option['name']}"
    assert attentkit("show", name).code == 0


# prepare and train


def test_prepare_prints_its_manifest_as_json(attentkit, volumes, tmp_path):
    manifest = strict(attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--json")).out)
    assert manifest["splits"] == {"train": ["ct_1"], "val": ["ct_2"], "test": ["ct_3"]}
    assert manifest["intensity"] == {"kind": "window", "low": -125.0, "high": 275.0}


def test_prepare_says_what_it_doubts(attentkit, volumes, tmp_path):
    words = [
        volumes / "ct" / "images",
        "--out",
        tmp_path / "ct.h5",
        "--modality",
        "ct",
        "--size",
        32,
        "--allow-unlabelled",
    ]
    outcome = attentkit("prepare", *words, "--train", "ct_1", "--test", "ct_1,ct_2")
    assert outcome.code == 0
    nowhere, twice = outcome.err.splitlines()
    assert quotes(nowhere, "Warning: ", "no split", "ct_3") and quotes(twice, "Warning: ", "several splits", "ct_1")


def test_a_run_leaves_everything_in_its_folder(trained):
    assert {p.name for p in trained.iterdir()} >= {
        "config.toml", "domain.json", "env.json", "log.jsonl", "checkpoint.ckpt", "segmentor.safetensors", "scores.csv",
    }  # fmt: skip
    assert [p.name for p in (trained / "predictions").iterdir()] == ["ct_3.nii.gz"]
    assert [json.loads(line)["step"] for line in (trained / "log.jsonl").read_text().splitlines()] == [0, 1, 2]


def test_training_again_trains_nothing_and_scores_the_same(attentkit, own_run, prepared):
    before = contents(own_run)
    outcome = attentkit(*train_words(prepared, own_run, "--json"))
    assert outcome.code == 0
    rows = [s._asdict() for s in read_scores(own_run / "scores.csv")]
    assert strict(outcome.out) == [
        {**row, "value": None if row["value"] != row["value"] else row["value"]} for row in rows
    ]
    after = contents(own_run)
    assert {n: b for n, b in after.items() if n != "env.json"} == {n: b for n, b in before.items() if n != "env.json"}


def test_the_config_of_a_run_repeats_it(attentkit, trained, tmp_path):
    outcome = attentkit("train", "--config", trained / "config.toml", "-d", "cpu", "--out", tmp_path / "again")
    assert outcome.code == 0
    for name in ("config.toml", "log.jsonl", "scores.csv", "segmentor.safetensors", "predictions/ct_3.nii.gz"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes(), name


def test_data_toml_names_files_beside_itself(attentkit, prepared, tmp_path):
    (tmp_path / "data.toml").write_text('source = "no.h5"\ntarget = "ct.h5"\n')
    outcome = attentkit("train", "source_only", "--data", tmp_path / "data.toml")
    assert outcome.code == 3
    assert f"{tmp_path / 'no.h5'} does not exist" in outcome.err


def test_the_table_of_a_run_has_one_row_an_organ_and_their_average(attentkit, own_run, prepared):
    out = attentkit(*train_words(prepared, own_run)).out
    assert quotes(out, "source_only", "Dice", "%", "1 case\n")
    assert all(organ in out for organ in ("liver", "right kidney", "left kidney", "spleen", "average"))


def test_capitals_in_the_modality_still_mean_a_window_in_hu(attentkit, volumes, tmp_path):
    words = [volumes / "ct/images", "--labels", volumes / "ct/labels", "--modality", "CT", "--size", 32]
    out = attentkit("prepare", *words, "-o", tmp_path / "ct.h5").out
    assert "window -125 to 275" in out and "3 labelled" in out


def test_truths_without_a_prediction_are_left_out_of_evaluate_and_counted(attentkit, volumes, tmp_path):
    shutil.copy(volumes / "ct/labels/ct_1.nii.gz", tmp_path)
    outcome = attentkit("evaluate", tmp_path, volumes / "ct/labels")
    assert outcome.code == 0 and "Mean over 1 case" in outcome.out
    assert quotes(outcome.err, "2 label map", "TRUTH", "left out")


def test_predict_without_the_plugin_of_the_run_says_what_to_install(attentkit, own_run, volumes, tmp_path):
    config = own_run / "config.toml"
    config.write_text(config.read_text().replace('name = "source_only"', 'name = "coral"'))
    made_by = json.loads((own_run / "env.json").read_text())
    coral = dict(kind="alignments", name="coral", plugin="coral", distribution="attentkit-coral", version="0.1")
    (own_run / "env.json").write_text(json.dumps(made_by | {"components": [coral]}))
    outcome = attentkit("predict", own_run, volumes / "ct/images/ct_3.nii.gz", tmp_path / "p.nii.gz")
    assert outcome.code == 2 and "pip install attentkit-coral==0.1" in outcome.err


# Interruption. The child stops after its first checkpoint until it is told to go on, so no timing decides.

WAITING = """
import sys, time
from pathlib import Path
from attent_kit.cli import run
from attent_kit.engine.run import checkpoint

go_on, save = Path(sys.argv[1]), checkpoint.save

def save_and_wait(*arguments):
    save(*arguments)
    print("saved", flush=True)
    while not go_on.exists():
        time.sleep(0.01)

checkpoint.save = save_and_wait
sys.exit(run(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def interrupted(prepared, tmp_path_factory):
    """A run that got SIGINT after its first of three steps: its folder, exit code and stderr."""
    folder = tmp_path_factory.mktemp("interrupted")
    words = [sys.executable, "-c", WAITING, folder / "go_on", *train_words(prepared, folder / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen([str(w) for w in words], stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "saved\n"
        child.send_signal(2)
        (folder / "go_on").touch()
        _, err = child.communicate(timeout=120)
    return folder / "run", child.returncode, err


def test_an_interrupted_run_ends_in_130_with_its_state_saved(interrupted):
    folder, code, err = interrupted
    assert code == 130
    assert quotes(err.splitlines()[-1], "Interrupted.", "saved", "same command again")
    assert "Traceback" not in err
    assert len((folder / "log.jsonl").read_text().splitlines()) == 1
    assert not (folder / "scores.csv").exists()


def test_the_same_command_goes_on_to_what_an_undisturbed_run_found(attentkit, interrupted, prepared, trained):
    folder, _, _ = interrupted
    assert attentkit("predict", folder, prepared, folder / "p").code != 0
    assert attentkit(*train_words(prepared, folder)).code == 0
    for name in ("config.toml", "log.jsonl", "segmentor.safetensors", "scores.csv", "predictions/ct_3.nii.gz"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name


# predict

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.diag([2.0, 2.0, 5.0])
OBLIQUE[:3, 3] = (-20.5, -40.25, 7)
LPS = np.diag([-2.0, -2.0, 5.0, 1.0])


@pytest.mark.parametrize(("shape", "affine"), [((30, 34, 3), LPS), ((33, 31, 5), OBLIQUE), ((3, 30, 34), OBLIQUE)])
def test_a_prediction_has_affine_shape_and_header_of_its_image(attentkit, trained, tmp_path, shape, affine):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(100, 60, shape).astype(np.float32), affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"portal venous phase"
    nib.save(image, tmp_path / "image.nii.gz")
    image = nib.load(tmp_path / "image.nii.gz")
    outcome = attentkit("predict", trained, tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz", "-d", "cpu")
    assert (outcome.code, outcome.out.split()) == (0, [str(tmp_path / f"labels.{end}") for end in ("nii.gz", "json")])
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == shape
    assert labels.get_data_dtype() == np.uint8
    assert np.asarray(labels.dataobj).max() <= 4
    assert np.array_equal(labels.affine, image.affine)
    for field in ("sform_code", "qform_code", "pixdim", "xyzt_units", "descrip", "quatern_b", "quatern_c", "quatern_d"):
        assert np.array_equal(labels.header[field], image.header[field]), field


def test_the_same_patient_stored_as_lps_is_segmented_alike(attentkit, trained, volumes, tmp_path):
    ras = nib.load(volumes / "ct" / "images" / "ct_3.nii.gz")
    turned = AFFINE @ np.array([[-1.0, 0, 0, 31], [0, -1, 0, 31], [0, 0, 1, 0], [0, 0, 0, 1]])
    (tmp_path / "in").mkdir()
    nib.save(ras, tmp_path / "in" / "ras.nii.gz")
    nib.save(nib.Nifti1Image(ras.get_fdata(dtype=np.float32)[::-1, ::-1], turned), tmp_path / "in" / "lps.nii.gz")
    assert attentkit("predict", trained, tmp_path / "in", tmp_path / "out", "-d", "cpu").code == 0
    found = {name: np.asarray(nib.load(tmp_path / "out" / f"{name}.nii.gz").dataobj) for name in ("ras", "lps")}
    assert found["ras"].any()
    assert np.array_equal(found["lps"][::-1, ::-1], found["ras"])


def test_predict_needs_the_prepared_files_no_more(attentkit, own_run, volumes, tmp_path):
    config = own_run / "config.toml"
    config.write_text(config.read_text().replace("ct.h5", "gone.h5"))
    assert attentkit("predict", own_run, volumes / "ct" / "images" / "ct_3.nii.gz", tmp_path, "-d", "cpu").code == 0
    assert np.array_equal(
        nib.load(tmp_path / "ct_3.nii.gz").dataobj, nib.load(own_run / "predictions" / "ct_3.nii.gz").dataobj
    )


# evaluate


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """Cubes of 2 x 2 x 2 voxels: liver one voxel off along x, right kidney along z, left kidney right, no spleen."""
    folder = tmp_path_factory.mktemp("cubes")
    truth, prediction = np.zeros((12, 12, 12), np.uint8), np.zeros((12, 12, 12), np.uint8)
    for organ, (x, z) in {1: (1, 0), 2: (0, 1), 3: (0, 0), 4: (0, 0)}.items():
        start = 3 * organ - 2
        truth[start : start + 2, 4:6, 4:6] = organ
        if organ != 4:
            prediction[start + x : start + x + 2, 4:6, 4 + z : 6 + z] = organ
    for name, labels in (("truth", truth), ("prediction", prediction)):
        nib.save(nib.Nifti1Image(labels, AFFINE), folder / f"{name}.nii.gz")
    return folder


def test_evaluate_finds_the_numbers_of_shifted_cubes(attentkit, cubes, tmp_path):
    # All 8 voxels are surface. A shift by one voxel leaves 4 of them in place: Dice 2 * 4 / 16; distances 4 x 0, 4 x 1.
    words = [
        "evaluate",
        cubes / "prediction.nii.gz",
        cubes / "truth.nii.gz",
        "--out",
        tmp_path / "scores.csv",
        "--json",
    ]
    rows = strict(attentkit(*words).out)
    value = {(r["organ"], r["metric"], r["unit"]): r["value"] for r in rows}
    measures = [("dice", "fraction"), ("assd", "mm"), ("assd", "voxel"), ("hd95", "mm"), ("hd95", "voxel")]
    found = {
        organ: [value[organ, *m] for m in measures] for organ in ("liver", "right kidney", "left kidney", "spleen")
    }
    assert found == {
        "liver": [0.5, 1.0, 0.5, 2.0, 1.0],
        "right kidney": [0.5, 2.5, 0.5, 5.0, 1.0],
        "left kidney": [1.0, 0.0, 0.0, 0.0, 0.0],
        "spleen": [0.0, None, None, None, None],
    }
    assert len(read_scores(tmp_path / "scores.csv")) == len(rows)


def test_evaluate_counts_the_missing_organ(attentkit, cubes):
    out = attentkit("evaluate", cubes / "prediction.nii.gz", cubes / "truth.nii.gz").out
    cells = {line[1:-1].split("│")[0].strip(): line[1:-1].split("│")[1:] for line in out.splitlines() if "│" in line}
    # A shift by one voxel of 2 mm leaves every surfel within 2 mm; that it costs nothing is what a tolerance means.
    none, one = ["0 of 1"], ["1 of 1"]
    assert [c.strip() for c in cells["liver"]][:8] == ["50.00", "1.00", "0.50", "2.00", "1.00", "100.00", *none, *none]
    assert [c.strip() for c in cells["spleen"]][:8] == ["0.00", "-", "-", "-", "-", "0.00", *one, *one]
    assert [c.strip() for c in cells["average"]][:5] == ["50.00", "-", "-", "-", "-"]
    assert [c.strip() for c in cells["average"]][6:8] == ["1 of 4", "1 of 4"]


def test_evaluate_matches_folders_by_case(attentkit, volumes, tmp_path):
    predictions = shutil.copytree(volumes / "ct" / "labels", tmp_path / "predictions")
    rows = strict(attentkit("evaluate", predictions, volumes / "ct" / "labels", "--json").out)
    assert {r["case"] for r in rows} == {"ct_1", "ct_2", "ct_3"}
    assert {r["value"] for r in rows if r["metric"] == "dice"} == {1.0}
