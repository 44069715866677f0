"""`attentkit check`: sides, upside-down stacks, labels that are turned against the image, organs that are not there."""

import numpy as np
import pytest

from attent_kit.data.doubts.sides import (
    Tilt,
    body_middle,
    by_lungs,
    by_organs,
    by_surroundings,
    centres,
    side_findings,
    upright_findings,
)
from support.abdomens import abdomen, checked, only, write
from support.messages import quotes

BOTH = pytest.mark.parametrize("modality", ["ct", "mr"])
EXCHANGED = np.array([0, 1, 3, 2, 4], np.uint8)
"""Right and left kidney."""


def check(attentkit, folder, modality, image=None, labels=None, *words):
    body = abdomen(modality)
    write(folder, "a", body._replace(image=body.image if image is None else image,
                                     labels=body.labels if labels is None else labels))  # fmt: skip
    return checked(attentkit, folder, "--modality", modality, *words)


# Sides


@BOTH
def test_kidneys_alone_on_the_wrong_side_are_labels_that_were_exchanged(attentkit, tmp_path, modality):
    found = check(attentkit, tmp_path, modality, labels=EXCHANGED[abdomen(modality).labels])
    evidence = only(found, "sides", "error")
    assert quotes(evidence, "right kidney", "left of the left kidney", "liver", "right", "exchanged in the labels")
    assert found.findings[0]["file"].endswith("labels/a.nii.gz")


@BOTH
def test_liver_and_kidneys_on_the_wrong_side_are_an_image_that_is_mirrored(attentkit, tmp_path, modality):
    body = abdomen(modality)
    evidence = only(check(attentkit, tmp_path, modality, body.image[::-1], body.labels[::-1]), "sides", "error")
    assert quotes(
        evidence, "liver", "left of the spleen", "right kidney", "left of the left kidney", "image is mirrored"
    )


@BOTH
def test_a_mirrored_image_whose_kidneys_were_named_anew_is_told_as_such(attentkit, tmp_path, modality):
    body = abdomen(modality)
    found = check(attentkit, tmp_path, modality, body.image[::-1], EXCHANGED[body.labels[::-1]])
    evidence = only(found, "sides", "warning")
    assert quotes(evidence, "left of the spleen", "kidneys", "correct side", "situs inversus")


@BOTH
def test_liver_and_spleen_exchanged_are_told_by_their_size(attentkit, tmp_path, modality):
    labels = np.array([0, 4, 2, 3, 1], np.uint8)[abdomen(modality).labels]
    evidence = only(check(attentkit, tmp_path, modality, labels=labels), "sides", "error")
    assert quotes(evidence, "kidneys", "correct side", "spleen has", " ml", "liver", " ml", "exchanged in the labels")


@BOTH
def test_the_liver_alone_is_held_against_the_middle_of_the_body(attentkit, tmp_path, modality):
    body = abdomen(modality)
    liver = np.uint8(1) * (body.labels == 1)
    assert check(attentkit, tmp_path, modality, None, liver, "--organs=liver=1").serious == []
    evidence = only(
        check(attentkit, tmp_path, modality, body.image[::-1], liver[::-1], "--organs=liver=1"), "sides", "error"
    )
    assert quotes(evidence, "liver", "mm left of the body's middle", "image is mirrored")


# Slices of 2 mm, rows and columns of 1 mm; the patient's right is at column 0.
ORGANS = ("liver", "right kidney", "left kidney", "spleen")


def boxes(**columns):
    """Labels [2, 2, 200], each organ 1 mm wide at its column."""
    labels = np.zeros((2, 2, 200), np.uint8)
    for organ, column in columns.items():
        labels[:, :, column] = ORGANS.index(organ.replace("_", " ")) + 1
    return centres(labels, ORGANS, (2, 1, 1))


@pytest.mark.parametrize(
    ("columns", "severity", "words"),
    [
        ({"liver": 40, "right_kidney": 30, "left_kidney": 160}, None, ()),
        ({"liver": 40, "right_kidney": 160, "left_kidney": 30}, "error",
         ("right kidney", "130 mm", "left of the left kidney", "liver", "60 mm right", "labels")),
        ({"liver": 160, "right_kidney": 170, "left_kidney": 40}, "error",
         ("liver", "60 mm left", "right kidney", "130 mm", "left of the left kidney", "image is mirrored")),
        ({"right_kidney": 160, "left_kidney": 40}, "error", ("120 mm", "without liver and spleen", "image", "labels")),
        ({"liver": 40, "right_kidney": 160}, "error", ("right kidney", "60 mm left", "liver", "60 mm right", "labels")),
        ({"spleen": 30}, "error", ("spleen", "70 mm right", "image is mirrored")),
        ({"liver": 95, "right_kidney": 105, "left_kidney": 95}, None, ()),
    ],
)  # fmt: skip
def test_sides_by_numbers(columns, severity, words):
    found = side_findings(boxes(**columns), 100)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert quotes("".join(finding.evidence for finding in found), *words)


def test_centres_are_in_mm_and_volumes_in_ml():
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 2:4, 4:8] = 1
    (liver,) = centres(labels, ORGANS, (10, 5, 2)).values()
    # 2 x 2 x 4 voxels of 100 cubic mm; slices 1 and 2, rows 2 and 3, columns 4 to 7.
    assert liver == (15.0, 12.5, 11.0, 1.6)


def test_organs_are_known_whatever_their_spelling():
    labels = np.zeros((1, 1, 9), np.uint8)
    labels[0, 0, [0, 2, 8]] = 1, 2, 3
    found = centres(labels, ("Liver", "kidney_left", "Kidney_Right"), (1, 1, 50))
    assert [finding.severity for finding in side_findings(found, None)] == ["error"]


def test_the_middle_of_the_body_is_not_that_of_the_picture():
    coarse = np.zeros((2, 4, 10))
    coarse[:, :, 1:5] = 100
    assert body_middle(coarse, 20) == 60  # columns 1 to 4 of 20 mm
    assert body_middle(np.zeros((2, 4, 10)), 20) is None


# Up and down


@BOTH
def test_a_stack_that_is_upside_down_is_certain_if_organs_and_image_say_so(attentkit, tmp_path, modality):
    body = abdomen(modality)
    evidence = only(
        check(attentkit, tmp_path, modality, body.image[..., ::-1], body.labels[..., ::-1]), "upright", "error"
    )
    image = "lungs" if modality == "ct" else "% as bright above the liver"
    assert quotes(evidence, "kidneys", "mm above the liver", image, "upside down", "both")


def test_a_ct_without_labels_that_is_upside_down_is_likely(attentkit, tmp_path):
    body = abdomen()
    write(tmp_path, "a", body._replace(image=body.image[..., ::-1], labels=None))
    evidence = only(checked(attentkit, tmp_path, "--modality", "ct"), "upright", "warning")
    assert quotes(evidence, "lungs", "mm below", "middle of the scan", "likely upside down")


def test_kidneys_are_below_the_liver():
    labels = np.zeros((20, 1, 2), np.uint8)
    labels[10:, :, 0], labels[:3, :, 1] = 1, 2
    sign, words = by_organs(centres(labels, ORGANS, (5, 1, 1)))
    assert sign == 1 and quotes(words, "kidneys", "68 mm below the liver")  # 1 x 5 mm and 14.5 x 5 mm
    assert by_organs(centres(labels[::-1], ORGANS, (5, 1, 1)))[0] == -1
    assert by_organs(centres(labels[:12], ORGANS, (1, 1, 1)))[0] == 0  # 9.5 mm are not enough
    assert by_organs(centres(np.uint8(1) * (labels == 1), ORGANS))[0] == 0


def trunk(lungs):
    """[20, 12, 12] HU: a body in air with lungs in these slices."""
    body = np.full((20, 12, 12), -1000.0)
    body[:, 1:11, 1:11] = 40
    body[lungs, 3:9, 3:9] = -850
    return body


def test_lungs_are_above_the_middle_of_the_scan_and_above_the_liver():
    up, down = trunk(slice(15, 20)), trunk(slice(0, 5))
    sign, words = by_lungs(up, 10, -500, -300, None)
    assert sign == 1 and quotes(words, "lungs", "75 mm above", "middle of the scan")
    assert by_lungs(down, 10, -500, -300, None)[0] == -1
    sign, words = by_lungs(down, 10, -500, -300, 100)
    assert sign == -1 and quotes(words, "lungs", "80 mm below", "liver")
    assert by_lungs(trunk(slice(0, 20)), 10, -500, -300, None)[0] == 0
    assert by_lungs(trunk(slice(0, 0)), 10, -500, -300, None) == (0, "")


def test_it_is_dark_above_the_liver():
    image = np.full((20, 4, 4), 200.0)
    image[0, 0, 0] = 0
    image[12:] = 50
    liver = np.zeros(image.shape, bool)
    liver[7:12] = True
    sign, words = by_surroundings(image, liver, 5)
    assert sign == 1 and quotes(words, "0 %", "above the liver", "100 % below")
    assert by_surroundings(image[::-1], liver[::-1], 5)[0] == -1
    liver[12:] = True
    assert by_surroundings(image, liver, 5) == (0, ""), "nothing is seen above a liver that is cut off"


@pytest.mark.parametrize(
    ("organs", "image", "severity"),
    [(1, 1, None), (1, 0, None), (0, 0, None), (-1, -1, "error"), (-1, 0, "warning"), (0, -1, "warning"), (-1, 1, "note"),
     (1, -1, "note")],
)  # fmt: skip
def test_how_certain_it_is(organs, image, severity):
    found = upright_findings(Tilt(organs, "kidneys", image, "lungs"))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


# Labels against the image


@BOTH
@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ((slice(None), slice(None), slice(None, None, -1)), "turned upside down"),
        ((slice(None, None, -1),), "from left to right"),
        ((slice(None), slice(None, None, -1)), "from front to back"),
        ((slice(None, None, -1), slice(None, None, -1)), "by half a turn"),
        (None, "rows and columns exchanged"),
    ],
)
@pytest.mark.parametrize("which", ["image", "labels"])
def test_labels_and_image_that_are_turned_against_each_other(attentkit, tmp_path, modality, turn, words, which):
    body = getattr(abdomen(modality), which)
    turned = np.ascontiguousarray(body.transpose(1, 0, 2) if turn is None else body[turn])
    found = check(attentkit, tmp_path, modality, **{which: turned})
    ((severity, _, evidence),) = found.about("fit")
    assert severity == "error" and words in evidence
    if "upside down" in words or "left to right" in words:
        assert f"it is the {which}" in evidence


def test_an_image_of_noise_is_no_reason_to_turn_its_labels(attentkit, tmp_path):
    body = abdomen("mr")
    noise = np.random.default_rng(0).normal(300, 60, body.image.shape).astype(np.float32)
    assert check(attentkit, tmp_path, "mr", image=noise).about("fit") == []


# Organs


def test_a_label_map_without_organs_is_a_warning(attentkit, tmp_path):
    labels = np.zeros_like(abdomen().labels)
    assert "none of the organs" in only(check(attentkit, tmp_path, "ct", labels=labels), "organs", "warning")


def test_a_missing_organ_and_a_speck_are_notes_of_their_case(attentkit, tmp_path):
    labels = abdomen().labels.copy()
    labels[labels == 2] = 0
    spleen = np.argwhere(labels == 4)
    labels[labels == 4] = 0
    labels[tuple(spleen[0])] = 4
    write(tmp_path, "b", abdomen("ct", 2))
    found = check(attentkit, tmp_path, "ct", labels=labels)
    assert found.serious == []
    missing, speck = found.about("organs")
    assert missing[:2] == speck[:2] == ("note", "a") and quotes(missing[2], "no voxel of right kidney")
    spacing = np.linalg.norm(abdomen().affine[:3, :3], axis=0)
    assert quotes(speck[2], "spleen has 1 voxel", f"{spacing.prod() / 1000:.2g} ml")


def test_an_organ_that_no_case_has_is_a_warning(attentkit, tmp_path):
    for patient in (1, 2):
        body = abdomen("ct", patient)
        write(
            tmp_path, f"ct_{patient}", body._replace(labels=np.where(body.labels == 3, 0, body.labels).astype(np.uint8))
        )
    found = checked(attentkit, tmp_path, "--modality", "ct")
    assert quotes(only(found, "organs", "warning", ""), "no case", "'left kidney'", "2 label maps")
