"""Slices of other parts of the body are told before a source is trained on them; `check --add` reads as `prepare --add`."""

import json

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.doubts.case import without_organs
from support.abdomens import checked, only
from support.cases import AFFINE, BOXES, GREY
from support.commands import says

ORGANS = "liver=1,right kidney=2,left kidney=3,spleen=4"


def write_long(folder, case, bare, organs=(1, 2, 3, 4), seed=0):
    """Three slices with organs, and `bare` without, of a body in air; other slices than those of any other seed."""
    labels = np.zeros((32, 32, 3 + bare), np.uint8)
    for organ in organs:
        x, y, _ = BOXES[organ]
        labels[x, y, :3] = organ
    labels = np.roll(labels, seed, axis=1)
    noise = np.random.default_rng(seed).normal(0, 8, labels.shape)
    image = np.asarray(GREY["ct"], np.float32)[labels] + noise.astype(np.float32)
    image[:2] = image[-2:] = -1000
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), folder / kind / f"{case}.nii.gz")


def prepare_words(folder, *more):
    labels = ("--labels", folder / "labels", "--organs", ORGANS)
    return ("prepare", folder / "images", *labels, "--modality", "ct", "--size", 16, "-o", folder / "ct.h5", *more)


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([], None), ([(10, 7), (10, 6)], None), ([(10, 0)], None), ([(134, 68), (0, 0)], "66 of 134 slices of 2"),
        ([(10, 10), (10, 2)], "8 of 20"),
    ],
)  # fmt: skip
def test_two_fifths_without_an_organ_are_many(cases, words):
    told = without_organs(cases)
    assert bool(told) == bool(words) and all(words in sentence and "--foreground-only" in sentence for sentence in told)


def test_slices_without_an_organ_are_told_unless_they_are_left_out(attentkit, tmp_path):
    for n in range(3):
        write_long(tmp_path, f"c{n}", bare=3, seed=n)
    split = ("--train", "c0,c1", "--val", "c2", "--test", "c2")
    outcome = attentkit(*prepare_words(tmp_path, *split))
    assert (
        outcome.code == 0
        and "6 of 12 slices of 2 labelled case(s)" in outcome.err
        and "--foreground-only" in outcome.err
    )
    told = checked(attentkit, tmp_path / "ct.h5")
    assert [f["evidence"] for f in told.findings if f["check"] == "region"] == [
        "9 of 18 slices of 3 labelled case(s) show no organ, as those of pelvis and legs"
    ]
    assert "9 of 18" in only(checked(attentkit, tmp_path, "--modality", "ct", "--organs", ORGANS), "region", "warning")
    outcome = attentkit(*prepare_words(tmp_path, *split, "--foreground-only"))
    assert outcome.code == 0 and "show no organ" not in outcome.err
    assert checked(attentkit, tmp_path / "ct.h5").about("region") == []


def test_of_labels_that_leave_organs_out_nothing_is_said_about_the_region(attentkit, tmp_path):
    for n in range(3):
        write_long(tmp_path, f"c{n}", bare=3, seed=n, organs=(1,))
    organs = "liver=1,spleen=?"
    words = [organs if word == ORGANS else word for word in prepare_words(tmp_path)]
    outcome = attentkit(*words)
    assert outcome.code == 0 and "show no organ" not in outcome.err


def test_check_adds_a_data_set_with_labels_and_organs_of_its_own(attentkit, tmp_path):
    for n in range(3):
        write_long(tmp_path / "a", f"a{n}", bare=1, seed=n)
        write_long(tmp_path / "b", f"b{n}", bare=1, seed=5 + n, organs=(1,))
    a = (tmp_path / "a", "--modality", "ct", "--organs", ORGANS)
    added = ("--add", tmp_path / "b" / "images", tmp_path / "b" / "labels", "liver=1")
    assert "6 cases of 2 data sets: 0 errors" in attentkit("check", *a, *added).out
    found = json.loads(attentkit("check", *a, *added[:-1], "liver=7", "--json").out)
    assert any("liver=7" in finding["evidence"] and "b0" in finding["file"] for finding in found)
    assert says(attentkit("check", *a, "--add", tmp_path / "none", "-", "-"), 3, "none does not exist")
    (tmp_path / "b" / "images" / "b1.nii.gz").write_bytes((tmp_path / "a" / "images" / "a1.nii.gz").read_bytes())
    (duplicate,) = checked(attentkit, *a, *added).about("duplicates")
    assert duplicate[2].startswith(f"a1 [{tmp_path / 'a'}], b1 [") and "the same voxels" in duplicate[2]
