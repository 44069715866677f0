"""`attentkit check`: what a layout refuses of single cases is told of each, and hides no other case."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.doubts.findings import doubted, refusal
from attent_kit.errors import DataError
from support.abdomens import checked
from support.commands import says
from support.layout_folders import write_phantoms
from support.messages import quotes


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The phantom as chaos, btcv, nnunet and msd."""
    pytest.importorskip("pydicom")
    return write_phantoms(tmp_path_factory.mktemp("exported"))


def copied(exported: Path, home: Path, name: str) -> Path:
    return Path(shutil.copytree(exported / name, home / Path(name).name))


def files(found) -> list[str]:
    """File of each finding that a layout made, relative to nothing."""
    return [finding["file"] for finding in found.findings if finding["check"] == "files"]


def test_of_chaos_every_spoiled_case_is_told_with_its_folder_and_the_others_are_looked_at(
    attentkit, exported, tmp_path
):
    folder = copied(exported, tmp_path, "chaos") / "Train_Sets" / "MR"
    one, other, bare, without, turned, *_ = sorted(folder.iterdir())
    next((one / "T2SPIR" / "Ground").glob("*.png")).unlink()
    (other / "T2SPIR" / "Ground" / "IMG-9999-00001.png").write_bytes(b"spare")
    shutil.rmtree(bare / "T2SPIR" / "Ground")
    for path in (without / "T2SPIR" / "DICOM_anon").iterdir():
        path.unlink()
    masks = sorted((turned / "T2SPIR" / "Ground").glob("*.png"))
    for path, content in zip(masks, [path.read_bytes() for path in masks[::-1]], strict=True):
        path.write_bytes(content)
    found = checked(attentkit, folder)
    evidence = {finding["file"]: finding["evidence"] for finding in found.findings if finding["check"] == "files"}
    assert set(evidence) == {
        str(one / "T2SPIR" / "Ground"), str(other / "T2SPIR" / "Ground"), str(folder), str(without / "T2SPIR" / "DICOM_anon"),
    }  # fmt: skip
    assert evidence[str(one / "T2SPIR" / "Ground")].startswith("holds no mask ")
    assert quotes(evidence[str(folder)], f"Ground ... {bare.name} ... missing")
    assert [finding["case"] for finding in found.findings if finding["check"] == "fit"] == [turned.name]
    # What `check` passes over, `prepare` does not.
    words = ["prepare", folder, "-o", tmp_path / "mr.h5", "--size", 16]
    assert says(attentkit(*words), 3, "unpack") and not (tmp_path / "mr.h5").exists()


def test_of_btcv_images_and_label_maps_without_the_other_are_told(attentkit, exported, tmp_path):
    folder = copied(exported, tmp_path, "btcv")
    (training,) = folder.rglob("Training")
    first, *_, last = sorted((training / "label").iterdir())
    first.unlink()
    found = checked(attentkit, folder)
    (told,) = [finding for finding in found.findings if finding["check"] == "files"]
    assert f"goes with {first.name.replace('label', 'img')}" in told["evidence"]
    assert quotes(told["advice"], "case1.nii.gz and case1_labels.nii.gz")
    assert found.about("organs")[0][2].startswith("1 of 7 cases")
    # The option that such a layout does not take is not recommended.
    outcome = attentkit("prepare", folder, "-o", tmp_path / "ct.h5", "--size", 16)
    assert says(outcome, 3, "name both alike") and "unlabelled" not in outcome.err
    (training / "img" / last.name.replace("label", "img")).unlink()
    found = checked(attentkit, folder)
    assert f"goes with {last.name}" in found.about("files")[0][2] and found.about("organs")


def test_of_pairs_the_option_is_named_that_lets_images_go_alone(attentkit, exported, tmp_path):
    folder = copied(exported, tmp_path, "nifti/ct")
    next((folder / "labels").iterdir()).unlink()
    words = ["prepare", folder, "--modality", "ct", "-o", tmp_path / "ct.h5", "--size", 16]
    assert says(attentkit(*words), 3, "type --allow-unlabelled ... target")
    assert attentkit(*words, "--allow-unlabelled").code == 0


def test_of_nnunet_all_that_is_missing_is_told_at_once(attentkit, exported, tmp_path):
    folder = copied(exported, tmp_path, "nnunet/Dataset001_PhantomCT")
    one, other, *_ = sorted((folder / "labelsTr").iterdir())
    one.unlink()
    (folder / "imagesTr" / other.name.replace(".nii", "_0000.nii")).unlink()
    found = checked(attentkit, folder)
    evidence = " ".join(finding["evidence"] for finding in found.findings if finding["check"] == "files")
    for words in (
        f"has no label map of {one.name[:5]}",
        f"has no image of {other.name[:5]}",
        "cases for training, and",
    ):
        assert words in evidence
    assert found.code == 3 and found.about("organs")[0][2].startswith("1 of 6 cases")


def test_of_msd_a_file_that_is_not_listed_is_told(attentkit, exported, tmp_path):
    folder = copied(exported, tmp_path, "msd/Task01_PhantomCT")
    shutil.copy(next((folder / "imagesTr").iterdir()), folder / "imagesTr" / "spare.nii.gz")
    outcome = attentkit("check", folder)
    assert outcome.code == 3 and "does not list imagesTr/spare.nii.gz" in outcome.out and "7 cases of 1" in outcome.out


def test_of_totalsegmentator_a_subject_without_an_organ_s_mask_is_told(attentkit, exported, tmp_path):
    organs = ("liver", "kidney_right", "kidney_left", "spleen")
    for n in (1, 2, 3):
        image, labels = (exported / "nifti" / "ct" / kind / f"ct_0{n}.nii.gz" for kind in ("images", "labels"))
        subject = tmp_path / f"s{n:04}"
        (subject / "segmentations").mkdir(parents=True)
        shutil.copy(image, subject / "ct.nii.gz")
        drawn = nib.load(labels)
        for value, organ in enumerate(organs, start=1):
            mask = (np.asarray(drawn.dataobj) == value).astype(np.uint8)
            nib.save(nib.Nifti1Image(mask, drawn.affine), subject / "segmentations" / f"{organ}.nii.gz")
    assert checked(attentkit, tmp_path).serious == []
    (tmp_path / "s0001" / "segmentations" / "spleen.nii.gz").unlink()
    shutil.copy(tmp_path / "s0002" / "ct.nii.gz", tmp_path / "s0002" / "mri.nii.gz")
    found = checked(attentkit, tmp_path)
    assert files(found) == [str(tmp_path / "s0001" / "segmentations"), str(tmp_path / "s0002")]
    assert [(s, c, quotes(e, "1 of 2 cases ... s0001")) for s, c, e in found.about("organs")] == [("note", "", True)]


# Sentences as findings


def test_a_refusal_is_about_the_place_that_its_sentence_begins_with(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a").mkdir()
    found = refusal("files", DataError(f"{tmp_path / 'a b'} holds nothing: fill it."), tmp_path)
    assert (found.file, found.evidence, found.advice) == (str(tmp_path / "a b"), "holds nothing", "fill it")
    found = refusal("files", DataError(f"{tmp_path / 'a'}: two of them, at once."), tmp_path)
    assert (found.file, found.evidence) == (str(tmp_path / "a"), "two of them, at once")
    found = refusal("files", DataError("no image goes with it: add one."), tmp_path)
    assert (found.file, found.evidence, found.advice) == (str(tmp_path), "no image goes with it", "add one")


def test_a_colon_in_brackets_does_not_begin_the_advice():
    sentence = "it cannot be read (byte 3: not a letter)."
    assert refusal("files", DataError(sentence), "x").evidence == sentence[:-1]
    assert refusal("files", DataError(sentence), "x").advice == "correct it or leave it out"
    assert doubted("it is odd (1: 2).")[2:4] == ("it is odd (1: 2)", "check whether that matters")


def test_a_list_that_is_no_text_says_what_to_save_it_as(attentkit, tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    assert checked(attentkit, tmp_path / "list.csv").findings[0]["advice"] == "save it as CSV in UTF-8"
