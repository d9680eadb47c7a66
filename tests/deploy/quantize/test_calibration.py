"""The calibration set: chosen apart from evaluation, hashed, found again, and seen through the device's letterbox."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy.artifact import sha256
from yolo_kd.deploy.letterbox import Letterbox
from yolo_kd.deploy.quantize.calibration import (
    CalibrationSet,
    Candidate,
    choose,
    images,
    read_calibration,
    write_calibration,
)

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import read_picture

from .test_coverage import texture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 unlike pictures, a.png to ..."""
    import cv2

    for i in range(40):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), texture(i))
    return tmp_path


def candidates(folder: Path) -> list[Candidate]:
    return [Candidate(p) for p in sorted(folder.iterdir())]


def test_the_choice_depends_on_nothing_but_its_arguments(folder: Path) -> None:
    found = choose(candidates(folder), 10)
    np.random.seed(99)
    before = np.random.get_state()[1].copy()
    assert choose(candidates(folder), 10) == found
    assert (np.random.get_state()[1] == before).all(), "the global random state was touched"
    assert len(found) == 10 and len(set(found.images)) == 10


def test_the_seed_decides_which_of_too_many_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_kd.deploy.quantize.calibration.CANDIDATES", 2)
    one, again, other = (choose(candidates(folder), 5, seed=s) for s in (1, 1, 2))
    assert one.images == again.images != other.images
    assert one.report["looked_at"] == 10 and one.report["candidates"] == 40


def test_evaluation_pictures_are_taken_out_by_bytes_and_by_pixels(folder: Path, tmp_path_factory) -> None:
    import cv2

    val = tmp_path_factory.mktemp("val")
    shutil.copy(folder / "03.png", val / "renamed.png")
    cv2.imwrite(str(val / "other.bmp"), cv2.imread(str(folder / "07.png")))
    found = choose(candidates(folder), 40, evaluation=sorted(val.iterdir()))
    assert {"03.png", "07.png"} & {p.name for p in found.images} == set()
    assert found.report["overlap_removed"] == 2
    assert any("2 pictures are in the evaluation set too" in w for w in found.report["warnings"])
    with pytest.raises(MisuseError, match="40 are evaluation pictures"):
        choose(candidates(folder), 5, evaluation=sorted(folder.iterdir()))


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "words.png").write_text("words")
    found = choose(candidates(folder), 10)
    assert len(found.report["unreadable"]) == 2
    assert all(any(name in line for line in found.report["unreadable"]) for name in ("zero.jpg", "words.png"))
    assert any("2 files cannot be used" in w for w in found.report["warnings"])


def test_nothing_but_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("words")
    with pytest.raises(MisuseError, match="no picture is left to calibrate on"):
        choose(candidates(tmp_path), 3)


def test_near_duplicates_are_dropped_unless_kept(folder: Path) -> None:
    import cv2

    for i in range(5):
        picture = texture(0)
        picture[:2, i] = 0
        cv2.imwrite(str(folder / f"twin{i}.png"), picture)
    found = choose(candidates(folder), 100)
    assert len(found) == 40 and found.report["near_duplicates_dropped"] == 5
    assert len(choose(candidates(folder), 100, near=-1)) == 45


def test_too_few_and_one_scene_are_said(tmp_path: Path) -> None:
    import cv2

    base = texture(0, (240, 320))
    for i in range(6):
        frame = base.copy()
        frame[:, 50 * i : 50 * i + 40] = 255 - frame[:, 50 * i : 50 * i + 40] // 2
        cv2.imwrite(str(tmp_path / f"{i}.png"), cv2.addWeighted(base, 0.7, frame, 0.3, 0))
    said = " ".join(choose(candidates(tmp_path), 50, near=0).report["warnings"])
    assert "instead of 50" in said and "too few" in said and "one scene" in said and "about as bright" in said


def test_a_varied_set_has_no_warning(folder: Path, tmp_path_factory) -> None:
    import cv2

    other = tmp_path_factory.mktemp("val") / "val.png"
    cv2.imwrite(str(other), texture(99))
    cv2.imwrite(str(folder / "dark.png"), texture(77, light=0.1))
    found = choose(candidates(folder), 41, evaluation=[other])
    assert found.report["warnings"] == [] and found.report["held_out"] == 1


def test_that_nothing_was_held_out_is_said(folder: Path) -> None:
    report = choose(candidates(folder), 41).report
    assert report["held_out"] == 0 and "no evaluation picture was held out" in report["warnings"][0]


def test_the_list_comes_back_and_may_move_with_its_pictures(folder: Path, tmp_path: Path) -> None:
    found = choose(candidates(folder), 6)
    write_calibration(found, folder / "calibration.json")
    back = read_calibration(folder / "calibration.json")
    assert back.hash == found.hash and back.hashes == found.hashes and dict(back.report) == dict(found.report)
    moved = tmp_path.with_name("moved")
    shutil.copytree(folder, moved)
    assert read_calibration(moved / "calibration.json").hash == found.hash
    assert read_calibration(moved / "calibration.json").images[0].resolve().is_relative_to(moved.resolve())


def test_the_hash_is_of_contents_in_order(folder: Path) -> None:
    found = choose(candidates(folder), 6)
    assert CalibrationSet(found.images[::-1], found.hashes[::-1]).hash != found.hash
    assert CalibrationSet(tuple(Path(f"/elsewhere/{i}") for i in range(6)), found.hashes).hash == found.hash
    assert found.first(3).hashes == found.hashes[:3]


def test_a_list_that_cannot_be_right(folder: Path) -> None:
    path = folder / "calibration.json"
    with pytest.raises(MisuseError, match="no such file"):
        read_calibration(path)
    path.write_text("words")
    with pytest.raises(MisuseError, match="is no calibration list"):
        read_calibration(path)
    write_calibration(choose(candidates(folder)[:40], 4), path)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "images": raw["images"][::-1]}))
    with pytest.raises(MisuseError, match="changed by hand"):
        read_calibration(path)
    for told in (7, "a text", [7]):
        path.write_text(json.dumps({**raw, "report": {"warnings": told}}))
        with pytest.raises(MisuseError, match="changed by hand"):
            read_calibration(path)
    path.write_text(json.dumps(raw))
    (folder / raw["images"][1]["path"]).unlink()
    with pytest.raises(MisuseError, match="1 of 4 pictures are missing"):
        read_calibration(path)


def test_the_net_sees_what_the_device_shows_it(folder: Path) -> None:
    """The one preprocessor: letterbox, BGR to RGB, 0 to 1, channels first."""
    found = choose(candidates(folder), 5)
    seen = images(found, (64, 96))
    assert len(seen) == 5 == len(list(seen)) == len(list(seen)), "it can be gone through more than once"
    for path, image in zip(found.images, seen, strict=True):
        canvas, _ = Letterbox((64, 96))(read_picture(path).pixels)
        assert image.shape == (1, 3, 64, 96) and image.dtype == np.float32
        assert (image[0].transpose(1, 2, 0)[..., ::-1] == canvas.astype(np.float32) / 255).all()


def test_a_picture_that_changed_is_noticed(folder: Path) -> None:
    found = choose(candidates(folder), 5)
    shutil.copy(found.images[0], found.images[1])
    with pytest.raises(MisuseError, match="has changed since it was chosen"):
        list(images(found, (64, 64)))


def test_a_picture_that_no_letterbox_takes_is_named(folder: Path) -> None:
    import cv2

    path = folder / "long.png"
    cv2.imwrite(str(path), np.zeros((3, 20_000, 3), np.uint8))
    with pytest.raises(MisuseError, match=r"long\.png: has 20000x3 pixels, more than 16384 on a side"):
        list(images(CalibrationSet((path,), (sha256(path),)), (64, 64)))
    assert any("long.png" in line for line in choose(candidates(folder), 10).report["unreadable"])
