"""The phantom laid out as real data sets and read back: the arrays that went in come out, whichever way it was stored."""

import shutil

import numpy as np
import pytest

from attent_kit.data.phantom import PhantomSize, phantom_case
from attent_kit.data.phantom.chaos import in_lps
from attent_kit.data.sets.recognise import open_layout
from attent_kit.errors import DataError
from attent_kit.plugins import load
from support.layout_folders import renumber, write_phantoms

pytest.importorskip("pydicom")

TINY = PhantomSize(32, (1, 0, 1), (2, 1, 1), (12.0, 12.0), (12.0, 12.0), (0, 0), (1, 1), (1, 1))
"""Two MR and four CT of 32 x 32 pixels."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder for each layout, and CHAOS with file names and InstanceNumbers against the patient."""
    home = write_phantoms(tmp_path_factory.mktemp("exported"), TINY)
    renumber(shutil.copytree(home / "chaos", home / "reversed"))
    return home


def scan_and_classes(place, part=None, case=0):
    """Case number `case` of the layout that recognises the place, and its labels as classes of the task."""
    layout = open_layout(place, load().registry, part=part)
    scan = layout.read(layout.entries()[case])
    return scan, layout.organs.in_task_order().apply(scan.labels.array, "labels")


@pytest.mark.parametrize("folder", ["chaos", "reversed"])
@pytest.mark.parametrize(("part", "number"), [("t2spir", 0), ("t2spir", 1), ("ct", 0), ("ct", 3)])
def test_chaos_comes_back(exported, folder, part, number):
    scan, classes = scan_and_classes(exported / folder, part, number)
    expected = in_lps(phantom_case("mr" if part == "t2spir" else "ct", number + 1, TINY, seed=0))
    truth = expected.labels if part == "t2spir" else expected.labels == 1
    assert np.array_equal(scan.image.array, expected.image) and np.array_equal(classes, truth)
    assert np.allclose(scan.image.affine, expected.affine, atol=1e-6)
    (how,) = [decision for decision in scan.decisions if decision.startswith("masks matched")]
    assert "they lie on the organs" in how and "turned" not in how
    assert [doubt for doubt in scan.doubts if "way round" in doubt] == []


def test_chaos_masks_renumbered_against_the_slices_are_turned_round(exported, tmp_path):
    """CT of both exports: slices of one, masks of the other."""
    for inner, source in (("DICOM_anon", "chaos"), ("Ground", "reversed")):
        (tmp_path / "CT" / "1").mkdir(parents=True, exist_ok=True)
        (tmp_path / "CT" / "1" / inner).symlink_to(exported / source / "Train_Sets" / "CT" / "1" / inner)
    scan, classes = scan_and_classes(tmp_path / "CT")
    assert np.array_equal(classes, in_lps(phantom_case("ct", 1, TINY, seed=0)).labels == 1)
    assert [decision for decision in scan.decisions if "but turned round" in decision]


def test_btcv_comes_back(exported):
    scan, classes = scan_and_classes(exported / "btcv", case=2)
    expected = phantom_case("ct", 3, TINY, seed=0)
    assert np.array_equal(scan.image.array, expected.image) and np.array_equal(classes, expected.labels)


@pytest.mark.parametrize(("layout", "name"), [("nnunet", "Dataset{:03}"), ("msd", "Task{:02}")])
@pytest.mark.parametrize(("number", "modality", "count"), [(1, "ct", 4), (2, "mr", 2)])
def test_data_sets_with_a_dataset_json_come_back(exported, layout, name, number, modality, count):
    folder = exported / layout / f"{name.format(number)}_Phantom{modality.upper()}"
    entries = open_layout(folder, load().registry).entries()
    assert [(entry.id, entry.modality) for entry in entries] == [
        (f"{modality}_{n + 1:02}", modality) for n in range(count)
    ]
    scan, classes = scan_and_classes(folder, case=count - 1)
    expected = phantom_case(modality, count, TINY, seed=0)
    assert np.array_equal(scan.image.array, expected.image) and np.array_equal(classes, expected.labels)
    if layout == "nnunet":
        assert [entry.split for entry in entries] == ["train"] * (count // 2) + ["val"] * (count - count // 2)
    with pytest.raises(DataError, match="several data sets"):
        open_layout(exported / layout, load().registry)
