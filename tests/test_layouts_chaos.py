"""CHAOS as it is unpacked: slices by their positions, masks by name or number, and held against the grey values."""

import numpy as np
import pytest

from attent_kit.data.doubts.slice_order import slice_order_evidence
from attent_kit.errors import ConfigError, DataError
from attentkit_builtin.layouts.chaos import Chaos
from support.dicom_slices import DISTANCE, write_series
from support.layout_folders import GREY, ORGANS, SLICES, body, write_masks, write_png

DICOM = [f"IMG-0004-{n:05}.dcm" for n in range(1, SLICES + 1)]
PNG = [name.replace(".dcm", ".png") for name in DICOM]
"""Masks named as their slices."""
NUMBERED = [f"liver_GT_{n:03}.png" for n in range(SLICES)]
"""Masks that only have a number, from 0."""


def mr_case(root, case="1", sequence="T2SPIR", phase="", dicom=DICOM, masks=PNG, against=False, seed=0, grey=GREY):
    """One sequence, slices from feet to head named by `dicom`; InstanceNumber runs along the patient or `against` it."""
    image, labels = body(seed)
    folder = root / "Train_Sets" / "MR" / case / sequence
    instance = [{"InstanceNumber": SLICES - z if against else z + 1} for z in range(SLICES)]
    write_series(folder / "DICOM_anon" / phase, image, names=dicom, tags=instance, Modality="MR")
    if masks is not None:
        write_masks(folder / "Ground", labels, masks, grey)
    return folder


def ct_case(root, case="1", against=True, masks=None, values=255):
    """A CT with masks of the liver, one bit a pixel, numbered from 0 along InstanceNumber, which runs against z."""
    image, labels = body(int(case))
    folder = root / "Train_Sets" / "CT" / case
    instance = [{"InstanceNumber": SLICES - z if against else z + 1} for z in range(SLICES)]
    names = [f"i{z:04},0000b.dcm" for z in range(SLICES)]
    write_series(folder / "DICOM_anon", image, names=names, tags=instance, RescaleIntercept=-200, RescaleSlope=1)
    for z, name in enumerate(masks or (NUMBERED[::-1] if against else NUMBERED)):
        liver = labels[:, :, z].T == 1
        write_png(folder / "Ground" / name, liver if values == 255 else liver.astype(np.uint8) * values)
    return folder


def read(root, part=None, case=0):
    layout = Chaos(root, part)
    return layout.read(layout.entries()[case])


def one(sentences, words):
    (found,) = [sentence for sentence in sentences if words in sentence]
    return found


# Places and parts


def test_the_data_are_found_from_train_sets_its_parent_and_their_own_folders(tmp_path):
    data = tmp_path / "CHAOS_Train_Sets"
    mr_case(data)
    ct_case(data)
    for place in (tmp_path, data, data / "Train_Sets"):
        assert Chaos.recognises(place) and Chaos.parts(place) == ("t2spir", "ct")
    for name, part in (("MR", "t2spir"), ("CT", "ct")):
        assert Chaos.parts(data / "Train_Sets" / name) == ()
        assert Chaos(data / "Train_Sets" / name).part == part
    for place in (tmp_path / "nowhere", data / "Train_Sets" / "MR" / "1", data / "Train_Sets" / "CT" / "1"):
        assert not Chaos.recognises(place)
        with pytest.raises(DataError, match="CHAOS data"):
            Chaos(place)


def test_test_sets_beside_train_sets_are_another_data_set(tmp_path):
    mr_case(tmp_path)
    (tmp_path / "Train_Sets").rename(tmp_path / "Test_Sets")
    mr_case(tmp_path, case="2")
    assert [entry.id for entry in Chaos(tmp_path).entries()] == ["2"]
    assert [entry.id for entry in Chaos(tmp_path / "Test_Sets").entries()] == ["1"]


def test_one_of_several_sequences_must_be_chosen(tmp_path):
    mr_case(tmp_path)
    for phase in ("InPhase", "OutPhase"):
        mr_case(tmp_path, sequence="T1DUAL", phase=phase)
    ct_case(tmp_path)
    parts = ("t2spir", "t1-inphase", "t1-outphase", "ct")
    assert Chaos.parts(tmp_path) == parts
    with pytest.raises(ConfigError, match="--part, of t2spir, t1-inphase, t1-outphase, ct"):
        Chaos(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 't1-inphase'"):
        Chaos(tmp_path, "t1-inphas")
    assert Chaos(tmp_path, "T2SPIR").part == "t2spir"


def test_ids_are_the_names_of_the_folders(tmp_path):
    for case in ("2", "10", "1"):
        mr_case(tmp_path, case=case)
    entries = Chaos(tmp_path).entries()
    assert [entry.id for entry in entries] == ["1", "10", "2"]
    assert {entry.modality for entry in entries} == {"mr"} and {entry.split for entry in entries} == {None}
    assert [len(entry.images) for entry in entries] == [len(entry.labels) for entry in entries] == [SLICES] * 3


# Which mask belongs to which slice


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize("shuffled", [False, True])
def test_masks_named_as_slices_go_with_them_whatever_the_names_sort_like(tmp_path, against, shuffled):
    order = np.random.default_rng(1).permutation(SLICES) if shuffled else np.arange(SLICES)[::-1]
    mr_case(tmp_path, dicom=[DICOM[n] for n in order], masks=[PNG[n] for n in order], against=against)
    scan, (image, labels) = read(tmp_path), body()
    assert np.array_equal(scan.image.array, image) and np.array_equal(scan.labels.array, labels)
    assert scan.labels.affine is scan.image.affine and scan.image.orientation == "LPS"
    assert "by file name" in one(scan.decisions, "masks matched")
    assert scan.doubts == ()


@pytest.mark.parametrize("against", [False, True])
def test_numbered_masks_follow_the_instance_number_which_may_run_against_the_slices(tmp_path, against):
    ct_case(tmp_path, against=against)
    scan, (image, labels) = read(tmp_path), body(1)
    assert np.array_equal(scan.image.array, image - 200) and np.array_equal(scan.labels.array, labels == 1)
    assert "by number, InstanceNumber - 1" in one(scan.decisions, "masks matched")


def test_ten_slices_numbered_without_zeros_are_not_sorted_as_words(tmp_path):
    image, labels = (np.concatenate([array, array[..., :3]], axis=2) for array in body())
    folder = tmp_path / "Train_Sets" / "CT" / "1"
    write_series(folder / "DICOM_anon", image, names=[f"i{z:02}" for z in range(SLICES + 3)])
    for z in range(SLICES + 3):
        write_png(folder / "Ground" / f"{z}.png", labels[:, :, z].T == 1)
    assert np.array_equal(read(tmp_path).labels.array, labels == 1)


def test_numbered_masks_that_run_against_their_slices_are_turned_round_and_it_is_said(tmp_path):
    ct_case(tmp_path, against=True, masks=NUMBERED)  # as if number 0 belonged to the slice at the feet
    scan = read(tmp_path)
    assert np.array_equal(scan.labels.array, body(1)[1] == 1)
    assert "turned round" in one(scan.decisions, "masks matched")


def test_masks_named_as_slices_that_fit_better_the_other_way_round_are_kept_and_doubted(tmp_path):
    mr_case(tmp_path, masks=PNG[::-1])
    scan = read(tmp_path)
    assert np.array_equal(scan.labels.array, body()[1][..., ::-1])
    assert "other way round" in one(scan.doubts, "by file name")


@pytest.mark.parametrize("names", [PNG, NUMBERED])
def test_an_order_that_the_grey_values_cannot_tell_is_doubted(tmp_path, names):
    folder = mr_case(tmp_path, masks=names)
    noise = np.random.default_rng(0).normal(500, 20, body()[0].shape).astype(np.uint16)
    write_series(folder / "DICOM_anon", noise, names=DICOM, Modality="MR")
    assert "do not tell" in one(read(tmp_path).doubts, "masks matched")


def test_empty_masks_have_no_order_to_doubt(tmp_path):
    folder = mr_case(tmp_path, masks=None)
    write_masks(folder / "Ground", np.zeros_like(body()[1]), PNG)
    scan = read(tmp_path)
    assert not scan.labels.array.any() and scan.doubts == ()
    assert "all are empty" in one(scan.decisions, "masks matched")


def test_the_evidence_is_one_on_noise_and_turns_into_its_inverse_when_the_stacks_change_places():
    image, labels = body()
    other = labels[..., ::-1]
    ratio = slice_order_evidence(image, labels, other)
    assert ratio > 3
    assert np.isclose(slice_order_evidence(image, other, labels), 1 / ratio)
    assert slice_order_evidence(image, labels, labels) == slice_order_evidence(image, 0 * labels, 0 * labels) == 1
    few = labels * (np.cumsum(labels.ravel() == 1).reshape(labels.shape) < 20) * (labels == 1)
    assert few.sum() == 19 and slice_order_evidence(image, few, few[..., ::-1]) == 1
    noise = np.random.default_rng(0).normal(size=image.shape)
    assert 0.9 < slice_order_evidence(noise, labels, other) < 1.1


def test_masks_without_names_or_numbers_in_common_are_refused(tmp_path):
    folder = mr_case(tmp_path, masks=NUMBERED)
    write_series(folder / "DICOM_anon", body()[0], names=DICOM, tags=[{"InstanceNumber": 1}] * SLICES)
    with pytest.raises(DataError, match="have an InstanceNumber: name each mask"):
        read(tmp_path)


def test_the_out_phase_takes_the_masks_drawn_on_the_in_phase(tmp_path):
    folder = mr_case(tmp_path, sequence="T1DUAL", phase="InPhase")
    image, labels = body(5)
    odd = [f"IMG-0004-{n:05}.dcm" for n in range(SLICES, 2 * SLICES)]
    write_series(folder / "DICOM_anon" / "OutPhase", image, names=odd[::-1], Modality="MR")
    scan = read(tmp_path, "t1-outphase")
    assert np.array_equal(scan.image.array, image) and np.array_equal(scan.labels.array, labels)
    assert np.array_equal(read(tmp_path, "t1-inphase").image.array, body()[0])
    heights = [DISTANCE * z + 1 for z in range(SLICES)]
    write_series(folder / "DICOM_anon" / "OutPhase", image, names=odd, heights=heights, Modality="MR")
    with pytest.raises(DataError, match="OutPhase .*grid of .*InPhase"):
        read(tmp_path, "t1-outphase")


# Grey levels


def test_every_grey_level_of_the_bands_is_its_organ_and_the_nominal_one_is_not_asked_for(tmp_path):
    mr_case(tmp_path, grey=(0, 56, 135, 176, 255))
    scan, layout = read(tmp_path), Chaos(tmp_path)
    assert np.array_equal(scan.labels.array, body()[1])
    assert layout.organs.to_dict()["organs"] == {organ: [n] for n, organ in enumerate(ORGANS, start=1)}


@pytest.mark.parametrize("level", [55, 71, 110, 136, 175, 201, 240, 1])
def test_grey_levels_between_the_bands_are_refused_and_named(tmp_path, level):
    mr_case(tmp_path, grey=(0, level, 126, 189, 252))
    with pytest.raises(DataError, match=rf"280 of 574 .*\({level}\)"):
        read(tmp_path)


def test_masks_of_the_older_coding_are_refused_though_255_is_spleen_in_both(tmp_path):
    mr_case(tmp_path, grey=(0, 80, 160, 240, 255))
    with pytest.raises(DataError, match=r"\(80, 160, 240\)"):
        read(tmp_path)


def test_a_tiny_share_of_stray_levels_is_background_and_doubted(tmp_path):
    labels = np.zeros((48, 48, SLICES), np.uint8)
    labels[4:40, 4:40, 2:6] = 1  # 5184 pixels, of which one in a thousand is 5
    folder = tmp_path / "Train_Sets" / "MR" / "1" / "T2SPIR"
    image = (labels * np.int64(300) + np.random.default_rng(0).integers(0, 30, labels.shape)).astype(np.uint16)
    write_series(folder / "DICOM_anon", image, names=DICOM, Modality="MR")
    grey = labels * np.uint8(63)
    for count, refused in ((5, False), (6, True)):
        grey[4, 4 : 4 + count, 2] = 100
        for z, name in enumerate(PNG):
            write_png(folder / "Ground" / name, grey[:, :, z].T)
        if refused:
            with pytest.raises(DataError, match="6 of 5184 masked pixels"):
                read(tmp_path)
        else:
            scan = read(tmp_path)
            assert one(scan.doubts, "grey level").startswith("5 pixels") and (scan.labels.array == 1).sum() == 5184 - 5


@pytest.mark.parametrize("values", [1, 255, 255.0])
def test_ct_has_masks_of_the_liver_alone_and_says_so(tmp_path, values):
    ct_case(tmp_path, values=int(values))
    layout = Chaos(tmp_path)
    scan = layout.read(layout.entries()[0])
    assert set(np.unique(scan.labels.array)) == {0, 1} and layout.organs.organs == ("liver",)
    assert layout.entries()[0].modality == "ct"
    assert "kidneys and spleen are not labelled" in one(scan.doubts, "liver alone")


def test_a_ct_mask_of_two_values_is_refused(tmp_path):
    folder = ct_case(tmp_path)
    write_png(folder / "Ground" / NUMBERED[0], np.array(GREY, np.uint8)[body()[1][:, :, 2].T])
    with pytest.raises(DataError, match="Ground holds the values"):
        read(tmp_path)


# What is not whole


def test_missing_and_spare_masks_are_named(tmp_path):
    folder = mr_case(tmp_path)
    (folder / "Ground" / PNG[2]).unlink()
    with pytest.raises(DataError, match="no mask of the slice IMG-0004-00003"):
        Chaos(tmp_path).entries()
    write_png(folder / "Ground" / PNG[2], np.zeros((20, 24), np.uint8))
    write_png(folder / "Ground" / "IMG-0004-00099.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match="a mask without a slice, IMG-0004-00099"):
        Chaos(tmp_path).entries()


def test_numbered_masks_must_be_as_many_as_the_slices(tmp_path):
    folder = ct_case(tmp_path)
    (folder / "Ground" / NUMBERED[-1]).unlink()
    with pytest.raises(DataError, match="8 masks.* 9 slices"):
        Chaos(tmp_path).entries()


def test_cases_of_a_test_set_have_no_masks_but_one_case_without_is_an_error(tmp_path):
    mr_case(tmp_path, masks=None)
    (entry,) = Chaos(tmp_path).entries()
    assert entry.labels == () and Chaos(tmp_path).read(entry).labels is None
    mr_case(tmp_path, case="2")
    with pytest.raises(DataError, match="Ground of case 1 "):
        Chaos(tmp_path).entries()


def test_masks_of_another_size_than_their_slices_are_refused(tmp_path):
    folder = mr_case(tmp_path)
    write_png(folder / "Ground" / PNG[4], np.zeros((24, 20), np.uint8))
    with pytest.raises(DataError, match=r"00005\.png .*20 x 24 .*00001\.png .*24 x 20"):
        read(tmp_path)
    for name in PNG:
        write_png(folder / "Ground" / name, np.zeros((24, 20), np.uint8))
    with pytest.raises(DataError, match=r"20 x 24 .*slices .*24 x 20"):
        read(tmp_path)


def test_a_truncated_mask_is_one_sentence_and_hidden_files_are_none(tmp_path):
    folder = mr_case(tmp_path)
    (folder / "Ground" / f"._{PNG[0]}").write_bytes(b"of macOS")
    (folder / "DICOM_anon" / f"._{DICOM[0]}").write_bytes(b"of macOS")
    (folder / "DICOM_anon" / "DICOMDIR").write_bytes(b"an index")
    (folder / "DICOM_anon" / "more").mkdir()
    assert np.array_equal(read(tmp_path).labels.array, body()[1])
    mask = folder / "Ground" / PNG[3]
    mask.write_bytes(mask.read_bytes()[:-20])
    with pytest.raises(DataError, match="00004.png is not a whole PNG"):
        read(tmp_path)


def test_slices_that_cannot_be_read_are_told_with_the_reason(tmp_path):
    folder = mr_case(tmp_path, masks=None)
    for path in (folder / "DICOM_anon").iterdir():
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    with pytest.raises(DataError, match="DICOM_anon .*link out of the folder"):
        read(tmp_path)
    (folder / "DICOM_anon" / DICOM[3]).unlink()
    (folder / "DICOM_anon" / DICOM[3]).symlink_to("nowhere")
    with pytest.raises(DataError, match="IMG-0004-00004.dcm is a link to nothing"):
        read(tmp_path)


def test_two_series_in_one_folder_and_a_case_without_slices_are_refused(tmp_path):
    folder = mr_case(tmp_path)
    write_series(
        folder / "DICOM_anon", body()[0][:, :, :2], names=["x1.dcm", "x2.dcm"], SeriesInstanceUID="1.2", Modality="MR"
    )
    write_png(folder / "Ground" / "x1.png", np.zeros((20, 24), np.uint8))
    write_png(folder / "Ground" / "x2.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match="holds 2 DICOM series"):
        read(tmp_path)
    (tmp_path / "Train_Sets" / "MR" / "7").mkdir()
    with pytest.raises(DataError, match="7/T2SPIR/DICOM_anon .*: unpack case 7 again"):
        Chaos(tmp_path).entries()
