"""The phantom laid out as real data sets: what is read back is what the phantom was."""

import json
import shutil
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from attent_kit.data.phantom import ORGANS, SIZES, PhantomOptions, PhantomSize, phantom_case, write_phantom
from attent_kit.data.phantom.chaos import in_lps
from attent_kit.data.phantom.numbers import BTCV, CHAOS_CT, CHAOS_MR, case_numbers
from attent_kit.data.phantom.options import LAYOUTS
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.dicom import find_series, read_series
from attent_kit.data.scans.volumes import read_labels, read_volume
from attent_kit.data.sets.splits import numbers_in
from attent_kit.errors import ConfigError, DataError
from support.cases import contents
from support.layout_folders import renumber, write_phantoms

TINY = PhantomSize(32, (1, 0, 1), (2, 1, 1), (20.0, 20.0), (20.0, 20.0), (0, 0), (1, 1), (1, 1))
"""Two MR and four CT of 32 x 32 pixels and some ten slices."""


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """A folder for each layout, and CHAOS with file names against the patient."""
    home = write_phantoms(tmp_path_factory.mktemp("exported"), TINY)
    renumber(shutil.copytree(home / "chaos", home / "reversed"))
    return home


def case(modality, patient):
    return phantom_case(modality, patient, TINY, seed=0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def masks(folder):
    """Grey values of each PNG [X, Y], by name."""
    return {path.stem: values_of(path) for path in sorted(folder.glob("*.png"))}


def values_of(path):
    with Image.open(path) as image:
        return np.asarray(image).T


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


# CHAOS


@pytest.mark.parametrize("folder", ["chaos", "reversed"])
@pytest.mark.parametrize(("modality", "patient", "number"), [("mr", 1, 1), ("mr", 2, 2), ("ct", 1, 1), ("ct", 3, 5)])
def test_a_dicom_series_of_the_phantom_has_its_values_and_its_place(exported, folder, modality, patient, number):
    place = exported / folder / "Train_Sets" / modality.upper() / str(number) / ("T2SPIR" if modality == "mr" else "")
    volume, notes = read_series(place / "DICOM_anon")
    expected = in_lps(case(modality, patient))
    assert np.array_equal(volume.array, expected.image) and volume.orientation == "LPS"
    assert np.allclose(volume.affine, expected.affine, atol=1e-6)
    thick = f"SliceThickness says 17 mm, the positions {volume.spacing[2]:.4g} mm: the positions count."
    assert notes == ((thick,) if modality == "mr" else ())


def test_in_lps_moves_no_voxel_in_the_world():
    before = case("ct", 1)
    after = in_lps(before)
    assert before.codes == "LAS" and after.codes == "LPS"
    voxel = np.argwhere(before.labels == 1)[0]
    at = np.linalg.inv(after.affine) @ before.affine @ [*voxel, 1]
    i, j, k = np.rint(at[:3]).astype(int)
    assert after.labels[i, j, k] == 1 and after.image[i, j, k] == before.image[tuple(voxel)]
    assert j == before.labels.shape[1] - 1 - voxel[1] and (i, k) == (voxel[0], voxel[2])


@pytest.mark.parametrize("folder", ["chaos", "reversed"])
def test_masks_of_mr_bear_the_names_of_their_slices_and_the_grey_values_of_chaos(exported, folder):
    place = exported / folder / "Train_Sets" / "MR" / "1" / "T2SPIR"
    grey = masks(place / "Ground")
    (series,) = find_series(place / "DICOM_anon")
    assert set(grey) == {path.stem for path in series.files} and names(place / "Ground")[0] == "IMG-0004-00001.png"
    labels = np.stack([grey[path.stem] for path in series.files], axis=-1)
    truth = in_lps(case("mr", 1)).labels
    assert set(np.unique(truth)) == {0, 1, 2, 3, 4}
    for value, level in enumerate([0, 63, 126, 189, 252]):
        assert np.array_equal(labels == level, truth == value)
    assert mode_of(place / "Ground" / "IMG-0004-00001.png") == "L"


@pytest.mark.parametrize("folder", ["chaos", "reversed"])
def test_masks_of_ct_have_the_number_of_their_slice_less_one_and_the_liver_alone(exported, folder):
    place = exported / folder / "Train_Sets" / "CT" / "1"
    mask = masks(place / "Ground")
    (series,) = find_series(place / "DICOM_anon")
    labels = np.stack([mask[f"liver_GT_{number - 1:03d}"] for number in series.numbers], axis=-1)
    assert labels.dtype == bool and np.array_equal(labels, in_lps(case("ct", 1)).labels == 1)
    assert names(place / "DICOM_anon")[0] == "i0000,0000b.dcm" and names(place / "Ground")[0] == "liver_GT_000.png"
    assert mode_of(place / "Ground" / "liver_GT_000.png") == "1"


@pytest.mark.parametrize("modality", ["MR/1/T2SPIR", "CT/1"])
def test_file_names_rise_towards_the_head_or_fall(exported, modality):
    up, down = (
        find_series(exported / folder / "Train_Sets" / modality / "DICOM_anon")[0] for folder in ("chaos", "reversed")
    )
    count = len(up.files)
    assert [path.name for path in up.files] == sorted(path.name for path in up.files)
    assert [path.name for path in down.files] == sorted((path.name for path in up.files), reverse=True)
    assert up.numbers == tuple(range(1, count + 1)) and down.numbers == tuple(range(count, 0, -1))


def test_a_ct_is_stored_as_hu_plus_1024_in_12_bits(exported):
    import pydicom

    path = exported / "chaos" / "Train_Sets" / "CT" / "1" / "DICOM_anon" / "i0003,0000b.dcm"
    made = pydicom.dcmread(path)
    assert (made.RescaleSlope, made.RescaleIntercept, made.BitsStored, made.Modality) == (1, -1024, 12, "CT")
    assert np.array_equal(made.pixel_array.T - 1024.0, in_lps(case("ct", 1)).image[:, :, 3])
    assert made.InstanceNumber == 4


def test_patients_have_the_numbers_of_the_data_sets(exported):
    assert names(exported / "chaos" / "Train_Sets" / "MR") == ["1", "2"]
    assert names(exported / "chaos" / "Train_Sets" / "CT") == ["1", "2", "5", "6"]
    assert len(CHAOS_MR) == len(CHAOS_CT) == 20 and len(BTCV) == 30
    assert case_numbers(CHAOS_MR, 22)[18:] == [38, 39, 41, 42]
    assert case_numbers(BTCV, 31)[8:12] == [9, 10, 21, 22] and case_numbers(BTCV, 31)[-2:] == [40, 41]
    # The last patients are for testing.
    assert case_numbers(CHAOS_MR, 7, (1, 13, 32, 38)) == [2, 3, 5, 1, 13, 32, 38]


# NIfTI


def pair(image, labels):
    volume = read_volume(image)
    return volume, read_labels(labels, like=volume)


def test_btcv_has_its_names_and_its_numbers_of_the_organs(exported):
    training = exported / "btcv" / "RawData" / "Training"
    assert names(training / "img") == [f"img000{n}.nii.gz" for n in (1, 2, 3, 4)]
    volume, labels = pair(training / "img" / "img0001.nii.gz", training / "label" / "label0001.nii.gz")
    expected = case("ct", 1)
    assert np.array_equal(volume.array, expected.image) and np.allclose(volume.affine, expected.affine, atol=1e-4)
    for organ, number in (("spleen", 1), ("right kidney", 2), ("left kidney", 3), ("liver", 6)):
        assert np.array_equal(labels.array == number, expected.labels == ORGANS.index(organ) + 1)
    assert names(exported / "btcv") == ["RawData", "phantom.toml"]


def test_nnunet_has_a_data_set_a_modality_with_its_first_fold(exported):
    home = exported / "nnunet"
    assert names(home) == ["Dataset001_PhantomCT", "Dataset002_PhantomMR", "phantom.toml"]
    facts = json.loads((home / "Dataset001_PhantomCT" / "dataset.json").read_text())
    assert facts["channel_names"] == {"0": "CT"} and facts["numTraining"] == 4 and facts["file_ending"] == ".nii.gz"
    assert facts["labels"] == {"background": 0, "liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
    assert names(home / "Dataset002_PhantomMR" / "imagesTr") == ["mr_01_0000.nii.gz", "mr_02_0000.nii.gz"]
    (fold,) = json.loads((home / "Dataset001_PhantomCT" / "splits_final.json").read_text())
    assert fold == {"train": ["ct_01", "ct_02"], "val": ["ct_03", "ct_04"]}
    home /= "Dataset002_PhantomMR"
    volume, labels = pair(home / "imagesTr" / "mr_02_0000.nii.gz", home / "labelsTr" / "mr_02.nii.gz")
    expected = case("mr", 2)
    assert np.array_equal(volume.array, expected.image) and np.array_equal(labels.array, expected.labels)
    assert np.allclose(volume.affine, expected.affine, atol=1e-4)


def test_msd_names_organs_by_value_and_has_the_files_of_macos(exported):
    home = exported / "msd" / "Task01_PhantomCT"
    facts = json.loads((home / "dataset.json").read_text())
    assert facts["labels"] == {"0": "background", "1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}
    assert facts["modality"] == {"0": "CT"} and facts["numTraining"] == 4 and facts["tensorImageSize"] == "3D"
    assert names(home) == ["._dataset.json", "dataset.json", "imagesTr", "labelsTr"]
    for listed in facts["training"]:
        volume, labels = pair(home / listed["image"], home / listed["label"])
        expected = case("ct", int(Path(listed["image"]).name[3:5]))
        assert np.array_equal(volume.array, expected.image) and np.array_equal(labels.array, expected.labels)
        decoy = (home / listed["image"]).with_name("._" + Path(listed["image"]).name)
        assert decoy.read_bytes()[:4] == b"\x00\x05\x16\x07"
        with pytest.raises(nib.filebasedimages.ImageFileError):
            nib.load(decoy)


# Folder


def test_the_facts_say_which_patient_a_case_is(exported):
    facts = tomllib.loads((exported / "chaos" / "phantom.toml").read_text())
    assert (facts["layout"], facts["size"], facts["seed"]) == ("chaos", "tiny", 0)
    assert list(facts["cases"]) == ["CT-1", "CT-2", "CT-5", "CT-6", "MR-1", "MR-2"]
    assert facts["cases"]["CT-6"]["split"] == "test" and facts["cases"]["CT-6"]["axes"] == "LPS"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes(tiny, tmp_path, layout):
    seen = []
    for name in "ab":
        write_phantom(tmp_path / name, PhantomOptions(layout, "tiny"), lambda *event: seen.append(event))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert seen[1] == ("ct_01", 1, 4 if layout == "btcv" else 6)
    write_phantom(tmp_path / "c", PhantomOptions(layout, "tiny", seed=1))
    a, c = contents(tmp_path / "a"), contents(tmp_path / "c")
    changed = {path for path in set(a) & set(c) if a[path] != c[path]}
    images = [path for path in a if path.endswith((".dcm", "_0000.nii.gz")) or "/im" in path and "/._" not in path]
    assert images and changed >= set(images) & set(c)


def test_a_folder_with_anything_in_it_is_refused_untouched(tiny, tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    for layout in ("chaos", "nifti"):
        with pytest.raises(DataError, match="Name a(nother| new) folder"):
            write_phantom(tmp_path, PhantomOptions(layout, "tiny"))
    assert contents(tmp_path) == {"thesis.docx": b"years of work"}
    write_phantom(tmp_path / "a", PhantomOptions("btcv", "tiny"))
    before = contents(tmp_path)
    for layout in LAYOUTS:
        with pytest.raises(DataError, match="Name a(nother| new) folder"):
            write_phantom(tmp_path / "a", PhantomOptions(layout, "tiny"))
    assert contents(tmp_path) == before


def test_an_interrupted_or_full_disk_leaves_nothing(tiny, tmp_path, monkeypatch, attentkit):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", PhantomOptions("chaos", "tiny"), interrupt)

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    outcome = attentkit("phantom", tmp_path / "out", "--layout", "msd", "--size", "tiny")
    assert outcome.code == 1 and "No space left on device" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_layout_and_names_the_nearest_of_a_wrong_one(tiny, tmp_path, attentkit):
    outcome = attentkit("phantom", tmp_path / "out", "--layout", "btcv", "--size", "tiny")
    assert outcome.code == 0 and outcome.out.startswith(f"{tmp_path / 'out'}: the phantom, laid out as btcv. Next")
    assert (tmp_path / "out" / "RawData" / "Training" / "label" / "label0004.nii.gz").exists()
    outcome = attentkit("phantom", tmp_path / "new", "--layout", "chaoss", "--size", "tiny")
    assert outcome.code == 2 and "Did you mean 'chaos'?" in outcome.err and not (tmp_path / "new").exists()
    for wrong in ({"size": "smal"}, {"seed": -1}, {"split": "sifa"}):
        with pytest.raises(ConfigError, match="smal|-1|sifa-abdominal"):
            PhantomOptions("chaos", **wrong)


NINE = PhantomSize(32, (4, 1, 4), (4, 1, 4), (20.0, 20.0), (20.0, 20.0), (0, 0), (1, 1), (1, 1))
"""Nine patients of each modality."""


@pytest.mark.parametrize(
    ("split", "mr", "ct"),
    [
        ("sifa-abdominal", {1, 13, 32, 38}, {1, 9, 30, 32, 33, 39}),
        ("protocontra", {2, 8, 31, 34}, {2, 9, 10, 35, 36, 40}),
    ],
)
def test_the_commands_for_chaos_and_btcv_find_the_test_cases_of_a_named_split(
    tmp_path, monkeypatch, attentkit, split, mr, ct
):
    monkeypatch.setitem(SIZES, "nine", NINE)
    for folder, layout in (("CHAOS", "chaos"), ("BTCV", "btcv")):
        outcome = attentkit("phantom", tmp_path / folder, "--layout", layout, "--size", "nine", "--split", split)
        assert outcome.code == 0 and f"--split {split}" in outcome.out
    for name, place, words, numbers in (
        ("mr", tmp_path / "CHAOS" / "Train_Sets", ["--part", "t2spir"], mr),
        ("ct", tmp_path / "BTCV" / "RawData", [], ct),
    ):
        assert attentkit("check", place, *words).code == 0
        line = ["prepare", place, *words, "--split", split, "--size", 32, "--out", tmp_path / f"{name}.h5"]
        assert attentkit(*line).code == 0
        domain = Prepared.open(tmp_path / f"{name}.h5")
        assert {numbers_in(case)[0] for case in domain.ids("test")} == numbers
        assert len(domain.ids("train")) == 9 - len(numbers) and domain.split == split and domain.manifest["phantom"]
        facts = tomllib.loads((place.parent / "phantom.toml").read_text())["cases"]
        prefix = "MR-" if name == "mr" else ""
        tested = {case for case, fact in facts.items() if fact["split"] == "test" and case.startswith(prefix)}
        assert tested >= {case for case in facts if case.startswith(prefix) and numbers_in(case)[0] in numbers}
