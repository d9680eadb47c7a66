"""Height and width of a picture as its header has them: JPEG, PNG, BMP, WebP and TIFF, without decoding any pixel.

A header of some bytes can ask for gigabytes of memory, so it is looked at before a decoder is. Formats: ITU T.81 B.2.2 (JPEG),
W3C PNG 11.2.2, BITMAPINFOHEADER (BMP), RFC 9649 (WebP), TIFF 6.0 section 2 and BigTIFF.
"""

from __future__ import annotations

from typing import BinaryIO

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # +: BigTIFF, whose offsets have 64 bits
_WIDTH, _HEIGHT = 256, 257  # tags of TIFF
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
    return _tiff(file, head) if head.startswith(TIFF) and len(head) >= 16 else None


def frame_at(file: BinaryIO) -> int:
    """Where the frame of a JPEG begins, behind its thumbnails and colour tables; 0 if that is not there."""
    at = 2
    while len(part := _part(file, at, 9)) == 9 and part[0] == 0xFF:
        mark = part[1]
        if mark in range(0xC0, 0xD0) and mark not in (0xC4, 0xC8, 0xCC):  # start of frame, of any coding
            return at
        at += 2 if mark == 0xFF else 2 + int.from_bytes(part[2:4], "big")
    return 0


def is_webp(head: bytes) -> bool:
    """Whether a file begins as WebP does.

    >>> is_webp(b"RIFF....WEBPVP8 "), is_webp(b"RIFF....WAVEfmt ")
    (True, False)
    """
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


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


def _tiff(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """From the first directory, which often lies behind the pixels."""
    order, big = ("little" if head[:2] == b"II" else "big"), head[:4] in TIFF[2:]
    count_bytes, entry, value_bytes = (8, 20, 8) if big else (2, 12, 4)

    def number(raw: bytes) -> int:
        return int.from_bytes(raw, order)  # type: ignore[arg-type]

    at = number(head[8:16] if big else head[4:8])
    if at >= 1 << 63:
        return None  # beyond what any file can hold
    count = min(number(_part(file, at, count_bytes)), _ENTRIES)
    table = _part(file, at + count_bytes, count * entry)
    found = {}
    for start in range(0, len(table) - entry + 1, entry):
        tag, kind = number(table[start : start + 2]), number(table[start + 2 : start + 4])
        if tag in (_WIDTH, _HEIGHT) and kind in _BYTES:
            value = start + entry - value_bytes
            found[tag] = number(table[value : value + _BYTES[kind]])
    return (found[_HEIGHT], found[_WIDTH]) if len(found) == 2 else None
