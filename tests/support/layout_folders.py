"""Small data sets that tests write as people download them: one body, four organs, whichever layout."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from attent_kit.data.phantom import SIZES, PhantomOptions, PhantomSize, write_phantom
from attent_kit.data.phantom.options import LAYOUTS

TINY = PhantomSize(48, (5, 0, 1), (5, 1, 1), (8.0, 8.0), (8.0, 8.0), (0, 0), (1, 1), (1, 1))
ORGANS = ("liver", "right kidney", "left kidney", "spleen")
GREY = (0, 63, 126, 189, 252)
"""Background and the organs in the masks of CHAOS."""
SLICES = 9
BOXES = {
    1: (slice(2, 9), slice(4, 12), slice(1, 6)),
    2: (slice(3, 8), slice(13, 18), slice(0, 3)),
    3: (slice(15, 20), slice(13, 18), slice(1, 4)),
    4: (slice(16, 22), slice(4, 10), slice(4, 8)),
}
"""Columns, rows and slices of each organ in LPS: the patient's right is at low columns, the feet are at slice 0."""
LPS = np.diag([-2.0, -2, 5, 1])


def write_phantoms(home, grid=TINY, layouts=LAYOUTS):
    """A tiny phantom in each of the layouts below `home`, which is the answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", grid)
        for layout in layouts:
            write_phantom(home / layout, PhantomOptions(layout, "tiny"))
    return home


def renumber(chaos):
    """Turns the file names and InstanceNumbers of every series of a CHAOS folder round, and the names of its masks."""
    import pydicom

    for series in sorted(chaos.glob("Train_Sets/**/DICOM_anon")):
        for folder in (series, series.with_name("Ground")):
            files = sorted(folder.iterdir())
            moved = [path.rename(path.with_suffix(".moved")) for path in files]
            for number, (path, name) in enumerate(zip(moved, reversed(files), strict=True)):
                path.rename(name)
                if folder == series:
                    made = pydicom.dcmread(name)
                    made.InstanceNumber = len(files) - number
                    made.save_as(name)
    return chaos


def body(seed=0):
    """Image int16 and labels uint8, [24 columns, 20 rows, 9 slices]; the organs have grey values of their own."""
    labels = np.zeros((24, 20, SLICES), np.uint8)
    for organ, box in BOXES.items():
        labels[box] = organ
    noise = np.random.default_rng(seed).normal(0, 8, labels.shape)
    return (np.array([100, 300, 500, 450, 700])[labels] + noise).astype(np.int16), labels


def write_nifti(path, array, affine=LPS):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_png(path, picture, mode=None):
    """A picture [H, W] uint8, or booleans as one bit a pixel."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(picture))
    (image.convert(mode) if mode else image).save(path, format="PNG")
    return path


def write_json(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_masks(folder, labels, names, grey=GREY):
    """Labels [X, Y, Z] as grey PNG, one a slice; names in the order of the slices. None writes no mask of that slice."""
    for z, name in enumerate(names):
        if name is not None:
            write_png(Path(folder) / name, np.array(grey, np.uint8)[labels[:, :, z].T])


def btcv(folder, cases=(1, 2), values=(0, 6, 2, 3, 1)):
    """RawData/Training of these numbers."""
    for number in cases:
        image, labels = body(number)
        write_nifti(folder / "img" / f"img{number:04}.nii.gz", image)
        write_nifti(folder / "label" / f"label{number:04}.nii.gz", np.array(values, np.uint8)[labels])
    return folder


NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "spleen": 1, "kidney_right": 2, "left kidney": 3, "Liver": 4},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
"""dataset.json of `nnunet` with one channel."""


def nnunet(folder, cases=("a", "b"), **changed):
    """nnU-Net v2, each channel of noise of its own; the liver is 4, the spleen 1."""
    facts = write_json(folder / "dataset.json", NNUNET | changed)
    for number, case in enumerate(cases):
        _, labels = body()
        for channel in range(len(json.loads(facts.read_text())["channel_names"])):
            image, _ = body(10 * number + channel)
            write_nifti(folder / "imagesTr" / f"{case}_{channel:04}.nii.gz", image)
        write_nifti(folder / "labelsTr" / f"{case}.nii.gz", np.array([0, 4, 2, 3, 1], np.uint8)[labels])
    return folder


MSD = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "spleen", "2": "right kidney", "3": "left kidney", "4": "liver"},
    "numTraining": 2,
    "training": [{"image": f"./imagesTr/x_{n}.nii.gz", "label": f"./labelsTr/x_{n}.nii.gz"} for n in (1, 2)],
    "test": [],
}
"""dataset.json of `msd` with one modality."""


def msd(folder, **changed):
    """A task of the Decathlon with macOS's `._` files; the modalities lie along the fourth axis."""
    facts = MSD | changed
    write_json(folder / "dataset.json", facts)
    for n in (1, 2):
        channels = [body(10 * n + channel)[0] for channel in range(len(facts["modality"]))]
        write_nifti(folder / "imagesTr" / f"x_{n}.nii.gz", np.stack(channels, -1) if channels[1:] else channels[0])
        write_nifti(folder / "labelsTr" / f"x_{n}.nii.gz", np.array([0, 4, 2, 3, 1], np.uint8)[body()[1]])
        for kind in ("imagesTr", "labelsTr"):
            (folder / kind / f"._x_{n}.nii.gz").write_bytes(b"\x00\x05\x16\x07 of macOS")
    return folder


MASKS = {1: "liver", 2: "kidney_right", 3: "kidney_left", 4: "spleen"}
"""Files of TotalSegmentator by class."""


def totalsegmentator(folder, subjects=("s0000", "s0001"), image="ct"):
    """One mask an organ, and one of an organ that nobody asks for."""
    for number, subject in enumerate(subjects):
        array, labels = body(number)
        write_nifti(folder / subject / f"{image}.nii.gz", array)
        for value, name in {**MASKS, 9: "colon"}.items():
            write_nifti(folder / subject / "segmentations" / f"{name}.nii.gz", (labels == value).astype(np.uint8))
    return folder


ORGAN_FOLDERS = {1: "liver_label", 2: "rightKidney_label", 3: "leftKidney_label", 4: "spleen_label"}
"""Folders of AttENT's masks by class."""


def attent_png(folder, cases=("IMG-0001-000{:02}", "IMG-0002-000{:02}"), split="train", organs=True, grey=True):
    """mri_dataset/train of these patients, slices numbered from 3; image values are divided by 4 to fit into 8 bits."""
    for number, case in enumerate(cases):
        image, labels = body(number)
        for z in range(SLICES):
            name, plane = case.format(z + 3) + ".png", labels[:, :, z].T
            write_png(folder / split / "image" / name, np.clip(image[:, :, z].T // 4, 0, 255).astype(np.uint8))
            for value, inner in ORGAN_FOLDERS.items() if organs else ():
                write_png(folder / split / "label" / inner / name, np.uint8(255) * (plane == value))
            if grey:
                write_png(folder / split / "label" / name, np.array(GREY, np.uint8)[plane])
    return folder


def sifa_npz(folder, names=("ct_1", "ct_2")):
    """arr_0 of mean 0 and standard deviation 1, arr_1 its labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image, labels = body(number)
        np.savez(folder / f"{name}.npz", (image - image.mean()) / image.std(), labels.astype(np.float32))
    return folder
