"""`yolo-kd calibrate`: what it takes, what it never takes, what it says, and what it does not overwrite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from yolo_kd.deploy.artifact import sha256
from yolo_kd.deploy.quantize.calibration import CalibrationSet, read_calibration, write_calibration

from tests.full_disk import files_end_at
from yolo_kd.cli import main
from yolo_kd.modes import quantize

COUNT = 40


def texture(seed: int) -> np.ndarray:
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """data.yaml of 40 unlike training pictures; val holds a copy of 03, test holds 07 in another format."""
    import cv2

    root = tmp_path / "data"
    for part in ("train", "val", "test"):
        (root / "images" / part).mkdir(parents=True)
    for i in range(COUNT):
        cv2.imwrite(str(root / "images" / "train" / f"{i:02}.png"), texture(i))
    cv2.imwrite(str(root / "images" / "val" / "own.png"), texture(100))
    shutil.copy(root / "images" / "train" / "03.png", root / "images" / "val" / "renamed.png")
    cv2.imwrite(str(root / "images" / "test" / "stored.bmp"), texture(7))
    describe(root, train="images/train", val="images/val", test="images/test")
    return root / "data.yaml"


def describe(root: Path, **parts: str) -> None:
    (root / "data.yaml").write_text(yaml.safe_dump({**parts, "names": {0: "car"}}))


def film(path: Path, frames: int) -> Path:
    """Unlike frames, one seed each."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(frames):
        writer.write(texture(200 + i))
    writer.release()
    return path


def run(tmp_path: Path, *words: str, count: int = COUNT) -> int:
    return main(["calibrate", f"out={tmp_path / 'list.json'}", f"count={count}", *words])


def taken(tmp_path: Path) -> set[str]:
    return {path.name for path in read_calibration(tmp_path / "list.json").images}


def test_both_evaluation_parts_of_the_source_are_held_out(data, tmp_path, capsys):
    assert run(tmp_path, f"source={data}") == 0
    assert taken(tmp_path) == {f"{i:02}.png" for i in range(COUNT)} - {"03.png", "07.png"}
    report = read_calibration(tmp_path / "list.json").report
    assert report["held_out"] == 3 and report["overlap_removed"] == 2
    printed = capsys.readouterr()
    assert "WARNING: 2 pictures are in the evaluation set too" in printed.err
    assert f"{tmp_path / 'list.json'}: 38 pictures" in printed.out and "among the 3 evaluation pictures" in printed.out


def test_a_part_that_the_source_does_not_declare_is_no_fault(data, tmp_path):
    describe(data.parent, train="images/train", val="images/val")
    assert run(tmp_path, f"source={data}") == 0
    assert taken(tmp_path) == {f"{i:02}.png" for i in range(COUNT)} - {"03.png"}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"test": "images/empty"}, "'test' holds no image"),
        ({"val": "images/empty"}, "'val' holds no image"),
        ({"val": "images/val.txt"}, "is neither a folder nor a .txt list"),
    ],
)
def test_a_part_that_is_declared_and_not_there_is_not_passed_over(data, tmp_path, capsys, parts, said):
    (data.parent / "images" / "empty").mkdir()
    describe(data.parent, **{"train": "images/train", "val": "images/val", **parts})
    assert run(tmp_path, f"source={data}") == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0] and f"take '{next(iter(parts))}:' out of the YAML" in printed[0]
    assert not (tmp_path / "list.json").exists()


def test_a_test_part_that_is_not_on_this_disk_is_a_warning(data, tmp_path, capsys):
    describe(data.parent, train="images/train", val="images/val", test="images/gone")
    assert run(tmp_path, f"source={data}") == 0
    assert taken(tmp_path) == {f"{i:02}.png" for i in range(COUNT)} - {"03.png"}
    said = "names a test part that is not there"
    assert said in capsys.readouterr().err and said in read_calibration(tmp_path / "list.json").report["warnings"][0]


def test_a_source_that_declares_nothing_to_judge_on_is_said_loudly(data, tmp_path, capsys):
    describe(data.parent, train="images/train")
    assert run(tmp_path, f"source={data}") == 0 and len(taken(tmp_path)) == COUNT
    assert "WARNING: no evaluation picture was held out" in capsys.readouterr().err


def test_a_folder_holds_nothing_out_unless_told_and_says_so(data, tmp_path, capsys):
    train = data.parent / "images" / "train"
    assert run(tmp_path, f"source={train}") == 0
    assert len(taken(tmp_path)) == COUNT
    assert "WARNING: no evaluation picture was held out" in capsys.readouterr().err
    assert "held out" in json.loads((tmp_path / "list.json").read_text())["report"]["warnings"][0]
    for evaluation, missing in ((data, {"03.png", "07.png"}), (data.parent / "images" / "test", {"07.png"})):
        assert run(tmp_path, f"source={train}", f"evaluation={evaluation}") == 0
        assert taken(tmp_path) == {f"{i:02}.png" for i in range(COUNT)} - missing
        assert "held out" not in capsys.readouterr().err


def test_frames_of_a_video_are_kept_beside_the_list(tmp_path, capsys):
    video = film(tmp_path / "flight.avi", 24)
    assert run(tmp_path, f"source={video}", count=6) == 0
    assert "WARNING: no evaluation picture was held out" in capsys.readouterr().err
    found = read_calibration(tmp_path / "list.json")
    frames = tmp_path / "list_frames"
    assert len(found) == 6 and {p.resolve().parent for p in found.images} == {frames.resolve()}
    assert {p.name for p in frames.iterdir()} == {"frames.txt", *(p.name for p in found.images)}
    assert all(name.startswith("000_flight_0") for name in taken(tmp_path))
    assert [sha256(p) for p in found.images] == list(found.hashes)
    first = found.hash
    assert run(tmp_path, f"source={video}", count=6) == 0  # a folder of frames that is ours is replaced
    assert read_calibration(tmp_path / "list.json").hash == first


def test_a_folder_of_pictures_and_videos_gives_both(data, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(data.parent / "images" / "train", mixed)
    film(mixed / "b.avi", 30)
    before = sorted(p.name for p in mixed.iterdir())
    assert run(tmp_path, f"source={mixed}", count=50) == 0
    kinds = {path.resolve().parent.name for path in read_calibration(tmp_path / "list.json").images}
    assert kinds == {"mixed", "list_frames"} and sorted(p.name for p in mixed.iterdir()) == before


def test_frames_do_not_replace_a_folder_of_somebody_else(tmp_path, capsys):
    video = film(tmp_path / "flight.avi", 8)
    (tmp_path / "list_frames").mkdir()
    (tmp_path / "list_frames" / "photo.jpg").write_text("mine")
    assert run(tmp_path, f"source={video}", count=4) == 2
    assert "overwrite=true replaces it" in capsys.readouterr().err
    assert (tmp_path / "list_frames" / "photo.jpg").read_text() == "mine" and not (tmp_path / "list.json").exists()
    assert run(tmp_path, f"source={video}", "overwrite=true", count=4) == 0
    assert not (tmp_path / "list_frames" / "photo.jpg").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(data, tmp_path, capsys):
    video = film(tmp_path / "flight.avi", 8)
    before = sorted(p.name for p in tmp_path.iterdir())
    for source, said in ((video, "set TMPDIR to a folder with room"), (data, "list.json: no room left on the disk")):
        with files_end_at(100):
            assert run(tmp_path, f"source={source}", count=4) == 1
        printed = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("yolo-kd: ")]
        assert len(printed) == 1 and said in printed[0]
        assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_list_is_replaced_and_any_other_file_asked_for(data, tmp_path, capsys):
    (tmp_path / "list.json").write_text("{}")
    assert run(tmp_path, f"source={data}", count=5) == 2
    assert "is no calibration list; overwrite=true replaces it" in capsys.readouterr().err
    assert (tmp_path / "list.json").read_text() == "{}"
    assert run(tmp_path, f"source={data}", "overwrite=true", count=5) == 0 and len(taken(tmp_path)) == 5
    assert run(tmp_path, f"source={data}", count=6) == 0 and len(taken(tmp_path)) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "source= is missing"),
        (["source=TMP/gone"], "no such folder, video or data set YAML"),
        (["source=TMP/gone.yaml"], "no such data set YAML"),
        (["source=TMP/notes.txt"], "expected a folder, a video or a data.yaml, got a '.txt' file"),
        (["source=TMP/texts"], "holds no image and no video, only 1 .txt"),
        (["source=TMP/damaged"], "no picture is left to calibrate on"),
        (["source=DATA", "evaluation=TMP/gone"], "gone: no such folder"),
        (["source=DATA", "evaluation=TMP/clips"], "holds 1 videos and no picture; name the pictures"),
        (["source=DATA", "evaluation=TMP/bare.yaml"], "names neither val nor test"),
        (["source=DATA", "count=0"], "count=0: expected a whole number from 1 on"),
        (["source=DATA", "out=TMP"], "is a folder, expected a file"),
        (["source=DATA", "out=TMP/notes.txt/a.json"], "a.json: cannot be written (notes.txt is a file)"),
        (["source=DATA", "evalution=x"], "did you mean 'evaluation'?"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(data, tmp_path, capsys, words, said):
    (tmp_path / "notes.txt").write_text("words")
    for folder, name in (("texts", "readme.txt"), ("damaged", "a.jpg"), ("clips", "a.mp4")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("words")
    (tmp_path / "bare.yaml").write_text("train: images\nnames: [car]\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert run(tmp_path, *(w.replace("TMP", str(tmp_path)).replace("DATA", str(data)) for w in words)) == 2
    printed = [line for line in capsys.readouterr().err.strip().splitlines() if line.startswith("yolo-kd: ")]
    assert len(printed) == 1 and said in printed[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_help_names_every_key(capsys):
    from yolo_kd.modes.calibrate import DEFAULTS

    assert main(["calibrate", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {key}=" in text for key in DEFAULTS if key != "debug")


def test_warnings_of_a_list_are_said_again_where_it_is_used(tmp_path, capsys):
    """They were said when it was made, which may be months ago and elsewhere."""
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    digest = sha256(path)
    for report, said in (({"warnings": ["all from one scene"]}, "WARNING: all from one scene\n"), ({}, "")):
        write_calibration(CalibrationSet((path,), (digest,), report), tmp_path / "list.json")
        found = quantize._calibration({"calibration": str(tmp_path / "list.json")}, tmp_path / "no.json")
        assert capsys.readouterr().err == said and found.images == read_calibration(tmp_path / "list.json").images
