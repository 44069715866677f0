"""Damaged files through the whole command: prepared, or one sentence that names the file, and nothing is left behind.

ATTENTKIT_FUZZ=20000 tries so many inputs, other ones each time; `make fuzz` does that for every kind of file.
"""

import gzip
import os
import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attent_kit.cli import run
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.errors import DataError
from support.cases import AFFINE, BOXES

NIGHTLY = int(os.environ.get("ATTENTKIT_FUZZ", 0))
HEADER = 352
"""Bytes of a NIfTI-1 header with its flag of extensions."""
FIELDS = {"dim": (40, 16), "datatype": (70, 4), "pixdim": (76, 32), "vox_offset": (108, 4), "scl": (112, 8),
          "codes": (252, 4), "quatern": (256, 24), "srow": (280, 48), "magic": (344, 8)}  # fmt: skip
"""Where a field begins and how long it is."""
FLOATS = [float("nan"), float("inf"), -1.0, 0.0, 1e-30, 1e30]


def volumes(number):
    """Image and labels as the bytes of NIfTI files."""
    labels = np.zeros((32, 32, 4), np.uint8)
    for organ, box in BOXES.items():
        labels[box] = organ
    image = np.random.default_rng(number).normal(100, 30, labels.shape) + 90 * labels
    return {
        "images": nib.Nifti1Image(image.astype(np.int16), AFFINE).to_bytes(),
        "labels": nib.Nifti1Image(labels, AFFINE).to_bytes(),
    }


class Contents(dict):
    """Bytes by path; hypothesis would print all of them."""

    def __repr__(self):
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder of three pairs, and what its files hold."""
    folder = tmp_path_factory.mktemp("sound")
    contents = Contents()
    for number in (1, 2, 3):
        for kind, content in volumes(number).items():
            path = folder / kind / f"{number}.nii"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            contents[path] = content
    assert prepare(folder, folder / "out.h5") == 0
    for made in folder.glob("out.*"):
        made.unlink()
    return folder, contents


def prepare(folder, out):
    """Exit code."""
    return run(
        ["prepare", str(folder / "images"), "--labels", str(folder / "labels"), "--modality", "mr", "--size", "32",
         "--organs", "liver=1,right kidney=2,left kidney=3,spleen=4", "--workers", "1", "--out", str(out)]
    )  # fmt: skip


@st.composite
def damaged(draw, content):
    """A truncation, other bytes anywhere or in one field of the header, bytes put in or taken out, or zipped and damaged."""
    kind = draw(st.sampled_from(["end", "bytes", "field", "field", "number", "insert", "remove", "zipped"]))
    places = st.integers(0, len(content) - 1)
    changed = bytearray(content)
    if kind == "end":
        return content[: draw(places)]
    if kind == "bytes":
        for place in draw(st.lists(st.one_of(places, st.integers(0, HEADER)), min_size=1, max_size=8)):
            changed[place] = draw(st.integers(0, 255))
    elif kind == "field":
        start, length = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        changed[start : start + length] = draw(st.binary(min_size=length, max_size=length))
    elif kind == "number":
        start, length = FIELDS[draw(st.sampled_from(["pixdim", "vox_offset", "scl", "quatern", "srow"]))]
        at = start + 4 * draw(st.integers(0, length // 4 - 1))
        changed[at : at + 4] = np.float32(draw(st.sampled_from(FLOATS))).tobytes()
    elif kind == "insert":
        at = draw(places)
        changed[at:at] = draw(st.binary(min_size=1, max_size=24))
    elif kind == "remove":
        at = draw(places)
        del changed[at : at + draw(st.integers(1, 40))]
    else:
        changed = bytearray(gzip.compress(content, 1))
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@settings(
    max_examples=NIGHTLY or 600, derandomize=not NIGHTLY, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_a_damaged_nifti_file_is_prepared_or_named_and_nothing_is_left_behind(sound, capsys, data):
    folder, contents = sound
    path = data.draw(st.sampled_from(sorted(contents)))
    path.write_bytes(data.draw(damaged(contents[path])))
    before, out = {*folder.rglob("*")}, folder / "out.h5"
    try:
        code = prepare(folder, out)
        said = capsys.readouterr()
        if code == 0:
            images = Prepared.open(out).images(Prepared.open(out).ids("train"))
            assert np.isfinite(images).all() and np.abs(images).max() <= 1
        else:
            assert code == 3 and {*folder.rglob("*")} == before, said.err
            sentence = said.err.strip()
            # Grey values out of all proportion shift the constants of all: then a neighbour has no contrast between them.
            names = [path] if "no contrast" not in sentence else contents
            assert sentence.startswith(f"DataError: {folder}") and any(str(name) in sentence for name in names), (
                sentence
            )
    finally:
        path.write_bytes(contents[path])
        for made in {*folder.rglob("*")} - before:
            shutil.rmtree(made) if made.is_dir() else made.unlink()


@settings(
    max_examples=NIGHTLY or 150, derandomize=not NIGHTLY, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_a_damaged_prepared_file_is_read_or_is_one_sentence_that_names_it(prepared, tmp_path, data):
    content = bytearray((prepared / "mr.h5").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mr.h5"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        found = Prepared.open(path)
        found.images(found.ids("train"))
        found.labels(found.ids("train"))
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/b", ".."])
def test_a_case_of_a_forged_prepared_file_cannot_name_a_place_outside_a_run(prepared, tmp_path, name):
    path = Path(shutil.copy(prepared / "mr.h5", tmp_path))
    with h5py.File(path, "r+") as file:
        manifest = file["manifest"][()].decode().replace("mr_1", name)
        put_text(file, "manifest", manifest)
    with pytest.raises(DataError, match="mr.h5 says that 'id' of case .*run `attentkit prepare` again"):
        Prepared.open(path)


def test_a_forged_manifest_without_its_fields_is_one_sentence(prepared, tmp_path):
    path = Path(shutil.copy(prepared / "mr.h5", tmp_path))
    with h5py.File(path, "r+") as file:
        manifest = file["manifest"][()].decode().replace('"organs"', '"organ"')
        put_text(file, "manifest", manifest)
    with pytest.raises(DataError, match="lacks 'organs'"):
        Prepared.open(path)
