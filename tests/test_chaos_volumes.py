"""benchmarks/chaos.py gives label maps of several sets one set of values, and labels stay on their voxels."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from attent_kit.data.scans.volumes import read_labels, read_volume

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "chaos.py"
AFFINE = np.array([[-2.0, 0, 0, 50], [0, 2.0, 0, -40], [0, 0, 5.0, 7], [0, 0, 0, 1]])


def test_two_sets_come_out_with_the_values_of_the_task(tmp_path):
    rng = np.random.default_rng(0)
    task = rng.integers(0, 5, (8, 9, 4)).astype(np.uint8)
    image = rng.normal(0, 100, task.shape).astype(np.float32)
    words = []
    for name, values in (("a", (0, 6, 2, 3, 1)), ("b", (9, 5, 7, 2, 4))):
        drawn = np.array(values, np.int16)[task]
        affine = AFFINE
        if name == "b":  # stored in another axis order than the image
            drawn, affine = drawn[::-1], AFFINE @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        for kind, array, placed in (("images", image, AFFINE), ("labels", drawn, affine)):
            (tmp_path / name / kind).mkdir(parents=True)
            nib.save(nib.Nifti1Image(array, placed), tmp_path / name / kind / f"{name}1.nii.gz")
        organs = "liver={1},right kidney={2},left kidney={3},spleen={4},*=0".format(*values)
        words += ["--ct", tmp_path / name / "images", tmp_path / name / "labels", organs]
    subprocess.run([sys.executable, SCRIPT, tmp_path / "out", *words], check=True, timeout=300)
    for name in ("a1", "b1"):
        volume = read_volume(tmp_path / "out" / "images" / f"{name}.nii.gz")
        labels = read_labels(tmp_path / "out" / "labels" / f"{name}.nii.gz", like=volume)
        assert np.array_equal(volume.array, image) and np.array_equal(labels.array, task)
