"""The contact sheet shows each corruption at each strength, and writes where it is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from yolo_kd.data.contact_sheet import BAR, GAP, LONGEST, contact_sheet
from yolo_kd.data.corruptions import STRENGTHS, corrupt, corruptions

from yolo_kd.cli import main


def picture() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (LONGEST, LONGEST // 2), interpolation=cv2.INTER_CUBIC)


def test_every_tile_is_what_its_name_says() -> None:
    sheet, one = contact_sheet(picture(), seed=3), picture()
    height, width = LONGEST // 2 + BAR + GAP, LONGEST + GAP
    assert sheet.shape == (len(corruptions()) * height, (1 + len(STRENGTHS)) * width, 3)
    for row, name in enumerate(corruptions()):
        wanted = [one, *(corrupt(one, name, strength, 3) for strength in STRENGTHS)]
        for column, tile in enumerate(wanted):
            y, x = row * height + BAR, column * width
            assert (sheet[y : y + LONGEST // 2, x : x + LONGEST] == tile).all()
            assert (sheet[y - BAR : y - 4, x : x + LONGEST] < 128).any(), "a name above it"


@pytest.mark.parametrize("source", [True, False])
def test_a_picture_of_the_user_or_a_rendered_one(tmp_path: Path, capsys, source: bool) -> None:
    mine, out = tmp_path / "mine.png", tmp_path / "sub" / "sheet.png"
    cv2.imwrite(str(mine), picture())
    assert main(["data", "sheet", f"out={out}", *([f"source={mine}"] if source else [])]) == 0
    sheet = cv2.imread(str(out))
    if source:
        assert (sheet == contact_sheet(picture())).all()
    assert len(sheet) > 1000 and f"wrote {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["source=GONE"], "cannot be read"),
        (["source=MINE", "out=MINE"], "is there already"),
        (["out=x.txt"], "expected a .jpg or .png"),
        (["seed=-1"], "expected a whole number from 0 on"),
    ],
)
def test_misuse_is_one_line(tmp_path: Path, capsys, words: list[str], said: str) -> None:
    cv2.imwrite(str(tmp_path / "mine.jpg"), picture())
    known = {"MINE": tmp_path / "mine.jpg", "GONE": tmp_path / "gone.jpg"}
    words = [w.partition("=")[0] + "=" + str(known.get(w.partition("=")[2], w.partition("=")[2])) for w in words]
    assert main(["data", "sheet", *words]) == 2
    line = capsys.readouterr().err
    assert said in line and len(line.splitlines()) == 1
