"""`attentkit evaluate` under each protocol, of PNG masks with their DICOM series, and of what is no label map."""

import csv
import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from attent_kit.engine.apply.scoring import score
from attent_kit.errors import ConfigError
from attent_kit.metrics import PROTOCOLS
from attent_kit.report.scores import read_scores, summarise

AFFINE = np.diag([2.0, 2, 5, 1])


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def pair(tmp_path):
    """A prediction and a truth of two cases. Liver: one of two pixels in each slice; spleen: missed in case b."""
    for case, slices in (("a", 1), ("b", 3)):
        truth, prediction = np.zeros((2, 6, 6, 4), np.uint8)
        truth[1:3, 2, :slices], prediction[2:4, 2, :slices] = 1, 1
        truth[5, 5, 0] = prediction[5, 5, 0] = 4
        if case == "b":
            prediction[5, 5, 0] = 0
        save(tmp_path / "truth" / f"{case}.nii.gz", truth)
        save(tmp_path / "prediction" / f"{case}.nii.gz", prediction)
    return tmp_path / "prediction", tmp_path / "truth"


def cells(out):
    """{first cell: the others} of every line of every table."""
    lines = [line[1:-1].split("│") for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line] for line in lines]


# Protocols


def test_all_protocols_side_by_side_make_a_table_each_and_one_csv(attentkit, pair, tmp_path):
    words = [word for name in PROTOCOLS for word in ("-p", name)]
    outcome = attentkit("evaluate", *pair, *words, "--out", tmp_path / "scores.csv")
    assert outcome.code == 0
    for name in PROTOCOLS:
        assert f"Mean over 2 cases, {name}: " in outcome.out
    rows = read_scores(tmp_path / "scores.csv")
    assert {row.protocol for row in rows} == set(PROTOCOLS)
    liver = {name: summarise(rows, "dice", "cases", protocol=name)[0] for name in PROTOCOLS}
    assert liver["3d-mm"].mean == liver["sifa"].mean == liver["chaos"].mean == 0.5
    # Of 8 slices 4 have the liver, with Dice 0.5 and a little, and 4 have Dice 1.
    weighed = summarise(rows, "dice", "cases", protocol="attent-code", weight="scored")[0]
    assert weighed.mean == pytest.approx((4 * (2 + 1e-5) / (4 + 1e-5) + 4) / 8)
    # Distances are from 4 slices: prediction to truth 0 and 1 each.
    assert summarise(rows, "asd", "cases", protocol="attent-code", weight="measured")[0].mean == 0.5


def test_what_has_no_distance_is_counted_for_each_organ_in_table_csv_and_json(attentkit, pair, tmp_path):
    for name, undefined in (("3d-mm", "1 of 2"), ("sifa", "1 of 2"), ("chaos", "1 of 2"), ("attent-code", "7 of 8")):
        file = tmp_path / f"{name}.csv"
        table = cells(attentkit("evaluate", *pair, "--protocol", name, "--out", file).out)
        (spleen,) = [line for line in table if line[0] == "spleen"]
        assert spleen[-4:-2] == [undefined, "1" + undefined[1:]]  # undefined, missed
        with file.open(newline="") as lines:
            written = [row for row in csv.DictReader(lines) if (row["organ"], row["metric"]) == ("spleen", "undefined")]
        printed = json.loads(attentkit("evaluate", *pair, "--protocol", name, "--json").out)
        counted = [row for row in printed if (row["organ"], row["metric"]) == ("spleen", "undefined")]
        assert [float(row["value"]) for row in written] == [row["value"] for row in counted]
        assert sum(row["value"] for row in counted) == int(undefined[0])
        assert {row["protocol"] for row in printed} == {name}


def test_a_protocol_that_does_not_exist_ends_in_2(attentkit, pair, tmp_path):
    outcome = attentkit("evaluate", *pair, "-p", "sifas", "--out", tmp_path / "s.csv")
    assert outcome.code == 2 and "Did you mean 'sifa'?" in outcome.err
    assert not (tmp_path / "s.csv").exists()


def test_the_help_names_every_protocol_and_imports_no_torch():
    code = "import sys; from attent_kit.cli import run; sys.exit(run(['evaluate', '--help']) or 9 * ('torch' in sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(f"\n  {name} " in shown.stdout for name in PROTOCOLS)


def test_scoring_label_maps_needs_no_torch(pair):
    code = (
        "import sys; from attent_kit.cli import run\n"
        "sys.exit(run(['evaluate', *sys.argv[1:], '--json']) or 9 * ('torch' in sys.modules))"
    )
    words = [str(place) for place in pair]
    assert subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL).returncode == 0


# What is no label map


@pytest.mark.parametrize("organs", [[], ["--organs", "liver=1,spleen=4,*=0"]])
def test_an_image_given_by_mistake_is_a_short_sentence(attentkit, pair, tmp_path, organs):
    grey = np.random.default_rng(0).integers(-1000, 1500, (20, 20, 4)).astype(np.int16)
    truth = save(tmp_path / "truth.nii.gz", np.ones((20, 20, 4), np.uint8))
    image = save(tmp_path / "image.nii.gz", grey)
    outcome = attentkit("evaluate", image, truth, *organs)
    assert outcome.code == 3 and outcome.err.count("\n") == 1
    assert f"{image} holds {len(np.unique(grey))} different values from {grey.min()} to {grey.max()}" in outcome.err
    assert len(outcome.err) < 300


def test_many_stray_values_are_not_all_listed(attentkit, tmp_path):
    odd = (2 * np.arange(100, dtype=np.uint8).reshape(5, 5, 4) + 1).astype(np.uint8)
    place = save(tmp_path / "odd.nii.gz", odd)
    err = attentkit("evaluate", place, save(tmp_path / "truth.nii.gz", np.ones((5, 5, 4), np.uint8))).err
    assert "holds the values 5, 7, 9, 11, 13, 15, 17, 19 and others up to 199, which" in err


# PNG masks and their DICOM series

GREY = {1: 63, 2: 126, 3: 189, 4: 252}
LABELS = np.zeros((4, 3, 5), np.uint8)
LABELS[1, 1, 1:4], LABELS[3, 0, 2], LABELS[3, 2, 2], LABELS[0, 0, 4] = 1, 2, 3, 4
SHIFTED = np.roll(LABELS, 1, axis=2)
"""One slice of 5 mm higher; the spleen leaves the top and comes back below."""


def masks(folder, labels, names, grey=GREY):
    """Writes [X, Y, Z] as PNG files, one a slice."""
    folder.mkdir(parents=True)
    for z, name in enumerate(names):
        values = np.zeros(labels.shape[1::-1], np.uint8)
        for label, value in grey.items():
            values[label == labels[:, :, z].T] = value
        Image.fromarray(values).save(folder / name)
    return folder


@pytest.fixture
def series(tmp_path):
    """Five DICOM slices of 4 columns 0.5 mm apart and 3 rows 2 mm apart, 5 mm from each other, named from the top."""
    pytest.importorskip("pydicom")
    from support import dicom_slices as slices

    slices.write_series(tmp_path / "DICOM_anon", names=[f"IMG-{9 - z}.dcm" for z in range(5)], Modality="MR")
    return tmp_path / "DICOM_anon"


GRID_OF_SERIES = np.pad([[10.0], [20.0], [0.0]], ((0, 1), (3, 0)))
"""Where the affine of the series lies, in RAS."""


def as_modality(folder, modality):
    import pydicom

    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.Modality = modality
        made.save_as(path)


def as_nifti(folder, prediction, truth):
    affine = np.diag([-0.5, -2.0, 5.0, 1.0])
    return save(folder / "p.nii.gz", prediction, affine), save(folder / "t.nii.gz", truth, affine)


@pytest.mark.parametrize(
    "names",
    [
        [f"IMG-{9 - z}.png" for z in range(5)],  # as their slices, which run the other way
        [f"liver_GT_{z:03d}.png" for z in range(5)],  # by number, as InstanceNumber
        [f"mask{z + 8}.png" for z in range(5)],  # 8 to 12: the number counts, not the letters
    ],
)
def test_png_masks_score_as_the_same_labels_in_nifti(attentkit, series, tmp_path, names):
    prediction = masks(tmp_path / "Results", SHIFTED, names)
    truth = masks(tmp_path / "Ground", LABELS, names)
    for name in PROTOCOLS:
        found = json.loads(attentkit("evaluate", prediction, truth, "--dicom", series, "-p", name, "--json").out)
        expected = json.loads(attentkit("evaluate", *as_nifti(tmp_path, SHIFTED, LABELS), "-p", name, "--json").out)
        assert {row["case"] for row in found} == {"Results"}
        assert [row["value"] for row in found] == pytest.approx([row["value"] for row in expected])
    values = {(row["organ"], row["metric"]): row["value"] for row in found}
    assert values["right kidney", "assd"] == 5 and values["right kidney", "mssd"] == 5  # the distance of the slices


def test_each_band_of_grey_is_an_organ(attentkit, series, tmp_path):
    names = [f"{z}.png" for z in range(5)]
    truth = masks(tmp_path / "Ground", LABELS, names)
    for n, grey in enumerate(({1: 56, 2: 111, 3: 176, 4: 241}, {1: 70, 2: 135, 3: 200, 4: 255})):
        prediction = masks(tmp_path / f"Results{n}", LABELS, names, grey)
        rows = json.loads(attentkit("evaluate", prediction, truth, "--dicom", series, "--json").out)
        assert {row["value"] for row in rows if row["metric"] == "dice"} == {1.0}
    for n, stray in enumerate((55, 71, 110, 136, 175, 201, 240)):
        prediction = masks(tmp_path / f"Stray{n}", LABELS, names, {**GREY, 1: stray})
        outcome = attentkit("evaluate", prediction, truth, "--dicom", series)
        assert outcome.code == 3 and f"Stray{n} holds the value {stray}," in outcome.err
        assert "liver=56-70, right kidney=111-135" in outcome.err


def test_masks_of_the_liver_alone_ask_for_the_organ(attentkit, series, tmp_path):
    names = [f"{z}.png" for z in range(5)]
    truth, prediction = (masks(tmp_path / place, LABELS, names, {1: 255}) for place in ("Ground", "Results"))
    outcome = attentkit("evaluate", prediction, truth, "--dicom", series)
    assert outcome.code == 3 and "say which, as in --organs liver=255" in outcome.err
    rows = json.loads(
        attentkit("evaluate", prediction, truth, "--dicom", series, "--organs", "liver=255", "--json").out
    )
    assert {row["organ"] for row in rows} == {"liver"}
    assert [row["value"] for row in rows if row["metric"] == "true volume"] == [pytest.approx(3 * 0.005)]


def test_a_ct_of_chaos_has_the_liver_alone_and_says_so_with_one_bit_or_a_band(attentkit, series, tmp_path):
    """A submission may hold other organs by their bands: they are not scored, unless the truth has them, too."""
    as_modality(series, "CT")
    names = [f"{z}.png" for z in range(5)]
    truth = masks(tmp_path / "Ground", LABELS, names, {1: 255})
    forms = {
        "one bit": masks(tmp_path / "A", LABELS, names, {1: 255}),
        "one": masks(tmp_path / "B", LABELS, names, {1: 1}),
        "bands": masks(tmp_path / "C", LABELS, names),
        "predicted": save(tmp_path / "D.nii.gz", LABELS, np.diag([-0.5, -2.0, 5.0, 1.0]) + GRID_OF_SERIES),
        "grey NIfTI": save(tmp_path / "E.nii.gz", LABELS * 63, np.diag([-0.5, -2.0, 5.0, 1.0]) + GRID_OF_SERIES),
    }
    for form, prediction in forms.items():
        rows = json.loads(attentkit("evaluate", prediction, truth, "-p", "chaos", "--dicom", series, "--json").out)
        values = {(row["organ"], row["metric"]): row["value"] for row in rows}
        assert {row["organ"] for row in rows} == {"liver"}, form
        assert values["liver", "dice"] == 1 and values["liver", "true volume"] == pytest.approx(3 * 0.005), form
        assert list(score(prediction, truth, protocol="chaos", dicom=series, case="x"))[0][3:9] == (
            "x", "liver", "dice", 1.0, "fraction", "chaos",
        )  # fmt: skip
    all_four = score(forms["bands"], masks(tmp_path / "Four", LABELS, names), dicom=series)
    assert len({row.organ for row in all_four}) == 4
    spleen = masks(tmp_path / "F", np.where(LABELS == 4, 4, LABELS * (LABELS == 2)), names)
    rows = json.loads(attentkit("evaluate", spleen, truth, "-p", "chaos", "--dicom", series, "--json").out)
    assert [row["value"] for row in rows if row["metric"] in ("dice", "missed")] == [0, 1]


def test_an_mr_is_scored_by_the_bands_from_python_too_and_a_wrong_option_is_named(series, tmp_path):
    names = [f"{z}.png" for z in range(5)]
    truth, prediction = masks(tmp_path / "Ground", LABELS, names), masks(tmp_path / "Results", SHIFTED, names)
    found = score(prediction, truth, protocol="chaos", dicom=series)
    assert {row.organ for row in found} == {"liver", "right kidney", "left kidney", "spleen"}
    assert {row.case for row in found} == {"Results"}
    in_memory = score(LABELS, truth, np.diag([-0.5, -2.0, 5.0, 1.0]) + GRID_OF_SERIES, dicom=series)
    assert {row.value for row in in_memory if row.metric == "dice"} == {1.0}
    with pytest.raises(ConfigError, match="no option 'dicon'. Did you mean 'dicom'"):
        score(prediction, truth, dicon=series)


def test_black_and_white_masks_are_0_and_255(attentkit, series, tmp_path):
    names = [f"{z}.png" for z in range(5)]
    truth = masks(tmp_path / "Ground", LABELS, names, {1: 255})
    prediction = tmp_path / "Results"
    prediction.mkdir()
    for name in names:
        Image.open(truth / name).convert("1").save(prediction / name)
    rows = json.loads(
        attentkit("evaluate", prediction, truth, "--dicom", series, "--organs", "liver=255", "--json").out
    )
    assert [row["value"] for row in rows if row["metric"] == "dice"] == [1.0]


def truncated(folder):
    path = folder / "2.png"
    path.write_bytes(path.read_bytes()[:40])


def in_colours(folder):
    Image.new("RGB", (4, 3), (200, 10, 10)).save(folder / "2.png")


WRONG = {
    "one too few": (lambda folder: (folder / "2.png").unlink(), "holds 4 PNG masks, but the DICOM series has 5 slices"),
    "another size": (
        lambda folder: Image.new("L", (3, 4)).save(folder / "2.png"),
        "2.png has 3 x 4 pixels, but the slices of the DICOM series have 4 x 3",
    ),
    "colours": (in_colours, "2.png is in colours or partly transparent, not grey: save it as a grey picture"),
    "cut": (truncated, "2.png is not a whole PNG picture"),
    "half renamed": (
        lambda folder: (folder / "2.png").rename(folder / "IMG-7.png"),
        "is not named like a slice of the DICOM series, but IMG-7.png is",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_stack_of_masks_ends_in_3_with_a_sentence(attentkit, series, tmp_path, kind):
    spoil, sentence = WRONG[kind]
    names = [f"{z}.png" for z in range(5)]
    truth, prediction = (masks(tmp_path / place, LABELS, names) for place in ("Ground", "Results"))
    spoil(prediction)
    outcome = attentkit("evaluate", prediction, truth, "--dicom", series, "--out", tmp_path / "s.csv")
    assert outcome.code == 3 and "Results" in outcome.err and sentence in outcome.err
    assert not (tmp_path / "s.csv").exists()


def test_nifti_of_another_grid_and_a_folder_without_dicom_are_sentences(attentkit, pair, series, tmp_path):
    outcome = attentkit("evaluate", pair[0] / "a.nii.gz", pair[1] / "a.nii.gz", "--dicom", series)
    assert outcome.code == 3 and "a.nii.gz is not on the grid of " in outcome.err
    (tmp_path / "empty").mkdir()
    for place, sentence in (("empty", "holds no DICOM image"), ("missing", "does not exist")):
        outcome = attentkit("evaluate", *pair, "--dicom", tmp_path / place)
        assert outcome.code == 3 and sentence in outcome.err
