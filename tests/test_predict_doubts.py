"""An image that is unlike what a run was trained on is noticed: its grey values, its modality, its grid."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.prepared.familiar import Familiar, grey_values
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.space.geometry import Grid
from attent_kit.data.space.intensity import Intensity
from attent_kit.engine.apply.trained import read_domain
from attent_kit.files import read_signed, write_signed
from support.cases import AFFINE, contents
from support.commands import prepare_words, says
from support.messages import quotes
from support.stand_in import expected, greys, predict, save, stand_in_run

# A few numbers on an image


def test_grey_values_are_the_air_and_the_percentiles_of_what_is_above_low():
    """100 voxels of air, and 0 to 100 above it: of those above low, 1 to 100, the median is 50.5, and so on by linear
    interpolation between ranks."""
    array = np.concatenate([np.full(100, -1000.0), np.arange(101)]).astype(np.float32).reshape(201, 1, 1)
    found = grey_values(array, 0, 80)
    assert found["percentiles"] == [10.9, 25.75, 50.5, 75.25, 80.0]
    assert found["floor"] == -80.0  # the lowest that counts is as far below low as high is above
    assert grey_values(array, 0, 4000)["floor"] == -1000.0


def test_an_image_with_nothing_above_low_has_all_percentiles_there():
    assert grey_values(np.array([0.0, 1, 2]).reshape(3, 1, 1), 5, 9)["percentiles"] == [5.0] * 5


def test_a_large_image_is_sampled_evenly():
    ramp = np.arange(3 * 2**20, dtype=np.float32).reshape(-1, 1, 1)
    found = grey_values(ramp, -1, 2**22)
    assert found["percentiles"][2] == pytest.approx(3 * 2**19, rel=1e-5)


def test_the_training_cases_are_kept_as_ranges_and_no_other_case_is(attentkit, volumes, tmp_path):
    assert (
        attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--train", "ct_1,ct_2", "--val", "")).code
        == 0
    )
    prepared = Prepared.open(tmp_path / "ct.h5")
    found = Familiar.of(prepared)
    assert found.cases == 2
    # 32 voxels of 2 mm on 32 pixels; 5 mm between slices.
    assert (found.pixel_mm, found.resolution_mm, found.distance_mm) == ((2, 2), (2, 2), (5, 5))
    medians = [case["grey"]["percentiles"][2] for case in prepared.manifest["cases"][:2]]
    # -125 to 275 is -1 to 1.
    expected_range = sorted((median + 125) / 200 - 1 for median in medians)
    assert found.percentiles[2] == pytest.approx(expected_range, abs=1e-4)
    assert found.floor == (-3, -3) and Familiar.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for record in prepared.manifest["cases"]:
        record["splits"] = ["test"]
    assert Familiar.of(prepared) is None


# What is doubted. In training the percentiles of the tissue were 0 to 40 HU at -125 to 275, air far below.

CT = Intensity("window", -125, 275)
KNOWN = Familiar(
    5, (1.4, 1.8), (1.4, 1.8), (2.5, 5.0), (-3.0, -3.0),
    ((-0.9, -0.8), (-0.5, -0.4), (-0.3, -0.1), (-0.2, 0.0), (0.0, 0.2)),
)  # fmt: skip
GRID = Grid.of((256, 256, 50), np.diag([1.5, 1.5, 3, 1]), 256)


def tissue(seed=0):
    """A CT in HU: half air, and the rest fat, organs and a little bone."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(mean, 15, count) for mean, count in ((-1000, 500), (-100, 120), (30, 350), (400, 30))]
    return np.concatenate(parts).astype(np.float32).reshape(100, 10, 1)


def doubts(array=None, grid=GRID, intensity=CT, modality="ct", known=KNOWN):
    return known.doubts(tissue() if array is None else array, grid, intensity, modality)


def test_a_ct_in_hu_is_not_doubted_whatever_its_field_of_view():
    assert doubts() == []
    body = tissue()[50:]  # no air
    assert doubts(np.concatenate([body, tissue()[:3]])) == []
    assert doubts(tissue().clip(-200, None)) == []  # air cut off below low, which a network does not see


@pytest.mark.parametrize(
    "array, evidence",
    [
        (tissue() + 1024, ("darkest", "-525 or less")),
        (tissue().clip(0, None), ("darkest", " 0,", "-525 or less")),
        (abs(tissue()), ("darkest", "-525 or less")),
        (3 * tissue() + 400, ("25th percentile", "above -125", "275 or more", "-25 to -5")),
    ],
)
def test_what_is_no_ct_in_hu_is_doubted_with_its_evidence(array, evidence):
    (doubt,) = doubts(array)
    assert quotes(doubt, *evidence, "CT in HU?")


def test_a_ct_given_to_a_run_for_mr_is_doubted_by_its_air():
    """MR of 3 to 643: -1 to 1. Air at -1000 is 1003 below low, 3.1 on that scale, and counts as 2."""
    known = Familiar(5, (1.4, 1.8), (1.4, 1.8), (2.5, 5.0), (-1.0, -0.99), ((-0.98, 0.2),) * 5)
    mr = Intensity("percentiles", 3, 643)
    (doubt,) = doubts(known=known, intensity=mr, modality="mr")
    assert quotes(doubt, "darkest", "-637 or less", "3 to 6.2", " mr")
    assert doubts(np.abs(tissue() / 4), known=known, intensity=mr, modality="mr") == []


@pytest.mark.parametrize(
    "voxel, size, words",
    [
        ((1.5, 1.5, 3), 256, []),
        ((0.75, 0.75, 1.3), 128, []),
        ((1.5, 1.5, 10), 256, []),
        ((1.5, 1.5, 10.1), 256, ["slices", "10.1 mm apart", "2.5 to 5 mm"]),
        ((1.5, 1.5, 1.2), 256, ["slices", "1.2 mm apart", "2.5 to 5 mm"]),
        ((3, 3, 3), 256, ["pixel", " 3 mm wide", "1.4 to 1.8 mm"]),
        ((0.5, 0.5, 3), 256, ["pixel", "0.5 mm wide", "1.4 to 1.8 mm"]),
        ((3, 3, 3), 512, ["resolution in plane", " 3 mm,", "1.4 to 1.8 mm"]),
    ],
)
def test_pixels_half_as_large_again_and_slices_twice_as_far_apart_are_doubted(voxel, size, words):
    told = doubts(grid=Grid.of((256, 256, 50), np.diag([*voxel, 1]), size))
    assert len(told) == bool(words) and quotes("".join(told), *words)


def test_the_distance_between_slices_is_that_along_the_body_however_axes_are_stored():
    affine = np.array([[0, 0, 1.5, 0], [1.5, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 1.0]])
    grid = Grid.of((256, 20, 256), affine, 256)
    assert (grid.distance, grid.resolution, grid.pixel) == (9, 1.5, 1.5)


# At the command line


def test_an_mr_given_to_a_run_for_ct_is_a_warning_and_the_right_modality_none(attentkit, trained, volumes, tmp_path):
    outcome = attentkit("predict", trained, volumes / "ct/images/ct_3.nii.gz", tmp_path, "-d", "cpu")
    assert (outcome.code, outcome.err) == (0, "")
    outcome = attentkit("predict", trained, volumes / "mr/images/mr_3.nii.gz", tmp_path, "-d", "cpu")
    assert outcome.code == 0 and (tmp_path / "mr_3.nii.gz").exists()
    assert len(outcome.err.splitlines()) == 1
    assert quotes(outcome.err, "Warning: mr_3.nii.gz: ", "darkest", " 0,", "-525 or less", "CT in HU?")
    (image,) = json.loads((tmp_path / "mr_3.json").read_text())["images"]
    assert [f"Warning: mr_3.nii.gz: {warning}\n" for warning in image["warnings"]] == [outcome.err]


def test_strict_makes_an_error_of_every_warning_before_anything_is_written(attentkit, trained, volumes, tmp_path):
    (tmp_path / "in").mkdir()
    for path in (volumes / "ct/images/ct_3.nii.gz", volumes / "mr/images/mr_3.nii.gz"):
        shutil.copy(path, tmp_path / "in" / path.name)
    words = ["predict", trained, tmp_path / "in", tmp_path / "out", "-d", "cpu"]
    before = contents(tmp_path)
    assert says(attentkit(*words, "--strict"), 3, "mr_3.nii.gz: its darkest voxels", "leave out --strict")
    assert contents(tmp_path) == before and not (tmp_path / "out").exists()
    assert attentkit(*words).code == 0
    (tmp_path / "in" / "mr_3.nii.gz").unlink()
    assert attentkit(*words, "--strict", "--overwrite").code == 0


def test_a_header_that_does_not_say_where_right_is_is_doubted(tmp_path):
    def nowhere(image):
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)

    path, said = save(tmp_path / "i.nii.gz", greys(), AFFINE, nowhere), []
    predict(stand_in_run(tmp_path / "run", 12), path, tmp_path / "l.nii.gz", say=said.append)
    assert len(said) == 1 and quotes(said[0], "left and right", "LAS")


def test_a_series_that_says_another_modality_is_doubted(tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_slices import write_series

    run = stand_in_run(tmp_path / "run", 12)
    for modality, doubted in (("CT", []), ("MR", ["Warning: in: its modality is MR, and the run is for ct."])):
        write_series(tmp_path / modality / "in", Modality=modality)
        said = []
        predict(run, tmp_path / modality / "in", tmp_path / f"{modality}.nii.gz", say=said.append)
        assert said == doubted


# Runs that say nothing, and damaged ones


def test_a_run_that_does_not_say_what_it_was_trained_on_still_predicts_without_a_doubt(tmp_path):
    path, said = save(tmp_path / "i.nii.gz", greys(), AFFINE), []
    run = stand_in_run(tmp_path / "run", 12)
    assert read_domain(run / "domain.json").familiar is None
    predict(run, path, tmp_path / "l.nii.gz", say=said.append, strict=True)
    assert said == [] and np.array_equal(nib.load(tmp_path / "l.nii.gz").dataobj, expected(greys()))


@pytest.mark.parametrize(
    "training",
    [
        {}, [], "words", {"cases": 1}, {**KNOWN.to_dict(), "floor": [1]}, {**KNOWN.to_dict(), "percentiles": [[0, 1]]},
        {**KNOWN.to_dict(), "pixel_mm": [3, 2]}, {**KNOWN.to_dict(), "distance_mm": ["a", "b"]},
        {**KNOWN.to_dict(), "floor": [float("nan"), 1]},
    ],
)  # fmt: skip
def test_a_damaged_domain_is_a_sentence(attentkit, own_run, volumes, tmp_path, training):
    domain = own_run / "domain.json"
    write_signed(domain, {**read_signed(domain), "training": training})
    outcome = attentkit("predict", own_run, volumes / "ct/images", tmp_path / "p", "-d", "cpu")
    assert says(outcome, 1, "domain.json")
    assert not (tmp_path / "p").exists()
