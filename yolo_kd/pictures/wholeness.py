"""Whether a picture file has everything that its format announces, without decoding it: JPEG, PNG and WebP.

A JPEG has an end mark behind its frame (ITU T.81 B.1), a PNG a checksum behind each chunk up to the last (W3C PNG 5.3), a
WebP its length in its head (RFC 9649 2.4). That is what Pillow's verify and open look at, by which Ultralytics leaves a
picture out. BMP and TIFF announce nothing of the kind.
"""

from __future__ import annotations

import io
from typing import BinaryIO
from zlib import crc32

from yolo_kd.pictures.headers import JPEG, PNG, frame_at, is_webp

_END = b"\xff\xd9"  # of a JPEG
_TAIL = 1 << 16  # bytes in which the end of a JPEG is looked for first
_BLOCK = 1 << 20  # bytes of a chunk at a time; it may announce 4 GB


def is_whole(file: BinaryIO) -> bool:
    """False where something is missing or, in a PNG, wrong; True of any other format.

    Args:
        file: Opened for reading bytes, and seekable; it is left at any place.
    """
    file.seek(0)
    head = file.read(12)
    if head[:3] == JPEG:
        return _jpeg(file)
    if head[:8] == PNG:
        return _png(file)
    return not is_webp(head) or file.seek(0, io.SEEK_END) >= 8 + int.from_bytes(head[4:8], "little")


def _jpeg(file: BinaryIO) -> bool:
    """OpenCV 4 fills what is missing with grey and says nothing.

    A thumbnail has an end mark as well, but lies before the frame; and a camera may leave anything behind the picture's own.
    """
    frame = frame_at(file)
    for start in (max(file.seek(0, io.SEEK_END) - _TAIL, frame), frame):
        file.seek(start)
        if _END in file.read():
            return True
    return False


def _png(file: BinaryIO) -> bool:
    """The checksum of IEND is wanted, but not compared: no reader does."""
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8:
        left, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IEND":
            return pixels and len(file.read(4)) == 4
        found = crc32(name)
        while left:
            if not (block := file.read(min(left, _BLOCK))):
                return False
            found, left = crc32(block, found), left - len(block)
        if file.read(4) != found.to_bytes(4, "big"):
            return False
        pixels |= name == b"IDAT"
    return False
