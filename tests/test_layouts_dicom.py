"""DICOM as a scanner exports it: a folder a series, a case a folder, label maps as NIfTI beside or none at all."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.dicom import read_series
from attent_kit.data.sets.recognise import open_layout
from attent_kit.errors import ConfigError, DataError
from attent_kit.plugins import load
from attent_kit.testing import check_layout
from attentkit_builtin.layouts.chaos import Chaos
from attentkit_builtin.layouts.dicom import DicomFolders
from support.dicom_slices import UID, values, write_series

ORGANS = "liver=1"


def patients(folder, names=("p1", "p2", "p3")):
    """A series of 4 x 3 x 5 voxels in the folder of each patient."""
    for n, name in enumerate(names):
        write_series(folder / name, values() + 7 * n, SeriesInstanceUID=f"{UID}.{n}")
    return folder


def drawn(series, path):
    """A label map of a series, stored with its first axis turned round: 1 where the value is above 200."""
    image, _ = read_series(series)
    labels = nib.Nifti1Image((image.array > 200).astype(np.uint8)[::-1], image.affine @ np.diag([-1, 1, 1, 1]))
    labels.affine[:3, 3] = (image.affine @ [image.array.shape[0] - 1, 0, 0, 1])[:3]
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels.dataobj, labels.affine), path)
    return path


def test_it_keeps_the_contract_of_a_layout(tmp_path):
    (tmp_path / "else").mkdir()
    check_layout(DicomFolders, patients(tmp_path / "set"), elsewhere=tmp_path / "else")


def test_a_folder_of_folders_is_a_case_each_with_its_modality(tmp_path):
    layout = open_layout(patients(tmp_path / "set"), load().registry)
    assert isinstance(layout, DicomFolders)
    assert [(e.id, e.modality, len(e.images), e.labels) for e in layout.entries()] == [
        (name, "ct", 5, ()) for name in ("p1", "p2", "p3")
    ]
    assert np.array_equal(layout.read(layout.entries()[1]).image.array, values() + 7)


def test_the_folder_of_one_series_is_one_case_and_takes_one_file_of_labels(tmp_path):
    folder = patients(tmp_path / "set") / "p1"
    layout = DicomFolders(folder, labels=drawn(folder, tmp_path / "anything.nii.gz"))
    (entry,) = layout.entries()
    scan = layout.read(entry)
    assert entry.id == "p1"
    # Drawn with another axis order, they come back in that of the slices.
    assert np.array_equal(scan.labels.array, values() > 200) and 0 < scan.labels.array.sum() < values().size


def test_labels_go_by_the_names_of_the_folders(tmp_path):
    folder, labels = patients(tmp_path / "set"), tmp_path / "labels"
    for name in ("p1", "p3"):
        drawn(folder / name, labels / f"{name}_seg.nii.gz")
    with pytest.raises(DataError, match=r"p2: .*p2\.nii\.gz.*--allow-unlabelled"):
        DicomFolders(folder, labels=labels).entries()
    entries = DicomFolders(folder, labels=labels, allow_unlabelled=True).entries()
    assert [bool(entry.labels) for entry in entries] == [True, False, True]
    shutil.move(labels / "p3_seg.nii.gz", labels / "p9.nii.gz")
    with pytest.raises(DataError, match=r"no series .*p9\.nii\.gz: name"):
        DicomFolders(folder, labels=labels, allow_unlabelled=True).entries()
    with pytest.raises(DataError, match="is one file for several series"):
        DicomFolders(folder, labels=labels / "p1_seg.nii.gz").entries()


def test_one_of_several_series_in_a_folder_is_chosen_by_its_uid_or_refused(tmp_path):
    for n in (1, 2):
        write_series(tmp_path / "set", values() + n, [f"{n}{z}" for z in range(5)], SeriesInstanceUID=f"{UID}.{n}")
    assert DicomFolders.parts(tmp_path / "set") == (f"{UID}.1", f"{UID}.2")
    with pytest.raises(ConfigError, match=r"choose one with --part"):
        open_layout(tmp_path / "set", load().registry)
    layout = open_layout(tmp_path / "set", load().registry, part=f"{UID}.2")
    assert np.array_equal(layout.read(layout.entries()[0]).image.array, values() + 2)


def test_what_chaos_has_is_left_to_chaos(tmp_path):
    folder = tmp_path / "CHAOS" / "Train_Sets" / "CT"
    for case in ("1", "2"):
        write_series(folder / case / "DICOM_anon")
        (folder / case / "Ground").mkdir()
    for place in (tmp_path / "CHAOS", folder):
        assert Chaos.recognises(place) and not DicomFolders.recognises(place)
    assert DicomFolders.recognises(folder / "1" / "DICOM_anon")


def test_strays_beside_slices_do_not_hide_a_series(tmp_path):
    write_series(tmp_path / "set", names=["IM1", "IM2", "IM3", "IM4", "IM5"])
    (tmp_path / "set" / "README").write_text("of the scanner")
    assert DicomFolders.recognises(tmp_path / "set")
    (entry,) = DicomFolders(tmp_path / "set").entries()
    assert len(entry.images) == 5


def test_unlabelled_and_labelled_series_are_prepared_by_one_command(attentkit, tmp_path):
    folder = patients(tmp_path / "set")
    for name in ("p1", "p2", "p3"):
        drawn(folder / name, tmp_path / "labels" / f"{name}.nii.gz")
    options = ("--size", "32", "--workers", "1")
    outcome = attentkit(
        "prepare", folder, "--labels", tmp_path / "labels", "--organs", ORGANS, *options, "--out", tmp_path / "a.h5"
    )
    assert outcome.code == 0 and "Modality ct" in outcome.out
    outcome = attentkit("prepare", folder, "--organs", ORGANS, *options, "--out", tmp_path / "b.h5")
    assert outcome.code == 0
    a, b = Prepared.open(tmp_path / "a.h5"), Prepared.open(tmp_path / "b.h5")
    assert {case.has_labels for case in a.cases} == {True} and {case.has_labels for case in b.cases} == {False}
    assert all(np.array_equal(a.slices(case.id), b.slices(case.id)) for case in a.cases)
