"""DICOM Segmentations that tests write beside a series of `layout_folders.body`, and read."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from attent_kit.data.scans.dicom import choose_series, read_series  # noqa: E402
from attent_kit.data.scans.dicom_seg import find_segmentations, read_segmentation  # noqa: E402
from attent_kit.data.scans.dicom_seg_write import Algorithm, write_segmentation  # noqa: E402
from support.dicom_slices import UID, write_series  # noqa: E402
from support.layout_folders import ORGANS, body  # noqa: E402

COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
SLICES = 9


def series(folder, seed=1, uid=UID, **tags):
    """`body` as a series whose names do not tell the order, 5 mm apart."""
    grey, _ = body(seed)
    names = [f"{4 * z % SLICES}.dcm" for z in range(SLICES)]
    write_series(folder, (grey + 200).astype(np.uint16), names, PixelSpacing=[2.0, 1.5], SeriesInstanceUID=uid, **tags)
    return choose_series(folder)


def written(folder, labels=None, organs=ORGANS, **tags):
    """A series in `folder` and a segmentation of `body` in seg.dcm beside it: the series, its volume and the file."""
    found = series(folder, **tags)
    labels = body()[1] if labels is None else labels
    path = folder / "seg.dcm"
    write_segmentation(path, labels, organs, found, Algorithm("attent", "1.0"), COLOURS)
    return found, read_series(found)[0], path


def read(path, found, image, values=None):
    (one,) = find_segmentations(path)
    return read_segmentation(one, found, image, values or {segment.number: segment.number for segment in one.segments})


def changed(path, change):
    """The file with its data set changed by a function."""
    made = pydicom.dcmread(path)
    change(made)
    made.save_as(path)
    return path


def reordered(made, order):
    """The frames of a segmentation in another order, pixels and descriptions."""
    frames = made.pixel_array[order]
    made.PerFrameFunctionalGroupsSequence = [made.PerFrameFunctionalGroupsSequence[n] for n in order]
    made.NumberOfFrames = len(order)
    set_frames(made, frames)


def set_frames(made, frames, bits=1):
    if bits == 1:
        packed = np.packbits(np.asarray(frames, np.uint8).reshape(-1), bitorder="little").tobytes()
    else:
        packed = np.asarray(frames, np.uint8).tobytes()
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelData = packed + b"\0" * (len(packed) % 2)
