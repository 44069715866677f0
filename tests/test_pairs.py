"""Which file is an image and which a label map is told by names that are known, and never guessed; labels are never dropped."""

import json

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.sets.pairs import find_pairs
from attent_kit.data.space.intensity import Intensity, sample
from attent_kit.errors import DataError
from attentkit_builtin.layouts.pairs import Pairs
from support.commands import says
from support.layout_folders import body, write_nifti

NAMES = [
    ("volume-{}.nii", "segmentation-{}.nii"),
    ("image_{}.nii.gz", "mask_{}.nii.gz"),
    ("x{}.nii.gz", "x{}_ROI.nii.gz"),
    ("p{}_ct.nii.gz", "p{}_seg.nii.gz"),
    ("p{}_MR.nii.gz", "p{}-GT.nii.gz"),
    ("scan {}.nii", "truth {}.nii"),
    ("liver_img_{}.nii", "liver_seg_{}.nii"),
    ("img000{}.nii.gz", "label000{}.nii.gz"),
    ("1.3.6.{}.nii.gz", "1.3.6.{}_ground_truth.nii.gz"),
    ("Case_{}.NII.GZ", "Case_{}_Label.Nii"),
]


def prepared_cases(attentkit, folder, tmp_path, *words, modality="mr"):
    outcome = attentkit(
        "prepare", folder, "-o", tmp_path / "out.h5", "--modality", modality, "--size", 16, "--json",
        "--organs", "liver=1,right kidney=2,left kidney=3,spleen=4", *words,
    )  # fmt: skip
    assert outcome.code == 0, outcome
    return json.loads(outcome.out)["cases"]


@pytest.mark.parametrize(("image", "labels"), NAMES)
def test_images_and_label_maps_in_one_folder_are_paired_by_a_common_stem(tmp_path, image, labels):
    for n in (1, 2):
        (tmp_path / image.format(n)).touch()
        (tmp_path / labels.format(n)).touch()
    pairs = Pairs(tmp_path).entries()
    assert [(p.images[0].name, p.labels[0].name) for p in pairs] == [
        (image.format(n), labels.format(n)) for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["a.nii", "b_seg.nii"], "b_seg.nii"),
        (["p_ct.nii", "p_mr.nii", "p_seg.nii"], "p_seg.nii"),
        (["p_t1.nii", "p_t2.nii", "p_seg.nii"], "p_seg.nii"),
    ],
)
def test_a_label_map_that_goes_with_none_or_several_images_is_named(tmp_path, names, left):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"no image in .* goes with {left}"):
        Pairs(tmp_path).entries()


def test_a_case_keeps_all_of_its_name_but_the_ending(tmp_path):
    for kind in ("images", "labels"):
        for name in ("case_0000", "case_0001", "1.3.6.1.4", "volume-3"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{name}.nii.gz").touch()
    assert [entry.id for entry in Pairs(tmp_path).entries()] == ["1.3.6.1.4", "case_0000", "case_0001", "volume-3"]


def test_the_channel_of_nnunet_keeps_no_pair_apart(tmp_path):
    for name in ("i/liver_1_0000.nii.gz", "i/liver_2_0000.nii.gz", "l/liver_1.nii.gz", "l/liver_2.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(p.case, p.labels.name) for p in find_pairs(tmp_path / "i", tmp_path / "l")] == [
        ("liver_1_0000", "liver_1.nii.gz"),
        ("liver_2_0000", "liver_2.nii.gz"),
    ]


# Labels that are there and cannot be read


def spoiled(folder, kind):
    """images/ of three cases beside labels/ that nothing can be read from."""
    for n in range(3):
        write_nifti(folder / "images" / f"c{n}.nii.gz", body(n)[0])
        path = write_nifti(folder / "labels" / f"c{n}.nii.gz", body(n)[1])
        if kind == "empty":
            path.unlink()
        elif kind == ".nrrd":
            path.rename(path.with_name(f"c{n}.nrrd"))
        elif kind == "folders":
            (folder / "labels" / f"c{n}").mkdir()
            path.rename(folder / "labels" / f"c{n}" / "seg.nii.gz")
    return folder


@pytest.mark.parametrize("kind", ["empty", ".nrrd", "folders"])
@pytest.mark.parametrize("named", [False, True])
def test_a_folder_of_labels_that_cannot_be_read_is_not_passed_over(attentkit, tmp_path, kind, named):
    data = spoiled(tmp_path / "data", kind)
    words = ["prepare", data, "-o", tmp_path / "out.h5", "--modality", "mr", "--size", 16]
    words = [*words[:1], data / "images", *words[2:], "--labels", data / "labels"] if named else words
    assert says(attentkit(*words), 3, str(data / "labels"), kind)
    assert not (tmp_path / "out.h5").exists()
    if not named:
        assert attentkit(*words, "--allow-unlabelled").code == 0
        findings = json.loads(attentkit("check", data, "--json").out)
        assert any(f["severity"] == "error" and str(data / "labels") in f["file"] + f["evidence"] for f in findings)


def test_images_without_any_labels_are_a_wish_that_is_said(attentkit, tmp_path):
    for n in range(3):
        write_nifti(tmp_path / "mr" / f"c{n}.nii.gz", body(n)[0])
    words = ["prepare", tmp_path / "mr", "-o", tmp_path / "out.h5", "--modality", "mr", "--size", 16]
    assert says(attentkit(*words), 3, str(tmp_path / "mr"), "--labels", "--allow-unlabelled")
    assert attentkit(*words, "--allow-unlabelled").code == 0


def test_a_folder_of_labels_beside_the_images_themselves_is_read(attentkit, tmp_path):
    for n in range(3):
        write_nifti(tmp_path / "d" / f"c{n}.nii.gz", body(n)[0])
        write_nifti(tmp_path / "d" / "labels" / f"c{n}.nii.gz", body(n)[1])
    assert all(case["labels"] for case in prepared_cases(attentkit, tmp_path / "d", tmp_path))


# Lists


@pytest.mark.parametrize("heading", ["labels", "label", " labels", "Mask", "segmentation", "GT", "labels_path"])
@pytest.mark.parametrize(
    ("separator", "ending", "mark"), [(",", "\n", b""), (";", "\r\n", b"\xef\xbb\xbf"), ("\t", "\r\n", b"")]
)
def test_a_list_is_read_as_people_write_it(attentkit, tmp_path, heading, separator, ending, mark):
    lines = [f"Image{separator}{heading}{separator}age"]
    for n in range(3):
        write_nifti(tmp_path / "i" / f"c{n}.nii.gz", body(n)[0])
        write_nifti(tmp_path / "l" / f"c{n}.nii.gz", body(n)[1])
        lines.append(f"i\\c{n}.nii.gz{separator} l/c{n}.nii.gz{separator}{50 + n}")
    (tmp_path / "list.CSV").write_bytes(mark + ending.join([*lines, "", ""]).encode())
    entries = Pairs(tmp_path / "list.CSV").entries()
    assert [(e.id, e.images[0].exists(), e.labels[0].exists()) for e in entries] == [
        (f"c{n}", True, True) for n in range(3)
    ]


def test_a_heading_that_means_nothing_is_named(attentkit, tmp_path):
    image = write_nifti(tmp_path / "a.nii.gz", body()[0])
    write_nifti(tmp_path / "b.nii.gz", body()[1])
    (tmp_path / "list.csv").write_text(f"image,annotated\n{image.name},b.nii.gz\n")
    words = ["prepare", tmp_path / "list.csv", "-o", tmp_path / "out.h5", "--modality", "mr", "--size", 16]
    assert says(attentkit(*words), 3, str(tmp_path / "list.csv"), "'annotated'", "--allow-unlabelled")
    (tmp_path / "list.csv").write_text(f"image,labels\n{image.name},\n")
    assert says(attentkit(*words), 3, str(tmp_path / "list.csv"), "--allow-unlabelled")
    assert attentkit(*words, "--allow-unlabelled").code == 0


def test_two_columns_of_labels_are_not_chosen_between(tmp_path):
    (tmp_path / "list.csv").write_text("image,label,mask\na.nii,b.nii,c.nii\n")
    with pytest.raises(DataError, match="two columns of labels, the second is 'mask'"):
        Pairs(tmp_path / "list.csv").entries()


# Label maps among images


def test_a_label_map_among_images_is_refused(attentkit, trained, tmp_path):
    for n in range(2):
        write_nifti(tmp_path / "d" / f"a{n}.nii.gz", body(n)[0])
        write_nifti(tmp_path / "d" / f"b{n}.nii.gz", body(n)[1])
    words = [
        "prepare",
        tmp_path / "d",
        "-o",
        tmp_path / "out.h5",
        "--modality",
        "mr",
        "--size",
        16,
        "--allow-unlabelled",
    ]
    assert says(attentkit(*words), 3, ".nii.gz holds 5 whole values", "--labels")
    assert not (tmp_path / "out.h5").exists()
    findings = json.loads(attentkit("check", tmp_path / "d", "--json").out)
    assert {f["file"] for f in findings if f["severity"] == "error"} == {
        str(tmp_path / "d" / f"b{n}.nii.gz") for n in (0, 1)
    }
    label_map = tmp_path / "d" / "b1.nii.gz"
    words = ["predict", trained, label_map, tmp_path / "p.nii.gz", "-d", "cpu"]
    assert says(attentkit(*words, "--strict"), 3, "b1.nii.gz", "5 whole values")
    assert "b1.nii.gz: it holds 5 whole values" in attentkit(*words).err


def test_an_image_of_few_grey_values_without_a_background_is_none(attentkit, tmp_path):
    image = np.random.default_rng(0).integers(0, 60, (24, 20, 9)).astype(np.uint8)
    write_nifti(tmp_path / "d" / "a.nii.gz", image)
    assert nib.load(tmp_path / "d" / "a.nii.gz").get_data_dtype() == np.uint8
    prepared_cases(attentkit, tmp_path / "d", tmp_path, "--allow-unlabelled")


def test_a_stray_voxel_below_the_padding_does_not_move_percentiles():
    image = np.zeros((32, 32, 8), np.float32)
    image[8:24, 8:24] = np.random.default_rng(0).integers(50, 900, (16, 16, 8))
    rule = Intensity("percentiles-per-volume")
    bounds = rule.bounds(image)
    image[0, 0, 0] = -1
    assert rule.bounds(image) == bounds and bounds[0] >= 50
    noise = 100 + np.random.default_rng(1).normal(0, 5, (32, 32, 8)).astype(np.float32)
    assert len(sample(noise)) == noise.size - 1
