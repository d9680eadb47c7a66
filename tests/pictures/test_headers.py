"""The size of a picture by its header, in every format that a folder may hold, and nothing that is too large gets further."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy import letterbox

from yolo_kd.errors import MisuseError
from yolo_kd.pictures import reading
from yolo_kd.pictures.headers import orientation, size_in_header
from yolo_kd.pictures.reading import PictureError, glance, read_picture

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def pack(suffix: str, *options: int) -> bytes:
    import cv2

    return cv2.imencode(suffix, PICTURE, list(options))[1].tobytes()


def size(data: bytes) -> tuple[int, int] | None:
    return size_in_header(io.BytesIO(data))


def png(height: int, width: int) -> bytes:
    data = pack(".png")
    return data[:16] + struct.pack(">II", width, height) + data[24:]


def jpeg(height: int, width: int) -> bytes:
    data = pack(".jpg")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp(height: int, width: int) -> bytes:
    data = pack(".bmp")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def os2(height: int, width: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<IHHHH", 12, width, height, 1, 24)


def webp(height: int, width: int) -> bytes:
    data = pack(".webp", 64, 90)  # cv2.IMWRITE_WEBP_QUALITY
    assert data[12:16] == b"VP8 "
    return data[:26] + struct.pack("<HH", width, height) + data[30:]


def lossless(height: int, width: int) -> bytes:
    data = pack(".webp", 64, 101)  # above 100 nothing is lost
    assert data[12:16] == b"VP8L"
    return data[:21] + struct.pack("<I", (height - 1) << 14 | (width - 1) | 1 << 28) + data[25:]


def extended(height: int, width: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<II", 10, 0) + sides


def tiff(height: int, width: int, order: str = "<", kind: int = 4, before: int = 0) -> bytes:
    """A directory behind `before` bytes of pixels, with a resolution that has no number in it."""
    value = {3: "Hxx", 4: "I"}[kind]
    entries = [(256, kind, width), (257, kind, height)]
    rows = b"".join(struct.pack(f"{order}HHI{value}", tag, k, 1, v) for tag, k, v in entries)
    rows += struct.pack(f"{order}HHII", 282, 5, 1, 8)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}I", 8 + before) + bytes(before) + struct.pack(f"{order}H", 3) + rows


def motorola(height: int, width: int) -> bytes:
    return tiff(height, width, ">", 3)


def far(height: int, width: int) -> bytes:
    return tiff(height, width, before=300_000)


def big_tiff(height: int, width: int) -> bytes:
    rows = b"".join(struct.pack("<HHQQ", tag, 16, 1, v) for tag, v in ((256, width), (257, height)))
    return b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", 2) + rows


MAKE = [png, jpeg, bmp, os2, webp, lossless, extended, tiff, motorola, far, big_tiff]
NAMES = [make.__name__ for make in MAKE]
REAL = [(".png",), (".jpg",), (".bmp",), (".tif",), (".webp", 64, 90), (".webp", 64, 101)]


@pytest.mark.parametrize("kind", REAL, ids=str)
def test_what_opencv_writes(kind: tuple) -> None:
    assert size(pack(kind[0], *kind[1:])) == (48, 64)


@pytest.mark.parametrize("make", MAKE, ids=NAMES)
def test_height_and_width_are_not_mixed_up(make) -> None:
    assert size(make(1234, 567)) == (1234, 567)


@pytest.mark.parametrize("make", MAKE, ids=NAMES)
def test_a_header_that_is_cut_off_says_nothing(make) -> None:
    whole = make(1234, 567)
    for length in range(0, min(len(whole), 200)):
        assert size(whole[:length]) in (None, (1234, 567))
    assert size(whole[:15]) is None


def test_a_bmp_whose_first_row_is_the_upper_one() -> None:
    assert size(bmp(-1234, 567)) == (1234, 567)


def turned(kind: str, how: int, **options: object) -> bytes:
    from PIL import Image

    note, data = Image.Exif(), io.BytesIO()
    note[271], note[274] = "a camera's name, which lies behind the tags", how
    Image.fromarray(PICTURE).save(data, kind, exif=note, **options)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_how_exif_turns_a_picture(kind: str) -> None:
    import cv2

    for how in range(1, 9):
        data = turned(kind, how)
        assert orientation(io.BytesIO(data)) == how and size(data) == (48, 64)
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert read == ((64, 48) if how > 4 else (48, 64)), "what it is for"
    for length in range(0, len(data), 7):
        assert orientation(io.BytesIO(data[:length])) in (1, 8)


def test_without_exif_nothing_is_turned() -> None:
    for kind in REAL:
        assert orientation(io.BytesIO(pack(kind[0], *kind[1:]))) == 1
    assert orientation(io.BytesIO(bmp(4, 6))) == orientation(io.BytesIO(b"")) == 1
    data = turned("JPEG", 6)
    other = b"\xff\xe1" + struct.pack(">H", 40) + b"http://ns.adobe.com/xap/1.0/\0".ljust(38)
    assert orientation(io.BytesIO(data[:2] + other + data[2:])) == 6, "Adobe's notes have the same mark"
    assert (
        orientation(io.BytesIO(data.replace(struct.pack(">HHIH", 274, 3, 1, 6), struct.pack(">HHIH", 274, 3, 1, 99))))
        == 1
    )


def test_a_directory_that_lies_nowhere() -> None:
    assert size(b"II*\0" + b"\xff" * 20) is None and size(b"II+\0" + b"\xff" * 40) is None
    assert size(tiff(5, 6)[:8] + b"\xff\xff" + tiff(5, 6)[10:]) == (5, 6)  # more entries than there are bytes


@pytest.mark.parametrize("look", [glance, read_picture])
@pytest.mark.parametrize("make", MAKE, ids=NAMES)
def test_nothing_too_large_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look, make) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(reading, "_decode", decode)
    path = tmp_path / "a.tif"
    path.write_bytes(make(12_000, 12_000))
    with pytest.raises(
        PictureError, match=r"a\.tif: has 12000x12000 pixels, more than 100 million; cut it up"
    ) as caught:
        look(path)
    assert caught.value.kind == "giant"
    if make is not lossless and make is not webp:  # which have 14 bits a side
        path.write_bytes(make(16, 20_000))
        with pytest.raises(PictureError, match="has 20000x16 pixels, more than 16384 on a side"):
            look(path)


def test_a_side_that_the_letterbox_would_refuse_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    import cv2

    assert reading.LONGEST == letterbox.LONGEST
    path = tmp_path / "long.png"
    cv2.imwrite(str(path), np.zeros((2, reading.LONGEST + 1, 3), np.uint8))
    with pytest.raises(MisuseError, match=r"long\.png: has 16385x2 pixels"):
        read_picture(path)
    cv2.imwrite(str(path), np.zeros((2, reading.LONGEST, 3), np.uint8))
    assert read_picture(path).pixels.shape == (2, reading.LONGEST, 3)


def test_a_format_whose_header_is_not_read_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"P5 20 10 255\n" + bytes(200))  # a PGM, which OpenCV would decode
    with pytest.raises(PictureError, match="no JPEG, PNG, BMP, WebP or TIFF, whatever its name says"):
        read_picture(path)
