"""Files that claim more than they hold, lead elsewhere, or have names that no terminal should see."""

import errno
import fcntl
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans import dicom_file
from attent_kit.data.scans.pictures import read_picture
from attent_kit.engine.apply.scoring import score
from attent_kit.engine.compare.suite import slug
from attent_kit.errors import DataError, printable
from attent_kit.naming import names_a_file
from attentkit_builtin.layouts.sifa_npz import read_arrays
from support.commands import prepare_words, says
from support.layout_folders import body, write_nifti

# Pictures and arrays


def test_a_picture_that_claims_to_be_huge_is_refused_by_its_header(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (9000, 60000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        content = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        )
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match="a.png has .*pixels"):
            read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(("dtype", "words"), [(object, "pickle"), (np.uint8, "too small")])
def test_an_archive_of_arrays_is_believed_no_more_than_it_holds(tmp_path, dtype, words):
    small = io.BytesIO()
    np.save(small, np.zeros((2, 2, 2), np.uint8) if dtype is not object else np.array([[[{}]]]), allow_pickle=True)
    content = small.getvalue()
    if dtype is not object:
        content = content.replace(b"(2, 2, 2), }    ", b"(900,900,900), }")
        assert b"900" in content
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("arr_0.npy", "arr_1.npy"):
            archive.writestr(name, content)
    with pytest.raises(DataError, match=f"a.npz: arr_0 .*{words}"):
        read_arrays(tmp_path / "a.npz")


# DICOM


def deflated_bomb(path, kind):
    """A slice that is deflated as a whole, with 16 MiB of nothing as its content."""
    dicom_slices = pytest.importorskip("support.dicom_slices")
    made = dicom_slices.a_slice(np.zeros((3, 4), np.uint16), (0, 0, 0))
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    if kind == "late syntax":
        made.file_meta.PrivateInformationCreatorUID = "1.2"
        made.file_meta.PrivateInformation = bytes(2**14)
    content = dicom_slices.save(made, path).read_bytes()
    assert dicom_file.read_header(path).Rows == 3
    start = 144 + int.from_bytes(content[140:144], "little")
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = {
        "plain": content[:start],
        "wrong length": content[:140] + (2**31).to_bytes(4, "little") + content[144:start],
        "no preamble": content[132:start],
        "late syntax": content[:start],
    }[kind]
    path.write_bytes(head + packing.compress(bytes(2**24)) + packing.flush())


@pytest.mark.parametrize("kind", ["plain", "wrong length", "no preamble", "late syntax"])
def test_a_slice_that_unpacks_without_end_is_not_unpacked(tmp_path, monkeypatch, kind):
    deflated_bomb(tmp_path / "a.dcm", kind)
    monkeypatch.setattr(dicom_file, "MOST_DEFLATED_BYTES", 2**23)
    with pytest.raises(DataError, match="a.dcm unpacks to more than"):
        dicom_file.read_header(tmp_path / "a.dcm")


def compressed(path, syntax, frame, bits=16, **tags):
    """A slice of 3 rows and 4 columns whose pixels are this frame."""
    dicom_slices = pytest.importorskip("support.dicom_slices")
    encaps = pytest.importorskip("pydicom.encaps")
    made = dicom_slices.a_slice(np.zeros((3, 4), np.uint16), (0, 0, 0), **tags)
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encaps.encapsulate([frame])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return dicom_slices.save(made, path)


def jpeg(marker, rows, columns, components=1):
    """The beginning of one, with an application segment and fill bytes before its size."""
    frame = struct.pack(">BHHB", 8, rows, columns, components) + bytes(3 * components)
    return (
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xff"
        + bytes([marker])
        + struct.pack(">H", len(frame) + 2)
        + frame
        + b"\xff\xd9"
    )


def jpeg_2000(rows, columns, components=1):
    size = (
        struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, columns, rows, 0, 0, components)
        + b"\x0f\x01\x01" * components
    )
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + b"\xff\xd9"


def boxed(stream, before=b""):
    box = lambda kind, content: struct.pack(">I4s", len(content) + 8, kind) + content  # noqa: E731
    return box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 ") + before + struct.pack(">I4s", 0, b"jp2c") + stream


BASELINE, EXTENDED, LOSSLESS, LS, J2K = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 70, 80, 90))  # PS3.6 table A-1
DISGUISE = struct.pack(">I4s", 60, b"free") + jpeg_2000(3, 4).ljust(52)


@pytest.mark.parametrize(
    ("syntax", "frame", "words"),
    [
        (BASELINE, jpeg(0xC0, 65500, 65500), "65500 x 65500 x 1"),
        (EXTENDED, jpeg(0xC1, 3, 4, 3), "3 x 4 x 3"),
        (LOSSLESS, jpeg(0xC3, 65535, 65535), "65535 x 65535 x 1"),
        (LOSSLESS, b"\xff\xd8" + jpeg(0xDE, 60000, 60000)[2:-2] + jpeg(0xC3, 3, 4)[2:], "nothing of their size"),
        (LS, jpeg(0xF7, 65535, 65535), "65535 x 65535 x 1"),
        (LS, jpeg(0xF7, 0, 0), "0 x 0 x 1"),
        (J2K, jpeg_2000(2**31, 2**31), "2147483648 x 2147483648 x 1"),
        (J2K, boxed(jpeg_2000(40000, 40000)), "40000 x 40000 x 1"),
        (J2K, boxed(jpeg_2000(40000, 40000), DISGUISE), "40000 x 40000 x 1"),
        (J2K, jpeg_2000(3, 4)[:20], "nothing of their size"),
        (J2K, b"\0\0", "nothing of their size"),
        ("1.2.840.10008.1.2.5", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 4000, "516096 bytes"),
    ],
)
def test_pixels_that_decode_to_another_size_than_the_header_are_not_decoded(
    tmp_path, monkeypatch, syntax, frame, words
):
    path = compressed(tmp_path / "a.dcm", syntax, frame)
    pydicom = pytest.importorskip("pydicom")
    monkeypatch.setattr(pydicom.dataset.Dataset, "pixel_array", property(lambda _: pytest.fail("it was decoded")))
    with pytest.raises(DataError, match=f"a.dcm .*{words}"):
        next(dicom_file.read_planes(path))


def test_pixels_of_the_size_of_their_header_are_decoded(tmp_path):
    pytest.importorskip("pylibjpeg")
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=100)
    path = compressed(tmp_path / "a.dcm", BASELINE, file.getvalue(), bits=8)
    ((_, read),) = dicom_file.read_planes(path)
    assert np.abs(read - grey).max() < 5
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG2000", irreversible=False)  # with boxes
    ((_, read),) = dicom_file.read_planes(compressed(tmp_path / "b.dcm", J2K, file.getvalue(), bits=8))
    assert np.array_equal(read, grey)


def test_a_series_of_more_voxels_than_any_scan_has_is_refused_by_its_header(tmp_path, monkeypatch):
    pytest.importorskip("pydicom")
    from support import dicom_slices

    made = dicom_slices.a_slice(np.zeros((3, 4), np.uint16), (0, 0, 0), Rows=30000, Columns=32000)
    path = dicom_slices.save(made, tmp_path / "a.dcm")
    monkeypatch.setattr("attent_kit.data.scans.limits.MOST_VOXELS", 2**29)
    with pytest.raises(DataError, match="a.dcm would be 1 x 30000 x 32000 voxels"):
        next(dicom_file.read_planes(path))


# Prepared files


@pytest.fixture
def opened(prepared, tmp_path):
    """A copy of a prepared file, to be spoiled."""
    path = tmp_path / "ct.h5"
    path.write_bytes((prepared / "ct.h5").read_bytes())
    return path


def replaced(path, make):
    """`images` of the first case made anew by `make(group, array)`; the name of the case."""
    with h5py.File(path, "r+") as file:
        case = sorted(file["cases"])[0]
        group = file["cases"][case]
        array = group["images"][()]
        del group["images"]
        make(group, array)
    return case


def elsewhere(path):
    def make(group, array):
        with h5py.File(path, "w") as other:
            other["images"] = array
        group["images"] = h5py.ExternalLink(str(path), "images")

    return make


def twice_packed(group, array):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((1, *array.shape[1:]))
    for _ in range(2):
        settings.set_deflate(9)
    space = h5py.h5s.create_simple(array.shape)
    h5py.h5d.create(group.id, b"images", h5py.h5t.py_create(array.dtype), space, settings)


def bomb(group, array):
    """A chunk that stores more bytes than it could hold unpacked."""
    data = group.create_dataset("images", array.shape, array.dtype, chunks=(1, *array.shape[1:]), compression="gzip")
    data.id.write_direct_chunk((0, 0, 0), zlib.compress(os.urandom(2**14)))


@pytest.mark.parametrize("kind", ["external", "raw", "twice", "bomb"])
def test_a_prepared_file_that_leads_elsewhere_or_unpacks_without_end_is_damaged(opened, tmp_path, kind):
    make = {
        "external": elsewhere(tmp_path / "other.h5"),
        "raw": lambda group, array: group.create_dataset(
            "images", array.shape, array.dtype, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        ),
        "twice": twice_packed,
        "bomb": bomb,
    }[kind]
    case = replaced(opened, make)
    with pytest.raises(DataError, match=f"ct.h5 is damaged in case '{case}'"):
        Prepared.open(opened).slices(case)


def test_a_text_whose_heap_is_spoilt_is_never_looked_for(opened):
    """HDF5 walks for ever through a heap in which the size of an object is zero; so nothing of ours lies in one."""
    with h5py.File(opened, "r+") as file:
        manifest = bytes(file["manifest"][()])
        assert file["manifest"].dtype.kind == "S" and json.loads(manifest)["domain"] == "ct"
        del file["manifest"]
        file["manifest"] = manifest.decode()
    content = bytearray(opened.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 64] = bytes(48)
    opened.write_bytes(content)
    words = [sys.executable, "-m", "attent_kit", "check", str(opened)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 3 and "is not a prepared domain" in ended.stdout


def test_a_locked_file_is_told_to_be_locked(opened, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    with open(opened, "rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=f"ct.h5 cannot be read .*{os.strerror(errno.EAGAIN)}"):
            Prepared.open(opened)


# Names


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\nb", "\x1b[2J", "x" * 201, "\u00e9" * 101, " ", "\udcff"]
)
def test_a_name_that_cannot_be_a_file_names_no_case(name):
    assert not names_a_file(name) and names_a_file("1.3.6_0000 \u00e9")


def test_a_control_character_of_anybody_is_shown_and_not_sent(attentkit, tmp_path):
    path = write_nifti(tmp_path / "d" / "a\x1b[31m\x07.nii.gz", body()[0])
    outcome = attentkit("evaluate", path, tmp_path / "no\x9b.nii.gz")
    assert says(outcome, 3, "no\\x9b.nii.gz")
    assert says(
        attentkit("prepare", tmp_path / "d", "-o", tmp_path / "o.h5", "--modality", "mr", "--allow-unlabelled"), 3
    )
    for words in (
        ("check", tmp_path / "d"),
        ("check", tmp_path / "d", "--json"),
        ("prepare", path, "-o", tmp_path / "o.h5"),
    ):
        outcome = attentkit(*words)
        assert "\x1b" not in outcome.out + outcome.err and "\x07" not in outcome.out + outcome.err
    assert printable("a\tb\n\u00e9\x1b\udcff") == "a\tb\n\u00e9\\x1b\\udcff"


def test_toml_is_read_as_people_on_windows_write_it(tmp_path):
    text = 'a = "data\\ct.h5"\n'
    text += 'b = "data\\new.h5"\nc = "x\\ny"\nd = \'data\\ct.h5\'\ne = "data\\\\ct.h5"\n[t]\nf = ["D:\\Users\\me"]\n'
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_toml(tmp_path / "x.toml") == {
        "a": "data/ct.h5", "b": "data/new.h5", "c": "x\ny", "d": "data/ct.h5", "e": "data/ct.h5", "t": {"f": ["D:/Users/me"]},
    }  # fmt: skip


def test_values_that_no_label_map_has_end_prepare(attentkit, volumes, tmp_path):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5")
    words = [word for word in words if "liver" not in str(word) and word != "--organs"]
    assert says(attentkit(*words, "--organs", "liver=71,spleen=72,*=0"), 3, "liver=71", "--organs")
    assert not (tmp_path / "ct.h5").exists()
    assert says(attentkit(*words, "--organs", "liver,splen"), 2, "'splen'", "'spleen'")
    outcome = attentkit(*words, "--organs", "spleen,liver")
    assert outcome.code == 0 and Prepared.open(tmp_path / "ct.h5").organs == ("spleen", "liver")


def test_values_that_no_label_map_has_end_evaluate_or_are_told(attentkit, volumes, tmp_path):
    labels = volumes / "ct" / "labels"
    same = shutil.copytree(labels, tmp_path / "same")
    outcome = attentkit(
        "evaluate", labels / "ct_1.nii.gz", labels / "ct_1.nii.gz", "--organs", "liver=71,spleen=72,*=0"
    )
    assert says(outcome, 3, "truth", "liver=71,spleen=72", "1, 2, 3, 4", "--truth-organs")
    usual = ("--truth-organs", "liver=1,spleen=4,*=0")
    outcome = attentkit("evaluate", same, labels, "--organs", "liver=71,spleen=72,*=0", *usual)
    assert (
        outcome.code == 0
        and outcome.err.count("Warning") == 1
        and "predictions holds a value of liver=71" in outcome.err
    )
    outcome = attentkit("evaluate", same, labels, "--organs", "liver=1,spleen=9,*=0")
    assert outcome.code == 0 and outcome.err.count("Warning") == 1 and "the truth holds spleen (9)" in outcome.err
    empty = write_nifti(tmp_path / "empty.nii.gz", np.zeros((8, 8, 4), np.uint8))
    outcome = attentkit("evaluate", empty, empty, "--organs", "liver=71,*=0")
    assert outcome.code == 0 and outcome.err == "", "nothing is there, which is no other value"
    with pytest.raises(DataError, match="liver=71"):
        score(labels / "ct_1.nii.gz", labels / "ct_1.nii.gz", organs="liver=71,*=0")


def test_the_truth_may_name_its_organs_in_another_order(attentkit, volumes):
    labels = volumes / "ct" / "labels" / "ct_1.nii.gz"
    words = ["evaluate", labels, labels, "--organs", "liver=1,spleen=4,*=0"]
    same = attentkit(*words)
    assert same.code == 0 and "100.00" in same.out
    assert attentkit(*words, "--truth-organs", "spleen=4,liver=1,*=0").out == same.out


def test_evaluate_passes_over_the_maps_that_predict_wrote(attentkit, trained, volumes, tmp_path):
    images = volumes / "ct" / "images"
    assert attentkit("predict", trained, images, tmp_path / "p", "-d", "cpu", "--probabilities", "--entropy").code == 0
    outcome = attentkit("evaluate", tmp_path / "p", volumes / "ct" / "labels")
    assert outcome.code == 0 and "Mean over 3 cases" in outcome.out
    (tmp_path / "p" / "odd_entropy.nii.gz").write_bytes((tmp_path / "p" / "ct_1.nii.gz").read_bytes())
    assert says(attentkit("evaluate", tmp_path / "p", volumes / "ct" / "labels"), 3, "odd_entropy.nii.gz")


@pytest.mark.parametrize("name", ["CON", "nul.txt", "com1", "lpt9.nii.gz", "aux ", "C:x", "c:\\x", "\0", "\u202e"])
def test_a_name_that_another_system_takes_for_a_device_or_a_drive_names_no_case(name):
    assert not names_a_file(name) and names_a_file("console") and names_a_file("com10")


@pytest.mark.parametrize("name", [*(f"a{letter}b" for letter in '<>:"|?*'), "a.", "a ", "a. ", "..a."])
def test_a_name_that_windows_refuses_or_shortens_names_nothing_anywhere(attentkit, tmp_path, name):
    assert not names_a_file(name) and names_a_file(" a.b c") and names_a_file(".a")
    write_nifti(tmp_path / "sound" / "a.nii", body()[0])
    words = ("-o", tmp_path / "o.h5", "--modality", "mr", "--allow-unlabelled")
    assert says(
        attentkit("prepare", tmp_path / "sound", *words, "--domain", name), 2, repr(name), "cannot name a domain"
    )
    if name.strip("a. "):
        write_nifti(tmp_path / "d" / f"{name}.nii", body()[0])
        assert says(attentkit("prepare", tmp_path / "d", *words), 3, repr(name), "cannot name a case")
        assert "cannot name a case" in attentkit("check", tmp_path / "d").out
    (tmp_path / "s.toml").write_text(
        f"name = {json.dumps(name)}\ndirections = []\n[domains]\n{json.dumps(name)} = 'x.h5'\n"
    )
    outcome = attentkit("compare", tmp_path / "s.toml", "--dry-run")
    assert says(outcome, 2, "cannot name the folder of the results", "cannot name a domain")
    assert names_a_file(slug(name)) and slug("Con.") == "row-con" and slug("Con 1") == "con-1"
