"""`attentkit check`: files that cannot be read, grids that do not fit, headers without or with two orientations, label values."""

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attent_kit.cli import run
from support.abdomens import abdomen, checked, only, patients, write, write_unplaced
from support.cases import contents
from support.commands import says
from support.layout_folders import attent_png, nnunet, renumber, sifa_npz, write_phantoms
from support.messages import quotes

# What is sound


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The phantom in each of its layouts."""
    pytest.importorskip("pydicom")
    home = write_phantoms(tmp_path_factory.mktemp("exported"))
    renumber(home / "chaos")
    return home


@pytest.mark.parametrize(
    "place",
    ["nifti/ct --modality=ct", "nifti/mr --modality=mr", "chaos", "btcv", "nnunet/Dataset001_PhantomCT",
     "nnunet/Dataset002_PhantomMR", "msd/Task01_PhantomCT", "msd/Task02_PhantomMR"],
)  # fmt: skip
def test_a_sound_phantom_gives_neither_error_nor_warning(attentkit, exported, place):
    folder, *words = place.split()
    found = checked(attentkit, exported / folder, *words)
    assert found.serious == [] and found.code == 0


def test_all_parts_of_a_data_set_are_looked_at_and_two_data_sets_are_held_against_each_other(attentkit, exported):
    outcome = attentkit("check", exported / "chaos")
    assert outcome.code == 0 and quotes(outcome.out, "13 cases ... 2 data sets ... 0 errors, 0 warnings")
    assert "7 cases of 1 data set:" in attentkit("check", exported / "chaos", "--part", "CT").out
    outcome = attentkit("check", exported / "chaos", exported / "nnunet" / "Dataset001_PhantomCT", "--part", "t2spir")
    assert outcome.code == 0 and "13 cases of 2 data sets" in outcome.out
    assert says(attentkit("check", exported / "chaos", "--part", "t3"), 2, "has no part 't3'")


def test_phantom_domains_are_of_different_patients(attentkit, exported):
    sets = exported / "chaos" / "Train_Sets"
    assert checked(attentkit, sets / "MR", sets / "CT").serious == []


def test_nothing_is_written(attentkit, exported):
    before = contents(exported / "btcv")
    checked(attentkit, exported / "btcv")
    assert contents(exported / "btcv") == before


# What people read


def test_findings_are_printed_worst_first_with_file_evidence_and_advice(attentkit, tmp_path):
    patients(tmp_path)
    write(tmp_path, "ct_2", abdomen("ct", 2)._replace(labels=np.zeros_like(abdomen("ct", 2).labels)))
    image = nib.load(tmp_path / "images" / "ct_3.nii.gz")
    array = np.asarray(image.dataobj).astype(np.float32)
    array[:2, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(array, image.affine), tmp_path / "images" / "ct_3.nii.gz")
    outcome = attentkit("check", tmp_path, "--modality", "ct")
    assert outcome.code == 3 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0] == f"error, unreadable: {tmp_path / 'images' / 'ct_3.nii.gz'}"
    assert quotes(lines[1], "    ... 2 NaN or infinite voxel")
    assert lines[2] == f"warning, organs: {tmp_path / 'labels' / 'ct_2.nii.gz'}"
    assert quotes(lines[-1], "3 cases ... 1 data set: ... 1 error, 1 warning, 0 notes")


def test_findings_of_the_same_words_are_printed_once(attentkit, tmp_path):
    for n in range(1, 6):
        write_unplaced(tmp_path, f"ct_{n}", abdomen("ct", n))
    outcome = attentkit("check", tmp_path, "--modality", "ct")
    assert outcome.out.count("where the patient's right is") == 1 and "and 2 more" in outcome.out
    assert len(json.loads(attentkit("check", tmp_path, "--modality", "ct", "--json").out)) == 5


# Words that do not fit, places that are not there


def test_words_that_do_not_fit_are_refused_before_anything_is_read(attentkit, tmp_path):
    patients(tmp_path / "a", count=1)
    assert says(attentkit("check", tmp_path / "b"), 3, "b does not exist")
    assert says(attentkit("check", tmp_path / "a", tmp_path / "a" / ".." / "a"), 2, "is named twice")
    words = ["check", tmp_path / "a" / "images", tmp_path, "--labels", tmp_path / "a" / "labels"]
    assert says(attentkit(*words), 2, "--labels goes with one data set")
    assert says(attentkit("check", tmp_path / "a", "--target", tmp_path / "a"), 2, "/a ... prepared files")
    (tmp_path / "x.txt").write_text("no data")
    assert says(attentkit("check", tmp_path / "x.txt"), 2, "no layout recognises")
    assert says(attentkit("check"), 2, "Missing argument")


# Cases that cannot be read


def test_every_unreadable_case_is_told_and_the_others_are_looked_at(attentkit, tmp_path):
    folder = patients(tmp_path, count=6)
    images, labels = folder / "images", folder / "labels"
    whole = (images / "ct_1.nii.gz").read_bytes()
    (images / "ct_1.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "ct_2.nii.gz").write_bytes(b"no NIfTI")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), images / "ct_3.nii.gz")
    (labels / "ct_4.nii.gz").write_bytes(b"")
    body = abdomen("ct", 5)
    write(folder, "ct_5", body._replace(labels=body.labels + np.float32(0.25)))
    write(folder, "ct_6", abdomen("ct", 6)._replace(labels=np.zeros_like(abdomen("ct", 6).labels)))
    found = checked(attentkit, folder, "--modality", "ct")
    told = {(f["severity"], f["check"], f["case"]): f["file"] for f in found.serious}
    assert told == {
        ("error", "unreadable", "ct_1"): str(images / "ct_1.nii.gz"),
        ("error", "unreadable", "ct_2"): str(images / "ct_2.nii.gz"),
        ("error", "geometry", "ct_3"): str(labels / "ct_3.nii.gz"),
        ("error", "unreadable", "ct_4"): str(labels / "ct_4.nii.gz"),
        ("error", "unreadable", "ct_5"): str(labels / "ct_5.nii.gz"),
        ("warning", "organs", "ct_6"): str(labels / "ct_6.nii.gz"),
    }
    assert any("not integers" in f["evidence"] for f in found.findings)


def test_headers_that_no_scan_has_are_errors_of_their_case(attentkit, tmp_path):
    patients(tmp_path, count=2)
    body = abdomen("ct", 3)
    lost = np.eye(4)
    lost[0, 1] = 1e20  # so that in floating point the second axis is the first
    image = nib.Nifti1Image(body.image, body.affine)
    image.set_sform(lost, code=1)
    nib.save(image, tmp_path / "images" / "ct_1.nii.gz")
    huge = bytearray(nib.Nifti1Image(body.image, body.affine).to_bytes())
    huge[42:48] = 3 * b"\xff\x7f"  # 32767 x 32767 x 32767 voxels
    (tmp_path / "images" / "ct_2.nii.gz").write_bytes(gzip.compress(huge))
    (tmp_path / "labels" / "ct_2.nii.gz").unlink()
    write(tmp_path, "ct_3", body)
    found = checked(attentkit, tmp_path, "--modality", "ct")
    told = {case: evidence for _, case, evidence in found.about("unreadable")}
    assert set(told) == {"ct_1", "ct_2"}
    assert "places no volume" in told["ct_1"] and "32767x32767x32767 voxels" in told["ct_2"]


def test_a_constant_volume_is_an_error(attentkit, tmp_path):
    write(tmp_path, "ct_1", abdomen()._replace(image=np.full_like(abdomen().image, 7)))
    assert "constant, every voxel is 7" in only(checked(attentkit, tmp_path, "--modality=ct"), "unreadable", "error")


def test_the_image_is_looked_at_where_its_labels_cannot_be_read(attentkit, tmp_path):
    write(tmp_path, "ct_1", abdomen()._replace(image=(abdomen().image + 1024)))
    (tmp_path / "labels" / "ct_1.nii.gz").write_bytes(b"nothing")
    found = checked(attentkit, tmp_path, "--modality", "ct")
    assert {f["check"] for f in found.serious} == {"unreadable", "grey values"}


def test_a_case_without_its_label_map_does_not_hide_the_others(attentkit, tmp_path):
    patients(tmp_path)
    (tmp_path / "labels" / "ct_2.nii.gz").unlink()
    write_unplaced(tmp_path, "ct_3", abdomen("ct", 3))
    found = checked(attentkit, tmp_path, "--modality", "ct")
    assert {(f["severity"], f["check"]) for f in found.serious} == {("error", "files"), ("warning", "orientation")}
    assert "goes with ct_2.nii.gz" in found.about("files")[0][2]
    assert [(s, c, quotes(e, "1 of 3 cases ... ct_2")) for s, c, e in found.about("organs")] == [("note", "", True)]


def test_a_data_set_that_its_layout_refuses_is_an_error_and_the_next_one_is_looked_at(attentkit, tmp_path):
    nnunet(tmp_path / "one")
    (tmp_path / "one" / "dataset.json").write_text("{")
    write_unplaced(tmp_path / "two", "mr_1", abdomen("mr", 1))
    found = checked(attentkit, tmp_path / "one", tmp_path / "two")
    assert [(f["severity"], f["check"]) for f in found.serious] == [("error", "files"), ("warning", "orientation")]
    assert found.findings[0]["file"].startswith(str(tmp_path / "one"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 400), what=st.binary(min_size=1, max_size=24), kind=st.sampled_from(["images", "labels"]))
@example(where=114, what=b"\x00[", kind="images")  # scaled to 1e16 and more
@example(where=114, what=b"\x00Z", kind="images")
@example(where=112, what=b"\xff\xff\x7f\x7f", kind="images")
def test_garbage_never_ends_in_a_traceback(tmp_path, capsys, where, what, kind):
    """Any bytes anywhere in the header or the first voxels of an image or a label map."""
    body = abdomen("mr", 1)
    small = body._replace(image=body.image[::4, ::4, ::4].copy(), labels=body.labels[::4, ::4, ::4].copy())
    for name, array in (("images", small.image), ("labels", small.labels)):
        (tmp_path / name).mkdir(exist_ok=True)
        content = bytearray(nib.Nifti1Image(array, body.affine).to_bytes())
        if name == kind:
            content[where : where + len(what)] = what
        (tmp_path / name / "mr_1.nii").write_bytes(content)
    other = abdomen("mr", 2)
    write_unplaced(
        tmp_path, "mr_2", other._replace(image=other.image[::4, ::4, ::4], labels=other.labels[::4, ::4, ::4])
    )
    assert run(["check", str(tmp_path), "--modality", "mr", "--json"]) in (0, 3)
    findings = json.loads(capsys.readouterr().out)
    assert ("orientation", "mr_2") in [(f["check"], f["case"]) for f in findings]


# Geometry


@pytest.mark.parametrize(("shift", "error"), [(0.05, False), (0.2, True)])
def test_labels_off_the_grid_by_more_than_headers_round_are_an_error(attentkit, tmp_path, shift, error):
    patients(tmp_path, count=2)
    affine = abdomen().affine.copy()
    affine[0, 3] += shift
    nib.save(nib.Nifti1Image(abdomen().labels, affine), tmp_path / "labels" / "ct_1.nii.gz")
    found = checked(attentkit, tmp_path, "--modality", "ct")
    if not error:
        assert found.serious == []
        return
    evidence = only(found, "geometry", "error", "ct_1")
    assert "0.2 mm from" in evidence and "0.1 mm pass" in evidence


def test_labels_of_another_size_are_an_error(attentkit, tmp_path):
    write(tmp_path, "ct_1", abdomen())
    nib.save(nib.Nifti1Image(abdomen().labels[:-1], abdomen().affine), tmp_path / "labels" / "ct_1.nii.gz")
    found = checked(attentkit, tmp_path, "--modality", "ct")
    assert only(found, "geometry", "error") == "has 47x48x27 voxels, its image 48x48x27"
    said = [finding["evidence"] for finding in found.findings if finding["check"] == "organs"]
    assert any("cases have labels that do not lie on their image: ct_1" in evidence for evidence in said)
    assert not any("have no labels" in evidence for evidence in said)


def test_labels_in_another_axis_order_are_on_the_same_grid(attentkit, tmp_path):
    write(tmp_path, "ct_1", abdomen())
    labels = nib.Nifti1Image(abdomen().labels, abdomen().affine).as_reoriented([[1, -1], [0, 1], [2, -1]])
    nib.save(labels, tmp_path / "labels" / "ct_1.nii.gz")
    assert checked(attentkit, tmp_path, "--modality", "ct").serious == []


def test_an_sform_and_a_qform_that_disagree_are_told(attentkit, tmp_path):
    body = abdomen()
    moved, mirrored = body.affine.copy(), body.affine.copy()
    moved[2, 3] += 4
    mirrored[0] *= -1
    for case, qform in (("ct_1", moved), ("ct_2", mirrored), ("ct_3", body.affine)):
        write(tmp_path, case, body._replace(labels=None), qform_affine=qform)
    found = [f for f in checked(attentkit, tmp_path, "--modality", "ct").findings if f["check"] == "orientation"]
    assert [(f["severity"], f["case"]) for f in found] == [("error", "ct_2"), ("warning", "ct_1")]
    assert "(sform RAS, qform LAS)" in found[0]["evidence"]
    assert quotes(found[1]["evidence"], "4 mm apart ... sform RAS, qform RAS")


def test_a_header_without_orientation_is_a_warning(attentkit, tmp_path):
    write_unplaced(tmp_path, "mr_1", abdomen("mr"))
    found = checked(attentkit, tmp_path, "--modality", "mr")
    assert quotes(only(found, "orientation", "warning", "mr_1"), "right ... no qform, no sform")
    assert found.findings[0]["advice"].startswith("make sure that it is LAS")


def test_where_no_header_says_it_the_organs_tell_that_the_guess_was_wrong(attentkit, tmp_path):
    write(tmp_path, "mr_1", abdomen("mr"), qform=0, sform=0)
    found = checked(attentkit, tmp_path, "--modality", "mr")
    assert [(f["severity"], f["check"]) for f in found.serious] == [("error", "sides"), ("warning", "orientation")]
    assert "image is mirrored" in found.findings[0]["evidence"]


# Label values


def test_unknown_values_are_an_error_with_their_voxels(attentkit, tmp_path):
    labels = abdomen().labels.copy()
    labels[:3, 0, 0], labels[5, 5, 5] = 9, 200
    write(tmp_path, "ct_1", abdomen()._replace(labels=labels))
    found = checked(attentkit, tmp_path, "--modality", "ct")
    evidence = only(found, "label values", "error", "ct_1")
    assert quotes(evidence, "values 9, 200 ... 3 voxels of 9, 1 voxels of 200")
    organs = "--organs=liver=1,right kidney=2,left kidney=3,spleen=4,*=0"
    assert checked(attentkit, tmp_path, "--modality", "ct", organs).serious == []


def test_a_value_that_the_data_set_does_not_name_is_a_warning_though_others_are_background(attentkit, tmp_path):
    labels = {"background": 0, "spleen": 1, "kidney_right": 2, "left kidney": 3, "Liver": 4, "pancreas": 5}
    nnunet(tmp_path, labels=labels)
    path = tmp_path / "labelsTr" / "a.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, :2], array[0, 1, 0] = 5, 6
    nib.save(nib.Nifti1Image(array, image.affine), path)
    ((severity, case, evidence),) = checked(attentkit, tmp_path).about("label values")
    assert (severity, case) == ("warning", "a") and quotes(evidence, "values ... 1 voxels of 6")


def test_an_image_in_the_place_of_labels_is_an_error(attentkit, tmp_path):
    write(tmp_path, "ct_1", abdomen()._replace(labels=abdomen().image))
    found = checked(attentkit, tmp_path, "--modality", "ct")
    assert "different values" in only(found, "label values", "error")


def test_labels_in_the_place_of_an_image_are_told(attentkit, tmp_path):
    write(tmp_path, "mr_1", abdomen("mr")._replace(image=abdomen("mr").labels.astype(np.int16)))
    found = checked(attentkit, tmp_path, "--modality", "mr")
    # 48 x 48 x 27 voxels, of which 2751 + 436 + 469 + 257 are organ: 94 % are 0.
    assert quotes(only(found, "grey values", "error"), "5 whole values ... 94 % ... 0")


# Slices that labels have chosen


def test_stacks_of_labelled_slices_only_are_told_with_their_numbers(attentkit, tmp_path):
    attent_png(tmp_path / "mri_dataset")
    evidence = [e for s, _, e in checked(attentkit, tmp_path).about("label-driven") if s == "warning"]
    assert evidence == [], "slice 9 of the boxes holds no organ"
    for kind in (
        "image",
        "label",
        *(f"label/{organ}_label" for organ in ("liver", "rightKidney", "leftKidney", "spleen")),
    ):
        for path in (tmp_path / "mri_dataset" / "train" / kind).glob("*-00011.png"):
            path.unlink()
    ((severity, _, evidence),) = checked(attentkit, tmp_path).about("label-driven")
    assert severity == "warning"
    assert quotes(evidence, "16 of 16 slices ... 2 case")


def test_of_one_case_alone_it_is_a_note(attentkit, tmp_path):
    sifa_npz(tmp_path, ["ct_1"])
    with np.load(tmp_path / "ct_1.npz") as arrays:
        image, labels = arrays["arr_0"][..., :8], arrays["arr_1"][..., :8]
    np.savez(tmp_path / "ct_1.npz", image, labels)
    ((severity, _, evidence),) = checked(attentkit, tmp_path).about("label-driven")
    assert severity == "note" and quotes(evidence, "all 8 slices ... only labelled case")


def test_what_a_layout_doubts_about_every_case_is_a_note_and_about_one_case_a_warning(attentkit, tmp_path):
    attent_png(tmp_path / "mri_dataset")
    for path in (tmp_path / "mri_dataset" / "train").rglob("IMG-0001-00005.png"):
        path.unlink()
    doubts = checked(attentkit, tmp_path).about("doubt")
    assert next(d[:2] for d in doubts if "are missing" in d[2]) == ("warning", "IMG-0001")
    assert {d[0] for d in doubts if "no millimetres and no sides" in d[2]} == {"note"}
