"""What every arm of the benchmark trains on, and how the gap is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from yolo_kd.data.split import read_split

from benchmarks import unlabeled
from tests.conftest import write_pictures

KEYS = {**unlabeled.DEFAULTS, "batch": 8, "share": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"), train=50, size=16)


def test_the_few_are_drawn_by_seed_and_the_rest_are_the_others(data: Path) -> None:
    images = list(read_split(data, "train").images)
    few, rest = unlabeled.parts(images, 0.1, 0)
    assert len(few) == 5 and len(rest) == 45 and sorted([*few, *rest]) == sorted(images)
    assert unlabeled.parts(images[::-1], 0.1, 0)[0] == few[::-1], "the order of the list plays no part"
    assert unlabeled.parts(images, 0.1, 1)[0] != few


@pytest.mark.parametrize(("ratio", "labelled"), [(None, 8), (0.5, 4), (0.75, 2)])
def test_an_epoch_of_the_few_is_as_long_as_one_of_all(data: Path, ratio: float | None, labelled: int) -> None:
    described, rest, counts = unlabeled._lists(data, KEYS, ratio)
    named = [line for line in Path(yaml.safe_load(described.read_text())["train"]).read_text().split("\n") if line]
    assert counts == {"labelled": 5, "unlabeled": 45, "all": 50, "batches": 7}
    assert len(named) == 7 * labelled and len(set(named)) == 5
    assert not set(named) & set(rest.read_text().split("\n")) and len(rest.read_text().split()) == 45
    assert read_split(described, "val").images == read_split(data, "val").images


def test_each_arm_is_told_what_sets_it_apart(data: Path) -> None:
    def words(arm: str) -> dict[str, Any]:
        return dict(word.split("=", 1) for word in unlabeled._words(arm, KEYS, data, Path("t.pt")))

    assert words("all")["distill"] == words("few")["distill"] == "none"
    assert words("all")["data"] == str(data) and words("few")["data"] == words("few_distilled")["data"] != str(data)
    assert "unlabeled" not in words("few_distilled") and words("few_distilled")["teacher"] == "t.pt"
    assert words("unlabeled")["unlabeled"].endswith("rest.txt") and words("unlabeled")["data"].endswith("few4.yaml")
    more = words("unlabeled+unlabeled_ratio=.75+pseudo_labels=.6")
    assert more["data"].endswith("few2.yaml") and more["unlabeled_ratio"] == ".75" and more["pseudo_labels"] == ".6"


def test_the_gap_is_from_the_few_to_all() -> None:
    mean = {"few": {"val": 0.1}, "unlabeled": {"val": 0.16}, "all": {"val": 0.2}}
    assert unlabeled._recovered(mean, "unlabeled", "val") == pytest.approx(0.6)
    (bar,) = unlabeled._bars(mean, ["val"])
    assert bar.holds and bar.limit == 0.5
    assert not unlabeled._bars({**mean, "unlabeled": {"val": 0.149}}, ["val"])[0].holds
    assert unlabeled._bars({**mean, "all": {"val": 0.1}}, ["val"]) == [], "no gap, so nothing to recover"
