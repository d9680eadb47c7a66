"""What Ultralytics would leave out of a training is seen without decoding, where checksum, length or end tell; what it takes is taken."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest

from yolo_kd.pictures import reading
from yolo_kd.pictures.reading import PictureError, glance, read_picture
from yolo_kd.pictures.wholeness import is_whole

NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)  # a PNG of several IDAT
WHOLE = {suffix: cv2.imencode(suffix, NOISE)[1].tobytes() for suffix in (".jpg", ".png", ".webp", ".tif")}
COMMENT = b"tEXtComment\0by hand"


def chunk(content: bytes) -> bytes:
    """A chunk of a PNG: its name first."""
    return (len(content) - 4).to_bytes(4, "big") + content + crc32(content).to_bytes(4, "big")


def chunks(png: bytes) -> list[bytes]:
    found, at = [], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        found.append(png[at:end])
        at = end
    return found


def without(png: bytes, drop: Callable[[int, bytes], bool]) -> bytes:
    return png[:8] + b"".join(part for i, part in enumerate(chunks(png)) if not drop(i, part))


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def commented(png: bytes, comment: bytes) -> bytes:
    return png[:33] + comment + png[33:]  # behind IHDR


LEFT_OUT = {
    "a WebP cut in half": lambda: WHOLE[".webp"][: len(WHOLE[".webp"]) // 2],
    "a WebP without its last byte": lambda: WHOLE[".webp"][:-1],
    "a WebP whose middle is missing": lambda: WHOLE[".webp"][:3000] + WHOLE[".webp"][4000:],
    "a PNG with one bad byte in IDAT": lambda: changed(WHOLE[".png"], 20_000),
    "a PNG whose middle is missing": lambda: WHOLE[".png"][:9000] + WHOLE[".png"][20_000:],
    "a PNG without pixels": lambda: without(WHOLE[".png"], lambda _, part: part[4:8] == b"IDAT"),
    "a PNG without IEND": lambda: without(WHOLE[".png"], lambda _, part: part[4:8] == b"IEND"),
    "a PNG with a bad comment": lambda: commented(WHOLE[".png"], changed(chunk(COMMENT), 12)),
    "a JPEG cut in half": lambda: WHOLE[".jpg"][: len(WHOLE[".jpg"]) // 2],
    "a TIFF cut before its directory": lambda: WHOLE[".tif"][: len(WHOLE[".tif"]) // 2],
}
TAKEN = {
    **{f"a whole {suffix}": lambda suffix=suffix: WHOLE[suffix] for suffix in WHOLE},
    "a PNG with something behind it": lambda: WHOLE[".png"] + bytes(100_000),
    "a WebP with something behind it": lambda: WHOLE[".webp"] + bytes(100_000),
    "a PNG with a comment": lambda: commented(WHOLE[".png"], chunk(COMMENT)),
    "a PNG whose IEND has another checksum": lambda: changed(WHOLE[".png"], len(WHOLE[".png"]) - 1),
}


@pytest.fixture
def taken(tmp_path: Path) -> Callable[[bytes], bool]:
    """Whether Ultralytics takes a picture; it would write over some JPEGs, so it gets a copy."""
    from ultralytics.data.utils import verify_image_label

    def look(data: bytes) -> bool:
        path = tmp_path / "theirs.png"
        path.write_bytes(data)
        return verify_image_label((str(path), str(tmp_path / "none.txt"), "", False, 1, 0, 0, False))[0] is not None

    return look


@pytest.mark.parametrize("make", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_ultralytics_leaves_out_is_damaged_at_a_glance(tmp_path: Path, taken, make, monkeypatch) -> None:
    data, path = make(), tmp_path / "a.png"
    assert not taken(data)
    path.write_bytes(data)
    with pytest.raises(PictureError, match=r"a\.png: is damaged") as deep:
        read_picture(path)
    monkeypatch.setattr(reading, "_decode", None)
    with pytest.raises(PictureError, match=r"a\.png: is damaged") as quick:
        glance(path)
    assert deep.value.kind == quick.value.kind == "damaged"


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_what_ultralytics_takes_is_taken(tmp_path: Path, taken, make) -> None:
    data, path = make(), tmp_path / "a.png"
    assert taken(data)
    path.write_bytes(data)
    assert glance(path) == read_picture(path).pixels.shape[:2] == (96, 128)


def test_a_png_cut_at_any_place_is_not_whole() -> None:
    """Also in IEND, where Ultralytics takes it and stops at the first batch that it is in."""
    data = cv2.imencode(".png", NOISE[:4, :4])[1].tobytes()
    assert is_whole(io.BytesIO(data)) and not any(is_whole(io.BytesIO(data[:n])) for n in range(8, len(data)))


def test_a_chunk_that_announces_gigabytes_is_read_as_far_as_it_goes() -> None:
    class Counted(io.BytesIO):
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.most = max(self.most, size or 0)
            return super().read(size)

    file = Counted(WHOLE[".png"][:33] + b"\xff\xff\xff\xffIDAT" + bytes(5_000_000))
    assert not is_whole(file) and 0 < file.most <= 1 << 20
