"""DICOM files that tests write: small slices with the tags of a scanner, and wrong ones on request."""

from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian  # noqa: E402

AXIAL = (1, 0, 0, 0, 1, 0)
"""Rows run to the left, columns to the back."""
UID = "1.2.826.0.1.3680043.8.498.1"
DISTANCE = 5.0
"""mm between slices."""


def values(slices=5):
    """Stored values [X, Y, Z] of 4 columns, 3 rows: 100 z + 10 y + x."""
    x, y, z = np.indices((4, 3, slices))
    return (100 * z + 10 * y + x).astype(np.uint16)


def a_slice(pixels, position, **tags):
    """The data set of one slice; `pixels` [rows, columns], position in mm; a tag of None is left out."""
    pixels = np.asarray(pixels)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(position), str(tags)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.SeriesDescription, made.SeriesInstanceUID = "CT", "Abdomen", UID
    made.ImagePositionPatient, made.ImageOrientationPatient = [float(x) for x in position], list(AXIAL)
    made.PixelSpacing, made.SliceThickness = [2.0, 0.5], DISTANCE
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.astype(np.int16 if pixels.dtype.kind == "i" else np.uint16).tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def save(dataset, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(folder, stored=None, names=None, heights=None, tags=None, **common):
    """Slices of `stored` [X, Y, Z] at (-10, -20, height); `tags` is a dict a slice. The files, in order of the slices."""
    stored = values() if stored is None else stored
    count = stored.shape[2]
    names = names or [f"{z}.dcm" for z in range(count)]
    heights = heights if heights is not None else [DISTANCE * z for z in range(count)]
    return [
        save(
            a_slice(
                stored[:, :, z].T,
                (-10, -20, heights[z]),
                **{"InstanceNumber": z + 1, **common, **(tags[z] if tags else {})},
            ),
            Path(folder) / names[z],
        )
        for z in range(count)
    ]


def multi_frame(stored, order, slopes=None):
    """Enhanced CT of `stored` [X, Y, Z] with its frames in `order`, 5 mm apart; orientation shared, position a frame."""
    frames = np.stack([stored[:, :, z].T for z in order])
    made = a_slice(frames, (0, 0, 0), ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = EnhancedCTImageStorage
    made.NumberOfFrames = len(order)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [2.0, 0.5]
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for z in order:
        group, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, -20.0, DISTANCE * z]
        rescale.RescaleSlope, rescale.RescaleIntercept = (slopes or {}).get(z, 1), -1024
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [rescale]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    return made
