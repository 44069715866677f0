"""The phantom as CHAOS lies on disk.

    Train_Sets/MR/1/T2SPIR/DICOM_anon/IMG-0004-00001.dcm, Ground/IMG-0004-00001.png
    Train_Sets/CT/1/DICOM_anon/i0000,0000b.dcm, Ground/liver_GT_000.png, the liver alone

Grey values of the phantom are integers and are stored as they are, of CT as HU + 1024 with RescaleIntercept -1024. Slices are
written as scanners write them, columns to the left and rows to the back, so they are read as LPS, whatever the order of the
phantom was.
"""

import io
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from attent_kit.data.phantom.case import PhantomCase
from attent_kit.data.phantom.numbers import CHAOS_CT, CHAOS_MR, case_numbers, split_facts, tested_by
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.phantom.volumes import CaseFacts, every_case, save
from attent_kit.data.scans.dicom_file import require_pydicom
from attent_kit.data.workers import ReportDone

CHAOS_GREY = np.array([0, 63, 126, 189, 252], np.uint8)
"""Grey value of each label in a mask of MR."""


def in_lps(case: PhantomCase) -> PhantomCase:
    """The same patient with the axes stored to the left, to the back and to the head."""
    turn = ornt_transform(io_orientation(case.affine), axcodes2ornt("LPS"))
    image, labels = (np.ascontiguousarray(apply_orientation(array, turn)) for array in (case.image, case.labels))
    affine = case.affine @ inv_ornt_aff(turn, case.image.shape)
    return PhantomCase(image, labels, affine, "LPS", case.facts | {"axes": "LPS"})


def write_chaos(folder: Path, options: PhantomOptions, report: ReportDone | None) -> CaseFacts:
    """Both modalities; named splits go by the numbers of MR."""
    written, grid = CaseFacts(), options.grid
    tested = {"mr": tested_by(options, "mr", grid.mr_patients), "ct": ()}
    numbers = {
        "mr": case_numbers(CHAOS_MR, grid.mr_patients, tested["mr"]),
        "ct": case_numbers(CHAOS_CT, grid.ct_patients),
    }
    for modality, patient, name, stored in every_case(options, report):
        case, number = in_lps(stored), numbers[modality][patient - 1]
        place = folder / "Train_Sets" / modality.upper() / str(number) / ("T2SPIR" if modality == "mr" else "")
        _write_series(place, case, f"{options.seed} {name}", number)
        written[f"{modality.upper()}-{number}"] = split_facts(case.facts, number, tested[modality])
    return written


def _write_series(place: Path, case: PhantomCase, series: str, number: int) -> None:
    """The slices of a case in LPS as DICOM, and their masks as PNG."""
    for z in range(case.image.shape[2]):
        plane = case.labels[:, :, z].T
        if case.facts["modality"] == "mr":
            slice_name = mask_name = f"IMG-0004-{z + 1:05d}"
            mask = Image.fromarray(CHAOS_GREY[plane])
        else:
            slice_name, mask_name = f"i{z:04d},0000b", f"liver_GT_{z:03d}"
            mask = Image.fromarray(plane == ORGANS.index("liver") + 1)
        picture = io.BytesIO()
        mask.save(picture, format="PNG")
        save(place / "Ground" / f"{mask_name}.png", picture.getvalue())
        save(place / "DICOM_anon" / f"{slice_name}.dcm", _dicom(case, z, series, number))


def _dicom(case: PhantomCase, z: int, series: str, number: int) -> bytes:
    """One slice of a case in LPS as a DICOM file; UIDs are made from `series`, so that they are always the same."""
    pydicom = require_pydicom()
    uid = pydicom.uid
    is_ct = case.facts["modality"] == "ct"
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage if is_ct else uid.MRImageStorage
    made.SOPInstanceUID = uid.generate_uid(entropy_srcs=["phantom", series, str(z)])
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if is_ct else ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"]
    made.Modality = "CT" if is_ct else "MR"
    made.PatientName = made.PatientID = f"phantom-{case.facts['modality']}{number}"
    made.StudyInstanceUID = uid.generate_uid(entropy_srcs=["phantom study", series])
    made.SeriesInstanceUID = uid.generate_uid(entropy_srcs=["phantom series", series])
    made.FrameOfReferenceUID = uid.generate_uid(entropy_srcs=["phantom frame", series])
    made.SeriesDescription = "phantom portal venous" if is_ct else "phantom T2 SPIR"
    made.SeriesNumber, made.InstanceNumber = 4, z + 1
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(made, keyword, "")
    if not is_ct:
        made.ScanningSequence, made.SequenceVariant, made.MRAcquisitionType = "SE", "SK", "2D"
        made.RepetitionTime, made.EchoTime = case.facts["repetition_time"], case.facts["echo_time"]
    for keyword, values in _geometry(case, z).items():
        texts = [pydicom.valuerep.format_number_as_ds(float(value)) for value in values]
        setattr(made, keyword, texts if len(texts) > 1 else texts[0])
    stored = case.image[:, :, z].T.astype(np.int32) + 1024 * is_ct
    made.RescaleIntercept, made.RescaleSlope = (-1024, 1) if is_ct else (0, 1)
    bits = 12 if stored.max() < 2**12 else 16
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
    made.Rows, made.Columns = stored.shape
    made.PixelData = stored.astype("<u2").tobytes()
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def _geometry(case: PhantomCase, z: int) -> dict[str, np.ndarray]:
    """The tags that place slice z in the patient, in mm; DICOM counts to the left and to the back where RAS does not."""
    affine = np.diag([-1.0, -1, 1, 1]) @ case.affine
    across, down, up = np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "ImagePositionPatient": (affine @ [0, 0, z, 1])[:3],
        "ImageOrientationPatient": np.concatenate([affine[:3, 0] / across, affine[:3, 1] / down]),
        "PixelSpacing": np.array([down, across]),
        "SpacingBetweenSlices": np.array([up]),
        # An MR slice of the phantom is excited over 85 % of the distance to the next.
        "SliceThickness": np.array([up if case.facts["modality"] == "ct" else 0.85 * up]),
    }
