"""Every picture that a folder may hold is read or refused in one line that names it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import PictureError, find_media, glance, read_picture, sample_frames

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def pack(suffix: str, pixels: np.ndarray = PICTURE) -> bytes:
    import cv2

    return cv2.imencode(suffix, pixels)[1].tobytes()


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_picture_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "a.png", pack(".png"))
    found = read_picture(path)
    assert (found.pixels == PICTURE).all() and found.remark == ""
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_grey_and_transparent_ones_get_three_channels(tmp_path: Path) -> None:
    grey = read_picture(write(tmp_path, "g.png", pack(".png", PICTURE[..., 0]))).pixels
    assert (grey == PICTURE[..., :1]).all() and grey.shape == PICTURE.shape
    clear = read_picture(write(tmp_path, "t.png", pack(".png", np.dstack([PICTURE, PICTURE[..., 0]])))).pixels
    assert (clear == PICTURE).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_read_as_eight_and_said(tmp_path: Path, suffix: str) -> None:
    found = read_picture(write(tmp_path, f"a{suffix}", pack(suffix, PICTURE.astype(np.uint16) * 257)))
    assert (found.pixels == PICTURE).all() and "16 bits" in found.remark


def test_a_faint_thermal_picture_is_not_taken_for_a_black_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.png", pack(".png", PICTURE[..., 0].astype(np.uint16)))
    with pytest.raises(MisuseError, match="black in its upper 8; scale it"):
        read_picture(path)


def test_cmyk_is_read(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.jpg"
    smooth = np.full((48, 64, 3), (200, 120, 40), np.uint8)
    image.fromarray(smooth).convert("CMYK").save(path, quality=95)
    assert read_picture(path).pixels[20, 20] == pytest.approx(np.array([40, 120, 200]), abs=12)


CUT = [(suffix, share) for suffix in (".jpg", ".png", ".bmp", ".webp", ".tif") for share in (0.3, 0.9)]


@pytest.mark.parametrize(("suffix", "share"), CUT)
def test_a_file_cut_off(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, share: float) -> None:
    whole = pack(suffix)
    path = write(tmp_path, f"a{suffix}", whole[: int(len(whole) * share)])
    with pytest.raises(MisuseError, match="cut off") as caught:
        read_picture(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "[ERROR" not in capfd.readouterr().err, "OpenCV's own lines name no file"


def test_a_jpeg_without_its_end_is_cut_off(tmp_path: Path) -> None:
    """OpenCV 4 reads it and fills the rest with grey."""
    with pytest.raises(MisuseError, match="cut off"):
        read_picture(write(tmp_path, "a.jpg", pack(".jpg")[:-2]))


def test_empty_text_missing(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="is empty"):
        read_picture(write(tmp_path, "a.jpg", b""))
    with pytest.raises(MisuseError, match="no JPEG, PNG, BMP, WebP or TIFF, whatever its name says"):
        read_picture(write(tmp_path, "b.jpg", b"these are words"))
    with pytest.raises(MisuseError, match=r"c\.jpg: cannot be read"):
        read_picture(tmp_path / "c.jpg")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_giant_is_refused_by_its_header(tmp_path: Path, suffix: str) -> None:
    data = bytearray(pack(suffix))
    if suffix == ".png":
        data[16:24] = (20_000).to_bytes(4, "big") * 2
    else:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = (20_000).to_bytes(2, "big") * 2
    with pytest.raises(MisuseError, match="20000x20000 pixels, more than the 178956970 that PIL opens; cut it up"):
        read_picture(write(tmp_path, f"a{suffix}", bytes(data)))


def test_media_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no such folder"):
        find_media(tmp_path / "gone")
    with pytest.raises(MisuseError, match="only nothing"):
        find_media(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("readme.txt", "notes.txt"):
        (tmp_path / name).write_text("words")
    with pytest.raises(MisuseError, match=r"only 2 \.txt"):
        find_media(tmp_path)
    for name in ("b/2.PNG", "1.jpg", "film.mp4"):
        (tmp_path / name).write_bytes(b"x")
    images, videos = find_media(tmp_path)
    assert [p.name for p in images] == ["1.jpg", "2.PNG"] and [p.name for p in videos] == ["film.mp4"]


def film(path: Path, frames: int) -> Path:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()
    return path


def test_frames_are_spread_over_the_whole_video(tmp_path: Path) -> None:
    video = film(tmp_path / "a.avi", 20)
    found = list(sample_frames(video, 4))
    assert [number for number, _ in found] == [2, 7, 12, 17]
    assert [round(float(frame.mean()), -1) for _, frame in found] == [20, 70, 120, 170]
    assert len(list(sample_frames(video, 100))) == 20


def test_a_video_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no frame can be read"):
        list(sample_frames(write(tmp_path, "a.mp4", b"words"), 4))
    with pytest.raises(MisuseError, match="no such file"):
        list(sample_frames(tmp_path / "gone.mp4", 4))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_a_glance_sees_what_header_and_end_show(tmp_path: Path, suffix: str) -> None:
    whole = pack(suffix)
    assert glance(write(tmp_path, f"a{suffix}", whole)) == (48, 64)
    if suffix in {".png", ".jpg", ".webp"}:
        with pytest.raises(PictureError, match="cut off") as caught:
            glance(write(tmp_path, f"b{suffix}", whole[:-20]))
        assert caught.value.kind == "damaged"


def test_a_glance_reads_both_ends_of_a_large_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    for suffix in (".png", ".jpg"):
        whole = pack(suffix, noise)
        assert len(whole) > 1 << 17
        assert glance(write(tmp_path, f"a{suffix}", whole)) == (400, 500)
        with pytest.raises(PictureError, match="cut off"):
            glance(write(tmp_path, f"b{suffix}", whole[: len(whole) // 2]))


def test_a_header_behind_a_long_preface_is_found(tmp_path: Path) -> None:
    """Cameras put thumbnails and colour tables first: two segments of 60 kB before the size."""
    whole = pack(".jpg")
    preface = b"".join(b"\xff\xe2" + (60_002).to_bytes(2, "big") + bytes(60_000) for _ in range(2))
    assert glance(write(tmp_path, "a.jpg", whole[:2] + preface + whole[2:])) == (48, 64)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path: Path, noisy: bool) -> None:
    """A picture of a few kB, and one of which the first 100 kB were copied."""
    pixels = np.random.default_rng(1).integers(0, 256, (400, 500, 3)).astype(np.uint8) if noisy else None
    whole, thumbnail = pack(".jpg", pixels) if noisy else pack(".jpg"), pack(".jpg")
    begun = whole[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + whole[2:]
    for look in (glance, read_picture):
        look(write(tmp_path, "a.jpg", begun))
        with pytest.raises(PictureError, match="cut off"):
            look(write(tmp_path, "b.jpg", begun[:100_000] if noisy else begun[:-20]))


@pytest.mark.parametrize("more", [8, 200_000])
def test_what_a_camera_leaves_behind_the_end_does_no_harm(tmp_path: Path, more: int) -> None:
    """Padding, or a film that belongs to the picture."""
    path = write(tmp_path, "a.jpg", pack(".jpg") + bytes(more))
    assert glance(path) == (48, 64) and read_picture(path).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"", "empty"), (b"these are words", "damaged"), (pack(".ppm"), "damaged"), (None, "missing")],
    ids=["empty", "words", "a format that training leaves out", "missing"],
)
def test_a_glance_and_a_read_name_the_same_fault(tmp_path: Path, data: bytes | None, kind: str) -> None:
    path = tmp_path / "a.jpg"
    if data is not None:
        path.write_bytes(data)
    for look in (glance, read_picture):
        with pytest.raises(PictureError) as caught:
            look(path)
        assert caught.value.kind == kind and str(path) in str(caught.value)


def test_opencv_is_as_loud_afterwards_as_before(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import cv2

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    paths = [write(tmp_path, f"{i}.png", pack(".png")) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_picture, paths))) == 40
    assert cv2.utils.logging.setLogLevel(level) == cv2.utils.logging.LOG_LEVEL_WARNING
