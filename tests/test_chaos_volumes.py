"""benchmarks/chaos.py takes the table away and puts the body in the middle, and labels stay on their voxels."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos.py"
AFFINE = np.array([[-2.0, 0, 0, 50], [0, 2.0, 0, -40], [0, 0, 5.0, 7], [0, 0, 0, 1]])
ORGANS = "liver=6,right kidney=2,left kidney=3,spleen=1,*=0"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One CT off the middle on a table, one MR, and what the script writes of both."""
    home = tmp_path_factory.mktemp("chaos")
    rng = np.random.default_rng(0)
    body = np.zeros((64, 64, 6), bool)
    body[6:40, 14:40] = True
    table = np.zeros_like(body)
    table[:, 52:55] = True
    labels = np.zeros(body.shape, np.int16)
    for n, value in enumerate((6, 2, 3, 1, 9)):
        labels[8 + 6 * n : 12 + 6 * n, 20:26, 1:4] = value
    ct = np.where(body, 40.0, np.where(table, 200.0, -1000.0)) + rng.normal(0, 5, body.shape)
    mr = np.where(body, 300.0, 2.0) + rng.random(body.shape)
    task = np.array([0, 4, 2, 3, 0, 0, 1, 0, 0, 0])[labels]
    for name, array in (("ct", ct), ("ct_labels", labels), ("mr", mr), ("mr_labels", task)):
        (home / name).mkdir()
        nib.save(nib.Nifti1Image(array.astype(np.int16), AFFINE), home / name / "case.nii.gz")
    words = ["--mr", home / "mr", home / "mr_labels", "--ct", home / "ct", home / "ct_labels", ORGANS]
    subprocess.run([sys.executable, SCRIPT, home / "out", *words], check=True, timeout=300)
    return home, task


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_body_is_in_the_middle_and_nothing_lies_beside_it(made, modality):
    image = np.asarray(nib.load(made[0] / "out" / modality / "images" / "case.nii.gz").dataobj)
    inside = image > (-500 if modality == "ct" else 100)
    for axis in (0, 1):
        found = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        assert abs(found[0] + found[-1] - (image.shape[axis] - 1)) <= 2
        assert len(found) <= 38  # the body and a margin; the table would be 64 wide


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_labels_have_the_task_values_and_stay_where_they_are_in_the_world(made, modality):
    home, task = made
    written = nib.load(home / "out" / modality / "labels" / "case.nii.gz")
    assert np.array_equal(written.affine, nib.load(home / "out" / modality / "images" / "case.nii.gz").affine)
    for organ in (1, 2, 3, 4):
        was = AFFINE[:3, :3] @ np.argwhere(task == organ).mean(0) + AFFINE[:3, 3]
        voxels = np.argwhere(np.asarray(written.dataobj) == organ)
        assert len(voxels) == (task == organ).sum()
        assert np.allclose(written.affine[:3, :3] @ voxels.mean(0) + written.affine[:3, 3], was)
    assert set(np.unique(written.dataobj)) == {0, 1, 2, 3, 4}
