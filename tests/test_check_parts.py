"""`attentkit check` in parts: each number by which a finding is made or left out, on arrays of a few voxels."""

import numpy as np
import pytest

from attent_kit.data.check.case import content_hash, turn_severity
from attent_kit.data.check.grey import grey_findings
from attent_kit.data.doubts.sides import by_surroundings
from support.abdomens import abdomen, checked, patients, write


def liver_between(above: float, below: float, top: int = 8) -> tuple[int, str]:
    """What is said of a liver of 100 in slices 6 and 7, 10 mm apart, between slices as bright as these."""
    image, liver = np.full((top + 6, 4, 4), above, np.float32), np.zeros((top + 6, 4, 4), bool)
    image[:6], image[6:8, 1:3, 1:3], liver[6:8, 1:3, 1:3] = below, 100, True
    image[:, 0, 0] = 0
    return by_surroundings(image, liver, 10.0)


def test_a_liver_that_is_darker_above_is_upright_and_one_that_is_darker_below_is_not():
    assert liver_between(20, 90)[0] == 1 and liver_between(90, 20)[0] == -1 and liver_between(90, 80)[0] == 0
    assert liver_between(20, 90)[1] == "it is 20 % as bright above the liver as in it, and 90 % below it"


def test_a_liver_with_which_the_scan_ends_says_nothing():
    image, liver = np.full((8, 4, 4), 90, np.float32), np.zeros((8, 4, 4), bool)
    image[:, 0, 0], image[6:, 1:3, 1:3], liver[6:, 1:3, 1:3] = 0, 100, True
    assert by_surroundings(image, liver, 10.0) == (0, "")


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_labels_that_are_mirrored_alone_are_one_finding_and_no_second_about_sides(attentkit, tmp_path, modality):
    patients(tmp_path, modality)
    body = abdomen(modality, 2)
    write(tmp_path, f"{modality}_2", body._replace(labels=body.labels[::-1].copy()))
    found = checked(attentkit, tmp_path, "--modality", modality)
    assert [(f["check"], f["severity"]) for f in found.findings if f["check"] in ("fit", "sides", "upright")] == [
        ("fit", "error")
    ]


@pytest.mark.parametrize(("ratio", "severity"), [(2.3, "error"), (2.2, "warning"), (1.51, "warning"), (1.49, None)])
def test_a_turn_is_an_error_from_where_it_is_clear_twice_over(ratio, severity):
    assert turn_severity(ratio) == severity


def test_voxels_of_another_shape_or_kind_are_not_the_same_voxels():
    one = np.zeros((2, 3, 4), np.uint8)
    others = [one.reshape(2, 4, 3), one.reshape(4, 3, 2), one[:1], one.view(np.int8), one + 1]
    assert len({content_hash(array) for array in (one, *others)}) == 6
    assert content_hash(np.asfortranarray(one)) == content_hash(one)


def ct(low: float = -1000.0, high: float = 1500.0) -> np.ndarray:
    """Air and soft tissue in equal parts, and a share of bone, cut off at both ends."""
    values = np.random.default_rng(0).normal(40, 60, (10, 20, 20))
    values[:, :10], values[:, 19] = -1000, np.random.default_rng(1).uniform(300, 1500, (10, 20))
    return np.clip(values, low, high).astype(np.float32)


def test_a_range_that_is_cut_off_above_is_told_with_what_the_window_loses():
    assert grey_findings(ct(), "ct", {}) == []
    (found,) = grey_findings(ct(high=200), "ct", {})
    assert found.severity == "warning" and "cut off above 200 (" in found.evidence and "inside the" in found.evidence
    (found,) = grey_findings(ct(high=400), "ct", {})
    assert found.severity == "note" and "cut off above 400 (" in found.evidence


def test_few_whole_values_are_a_label_map_where_most_voxels_have_one_of_them():
    values = np.random.default_rng(0).integers(0, 100, (10, 20, 20)).astype(np.float32)
    assert grey_findings(values, "mr", {}) == []
    values[:, :12] = 0
    (found,) = grey_findings(values, "mr", {})
    assert found.severity == "error" and "as in a label map" in found.evidence
