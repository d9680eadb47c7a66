"""The check of a data set: each fault planted once is found once, named and counted, and no file is touched."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from yolo_kd.data.check import QUICK, check
from yolo_kd.data.description import read_description
from yolo_kd.data.findings import KINDS, Report

from yolo_kd.cli import MODES, main
from yolo_kd.modes.data import ACTIONS

BOX = "0 .5 .5 .2 .4\n"


def blotches(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


class Birds:
    """A data set to plant faults in: 6 training and 4 validation pictures, each with a bus and a car."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for part, count in (("train", 6), ("val", 4)):
            for i in range(count):
                self.image(f"{part}/{i}.jpg", blotches(10 * len(part) + i))
                self.label(f"{part}/{i}.txt", BOX + "1 .2 .2 .1 .1\n")
        self.describe()

    def describe(self, **raw: object) -> None:
        usual = {"train": "images/train", "val": "images/val", "names": ["car", "bus"]}
        (self.root / "data.yaml").write_text(yaml.safe_dump({**usual, **raw}))

    def image(self, name: str, pixels: np.ndarray | bytes) -> Path:
        path = self.root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = pixels if isinstance(pixels, bytes) else cv2.imencode(path.suffix, pixels)[1].tobytes()
        path.write_bytes(data)
        return path

    def label(self, name: str, text: str | bytes) -> None:
        path = self.root / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def check(self, **options: object) -> Report:
        return check(read_description(self.root / "data.yaml"), **options)


@pytest.fixture
def birds(tmp_path: Path) -> Birds:
    return Birds(tmp_path)


def test_a_clean_one_is_clean(birds: Birds) -> None:
    for deep in (True, False):
        report = birds.check(deep=deep)
        assert report.findings == [] and not report.errors and report.skipped == ("" if deep else QUICK)
        assert vars(report.parts["train"]) == {"images": 6, "boxes": 12, "unlabelled": 0, "empty_labels": 0}
        assert report.parts["val"].images == 4 and report.near == ({"val": 0.0} if deep else {})


def plant(birds: Birds, kind: str) -> str:
    """One fault; returns the name that has to be reported."""
    new, images = "images/val/new.jpg", birds.root / "images"
    whole = cv2.imencode(".jpg", blotches(99))[1].tobytes()
    if kind == "part_missing":
        birds.describe(val=["images/val", "images/gone"])
        return "images/gone"
    if kind == "part_empty":
        (birds.root / "none").mkdir()
        birds.describe(val="none")
        return "val"
    if kind == "part_unlabelled":
        for i in range(4):
            (birds.root / f"labels/val/{i}.txt").write_text("")
        return "val"
    if kind == "names_gap":
        birds.describe(names={0: "car", 1: "bus", 3: "tram"})
        birds.label("train/0.txt", BOX.replace("0", "3", 1))
        return "names"
    if kind == "names_count":
        birds.describe(nc=3)
        return "nc"
    if kind == "image_missing":
        (birds.root / "val.txt").write_text("./images/val/0.jpg\n./images/val/gone.jpg\n")
        birds.describe(val="val.txt")
        return "images/val/gone.jpg"
    if kind == "image_unreadable":  # a folder that is called like a picture
        (images / "val/folder.jpg").mkdir()
        (birds.root / "val.txt").write_text("./images/val/0.jpg\n./images/val/folder.jpg\n")
        birds.describe(val="val.txt")
        return "images/val/folder.jpg"
    if kind == "image_other_format":
        (images / "val" / "new.heic").write_bytes(whole)
        return "images/val/new.heic"
    pictures = {
        "image_empty": b"", "image_damaged": whole[: len(whole) // 2], "image_tiny": blotches(99, (9, 64)),
        "image_shared": (images / "train/3.jpg").read_bytes(), "image_twice": (images / "val/3.jpg").read_bytes(),
        "near_duplicate": cv2.imread(str(images / "train/2.jpg"))[:-1, :-1],
    }  # fmt: skip
    if kind in pictures:
        birds.image("val/new.jpg", pictures[kind])
        birds.label("val/new.txt", BOX)
        return new
    if kind in {"image_giant", "image_oversized"}:  # by its header; such a file may have 24 kB
        png = bytearray(cv2.imencode(".png", blotches(99))[1].tobytes())
        sides = (17_895, 10_000) if kind == "image_giant" else (17_896, 10_000)
        png[16:24] = b"".join(side.to_bytes(4, "big") for side in sides)
        birds.image("val/new.png", bytes(png))
        birds.label("val/new.txt", BOX)
        return "images/val/new.png"
    if kind in {"image_black", "image_remark"}:
        dark = np.full((48, 64), 255, np.uint16) if kind == "image_black" else blotches(99).astype(np.uint16) * 257
        birds.image("val/new.png", dark)
        birds.label("val/new.txt", BOX)
        return "images/val/new.png"
    if kind == "class_unused":
        birds.describe(names=["car", "bus", "tram"])
        return "tram"
    if kind == "label_without_image":
        birds.label("val/sub/lone.txt", BOX)
        return "labels/val/sub/lone.txt"
    lines = {
        "label_unreadable": b"\xff\xfe\x00", "label_malformed": "0 .5 .5\n", "label_not_finite": "0 nan .5 .2 .2\n",
        "label_out_of_range": "0 300 200 20 20\n", "label_class": "2 .5 .5 .2 .2\n", "box_repeated": BOX + BOX,
        "label_mixed": BOX + "0 .1 .1 .2 .1 .2 .2\n", "box_without_area": "0 .5 .5 0 .2\n", "box_over_edge": "0 0 0 .5 .5\n",
    }  # fmt: skip
    birds.label("val/1.txt", lines[kind])
    line = {"label_unreadable": "", "label_mixed": ":2", "box_repeated": ":2"}.get(kind, ":1")
    return f"labels/val/1.txt{line}"


HARD_TO_PLANT = {"part_leaks"}
NEEDS_PIXELS = {"image_black", "image_remark", "near_duplicate"}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - HARD_TO_PLANT))
def test_a_planted_fault_is_found_alone_and_named(birds: Birds, kind: str) -> None:
    name = plant(birds, kind)
    report = birds.check(leak=0.5)
    assert report.counts() == {kind: 1}
    found = report.findings[0]
    assert found.path in {name, str(birds.root / name)}
    assert report.errors == KINDS[kind].error and report.stops == KINDS[kind].stops
    quick = birds.check(deep=False, leak=0.5).counts()
    assert quick == ({} if kind in NEEDS_PIXELS or kind == "image_twice" else {kind: 1})


def test_the_twin_is_named(birds: Birds) -> None:
    plant(birds, "image_shared")
    for deep in (True, False):
        assert birds.check(deep=deep, leak=0.5).findings[0].what.endswith("images/train/3.jpg in train")
    plant(birds, "near_duplicate")
    found = next(f for f in birds.check(leak=0.5).findings if f.kind == "near_duplicate")
    assert found.part == "val" and "of 64 bits from" in found.what and found.what.endswith("images/train/2.jpg")


def test_too_many_that_look_like_training_pictures_are_an_error(birds: Birds) -> None:
    plant(birds, "near_duplicate")
    report = birds.check(leak=0.19)
    assert report.near == {"val": 0.2} and report.counts() == {"part_leaks": 1, "near_duplicate": 1}
    assert "1 of 5 images (20.0%)" in next(f for f in report.findings if f.kind == "part_leaks").what
    assert birds.check(leak=0.2).errors == 0
    bits = int(next(f for f in report.findings if f.kind == "near_duplicate").what.split()[0])
    assert bits > 0 and birds.check(near=bits).near == {"val": 0.2} and birds.check(near=bits - 1).near == {"val": 0.0}


def test_one_picture_stored_in_another_size_is_no_other_file(birds: Birds) -> None:
    """Equal sizes alone are no equal content: the quick check hashes them."""
    data = bytearray((birds.root / "images/train/0.jpg").read_bytes())
    data[40] ^= 1
    birds.image("val/new.jpg", bytes(data))
    assert "image_shared" not in birds.check(deep=False).counts()


def test_images_without_objects_are_counted_and_no_finding(birds: Birds) -> None:
    birds.label("train/0.txt", "")
    (birds.root / "labels/train/1.txt").unlink()
    report = birds.check()
    assert (report.parts["train"].unlabelled, report.parts["train"].empty_labels) == (1, 1)
    assert report.findings == [] and "6 images (2 without objects), 8 boxes" in "\n".join(report.lines(5, ""))


def test_without_training_pictures_it_says_what_can_do_without_them(birds: Birds) -> None:
    birds.describe(train=None)
    assert [(f.kind, f.path) for f in birds.check().findings] == [("part_empty", "train")]
    assert birds.check().findings[0].what == "is not in the data.yaml; only a training with unlabeled= needs none"


def test_an_image_named_twice_is_counted_once(birds: Birds) -> None:
    (birds.root / "val.txt").write_text("./images/val/0.jpg\n./images/val/0.jpg\n./notes.pdf\n")
    birds.describe(val="val.txt")
    report = birds.check()
    assert report.counts() == {"image_twice": 1, "image_other_format": 1} and report.parts["val"].images == 1


def test_labels_of_a_list_of_relative_paths_are_not_found_by_training_either(birds: Birds, monkeypatch) -> None:
    """Lines without ./ are relative to where the command runs, and `images` at their begin is not replaced."""
    (birds.root / "val.txt").write_text("".join(f"images/val/{i}.jpg\n" for i in range(4)))
    birds.describe(val="val.txt")
    monkeypatch.chdir(birds.root)
    for deep in (True, False):
        report = check(read_description("data.yaml"), deep)
        assert report.counts().get("part_unlabelled") == 1 and report.parts["val"].boxes == 0
    birds.describe()
    assert check(read_description("data.yaml")).findings == [], "folders are found whole, wherever the command runs"


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in root.rglob("*")}


def test_no_byte_and_no_time_of_the_users_files_changes(birds: Birds, tmp_path_factory, capsys) -> None:
    """Ultralytics would write over the cut JPEG and leave caches."""
    for kind in ("image_damaged", "image_empty", "label_malformed", "label_without_image"):
        plant(birds, kind)
    cut = cv2.imencode(".jpg", blotches(98))[1].tobytes()[:-2]
    birds.image("train/cut.jpg", cut)
    before = state(birds.root)
    birds.check()
    birds.check(deep=False)
    out = tmp_path_factory.mktemp("out") / "check.json"
    assert main(["data", "check", f"data={birds.root / 'data.yaml'}", f"out={out}"]) == 3
    assert state(birds.root) == before


def test_exit_codes_summary_and_the_whole_list(birds: Birds, tmp_path: Path, capsys) -> None:
    source, out = f"data={birds.root / 'data.yaml'}", tmp_path / "sub" / "check.json"
    birds.label("val/2.txt", BOX + BOX)
    assert main(["data", "check", source]) == 0 and "remark box_repeated: 1" in capsys.readouterr().out
    birds.label("val/2.txt", BOX)
    assert main(["data", "check", source]) == 0
    birds.label("val/1.txt", "0 .5 .5\n" * 9)
    assert main(["data", "check", source, "shown=2", f"out={out}"]) == 3
    printed = capsys.readouterr()
    assert "label_malformed: 9" in printed.out and f"and 7 more, all in {out}" in printed.out
    assert printed.out.count("expected 'class cx cy w h'") == 2
    assert "9 errors (label_malformed)" in printed.err.splitlines()[-1]
    plain = json.loads(out.read_text())
    assert len(plain["findings"]) == 9 and plain["counts"] == {"label_malformed": 9}
    assert {f["path"].rpartition(":")[2] for f in plain["findings"]} == set("123456789")
    assert main(["data", "check", source, f"out={out}"]) == 3, "a report may replace a report"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "data= is missing"),
        (["data=gone.yaml"], "no such data set YAML"),
        (["data=DATA", "nea=3"], "did you mean 'near'"),
        (["data=DATA", "near=65"], "expected bits from 0 to 64"),
        (["data=DATA", "leak=much"], "leak=much: expected a number"),
        (["data=DATA", "quick=2"], "quick=2: expected true or false"),
        (["data=DATA", "jobs=-1"], "expected a whole number from 0 on"),
        (["data=DATA", "out=DATA"], "was not written by this command"),
    ],
)
def test_misuse_is_one_line(birds: Birds, capsys, words: list[str], said: str) -> None:
    before = state(birds.root)
    assert main(["data", "check", *(w.replace("DATA", str(birds.root / "data.yaml")) for w in words)]) == 2
    line = capsys.readouterr().err
    assert said in line and len(line.splitlines()) == 1 and state(birds.root) == before


def test_an_action_is_needed(capsys) -> None:
    assert main(["data"]) == 2 and "an action is missing" in capsys.readouterr().err
    assert main(["data", "chek"]) == 2 and "did you mean 'check'" in capsys.readouterr().err
    assert main(["data", "--help"]) == 0 and "yolo-kd data check data=" in capsys.readouterr().out
    assert [action for action in ACTIONS if action not in MODES["data"]] == []
