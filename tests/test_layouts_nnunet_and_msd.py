"""Data sets described by a dataset.json: nnU-Net names organs first, the Decathlon numbers them first."""

import json
import shutil

import numpy as np
import pytest

from attent_kit.errors import ConfigError, DataError
from attentkit_builtin.layouts.msd import MSD
from attentkit_builtin.layouts.nnunet import NnUNet
from support.layout_folders import MSD as MSD_FACTS
from support.layout_folders import ORGANS, body, msd, nnunet, write_json, write_nifti

TWO_CHANNELS = {"channel_names": {"0": "T2", "1": "T1 in phase"}}
TWO_MODALITIES = {"modality": {"0": "T2", "1": "ADC"}}


def classes(layout, scan):
    """Classes in the order of `layout_folders.body`."""
    label_map = layout.organs.in_task_order()
    assert label_map.organs == ORGANS
    return label_map.apply(scan.labels.array, "labels")


def moved_out(folder, name="outside.nii.gz"):
    """A volume that lies beside the data set, and its name as seen from inside."""
    write_nifti(folder.parent / name, body()[0])
    return f"../{name}"


@pytest.fixture
def data(tmp_path):
    """An empty place for a data set, with room beside it."""
    return tmp_path / "data"


# nnU-Net


def test_nnunet_is_read_and_names_stand_before_values(data):
    nnunet(data)
    assert NnUNet.recognises(data) and NnUNet.recognises(data.parent) and not MSD.recognises(data)
    layout = NnUNet(data)
    entries = layout.entries()
    assert [(e.id, e.modality, e.split) for e in entries] == [("a", "ct", None), ("b", "ct", None)]
    scan = layout.read(entries[1])
    assert np.array_equal(scan.image.array, body(10)[0]) and np.array_equal(classes(layout, scan), body()[1])


def test_the_channel_is_chosen_by_its_name(data):
    nnunet(data, **TWO_CHANNELS)
    assert NnUNet.parts(data) == ("T2", "T1 in phase")
    with pytest.raises(ConfigError, match="--part, of T2, T1 in phase"):
        NnUNet(data)
    layout = NnUNet(data, "t1 IN phase")
    (first, _) = layout.entries()
    assert first.images[0].name == "a_0001.nii.gz" and first.modality == "mr"
    assert np.array_equal(layout.read(first).image.array, body(1)[0])


def test_a_missing_channel_is_named_even_if_another_is_read(data):
    nnunet(data, **TWO_CHANNELS)
    (data / "imagesTr" / "b_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"no b_0001\.nii\.gz,.*'T1 in phase'"):
        NnUNet(data, "T2").entries()


def test_images_for_testing_are_parts_of_their_own(data):
    nnunet(data)
    write_nifti(data / "imagesTs" / "c_0000.nii.gz", body(9)[0])
    assert NnUNet.parts(data) == ("training", "testing") and NnUNet(data).part == "training"
    (entry,) = NnUNet(data, "testing").entries()
    assert entry.id == "c" and entry.labels == ()
    write_nifti(data / "labelsTs" / "c.nii.gz", body(9)[1])
    assert NnUNet(data, "testing").entries()[0].labels[0].name == "c.nii.gz"
    nnunet(data, **TWO_CHANNELS)
    assert NnUNet.parts(data) == ("T2", "T1 in phase", "T2-testing", "T1 in phase-testing")


def test_fold_0_of_splits_final_is_the_split(data):
    nnunet(data)
    write_json(data / "splits_final.json", [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}])
    assert [entry.split for entry in NnUNet(data).entries()] == ["val", "train"]


@pytest.mark.parametrize(
    ("splits", "sentence"),
    [
        ([{"train": ["a", "c"], "val": []}], "names the case 'c'"),
        ([{"train": ["a"], "val": ["a"]}], "'a' in train and in val"),
        ([{"train": "ab", "val": []}], "two lists"),
        ([[]], "two lists"),
        ([], "two lists"),
        ({"train": []}, "must hold a list"),
    ],
)
def test_splits_that_cannot_be_followed_are_refused(data, splits, sentence):
    nnunet(data)
    write_json(data / "splits_final.json", splits)
    with pytest.raises(DataError, match=sentence):
        NnUNet(data).entries()


def test_disjoint_regions_are_joined_and_overlapping_ones_refused(data):
    nnunet(data, labels={"background": 0, "kidneys": [2, 3], "liver": 4, "spleen": 1})
    assert NnUNet(data).organs.to_dict()["organs"] == {"kidneys": [2, 3], "liver": [4], "spleen": [1]}
    nnunet(data, labels={"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2})
    with pytest.raises(DataError, match="'kidney' and 'masses' .* 2.*'pairs'"):
        NnUNet(data)


def test_labels_numbered_first_as_in_version_1_are_not_read_backwards(data):
    names = {"0": "background", "1": "spleen", "2": "right kidney", "3": "left kidney", "4": "liver"}
    nnunet(data, labels=names)
    layout = NnUNet(data)
    assert np.array_equal(classes(layout, layout.read(layout.entries()[0])), body()[1])


def test_voxels_to_be_ignored_are_refused_only_if_there_are_any(data):
    nnunet(data, labels={"background": 0, "spleen": 1, "right kidney": 2, "left kidney": 3, "liver": 4, "ignore": 5})
    layout = NnUNet(data)
    assert "ignore" not in layout.organs.organs
    assert np.array_equal(classes(layout, layout.read(layout.entries()[0])), body()[1])
    labels = np.array([0, 4, 2, 3, 1], np.uint8)[body()[1]]
    labels[0, 0, :2] = 5
    write_nifti(data / "labelsTr" / "a.nii.gz", labels)
    with pytest.raises(DataError, match=r"a\.nii\.gz .*2 voxels .*5"):
        layout.read(layout.entries()[0])


@pytest.mark.parametrize("ending", [".png", ".nrrd", 3, None])
def test_other_endings_than_nifti_are_refused(data, ending):
    nnunet(data, file_ending=ending)
    with pytest.raises(DataError, match=r"file_ending .*\.nii\.gz or \.nii only"):
        NnUNet(data)


def test_a_data_set_of_pictures_is_recognised_and_refused(data):
    write_json(data / "dataset.json", {"file_ending": ".png"})
    (data / "imagesTr").mkdir()
    (data / "imagesTr" / "a_0000.png").touch()
    assert NnUNet.recognises(data)
    with pytest.raises(DataError, match="has the file_ending '.png'"):
        NnUNet(data)


def rename(old, new):
    return lambda folder: (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / "labelsTr" / "b.nii.gz").unlink(), "labelsTr .*no label map of b"),
        (lambda f: (f / "imagesTr" / "b_0000.nii.gz").unlink(), "imagesTr .*no image of b"),
        (rename("imagesTr/b_0000.nii.gz", "imagesTr/b.nii.gz"), "b.nii.gz .*channel, _0000.nii.gz to _0000"),
        (rename("imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz"), "b_0001.nii.gz .*channel"),
        (rename("imagesTr/b_0000.nii.gz", "imagesTr/b_0000.nii"), "b_0000.nii does not end in .nii.gz"),
        (lambda f: shutil.rmtree(f / "labelsTr"), "no label map of a, b"),
        (lambda f: [(f / k / n).unlink() for k, n in (("imagesTr", "b_0000.nii.gz"), ("labelsTr", "b.nii.gz"))], "counts 2"),
        (lambda f: (f / "labelsTr" / "c.nii.gz").symlink_to("nowhere"), "c.nii.gz is a link to nothing"),
        (lambda f: (f / "labelsTr" / "c.nii.gz").mkdir(), "c.nii.gz is not a file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(data, spoil, sentence):
    spoil(nnunet(data))
    with pytest.raises(DataError, match=sentence):
        NnUNet(data).entries()


def test_images_may_be_named_one_by_one_but_not_outside(data):
    nnunet(data)
    listed = {"z": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    nnunet(data, dataset=listed, numTraining=1)
    assert [(e.id, e.images[0].name) for e in NnUNet(data).entries()] == [("z", "a_0000.nii.gz")]
    for name in (moved_out(data), str(data.parent / "outside.nii.gz")):
        nnunet(data, dataset={"z": {"images": [name], "label": "labelsTr/a.nii.gz"}}, numTraining=1)
        with pytest.raises(DataError, match="which leads out of"):
            NnUNet(data).entries()
    for listed in ({"z": {"images": []}}, {"z": 3}, [1], {"z": {"images": ["imagesTr/a_0000.nii.gz"]}}):
        nnunet(data, dataset=listed)
        with pytest.raises(DataError, match="dataset.json"):
            NnUNet(data).entries()


# The Decathlon


def test_a_task_is_read_and_values_stand_before_names(data):
    msd(data)
    assert MSD.recognises(data) and not NnUNet.recognises(data) and MSD.parts(data) == ()
    layout = MSD(data)
    assert [(e.id, e.modality) for e in layout.entries()] == [("x_1", "ct"), ("x_2", "ct")]
    scan = layout.read(layout.entries()[0])
    assert np.array_equal(scan.image.array, body(10)[0]) and np.array_equal(classes(layout, scan), body()[1])


def test_a_modality_of_a_4_d_image_is_chosen_by_its_name(data):
    msd(data, **TWO_MODALITIES)
    assert MSD.parts(data) == ("T2", "ADC")
    with pytest.raises(ConfigError, match="--part, of T2, ADC"):
        MSD(data)
    for number, part in enumerate(("t2", "adc")):
        layout = MSD(data, part)
        (first, _) = layout.entries()
        scan = layout.read(first)
        assert first.modality == "mr" and np.array_equal(scan.image.array, body(10 + number)[0])
        assert scan.labels.array.shape == scan.image.array.shape


def test_as_many_modalities_as_are_named_must_be_there(data):
    msd(data, **TWO_MODALITIES)
    write_nifti(data / "imagesTr" / "x_1.nii.gz", body()[0])
    layout = MSD(data, "T2")
    with pytest.raises(DataError, match="24x20x9 .*2 channels"):
        layout.read(layout.entries()[0])
    write_nifti(data / "imagesTr" / "x_1.nii.gz", np.stack([body()[0]] * 3, -1))
    with pytest.raises(DataError, match="is 24x20x9x3 voxels"):
        layout.read(layout.entries()[0])
    msd(data)
    write_nifti(data / "imagesTr" / "x_1.nii.gz", np.stack([body()[0]] * 3, -1))
    with pytest.raises(DataError, match="4 dimensions"):
        MSD(data).read(MSD(data).entries()[0])


def test_test_images_are_a_part_without_labels(data):
    msd(data, test=["./imagesTs/x_3.nii.gz"])
    write_nifti(data / "imagesTs" / "x_3.nii.gz", body()[0])
    (entry,) = MSD(data, "testing").entries()
    assert entry.id == "x_3" and entry.labels == ()
    assert [entry.id for entry in MSD(data).entries()] == ["x_1", "x_2"]


def test_files_and_their_list_must_agree(data):
    msd(data, training=MSD_FACTS["training"][:1])
    with pytest.raises(DataError, match="does not list imagesTr/x_2.nii.gz, labelsTr/x_2.nii.gz"):
        MSD(data).entries()
    msd(data)
    (data / "labelsTr" / "x_2.nii.gz").unlink()
    with pytest.raises(DataError, match="'./labelsTr/x_2.nii.gz', which is not there"):
        MSD(data).entries()


def test_a_pair_of_two_names_is_refused(data):
    swapped = [{"image": f"imagesTr/x_{a}.nii.gz", "label": f"labelsTr/x_{b}.nii.gz"} for a, b in ((1, 2), (2, 1))]
    msd(data, training=swapped)
    with pytest.raises(DataError, match="pairs x_1.nii.gz with x_2.nii.gz"):
        MSD(data).entries()


@pytest.mark.parametrize("name", ["../outside.nii.gz", "imagesTr/../../outside.nii.gz", "/etc/hostname"])
def test_a_list_that_leads_out_of_the_folder_is_refused(data, name):
    moved_out(data)
    msd(data, training=[{"image": name, "label": name}])
    with pytest.raises(DataError, match="which leads out of"):
        MSD(data).entries()


@pytest.mark.parametrize("name", ["imagesTr", "imagesTr/x_9.nii.gz", "", "a\0b", 3, None, ["x"], "x" * 5000])
def test_a_list_that_names_no_file_is_refused(data, name):
    msd(data, training=[{"image": name, "label": name}])
    with pytest.raises(DataError, match="dataset.json names"):
        MSD(data).entries()


# dataset.json


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "liver": 1, "spleen": 1}, "'liver' and 'spleen' .*1"),
        ({"0": "background", "1": "liver", "2": "liver"}, "two values are called 'liver'"),
        ({"0": "background", "one": "liver"}, "'one' where a whole number belongs"),
        ({"liver": 0, "spleen": 1}, "'liver' .*0.*background"),
        ({"background": 1, "liver": 2}, "'background' .*1.*0"),
        ({"background": 0, "liver": 1.5}, "the value 1.5"),
        ({"background": 0, "liver": True}, "the value True"),
        ({"background": 0, "liver": []}, "the value a list"),
        ({"background": 0, "liver": -1}, "the value -1"),
        ({"background": 0}, "names no organ"),
        ({"background": 0, "a\nb": 1}, "cannot name an organ"),
        ({}, "'labels' must be an object"),
        (["liver"], "'labels' must be an object"),
        (None, "'labels' must be an object"),
        ({f"organ {n}": n for n in range(1, 300)}, "names 1 to 254 organs"),
    ],
)
@pytest.mark.parametrize(("layout", "write"), [(NnUNet, nnunet), (MSD, msd)])
def test_labels_that_do_not_say_what_is_what_are_refused(data, layout, write, labels, sentence):
    write(data, labels=labels)
    with pytest.raises(DataError, match=f"dataset.json: .*{sentence}"):
        layout(data)


@pytest.mark.parametrize("names", [None, {}, {"1": "CT"}, {"0": 3}, {"0": ""}, {"0": "CT", "2": "T1"}, "CT", [3]])
def test_channels_that_are_not_named_are_refused(data, names):
    msd(data)
    write_json(data / "dataset.json", MSD_FACTS | {"modality": names})
    with pytest.raises(DataError, match="dataset.json: .*channel"):
        MSD(data)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe{}", b"3", b"[" * 3000, b'{"labels": 1, "labels": 2}'])
@pytest.mark.parametrize("layout", [NnUNet, MSD])
def test_a_file_that_is_no_object_is_refused(data, layout, content):
    msd(data)
    (data / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match="dataset.json"):
        layout(data)


def test_an_organ_that_stands_twice_is_noticed(data):
    msd(data)
    content = json.dumps(MSD_FACTS).replace('"1": "spleen"', '"1": "liver", "1": "spleen"')
    (data / "dataset.json").write_text(content)
    with pytest.raises(DataError, match="dataset.json names '1' twice"):
        MSD(data)


def test_a_byte_order_mark_is_no_mistake(data):
    msd(data)
    content = json.dumps(MSD_FACTS).encode()
    (data / "dataset.json").write_bytes(b"\xef\xbb\xbf" + content)
    assert len(MSD(data).entries()) == 2


def test_several_data_sets_in_one_folder_are_not_guessed_between(tmp_path):
    msd(tmp_path / "Task03_Liver")
    msd(tmp_path / "Task09_Spleen")
    with pytest.raises(DataError, match="several .*Task03_Liver and .*Task09_Spleen"):
        MSD(tmp_path)
