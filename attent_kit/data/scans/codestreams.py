"""What compressed pixels say about their own size, read before anything is decoded: a decoder makes whatever they claim.

JPEG and JPEG-LS: the frame header (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2); JPEG 2000: the SIZ segment (ISO 15444-1 A.5.1); RLE:
the run lengths themselves (DICOM PS3.5 annex G).
"""

import struct
from typing import NamedTuple

HARMLESS = 2**24
"""Bytes of an RLE frame that are not worth counting: they unpack to 64 times as many at most."""
_SIGNATURE = b"\x00\x00\x00\x0cjP  "
"""How a JP2 file begins, which some writers put around the codestream."""


class CodedSize(NamedTuple):
    """Of one frame."""

    rows: int
    columns: int
    components: int


def coded_size(frame: bytes) -> CodedSize | None:
    """What a JPEG, JPEG-LS or JPEG 2000 frame decodes to; None where its header is damaged or says it in another way."""
    try:
        if frame.startswith(b"\xff\xd8"):
            return _of_jpeg(frame)
        return _of_jpeg_2000(frame)
    except (IndexError, struct.error):
        return None


def unpacked_rle(frame: bytes) -> int:
    """Bytes that the segments of an RLE frame unpack to. An estimate from above for small ones."""
    if len(frame) <= HARMLESS:
        return 64 * len(frame)
    size, at = 0, 64
    while at < len(frame):
        byte = frame[at]
        # 0 to 127: as many bytes and one as they are; 129 to 255: the next byte 257 minus that many times; 128: nothing.
        size += byte + 1 if byte < 128 else 257 - byte if byte > 128 else 0
        at += byte + 2 if byte < 128 else 2 if byte > 128 else 1
    return size


def _of_jpeg(frame: bytes) -> CodedSize | None:
    at = 2
    while frame[at] == 0xFF:
        while frame[at] == 0xFF:  # any number of them may stand before a marker
            at += 1
        marker = frame[at]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) or marker == 0xF7:
            _, _, rows, columns, components = struct.unpack_from(">HBHHB", frame, at + 1)
            return CodedSize(rows, columns, components)
        if marker in (0xD9, 0xDA, 0xDE):  # the end, or pixels, before any size; or one of several sizes
            return None
        at += 1 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 1 + struct.unpack_from(">H", frame, at + 1)[0]
    return None


def _of_jpeg_2000(frame: bytes) -> CodedSize | None:
    at = _codestream(frame) if frame.startswith(_SIGNATURE) else 0
    if frame[at : at + 4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + 40)
    return CodedSize(bottom - top, right - left, components)


def _codestream(frame: bytes) -> int:
    """Where the codestream begins among the boxes of a JP2 file."""
    at = 0
    while True:
        length, kind = struct.unpack_from(">I4s", frame, at)
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + head
        if length == 1:
            (length,) = struct.unpack_from(">Q", frame, at + 8)
        if length < head:
            return len(frame)
        at += length
