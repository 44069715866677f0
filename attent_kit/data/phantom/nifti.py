"""The phantom as pairs of NIfTI files: its own folders, BTCV, nnU-Net and the Medical Segmentation Decathlon.

    nifti     ct/images/ct_01.nii.gz, ct/labels/ct_01.nii.gz
    btcv      RawData/Training/img/img0001.nii.gz, label/label0001.nii.gz, CT only
    nnunet    Dataset001_PhantomCT, Dataset002_PhantomMR; fold 0 validates on the phantom's val and test patients
    msd       Task01_PhantomCT, Task02_PhantomMR, with the `._` files that macOS leaves in archives

Each keeps the grey values and the axis order of its patient.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from attent_kit.data.phantom.numbers import BTCV, case_numbers, split_facts, tested_by
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.phantom.volumes import CaseFacts, compressed, every_case, save
from attent_kit.data.workers import ReportDone

BTCV_LABEL = np.array([0, 6, 2, 3, 1], np.uint8)
"""BTCV's number of each label; of its 13 organs the phantom has four."""
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \x00\x00"
"""What a `._` file of macOS begins with; this one has no entries."""


def write_nifti(folder: Path, options: PhantomOptions, report: ReportDone | None) -> CaseFacts:
    """The phantom's own layout: pairs of images and labels for each modality."""
    written: CaseFacts = {}
    for modality, _, name, case in every_case(options, report):
        for kind, array in (("images", case.image), ("labels", case.labels)):
            save(folder / case_path(modality, kind, name), compressed(array, case))
        written[name] = case.facts
    return written


def case_path(modality: str, kind: str, name: str) -> Path:
    """Where a volume of `kind` images or labels lies in the folder."""
    return Path(modality, kind, f"{name}.nii.gz")


def write_btcv(folder: Path, options: PhantomOptions, report: ReportDone | None) -> CaseFacts:
    """CT alone."""
    written, training = {}, folder / "RawData" / "Training"
    tested = tested_by(options, "ct", options.grid.ct_patients)
    numbers = case_numbers(BTCV, options.grid.ct_patients, tested)
    for _, patient, _, case in every_case(options, report, ("ct",)):
        number = f"{numbers[patient - 1]:04d}"
        save(training / "img" / f"img{number}.nii.gz", compressed(case.image, case))
        save(training / "label" / f"label{number}.nii.gz", compressed(BTCV_LABEL[case.labels], case))
        written[number] = split_facts(case.facts, numbers[patient - 1], tested)
    return written


def write_nnunet(folder: Path, options: PhantomOptions, report: ReportDone | None) -> CaseFacts:
    """nnU-Net's layout: a data set for each modality."""
    return _decathlon(folder, options, report, nnunet=True)


def write_msd(folder: Path, options: PhantomOptions, report: ReportDone | None) -> CaseFacts:
    """The layout of the Medical Segmentation Decathlon: a data set for each modality."""
    return _decathlon(folder, options, report, nnunet=False)


def _decathlon(folder: Path, options: PhantomOptions, report: ReportDone | None, *, nnunet: bool) -> CaseFacts:
    written: CaseFacts = {}
    for modality, _, name, case in every_case(options, report):
        home, image = _home(folder, modality, nnunet), f"{name}_0000.nii.gz" if nnunet else f"{name}.nii.gz"
        for path, array in ((f"imagesTr/{image}", case.image), (f"labelsTr/{name}.nii.gz", case.labels)):
            save(home / path, compressed(array, case))
            if not nnunet:
                save((home / path).with_name(f"._{Path(path).name}"), APPLE_DOUBLE)
        written[name] = case.facts
    for modality in ("ct", "mr"):
        home, cases = _home(folder, modality, nnunet), [n for n in written if written[n]["modality"] == modality]
        _json(home / "dataset.json", (_nnunet_facts if nnunet else _msd_facts)(modality, cases))
        if nnunet:
            train = [name for name in cases if written[name]["split"] == "train"]
            fold = {"train": train, "val": [name for name in cases if name not in train]}
            _json(home / "splits_final.json", [fold])
        else:
            save(home / "._dataset.json", APPLE_DOUBLE)
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
    save(path, (json.dumps(value, indent=2) + "\n").encode())
