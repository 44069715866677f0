"""NIfTI files as people have them: units, sheared and almost equal grids, endings, what a file is not, what it claims to be."""

import errno
import gzip
import json
import os
import re
import shutil
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from attent_kit.data.scans import nifti_file
from attent_kit.data.scans.grids import apart, same_grid, shear
from attent_kit.data.scans.volumes import read_labels, read_volume, write_labels
from attent_kit.errors import DataError
from support.commands import prepare_words, says, train_words
from support.layout_folders import LPS, body

ORGANS = "liver=1,right kidney=2,left kidney=3,spleen=4"


def save(path, array, affine=LPS, units="mm", qform=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine if qform else None, qform)
    image.header.set_xyzt_units(units)
    nib.save(image, path)
    return path


def prepare(attentkit, folder, out, *words):
    return attentkit("prepare", folder, "-o", out, "--modality", "mr", "--size", 16, "--organs", ORGANS, *words)


# Units


@pytest.mark.parametrize(("units", "mm"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
def test_a_header_that_counts_in_another_unit_is_scaled_to_mm_as_itk_does(tmp_path, units, mm):
    image, labels = body()
    affine = np.diag([1 / mm, 1 / mm, 1 / mm, 1]) @ LPS  # ITK 5.4 scales spacing and origin
    affine[:3, 3] = np.array([10, 20, 30]) / mm
    volume = read_volume(save(tmp_path / "i.nii.gz", image, affine, units))
    assert np.allclose(volume.spacing, (2, 2, 5), rtol=1e-5) and np.allclose(
        volume.affine[:3, 3], (10, 20, 30), rtol=1e-5
    )
    true = LPS.copy()
    true[:3, 3] = (10, 20, 30)
    assert np.array_equal(read_labels(save(tmp_path / "l.nii.gz", labels, true), like=volume).array, labels)
    write_labels(tmp_path / "o.nii.gz", labels, volume.affine, volume.header)
    assert np.allclose(read_labels(tmp_path / "o.nii.gz").affine, volume.affine)


def test_units_are_told_by_check_and_prepare_and_do_not_change_a_distance(attentkit, tmp_path):
    image, labels = body()
    micron = LPS * [1000, 1000, 1000, 1]
    save(tmp_path / "d/images/a.nii.gz", image, micron, "micron")
    save(tmp_path / "d/labels/a.nii.gz", labels, micron, "micron")
    save(tmp_path / "p.nii.gz", np.roll(labels, 1, 2), micron, "micron")
    findings = json.loads(attentkit("check", tmp_path / "d", "--json").out)
    assert ["2 x 2 x 5 mm" in f["evidence"] for f in findings if f["check"] == "geometry"] == [True]
    assert "micron" in prepare(attentkit, tmp_path / "d", tmp_path / "x.h5").err
    rows = json.loads(attentkit("evaluate", tmp_path / "p.nii.gz", tmp_path / "d/labels/a.nii.gz", "--json").out)
    # The organs are boxes, moved by one slice of 5 mm.
    assert max(r["value"] for r in rows if (r["metric"], r["unit"]) == ("hd95", "mm")) == pytest.approx(5, rel=1e-5)


# Grids


def sheared(degrees):
    affine = LPS.copy()
    affine[1, 2] = np.tan(np.radians(degrees)) * affine[2, 2]
    return affine


def test_shear_is_measured_in_degrees():
    turn = nib.eulerangles.euler2mat(0.3, 0.2, 0.1)
    for degrees in (0, 0.4, 20, 45):
        affine = sheared(degrees)
        affine[:3, :3] = turn @ affine[:3, :3]
        assert shear(affine) == pytest.approx(degrees, abs=1e-6)


def test_a_sheared_affine_is_told_by_all_and_refused_by_evaluate(attentkit, trained, tmp_path):
    image, labels = body()
    images = save(tmp_path / "d/images/a.nii.gz", image, sheared(20))
    truth = save(tmp_path / "d/labels/a.nii.gz", labels, sheared(20))
    findings = json.loads(attentkit("check", tmp_path / "d", "--json").out)
    assert ["20.0 degrees" in f["evidence"] for f in findings if f["check"] == "geometry"] == [True]
    assert "20.0 degrees" in prepare(attentkit, tmp_path / "d", tmp_path / "x.h5").err
    assert "20.0 degrees" in attentkit("predict", trained, images, tmp_path / "p.nii.gz", "-d", "cpu").err
    moved = save(tmp_path / "m.nii.gz", np.roll(labels, 1, 0), sheared(20))
    assert says(attentkit("evaluate", moved, truth), 3, str(truth), "20.0 degrees")


def test_a_grid_is_the_same_if_no_voxel_moves_by_more_than_a_tenth_of_its_side_or_of_a_mm():
    shape, affine = (400, 400, 12), np.diag([0.9, 0.9, 5.0, 1.0])
    affine[:3, 3] = [-180.0049, -180.0049, -27]
    rounded, turned = affine.copy(), affine.copy()
    rounded[:3, 3] = np.round(affine[:3, 3], 2)
    turned[0, 1], turned[1, 0] = 9.5e-4, -9.5e-4
    assert same_grid(shape, rounded, shape, affine) and not same_grid(shape, turned, shape, affine)
    assert apart(shape, rounded, shape, affine) == pytest.approx(0.0049 * 2**0.5)
    # The last voxel of both axes: 399 voxels away, 0.00095 mm each.
    assert apart(shape, turned, shape, affine) == pytest.approx(399 * 9.5e-4 * 2**0.5)
    scaled = np.diag([0.01, 0.01, 0.01, 1.0])
    aside = scaled.copy()
    aside[0, 3] = 0.005
    assert not same_grid((8, 8, 8), aside, (8, 8, 8), scaled)


# Endings


@pytest.mark.parametrize("end", [".NII.gz", ".nii.GZ", ".Nii.Gz", ".Nii", ".nIi"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_an_ending_in_any_letters_is_the_file_of_that_name_alone(tmp_path, end, kind):
    """nibabel would open `x.nii.gz` for `x.Nii.gz`, which another system takes for the same file."""
    plain = kind(body()[1], np.diag([2.0, 2, 3, 1])).to_bytes()
    path = tmp_path / f"x{end}"
    content = gzip.compress(plain) if end.lower().endswith(".gz") else plain
    path.write_bytes(content)
    assert np.array_equal(read_labels(path).array, body()[1])
    for spoilt in (content[: len(content) // 2], b"junk" * 200, gzip.compress(plain[:200])[:150]):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match=re.escape(path.name)):
            read_labels(path)


def test_endings_in_capitals_are_read_everywhere(attentkit, trained, tmp_path):
    for n, end in enumerate((".NII.GZ", ".Nii", ".nii.Gz")):
        save(tmp_path / "d/images" / f"c{n}{end}", body(n)[0])
        save(tmp_path / "d/labels" / f"c{n}{end}", body(n)[1])
    outcome = prepare(attentkit, tmp_path / "d", tmp_path / "x.h5")
    assert outcome.code == 0 and "3 labelled" in outcome.out
    assert attentkit("check", tmp_path / "d", "--modality", "mr").out.count("3 cases") == 1
    outcome = attentkit("predict", trained, tmp_path / "d/images", tmp_path / "p", "-d", "cpu")
    assert outcome.code == 0 and len([*(tmp_path / "p").glob("c?.*")]) == 3
    assert read_labels(tmp_path / "p/c0.NII.GZ").array.shape == (24, 20, 9)
    assert (tmp_path / "p/c0.NII.GZ").read_bytes()[:2] == b"\x1f\x8b"
    assert attentkit("evaluate", tmp_path / "p", tmp_path / "d/labels").code == 0


# What a file is not


def test_a_file_that_is_not_what_its_name_says_is_told_what_it_is(attentkit, tmp_path):
    packed = save(tmp_path / "good.nii.gz", body()[0]).read_bytes()
    for name, content, words in (
        ("plain.nii.gz", gzip.decompress(packed), ("not compressed", "plain.nii.")),
        ("zipped.nii", packed, ("compressed", "zipped.nii.gz")),
        (
            "pointer.nii.gz",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            ("Git LFS", "git lfs pull"),
        ),
        ("nothing.nii.gz", b"", ("empty",)),
    ):
        (tmp_path / name).write_bytes(content)
        words = (str(tmp_path / name), *words)
        assert says(attentkit("evaluate", tmp_path / name, tmp_path / "good.nii.gz"), 3, *words)
        with pytest.raises(DataError) as told:
            read_volume(tmp_path / name)
        assert all(word in str(told.value) for word in words)


def test_a_git_lfs_pointer_is_told_to_be_one_whatever_it_stands_for(attentkit, own_run, volumes, tmp_path):
    images, pointer = volumes / "ct" / "images", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    for name in ("x.h5", "x.zip"):
        (tmp_path / name).write_text(pointer)
    (own_run / "checkpoint.ckpt").write_text(pointer)
    alone = shutil.copytree(own_run, tmp_path / "alone")
    (alone / "checkpoint.ckpt").unlink()
    (alone / "segmentor.safetensors").write_text(pointer)
    assert "a Git LFS pointer" in " ".join(attentkit("check", tmp_path / "x.h5").out.split())
    for run, name in (
        (own_run, "checkpoint.ckpt"), (alone, "segmentor.safetensors"), (tmp_path / "x.zip", "x.zip"),
    ):  # fmt: skip
        outcome = attentkit("predict", run, images, tmp_path / "p", "-d", "cpu")
        assert says(outcome, 1, f"{name} is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("call", ["load", "gzip"])
def test_what_the_system_says_is_passed_on(tmp_path, monkeypatch, number, call):
    path = save(tmp_path / "a.nii.gz", body()[0])

    def fails(*words, **more):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(*((nifti_file.nib, "load") if call == "load" else (nifti_file.gzip, "open")), fails)
    with pytest.raises(DataError, match=rf"{path} cannot be read \({os.strerror(number)}\)"):
        read_volume(path)


# What a file claims to be


def claiming(path, shape=None, offset=None, packed=False, padding=b""):
    """A small volume whose header tells of `shape` voxels, or of voxels from byte `offset` on."""
    content = bytearray(nib.Nifti1Image(body()[0], LPS).to_bytes())
    if shape:
        content[42:48] = np.array(shape, "<i2").tobytes()
    if offset:
        content[108:112] = np.array(offset, "<f4").tobytes()
    content = bytes(content) + padding
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize(
    ("name", "claim", "words"),
    [
        ("a.nii", {"shape": (32767,) * 3}, "ends before its last voxel"),
        ("a.nii", {"shape": (300, 300, 300)}, "ends before its last voxel"),
        ("a.nii.gz", {"shape": (32767,) * 3, "packed": True}, "ends before its last voxel"),
        ("a.nii.gz", {"shape": (2000, 2000, 2000), "packed": True, "padding": bytes(2**24)}, "1.07e\\+09"),
        ("a.nii.gz", {"offset": 2e9, "packed": True}, "begin at byte 2e\\+09"),
        ("a.nii", {"offset": float("nan")}, "begin at byte nan"),
        ("a.nii.gz", {"packed": True, "padding": bytes(2**27)}, "goes on long after its last voxel"),
    ],
)
def test_a_header_is_held_against_the_file_before_a_voxel_is_read(tmp_path, monkeypatch, name, claim, words):
    path = claiming(tmp_path / name, **claim)
    monkeypatch.setattr(nifti_file, "MOST_DEFLATED", 10**9 if "e" in words and "1.07" in words else 1032)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words) as told:
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert str(path) in str(told.value)


def test_a_volume_that_memory_cannot_hold_is_not_begun(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii.gz", body()[0])
    monkeypatch.setattr("attent_kit.data.scans.limits.host_memory", lambda: 24 * 20 * 9)
    with pytest.raises(DataError, match=f"{path} does not fit into memory"):
        read_volume(path)


def test_a_sheared_test_case_is_refused_before_anything_is_trained(attentkit, volumes, prepared, tmp_path):
    folder = tmp_path / "ct"
    shutil.copytree(volumes / "ct", folder)
    for kind in ("images", "labels"):
        path = folder / kind / "ct_3.nii.gz"
        image = nib.load(path)
        turned = image.affine.copy()
        turned[:3, 1] += 0.3 * turned[:3, 0]
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), turned), path)
    assert attentkit(*prepare_words(folder, tmp_path / "ct.h5")).code == 0
    shutil.copy(prepared / "mr.h5", tmp_path)
    outcome = attentkit(*train_words(tmp_path, tmp_path / "run"))
    assert says(outcome, 3, "ct_3", "sheared", "attentkit prepare")
    assert not (tmp_path / "run" / "checkpoint.ckpt").exists()
    # For training, distances do not matter.
    assert attentkit(*prepare_words(folder, tmp_path / "ct.h5"), "--train", "ct_3", "--test", "ct_1").code == 0
    assert attentkit(*train_words(tmp_path, tmp_path / "run")).code == 0


# What nibabel would mend without a word of ours


def with_header(path, **fields):
    """The same file with other values in its header, as they are."""
    image = nib.load(path)
    header, array = image.header.copy(), np.asanyarray(image.dataobj)
    content = bytearray(header.binaryblock + bytes(4) + array.tobytes(order="F"))
    spoilt = nib.Nifti1Header(header.binaryblock, check=False)
    for name, value in {**fields, "vox_offset": 352, "magic": b"n+1"}.items():
        spoilt[name] = value
    content[:348] = spoilt.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def test_oddities_of_a_header_are_logged_to_nobody(tmp_path, capfd):
    path = with_header(save(tmp_path / "a.nii", body()[0]), pixdim=[3, -2, 2, 5, 1, 1, 1, 1])
    assert np.allclose(read_volume(path).spacing, (2, 2, 5))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0, np.nan])
def test_voxels_without_a_size_are_not_taken_for_1_mm(tmp_path, size, capfd):
    path = with_header(save(tmp_path / "a.nii.gz", body()[0]), pixdim=[1, 2, 2, size, 1, 1, 1, 1], sform_code=0)
    with pytest.raises(DataError, match=f"a.nii.gz .*2 x 2 x {size:g} mm"):
        read_volume(path)
    placed = with_header(save(tmp_path / "b.nii", body()[0]), pixdim=[1, 2, 2, 0, 1, 1, 1, 1])
    assert np.allclose(read_volume(placed).spacing, (2, 2, 5)), "the sform says it"
    assert capfd.readouterr() == ("", "")
