"""The phantom as real data sets lie on disk, to try what reads those without downloading one.

    chaos     Train_Sets/MR/1/T2SPIR/DICOM_anon/IMG-0004-00001.dcm, Ground/IMG-0004-00001.png
              Train_Sets/CT/1/DICOM_anon/i0000,0000b.dcm, Ground/liver_GT_000.png, the liver alone
    btcv      RawData/Training/img/img0001.nii.gz, label/label0001.nii.gz, CT only
    nnunet    Dataset001_PhantomCT, Dataset002_PhantomMR; fold 0 validates on the phantom's val and test patients
    msd       Task01_PhantomCT, Task02_PhantomMR, with the `._` files that macOS leaves in archives

Nothing is lost on the way: grey values of the phantom are integers, and are stored as they are, or in DICOM CT as HU + 1024
with RescaleIntercept -1024. NIfTI keeps the axis order of each patient; DICOM slices are written as scanners write them,
columns to the left and rows to the back, so they are read as LPS, whatever the order of the phantom was.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from attent_kit.data.phantom.case import PhantomCase
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.phantom.write import (
    KIND,
    ReportDone,
    compressed,
    every_case,
    require_size,
    whole_folder,
    write_phantom,
)
from attent_kit.data.scans.dicom_file import require_pydicom
from attent_kit.errors import ConfigError, DataError, did_you_mean

LAYOUTS = ("nifti", "chaos", "btcv", "nnunet", "msd")
Order = Literal["same", "reversed"]
"""Whether file names and InstanceNumbers rise towards the head, or fall."""

CHAOS_MR = (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)
CHAOS_CT = (1, 2, 5, 6, 8, 10, 14, 16, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30)
"""The labelled cases of CHAOS; further patients are numbered from 41."""
CHAOS_GREY = np.array([0, 63, 126, 189, 252], np.uint8)
"""Grey value of each label in a mask of MR."""
BTCV = (*range(1, 11), *range(21, 41))
"""The labelled cases of BTCV; further patients are numbered from 41."""
BTCV_LABEL = np.array([0, 6, 2, 3, 1], np.uint8)
"""BTCV's number of each label; of its 13 organs the phantom has four."""
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x00"
"""What a `._` file of macOS begins with; this one has no entries."""


def export_phantom(
    out: Path | str,
    layout: str,
    size: str,
    seed: int = 0,
    *,
    masks: Order = "same",
    report: ReportDone | None = None,
) -> None:
    """Writes the phantom of a size to the folder OUT in a layout, whole or not at all; the same seed gives the same bytes.

    `masks` is for CHAOS. phantom.toml says of each case what it is. ConfigError for an unknown name, DataError unless OUT
    is new or empty; the layout nifti may also replace a phantom.
    """
    if layout not in LAYOUTS:
        raise ConfigError(
            f"no layout is called '{layout}'.{did_you_mean(layout, LAYOUTS)} Layouts: {', '.join(LAYOUTS)}."
        )
    if masks not in ("same", "reversed"):
        raise ConfigError(f"masks='{masks}' is not known: choose 'same' or 'reversed'.")
    require_size(size)
    if layout == "nifti":
        write_phantom(Path(out), size, seed, report)
        return
    if layout == "chaos":
        require_pydicom()
    writers: dict[str, Callable[[Path], _Written]] = {
        "chaos": lambda folder: _chaos(folder, size, seed, masks, report),
        "btcv": lambda folder: _btcv(folder, size, seed, report),
        "nnunet": lambda folder: _decathlon(folder, size, seed, report, nnunet=True),
        "msd": lambda folder: _decathlon(folder, size, seed, report, nnunet=False),
    }

    def write(folder: Path) -> None:
        facts = {"kind": KIND, "size": size, "seed": seed, "layout": layout, "organs": list(ORGANS)}
        _save(folder / "phantom.toml", tomli_w.dumps(facts | {"cases": writers[layout](folder)}).encode())

    whole_folder(Path(out), _refuse_unless_empty, write)


_Written = dict[str, dict]
"""What phantom.toml says of each case, by the name that it has in the layout."""


def in_lps(case: PhantomCase) -> PhantomCase:
    """The same patient with the axes stored to the left, to the back and to the head."""
    turn = ornt_transform(io_orientation(case.affine), axcodes2ornt("LPS"))
    image, labels = (np.ascontiguousarray(apply_orientation(array, turn)) for array in (case.image, case.labels))
    affine = case.affine @ inv_ornt_aff(turn, case.image.shape)
    return PhantomCase(image, labels, affine, "LPS", case.facts | {"axes": "LPS"})


def numbered(patient: int, known: tuple[int, ...]) -> int:
    """The number in a data set of a patient of the phantom, both from 1."""
    return known[patient - 1] if patient <= len(known) else max(40, *known) + patient - len(known)


# CHAOS


def _chaos(folder: Path, size: str, seed: int, masks: Order, report: ReportDone | None) -> _Written:
    written = {}
    for modality, patient, name, case in every_case(size, seed, report):
        case, number = in_lps(case), numbered(patient, CHAOS_MR if modality == "mr" else CHAOS_CT)
        place = folder / "Train_Sets" / modality.upper() / str(number) / ("T2SPIR" if modality == "mr" else "")
        count = case.image.shape[2]
        for z in range(count):
            instance = z + 1 if masks == "same" else count - z
            plane = case.labels[:, :, z].T
            if modality == "mr":
                slice_name = mask_name = f"IMG-0004-{instance:05d}"
                mask = Image.fromarray(CHAOS_GREY[plane])
            else:
                slice_name, mask_name = f"i{instance - 1:04d},0000b", f"liver_GT_{instance - 1:03d}"
                mask = Image.fromarray(plane == ORGANS.index("liver") + 1)
            picture = io.BytesIO()
            mask.save(picture, format="PNG")
            _save(place / "Ground" / f"{mask_name}.png", picture.getvalue())
            _save(place / "DICOM_anon" / f"{slice_name}.dcm", _dicom(case, z, instance, f"{seed} {name}", number))
        written[f"{modality.upper()}-{number}"] = case.facts
    return written


def _dicom(case: PhantomCase, z: int, instance: int, series: str, number: int) -> bytes:
    """One slice of a case in LPS as a DICOM file; UIDs are made of `series`, so that they are always the same."""
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
    made.SeriesNumber, made.InstanceNumber = 4, instance
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


# NIfTI


def _btcv(folder: Path, size: str, seed: int, report: ReportDone | None) -> _Written:
    written, training = {}, folder / "RawData" / "Training"
    for _, patient, _, case in every_case(size, seed, report, ("ct",)):
        number = f"{numbered(patient, BTCV):04d}"
        _save(training / "img" / f"img{number}.nii.gz", compressed(case.image, case))
        _save(training / "label" / f"label{number}.nii.gz", compressed(BTCV_LABEL[case.labels], case))
        written[number] = case.facts
    return written


def _decathlon(folder: Path, size: str, seed: int, report: ReportDone | None, *, nnunet: bool) -> _Written:
    """nnU-Net's layout or the one of the Medical Segmentation Decathlon that it comes from: a data set a modality."""
    written: _Written = {}
    for modality, _, name, case in every_case(size, seed, report):
        home, image = _home(folder, modality, nnunet), f"{name}_0000.nii.gz" if nnunet else f"{name}.nii.gz"
        for path, array in ((f"imagesTr/{image}", case.image), (f"labelsTr/{name}.nii.gz", case.labels)):
            _save(home / path, compressed(array, case))
            if not nnunet:
                _save((home / path).with_name(f"._{Path(path).name}"), APPLE_DOUBLE)
        written[name] = case.facts
    for modality in ("ct", "mr"):
        home, cases = _home(folder, modality, nnunet), [n for n in written if written[n]["modality"] == modality]
        _json(home / "dataset.json", (_nnunet_facts if nnunet else _msd_facts)(modality, cases))
        if nnunet:
            train = [name for name in cases if written[name]["split"] == "train"]
            fold = {"train": train, "val": [name for name in cases if name not in train]}
            _json(home / "splits_final.json", [fold])
        else:
            _save(home / "._dataset.json", APPLE_DOUBLE)
    return written


def _home(folder: Path, modality: str, nnunet: bool) -> Path:
    number = 1 if modality == "ct" else 2
    return folder / f"{f'Dataset{number:03d}' if nnunet else f'Task{number:02d}'}_Phantom{modality.upper()}"


def _nnunet_facts(modality: str, cases: list[str]) -> dict[str, Any]:
    return {
        "channel_names": {"0": "CT" if modality == "ct" else "MR"},
        "labels": {"background": 0} | {organ: value for value, organ in enumerate(ORGANS, start=1)},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }


def _msd_facts(modality: str, cases: list[str]) -> dict[str, Any]:
    return {
        "name": f"Phantom{modality.upper()}",
        "description": "Made-up abdomens of attent-kit, no patients",
        "tensorImageSize": "3D",
        "modality": {"0": "CT" if modality == "ct" else "MRI"},
        "labels": {"0": "background"} | {str(value): organ for value, organ in enumerate(ORGANS, start=1)},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in cases],
        "test": [],
    }


def _json(path: Path, value: Any) -> None:
    _save(path, (json.dumps(value, indent=2) + "\n").encode())


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _refuse_unless_empty(out: Path) -> None:
    """DataError unless `out` is new or an empty folder: what is in it may be real data."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise DataError(f"{out} is there already. Name a new folder: `attentkit phantom FOLDER --layout ...`.")
