"""Damaged DICOM is a volume or one sentence that names the file: never a traceback, never a volume of NaN.

ATTENTKIT_FUZZ=20000 tries so many inputs, other ones each time.
"""

import importlib.util
import os
import struct
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attent_kit.data.scans.dicom import find_series, read_series
from attent_kit.errors import AttentKitError
from support.dicom_slices import a_slice, multi_frame, pydicom, save, values, write_series

NIGHTLY = int(os.environ.get("ATTENTKIT_FUZZ", 0))
LONG = {b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"OD", b"OL", b"UC", b"UR", b"OV", b"SV", b"UV"}
"""Value representations whose length takes four bytes (PS3.5 7.1.2)."""
START = 132
"""Bytes before the first element."""


class Base:
    """A sound series: its folder, and the bytes of its files."""

    def __init__(self, folder):
        self.folder = folder
        self.contents = {path.name: path.read_bytes() for path in folder.iterdir()}

    def __repr__(self):  # hypothesis prints it
        return str(self.folder)


class Element(NamedTuple):
    """Where an element of explicit little endian begins, where its value does, and where it ends."""

    start: int
    value: int
    end: int


def elements(content):
    """Elements of the outermost level, an encapsulated value being the last."""
    found, at = [], START
    while at + 8 <= len(content):
        long = content[at + 4 : at + 6] in LONG
        (length,) = struct.unpack_from("<I", content, at + 8) if long else struct.unpack_from("<H", content, at + 6)
        value = at + (12 if long else 8)
        end = len(content) if length == 0xFFFFFFFF else value + length
        found.append(Element(at, value, end))
        at = end
    return found


def compressed(folder, syntax=pydicom.uid.RLELossless, repeats=1):
    for z in range(3):
        made = a_slice(np.tile(values()[:, :, z].T, (repeats, repeats)), (0, 0, 5 * z))
        made.compress(syntax)
        save(made, folder / f"{z}.dcm")


BASES = {
    "native": lambda folder: write_series(folder, values(3)),
    "without endings": lambda folder: write_series(
        folder, values(3), ["IM1", "IM2", "IM3"], RescaleSlope=2, RescaleIntercept=-9
    ),
    "rle": compressed,
    "jpeg 2000": lambda folder: compressed(folder, pydicom.uid.JPEG2000Lossless, 16),
    "frames": lambda folder: save(multi_frame(values(3), [2, 0, 1]), folder / "frames.dcm"),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    made = {}
    for name, write in BASES.items():
        if name == "jpeg 2000" and importlib.util.find_spec("openjpeg") is None:
            continue
        folder = tmp_path_factory.mktemp("fuzz") / "series"
        write(folder)
        assert read_series(folder)[0].array.shape[2] == 3
        made[name] = Base(folder)
    return made


NUMBERS = st.sampled_from(
    [b"0", b"-1", b"1e309", b"nan", b"1\\2", b"1\\0\\0\\0\\1\\0", b"65535", b"-0.0", b"4294967296", b""]
)
PIECES = st.one_of(st.binary(max_size=24), NUMBERS, st.text(max_size=8).map(lambda text: text.encode()))


@st.composite
def damaged(draw, content):
    """A truncation, changed bytes, bytes put in or taken out, or an element with another value, kind or place."""
    kind = draw(st.sampled_from(["end", "bytes", "insert", "remove", "value", "value", "kind", "drop", "twice"]))
    places = st.integers(0, len(content) - 1)
    if kind == "end":
        return content[: draw(places)]
    if kind == "bytes":
        changed = bytearray(content)
        for place in draw(st.lists(places, min_size=1, max_size=8)):
            changed[place] = draw(st.integers(0, 255))
        return bytes(changed)
    place = draw(places)
    if kind == "insert":
        return content[:place] + draw(PIECES) + content[place:]
    if kind == "remove":
        return content[:place] + content[place + draw(st.integers(1, 40)) :]
    element = draw(st.sampled_from(elements(content)))
    before, head, after = content[: element.start], content[element.start : element.value], content[element.end :]
    if kind == "drop":
        return before + after
    if kind == "twice":
        return before + content[element.start : element.end] * 2 + after
    if kind == "kind":
        head = head[:4] + draw(st.sampled_from([b"UN", b"DS", b"US", b"SQ", b"PN", b"UI", b"AT", b"??"])) + head[6:]
        return before + head + content[element.value :]
    piece = draw(PIECES)
    piece += b" " * (len(piece) % 2)
    length = struct.pack("<I", len(piece)) if len(head) == 12 else struct.pack("<H", len(piece))
    return before + head[: -len(length)] + length + piece + after


@settings(
    max_examples=NIGHTLY or 600, derandomize=not NIGHTLY, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.data())
def test_a_damaged_file_is_a_volume_or_a_sentence(bases, data):
    base = bases[data.draw(st.sampled_from(sorted(bases)))]
    name = data.draw(st.sampled_from(sorted(base.contents)))
    path = base.folder / name
    path.write_bytes(data.draw(damaged(base.contents[name])))
    try:
        find_series(base.folder)
        volume, notes = read_series(base.folder)
    except AttentKitError as error:
        sentence = str(error)
        # A position that has moved is noticed between other files; one of them is named.
        assert str(base.folder) in sentence and any(name in sentence for name in base.contents), sentence
        assert "\n" not in sentence
    else:
        assert volume.array.ndim == 3 and volume.array.dtype == np.float32 and np.isfinite(volume.array).all()
        assert np.isfinite(volume.affine).all() and abs(np.linalg.det(volume.affine[:3, :3])) > 0
        assert all(isinstance(note, str) for note in notes)
    finally:
        path.write_bytes(base.contents[name])
