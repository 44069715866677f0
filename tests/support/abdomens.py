"""Small abdomens of the phantom as NIfTI pairs, whole or spoiled, and what `attentkit check` says of them."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from attent_kit.data.phantom import PhantomSize, phantom_case

SIZE = PhantomSize(48, (6, 0, 0), (6, 0, 0), (8.0, 8.0), (8.0, 8.0), (0, 0), (1, 1), (1, 1))
"""Six patients a modality, 48 x 48 pixels of 8 mm and 25 to 29 slices 8 mm apart; all have all four organs."""


class Abdomen(NamedTuple):
    """Image and labels [X, Y, Z] in RAS: x towards the patient's left to right, y to the front, z to the head."""

    image: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


@cache
def abdomen(modality="ct", patient=1):
    """One patient, whose axes are those of the patient as in RAS. Arrays are shared: change copies."""
    case = phantom_case(modality, patient, SIZE, 0)
    image = nib.as_closest_canonical(nib.Nifti1Image(case.image, case.affine))
    labels = nib.as_closest_canonical(nib.Nifti1Image(case.labels, case.affine))
    return Abdomen(np.asarray(image.dataobj), np.asarray(labels.dataobj), image.affine)


def write(folder, case, body, **header):
    """FOLDER/images/CASE.nii.gz and FOLDER/labels/CASE.nii.gz; labels may be None. `header` has codes of qform and sform."""
    for kind, array in (("images", body.image), ("labels", body.labels)):
        if array is None:
            continue
        path = Path(folder) / kind / f"{case}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = nib.Nifti1Image(array, body.affine)
        volume.set_sform(body.affine, code=header.get("sform", 1))
        volume.set_qform(header.get("qform_affine", body.affine), code=header.get("qform", 1))
        nib.save(volume, path)
    return Path(folder)


def write_unplaced(folder, case, body):
    """The same without an orientation in the header: nibabel takes it as LAS, which it is here."""
    labels = None if body.labels is None else body.labels[::-1]
    return write(folder, case, body._replace(image=body.image[::-1], labels=labels), qform=0, sform=0)


def patients(folder, modality="ct", count=3):
    """So many whole abdomens, called ct_1 to ct_3."""
    for n in range(1, count + 1):
        write(folder, f"{modality}_{n}", abdomen(modality, n))
    return Path(folder)


class Found(NamedTuple):
    """What `check --json` answered."""

    code: int
    findings: list

    def about(self, check):
        """(severity, case, evidence) of the findings of one kind."""
        return [(f["severity"], f["case"], f["evidence"]) for f in self.findings if f["check"] == check]

    @property
    def serious(self):
        """Errors and warnings."""
        return [f for f in self.findings if f["severity"] != "note"]


def checked(attentkit, *words):
    """`attentkit check ... --json`, which must have ended in 0 or 3 and, in the latter case, in an error."""
    outcome = attentkit("check", *words, "--json")
    assert outcome.code in (0, 3), outcome.err
    found = Found(outcome.code, json.loads(outcome.out))
    assert (found.code == 3) == any(f["severity"] == "error" for f in found.findings)
    assert all(f["evidence"] and f["advice"] and f["file"] for f in found.findings)
    return found


def only(found, check, severity, case=None):
    """The evidence of the one finding of that kind, which is the only one that is not a note."""
    assert [f["check"] for f in found.serious] == [check], found.serious
    ((how_bad, which, evidence),) = [finding for finding in found.about(check) if finding[0] != "note"]
    assert how_bad == severity and (case is None or which == case)
    return evidence
