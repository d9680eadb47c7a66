"""Height, width and turn of a picture as its header has them: JPEG, PNG, BMP, WebP and TIFF, without decoding any pixel.

A header of some bytes can ask for gigabytes of memory, so it is looked at before a decoder is. Formats: ITU T.81 B.2.2 (JPEG),
W3C PNG 11.2.2, BITMAPINFOHEADER (BMP), RFC 9649 (WebP), TIFF 6.0 section 2 and BigTIFF. EXIF is a TIFF without pixels: in a
segment of JPEG (CIPA DC-008 4.5.4), in a chunk of PNG (eXIf) and of WebP (EXIF), and in TIFF the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # +: BigTIFF, whose offsets have 64 bits
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # tags of TIFF
_EXIF = b"Exif\0\0"
_BYTES = {3: 2, 4: 4, 16: 8}  # of a number in TIFF, by its type: SHORT, LONG, LONG8
_ENTRIES = 1 << 12  # of a TIFF directory that are looked at; they are sorted, and the size comes first


def size_in_header(file: BinaryIO) -> tuple[int, int] | None:
    """Height and width in pixels; None where the header is of none of these formats, or does not say.

    Args:
        file: Opened for reading bytes, and seekable; it is left at any place.
    """
    head = _part(file, 0, 30)
    if head[:8] == PNG and len(head) > 24:
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
    if head[:3] == JPEG:
        at = frame_at(file)
        frame = _part(file, at, 9)
        return (int.from_bytes(frame[5:7], "big"), int.from_bytes(frame[7:9], "big")) if at else None
    if head[:2] == BMP and len(head) >= 26:
        return _bmp(head)
    if is_webp(head) and len(head) == 30:
        return _webp(head)
    found = _tags(file)
    return (found[_HEIGHT], found[_WIDTH]) if _HEIGHT in found and _WIDTH in found else None


def orientation(file: BinaryIO) -> int:
    """How a picture is to be turned or mirrored before it is seen, 1 to 8 as in EXIF: 1 is not at all, from 5 on sides swap.

    Args:
        file: Opened for reading bytes, and seekable; it is left at any place.
    """
    head = _part(file, 0, 30)
    found = _tags(file, _exif_at(file, head)).get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def frame_at(file: BinaryIO) -> int:
    """Where the frame of a JPEG begins, behind its thumbnails and colour tables; 0 if that is not there."""
    for at, mark in _segments(file):
        if mark in range(0xC0, 0xD0) and mark not in (0xC4, 0xC8, 0xCC):  # start of frame, of any coding
            return at
    return 0


def is_webp(head: bytes) -> bool:
    """Whether a file begins as WebP does.

    >>> is_webp(b"RIFF....WEBPVP8 "), is_webp(b"RIFF....WAVEfmt ")
    (True, False)
    """
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Place and mark of each segment of a JPEG."""
    at = 2
    while len(part := _part(file, at, 9)) == 9 and part[0] == 0xFF:
        yield at, part[1]
        at += 2 if part[1] == 0xFF else 2 + int.from_bytes(part[2:4], "big")


def _exif_at(file: BinaryIO, head: bytes) -> int:
    """Where the EXIF of a picture begins; 0 in a TIFF, and where there is none."""
    if head[:3] == JPEG:
        marked = (at for at, mark in _segments(file) if mark == 0xE1 and _part(file, at + 4, 6) == _EXIF)
        return next(marked, -10) + 10
    if head[:8] == PNG or is_webp(head):
        at, order = (8, "big") if head[:8] == PNG else (12, "little")
        while len(part := _part(file, at, 8)) == 8:
            name, length = (part[4:], part[:4]) if order == "big" else (part[:4], part[4:])
            if name in (b"eXIf", b"EXIF"):
                return at + 8 + len(_EXIF) * (_part(file, at + 8, 6) == _EXIF)  # some writers put JPEG's name before it
            size = int.from_bytes(length, order)  # type: ignore[arg-type]
            at += 12 + size if order == "big" else 8 + size + size % 2  # a checksum behind; padded to an even length
    return 0


def _part(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _bmp(head: bytes) -> tuple[int, int]:
    if int.from_bytes(head[14:18], "little") == 12:  # the header of OS/2, with 16 bits a side
        return int.from_bytes(head[20:22], "little"), int.from_bytes(head[18:20], "little")
    height = int.from_bytes(head[22:26], "little", signed=True)  # below 0 where the first row is the upper one
    return abs(height), abs(int.from_bytes(head[18:22], "little", signed=True))


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF
    return None


def _tags(file: BinaryIO, start: int = 0) -> dict[int, int]:
    """Size and orientation from the first directory of a TIFF, which often lies behind the pixels; empty if it is none."""
    head = _part(file, start, 16)
    if not head.startswith(TIFF) or len(head) < 16:
        return {}
    order, big = ("little" if head[:2] == b"II" else "big"), head[:4] in TIFF[2:]
    count_bytes, entry, value_bytes = (8, 20, 8) if big else (2, 12, 4)

    def number(raw: bytes) -> int:
        return int.from_bytes(raw, order)  # type: ignore[arg-type]

    at = number(head[8:16] if big else head[4:8])
    if at >= 1 << 62:
        return {}  # beyond what any file can hold
    count = min(number(_part(file, start + at, count_bytes)), _ENTRIES)
    table = _part(file, start + at + count_bytes, count * entry)
    found = {}
    for row in range(0, len(table) - entry + 1, entry):
        tag, kind = number(table[row : row + 2]), number(table[row + 2 : row + 4])
        if tag in (_WIDTH, _HEIGHT, _ORIENTATION) and kind in _BYTES:
            value = row + entry - value_bytes
            found[tag] = number(table[value : value + _BYTES[kind]])
    return found
