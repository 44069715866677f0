"""Public data sets and masks an organ through `attentkit prepare` and `check`: what is found, and what is said if not."""

import json
import shutil

import numpy as np
import pytest

from attent_kit.data.prepared.file import Prepared
from attent_kit.errors import DataError
from attent_kit.layouts import organ_called, plainly
from attentkit_builtin.layouts.amos import Amos
from attentkit_builtin.layouts.nnunet import NnUNet
from support import public_sets as sets
from support.layout_folders import ORGANS, body, write_json, write_nifti
from support.messages import quotes

WORDS = ("--size", "24", "--pixel", "2", "--workers", "1")
"""Of pixels as in `body`, so that every voxel comes back."""
PARTS = {
    "amos": (sets.amos, {"ct": ORGANS, "mr": ORGANS}),
    "flare22": (sets.flare22, {"ct": ORGANS, "ct-unlabelled": ORGANS}),
    "flare24": (sets.flare24, {"mr": ORGANS}),
    "flare25": (
        sets.flare25,
        dict.fromkeys(["ct", "ct-pseudo-blackbean", "mr", "mr-amos-833", "mr-lld-mmri-3984", "pet"], ORGANS),
    ),
    "mmwhs": (
        sets.mmwhs,
        dict.fromkeys(
            ["ct", "mr"],
            ("left ventricle", "right ventricle", "left atrium", "right atrium", "myocardium", "ascending aorta",
             "pulmonary artery"),
        ),
    ),
    "brats": (sets.brats, dict.fromkeys(["t1n", "t2f"], ("necrotic core", "edema", "enhancing tumor"))),
    "old_brats": (sets.old_brats, dict.fromkeys(["t1ce", "flair"], ("necrotic core", "edema", "enhancing tumor"))),
    "organ_masks": (sets.organ_masks, {"": ORGANS}),
    "inner_masks": (lambda folder: sets.organ_masks(folder, inner="masks", image="t2w"), {"": ORGANS}),
    "ircadb": (sets.ircadb, {"": ORGANS}),
}  # fmt: skip
LAYOUTS = {
    "flare22": "flare",
    "flare24": "flare",
    "flare25": "flare",
    "old_brats": "brats",
    "inner_masks": "organ_masks",
}


def prepare(attentkit, folder, part, *words):
    out = folder.parent / "out.h5"
    chosen = ("--part", part) if part else ()
    outcome = attentkit("prepare", folder, "--out", out, *chosen, *WORDS, *words)
    assert outcome.code == 0, outcome.err
    return Prepared.open(out)


def refused(attentkit, folder, *words, code=3):
    outcome = attentkit("prepare", folder, "--out", folder.parent / "out.h5", *WORDS, *words)
    assert outcome.code == code and "Traceback" not in outcome.err and not (folder.parent / "out.h5").exists()
    return outcome.err


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, (_, parts) in PARTS.items() for part in parts])
def test_a_data_set_is_recognised_prepared_and_checked(attentkit, tmp_path, name, part):
    make, parts = PARTS[name]
    folder = make(tmp_path / "set")
    found = prepare(attentkit, folder, part)
    assert found.manifest["layout"]["origin"].startswith(f"{LAYOUTS.get(name, name)} of ")
    assert found.organs == parts[part]
    assert found.modality == (
        "mr" if name in ("flare24", "brats", "old_brats", "inner_masks") else part[:3].rstrip("-") or "ct"
    )
    labelled = [case for case in found.cases if case.has_labels]
    assert bool(labelled) == (part != "ct-unlabelled")
    for case in labelled:
        _, expected = body()
        if name in ("mmwhs", "brats", "old_brats"):
            expected = np.array([0, 1, 2, 3, 7 if name == "mmwhs" else 3])[expected]
        labels = found.label_slices(case.id)
        # `body` is LPS; a slice has rows from front to back and columns from right to left, cut to 24 x 24.
        assert np.array_equal(labels[:, 2:22], np.transpose(expected, (2, 1, 0))[..., ::1]), case.id
    outcome = attentkit("check", folder, *(("--part", part) if part else ()), "--json")
    told = json.loads(outcome.out)
    assert not [f for f in told if f["check"] in ("files", "unreadable", "label values", "geometry")]


# Splits and numbers


def test_amos_tells_ct_from_mr_by_the_number_and_tests_on_the_validation_set(attentkit, tmp_path):
    folder = sets.amos(tmp_path / "set", test=(9, 560))
    mr = prepare(attentkit, folder, "mr")
    assert mr.manifest["splits"] == {"train": ["amos_0507", "amos_0508"], "val": [], "test": ["amos_0530"]}
    assert prepare(attentkit, folder, "ct-testing").ids("train") == ("amos_0009",)
    write_nifti(folder / "labelsTs" / "amos_0560.nii.gz", body()[1])
    write_nifti(folder / "labelsTs" / "amos_0009.nii.gz", body()[1])
    assert prepare(attentkit, folder, "mr").manifest["splits"] == {
        "train": ["amos_0507", "amos_0508"], "val": ["amos_0530"], "test": ["amos_0560"],
    }  # fmt: skip


def test_amos_as_nnunet_names_it_is_read_and_one_with_other_values_is_not(attentkit, tmp_path):
    folder = sets.amos(tmp_path / "set", validation=(), channel="_0000")
    assert len(prepare(attentkit, folder, "ct").cases) == 2
    (tmp_path / "out.h5").unlink()
    labels = {"background": 0, "liver": 1, "right kidney": 2, "spleen": 3}
    facts = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 4, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", facts)
    err = refused(attentkit, folder, "--layout", "amos", "--part", "ct")
    assert "holds no AMOS22" in err and NnUNet.recognises(folder) and not Amos.recognises(folder)
    plain = sets.amos(tmp_path / "plain")
    write_json(plain / "dataset.json", facts | {"training": []})
    err = refused(attentkit, plain, "--part", "ct")
    assert quotes(err, "'liver' ... 1 ... AMOS22 ... 6 ... --layout nnunet")


def test_a_number_that_tells_no_modality_is_refused(attentkit, tmp_path):
    folder = sets.amos(tmp_path / "set", train=(1, 5001))
    assert quotes(refused(attentkit, folder, "--part", "ct"), "5001 ... CT or MR")


def test_flare_trains_on_mr_without_labels_and_tests_on_the_validation_set(attentkit, tmp_path):
    folder = sets.flare25(tmp_path / "set")
    mr = prepare(attentkit, folder, "mr")
    assert mr.manifest["splits"] == {"train": ["MR-391135_T2WI", "amos_7524"], "val": [], "test": ["case_7296"]}
    assert [case.id for case in mr.cases if case.has_labels] == ["case_7296"]
    assert prepare(attentkit, folder, "mr-amos-833").ids("train") == ("amos_7524",)
    pseudo = prepare(attentkit, folder, "ct-pseudo-aladdin5")
    assert pseudo.ids("train") and any("a network's, not an expert's" in warning for warning in pseudo.warnings)
    assert not (pseudo.label_slices("Case_00001") == 4).any()


def test_flare_copied_without_its_folders_is_known_by_its_file_names(attentkit, tmp_path):
    shutil.move(sets.flare22(tmp_path / "whole") / "Training" / "FLARE_LabeledCase50", tmp_path / "FLARE22Train")
    assert prepare(attentkit, tmp_path / "FLARE22Train", "").organs == ORGANS


def test_a_ct_and_an_mr_heart_of_one_number_are_two_patients(attentkit, tmp_path):
    folder = sets.mmwhs(tmp_path / "set")
    ct, mr = ({case.id for case in prepare(attentkit, folder, part).cases} for part in ("ct", "mr"))
    assert ct == {"ct_1001", "ct_1002"} and not ct & mr
    assert not any(case.has_labels for case in prepare(attentkit, folder, "mr-testing").cases)


def test_the_stray_value_of_one_mr_heart_is_its_left_atrium(attentkit, tmp_path):
    folder = sets.mmwhs(tmp_path / "set")
    label = folder / "mr_train" / "mr_train_1002_label.nii.gz"
    whole = prepare(attentkit, folder, "mr").label_slices("mr_1002")
    _, values = body()
    values = np.array([0, 500, 600, 420, 850])[values].astype(np.int16)
    values[tuple(np.argwhere(values == 420)[0])] = 421
    write_nifti(label, values)
    assert np.array_equal(prepare(attentkit, folder, "mr").label_slices("mr_1002"), whole)


def test_visits_of_one_brain_are_doubted_and_a_cavity_is_known_after_treatment(attentkit, tmp_path):
    folder = sets.brats(tmp_path / "set", ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101"), (1, 2, 3, 4))
    found = prepare(attentkit, folder, "t1c")
    assert found.organs == ("necrotic core", "edema", "enhancing tumor", "resection cavity")
    assert sum("the same patient" in warning for warning in found.warnings) == 2
    children = prepare(attentkit, sets.brats(tmp_path / "ped", ("BraTS-PED-00001-000",)), "t1c")
    assert children.organs == ("label 1", "label 2", "label 3", "label 4")


def test_the_one_odd_label_file_of_brats_2020_is_found(attentkit, tmp_path):
    folder = sets.old_brats(tmp_path / "set", ("BraTS20_Training_355", "BraTS20_Training_356"))
    seg = folder / "BraTS20_Training_355" / "BraTS20_Training_355_seg.nii.gz"
    seg.rename(seg.with_name("W39_1998.09.19_Segm.nii.gz"))
    assert all(case.has_labels for case in prepare(attentkit, folder, "flair").cases)


def test_grades_in_two_folders_are_one_data_set(attentkit, tmp_path):
    for n, (grade, id) in enumerate((("HGG", "Brats17_A"), ("LGG", "Brats17_B"))):
        sets.old_brats(tmp_path / "set" / grade, (id,), seed=n)
    assert {case.id for case in prepare(attentkit, tmp_path / "set", "t1").cases} == {"Brats17_A", "Brats17_B"}


# Masks


@pytest.mark.parametrize(
    ("spelled", "organ"),
    [("RK", "right kidney"), ("kidney_left", "left kidney"), ("leftkidney", "left kidney"), ("Spleen-mask", "spleen"),
     ("adrenal_gland_right", "right adrenal gland"), ("venacava", "inferior vena cava"), ("postcava", "inferior vena cava"),
     ("gall bladder", "gallbladder"), ("livertumor01", None), ("kidneys", None), ("kidney", None),
     ("lung_left", "left lung"), ("heart_atrium_left", "left atrium"), ("leftsurrenalgland", "left adrenal gland")],
)  # fmt: skip
def test_an_organ_has_one_name_however_it_is_spelled(spelled, organ):
    assert organ_called(spelled) == organ
    assert plainly("portal_vein_1") == "portal vein 1"


def test_masks_go_with_slices_by_position_in_nested_folders_too(attentkit, tmp_path):
    folder = sets.ircadb(tmp_path / "set", cases=(1,), nested=True)
    found = prepare(attentkit, folder, "")
    assert np.array_equal(found.label_slices("3Dircadb1.1")[:, 2:22], np.transpose(body()[1], (2, 1, 0)))


@pytest.mark.parametrize("kind", ["ircadb", "organ_masks"])
def test_an_organ_that_one_case_lacks_is_unknown_there(attentkit, tmp_path, kind):
    folder = getattr(sets, kind)(tmp_path / "set")
    gone = [path for path in folder.glob("*2/**/*") if organ_called(path.name.split(".")[0]) == "left kidney"]
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert gone
    found = prepare(attentkit, folder, "")
    one, two = found.cases
    assert found.organs == one.annotated == ORGANS and two.annotated == ("liver", "right kidney", "spleen")
    assert set(np.unique(found.label_slices(two.id))) == {0, 1, 2, 4}
    assert prepare(attentkit, folder, "", "--organs", "liver,spleen").cases[1].annotated == ("liver", "spleen")
    (tmp_path / "out.h5").unlink()
    err = refused(attentkit, folder, "--organs", "left kidney", code=2)
    assert quotes(err, f"'{two.id}' ... left kidney ... liver, right kidney, spleen")


@pytest.mark.parametrize("inner", ["", "segmentations"])
def test_a_few_shared_voxels_are_given_to_the_first_organ_and_many_are_refused(attentkit, tmp_path, inner):
    folder = sets.organ_masks(tmp_path / "set", inner=inner, image="scan")
    _, labels = body()
    right = (labels == 2).astype(np.uint8)
    right[3, 11, 1] = 1
    path = folder / "p1" / inner / "right_kidney.nii.gz"
    write_nifti(path, right)
    found = prepare(attentkit, folder, "", "--modality", "ct")
    assert "1 voxels are in the masks of liver and of right kidney, and are given to the liver." in " ".join(
        found.warnings
    )
    (tmp_path / "out.h5").unlink()
    write_nifti(path, (labels == 1).astype(np.uint8))
    err = refused(attentkit, folder, "--modality", "ct")
    assert quotes(err, "liver ... right kidney ... 100 %")


def test_what_is_wrong_with_a_folder_of_masks_is_said(attentkit, tmp_path):
    folder = sets.organ_masks(tmp_path / "set")
    write_nifti(folder / "p2" / "mr.nii.gz", body()[0])
    assert "p2 holds 2 images (ct.nii.gz, mr.nii.gz)" in refused(attentkit, folder)
    (folder / "p2" / "mr.nii.gz").unlink()
    (folder / "p2" / "ct.nii.gz").unlink()
    assert "p2 holds masks and no image" in refused(attentkit, folder)
    shutil.copy(folder / "p1" / "ct.nii.gz", folder / "p2" / "ct.nii.gz")
    shutil.copy(folder / "p1" / "LK.nii.gz", folder / "p2" / "kidney_left.nii.gz")
    assert "'left kidney'" in refused(attentkit, folder)


def test_a_mask_series_that_lies_elsewhere_and_one_that_is_zipped_are_refused(attentkit, tmp_path):
    folder = sets.ircadb(tmp_path / "set", cases=(1,))
    (folder / "3Dircadb1.1" / "MASKS_DICOM" / "spleen" / "image_0").unlink()
    assert quotes(refused(attentkit, folder), "spleen ... 8 slices ... 9 of")
    shutil.rmtree(folder / "3Dircadb1.1" / "MASKS_DICOM")
    (folder / "3Dircadb1.1" / "MASKS_DICOM.zip").touch()
    assert "MASKS_DICOM.zip is not unpacked" in refused(attentkit, folder)


# What is expected


@pytest.mark.parametrize(
    ("layout", "words"),
    [("amos", "imagesTr/amos_0001.nii.gz"), ("flare", "FLARE_LabeledCase50"), ("mmwhs", "ct_train_1001_image.nii.gz"),
     ("ircadb", "3Dircadb1.1/PATIENT_DICOM"), ("brats", "_t1.nii.gz, _t1ce"), ("organ_masks", "case1/liver.nii.gz")],
)  # fmt: skip
def test_a_folder_that_holds_something_else_is_told_what_was_expected(attentkit, tmp_path, layout, words):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "words.txt").write_text("words")
    err = refused(attentkit, tmp_path / "set", "--layout", layout)
    assert "holds no " in err and words in err


@pytest.mark.parametrize(
    ("make", "lost", "part"),
    [(sets.amos, "labelsTr/amos_0001.nii.gz", "ct"), (sets.flare25, "train_CT_gt_label/labelsTr/FLARE22_Tr_0001.nii.gz", "ct"),
     (sets.flare25, "validation/MRI_labelsVal/case_7296.nii.gz", "mr"), (sets.mmwhs, "ct_train/ct_train_1001_label.nii.gz", "ct"),
     (sets.brats, "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz", "t1n"),
     (sets.brats, "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz", "t1n")],
)  # fmt: skip
def test_a_file_without_its_counterpart_is_named(attentkit, tmp_path, make, lost, part):
    folder = make(tmp_path / "set")
    (folder / lost).unlink()
    err = refused(attentkit, folder, "--part", part)
    case = (
        lost.rpartition("/")[2].removesuffix(".nii.gz").removesuffix("_label").removesuffix("-seg").removesuffix("-t1n")
    )
    assert case.replace("_train", "") in err and "add it" in err


def test_old_and_new_names_of_brats_are_not_mixed(tmp_path):
    from attentkit_builtin.layouts.brats import Brats

    sets.brats(tmp_path)
    sets.old_brats(tmp_path)
    with pytest.raises(DataError, match="BraTS-GLI-00000-000 .*since 2023"):
        Brats.parts(tmp_path)
