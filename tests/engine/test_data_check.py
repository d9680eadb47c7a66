"""Before the first step: faulty data are refused, forced, or not looked at; clean ones are one line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from yolo_kd.cfg.settings import resolve

from yolo_kd.engine import data_check
from yolo_kd.engine.data_check import check_data
from yolo_kd.errors import GateError, MisuseError


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """A copy of the tests' pictures to spoil."""
    root = Path(shutil.copytree(pictures.parent, tmp_path / "data", ignore=shutil.ignore_patterns("*.cache")))
    return root / pictures.name


class Told:
    """What the check sees of a trainer, and what it says."""

    def __init__(
        self, data: Path, single_cls: bool = False, split: str = "val", classes: Any = None, **keys: Any
    ) -> None:
        from ultralytics.data.utils import check_det_dataset

        self.kd = resolve({"distill": "none", **keys})
        self.args = type("Args", (), {"data": str(data), "single_cls": single_cls, "split": split, "classes": classes})
        self.data = check_det_dataset(str(data), autodownload=False)
        if single_cls:
            self.data |= {"names": {0: "item"}, "nc": 1}  # as the trainer does
        self.lines: list[str] = []
        self.log = self.lines.append


def test_clean_data_are_one_line_that_says_what_was_left_out(data: Path) -> None:
    told = Told(data)
    check_data(told)
    assert len(told.lines) == 1
    for words in ("nothing wrong", "train: 8 images, 24 boxes", "val: 4 images", "not looked at: pixels"):
        assert words in told.lines[0]


def cut(data: Path) -> None:
    image = data.parent / "images/train/000.png"
    image.write_bytes(image.read_bytes()[:-30])


def scratch(data: Path) -> None:
    image = data.parent / "images/train/000.png"
    whole = bytearray(image.read_bytes())
    whole[len(whole) // 2] ^= 1
    image.write_bytes(bytes(whole))


def malform(data: Path) -> None:
    (data.parent / "labels/val/000.txt").write_text("7 .5 .5 .1 .1\n")


def lose(data: Path) -> None:
    (data.parent / "train.txt").write_text("./images/train/000.png\n./images/train/gone.png\n")
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), "train": "train.txt"}))


def inflate(data: Path) -> None:
    """One bit a pixel: 24 kB on the disk, 600 MB once decoded."""
    bits = np.zeros((10_000, 20_000), bool)
    Image.fromarray(bits).save(data.parent / "images/train/000.png")


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (cut, "image_damaged"),
        (scratch, "image_damaged"),
        (malform, "label_class"),
        (lose, "image_missing"),
        (inflate, "image_oversized"),
    ],
)
def test_what_would_change_the_training_is_refused_forced_or_not_looked_at(
    data: Path, spoil: Callable[[Path], None], kind: str
) -> None:
    spoil(data)
    told = Told(data)
    with pytest.raises(GateError, match=rf"1 findings would silently change this training \({kind}\).*force=true"):
        check_data(told)
    assert any(f"ERROR  {kind}: 1" in line for line in told.lines)
    forced = Told(data, force=True)
    check_data(forced)
    assert "WARNING forced past" in forced.lines[-1] and any(kind in line for line in forced.lines[:-1])
    blind = Told(data, check_data=False)
    check_data(blind)
    assert blind.lines == []


def test_what_training_does_not_list_stops_none_and_what_it_lists_is_looked_at(data: Path) -> None:
    """macOS leaves ._x.png on foreign disks; a flight may lie on another disk and be linked to."""
    (data.parent / "images/train/._000.png").write_bytes(b"\0\5\x16\7")
    told = Told(data)
    check_data(told)
    assert "nothing wrong" in told.lines[0] and "train: 8 images" in told.lines[0]
    (data.parent / "flight").mkdir()
    (data.parent / "flight/1.png").write_bytes((data.parent / "images/train/000.png").read_bytes()[:-30])
    (data.parent / "images/train/flight").symlink_to(data.parent / "flight")
    with pytest.raises(GateError, match=r"1 findings would silently change this training \(image_damaged\)"):
        check_data(Told(data))


def test_a_picture_is_refused_where_ultralytics_leaves_it_out_for_its_size_and_not_before(data: Path) -> None:
    from ultralytics.data.utils import verify_image

    image = data.parent / "images/train/000.png"
    for sides_wh, oversized in (((17_895, 10_000), False), ((17_896, 10_000), True)):
        Image.new("1", sides_wh).save(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            _, found, corrupt, said = verify_image(((str(image), 0), ""))
        assert (found, corrupt) == (not oversized, oversized) and ("exceeds limit" in said) is oversized
        told = Told(data)
        with pytest.raises(GateError, match="image_oversized") if oversized else nullcontext():
            check_data(told)
        assert any(f"17{'896' if oversized else '895'}x10000 pixels" in line for line in told.lines)


def test_a_leak_is_said_and_not_refused(data: Path) -> None:
    shutil.copy(data.parent / "images/train/000.png", data.parent / "images/val/again.png")
    told = Told(data)
    check_data(told)
    assert any("ERROR  image_shared: 1" in line for line in told.lines)


def test_where_all_classes_become_one_any_class_will_do(data: Path) -> None:
    malform(data)
    told = Told(data, single_cls=True)
    check_data(told)
    assert "nothing wrong" in told.lines[0]


def test_a_test_part_that_is_not_there_is_no_matter_of_a_training(data: Path) -> None:
    raw = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump({**raw, "test": "images/gone"}))
    told = Told(data)
    check_data(told)
    assert "nothing wrong" in told.lines[0]
    with pytest.raises(MisuseError, match=r"no picture in test .*images/gone: is neither a folder"):
        check_data(Told(data, split="test"))


def spoilt(data: Path, part: str, suffix: str = "") -> None:
    """Cut every picture of a part, or give it another suffix."""
    for picture in sorted((data.parent / "images" / part).iterdir()):
        if suffix:
            picture.rename(picture.with_suffix(suffix))
        else:
            picture.write_bytes(picture.read_bytes()[:-30])


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_a_picture_cannot_be_forced(data: Path, part: str) -> None:
    """Ultralytics fails over it in any case."""
    spoilt(data, part)
    for force in (False, True):
        with pytest.raises(MisuseError, match=rf"no picture in {part} that training could use \(.*000.png") as told:
            check_data(Told(data, force=force))
        assert "force=true" not in str(told.value)


def test_a_part_in_a_format_that_only_ultralytics_reads_can_be_forced(data: Path) -> None:
    spoilt(data, "val", ".heic")
    with pytest.raises(GateError, match=r"part_empty.*force=true"):
        check_data(Told(data))
    check_data(Told(data, force=True))


def test_classes_that_the_data_do_not_have_are_refused_also_where_the_data_are_not_looked_at(data: Path) -> None:
    for keys in ({}, {"check_data": False}, {"force": True}):
        with pytest.raises(MisuseError, match=r"^classes=99: no such class; expected ids of 0 car, 1 truck, 2 person"):
            check_data(Told(data, classes=[0, 99], **keys))
    check_data(Told(data, single_cls=True, classes=[2]))


def test_progress_is_for_large_sets(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    check_data(Told(data))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(data_check, "MANY", 12)
    check_data(Told(data))
    assert "looking at images: 12 of 12" in capsys.readouterr().err


def test_a_training_is_refused_before_ultralytics_touches_a_picture(train: Callable[..., Any], data: Path) -> None:
    cut(data)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in data.parent.rglob("*") if p.is_file()}
    with pytest.raises(GateError, match="image_damaged"):
        train(data=str(data), distill="none")
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in data.parent.rglob("*") if p.is_file()} == before


def test_a_training_on_clean_data_says_so(train: Callable[..., Any], data: Path, monkeypatch) -> None:
    from yolo_kd import DistillationTrainer

    said: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: said.append(line))
    train(data=str(data), distill="none")
    assert sum("data checked, nothing wrong" in line for line in said) == 1
