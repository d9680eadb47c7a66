"""pseudo_labels=: the teacher's sure boxes as labels of unlabeled pictures, and no label where it is not sure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from yolo_kd import DistillationTrainer
from yolo_kd.engine import pseudo_labels
from yolo_kd.errors import GateError

KEYS = {"distill": "none", "pseudo_labels": 0.4, "mosaic": 0, "fliplr": 0, "scale": 0, "translate": 0}


@pytest.fixture(scope="module")
def mixed_pool(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training pictures, which the teacher knows, without their labels and as other files; and three of noise."""
    root = tmp_path_factory.mktemp("pool")
    for path in sorted((pictures.parent / "images" / "train").glob("*.png")):
        cv2.imwrite(str(root / f"known{path.stem}.bmp"), cv2.imread(str(path)))
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 60, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"noise{i}.png"), noise)
    return root


class Seen(DistillationTrainer):
    """Keeps what comes out of the loader."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.batches: list[dict[str, Any]] = []

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.batches.append(dict(batch))
        return super().preprocess_batch(batch)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes as centre x, centre y, width, height."""
    (al, ah), (bl, bh) = ((x[:2] - x[2:] / 2, x[:2] + x[2:] / 2) for x in (a, b))
    shared = (np.minimum(ah, bh) - np.maximum(al, bl)).clip(0).prod()
    return float(shared / (a[2:].prod() + b[2:].prod() - shared))


def test_shares_of_a_letterboxed_picture_worked_by_hand():
    """A picture of 200 x 100 px in a net of 64: 64 x 32, 16 px of grey above and below."""
    sample = {"ori_shape": (100, 200), "ratio_pad": ((0.32, 0.32), (0, 16))}
    inside = [16, 24, 48, 32, 0.75, 2]  # x from a quarter to three quarters, y from a quarter to a half
    beyond = [-8, 8, 32, 32, 0.5, 0]  # reaches out at the left and above: cut there
    grey = [0, 0, 64, 15, 0.9, 1]  # in the padding
    found = pseudo_labels._in_shares(np.array([inside, beyond, grey]), sample)
    assert found == [[2, 0.5, 0.375, 0.5, 0.25, 0.75], [0, 0.25, 0.25, 0.5, 0.5, 0.5]]


WHOLE = {
    "version": pseudo_labels.VERSION, "confidence": 0.4, "teacher": "t.pt", "images": 2, "images_with_boxes": 1, "boxes": 1,
    "classes": {"car": 1}, "boxes_of": [[[0, 0.5, 0.5, 0.25, 0.5, 0.9]], []],
}  # fmt: skip


@pytest.mark.parametrize(
    "damaged",
    [
        {"boxes_of": [7, []]},
        {"boxes_of": "xy"},
        {"boxes_of": [[7], []]},
        {"boxes_of": [[[0, 0.5, 0.5, 0.25, 0.5]], []]},
        {"boxes_of": [[[0, 0.5, 0.5, None, 0.5, 0.9]], []]},
        {"boxes_of": [[[3, 0.5, 0.5, 0.25, 0.5, 0.9]], []]},
        {"boxes_of": [[[0.5, 0.5, 0.5, 0.25, 0.5, 0.9]], []]},
        {"boxes_of": [[[0, 1.5, 0.5, 0.25, 0.5, 0.9]], []]},
        {"boxes_of": [[[0, -0.5, 0.5, 0.25, 0.5, 0.9]], []]},
        {"boxes_of": [[[0, float("nan"), 0.5, 0.25, 0.5, 0.9]], []]},
        {"boxes_of": WHOLE["boxes_of"][:1]},
        {"boxes": 0},
        {"classes": ["car"]},
        {"classes": None},
        {"confidence": "0.4"},
        {"version": 0},
        [WHOLE],
        7,
        "[" * 20_000,
    ],
    ids=lambda damaged: str(damaged)[:40],
)
def test_a_damaged_record_is_made_again(monkeypatch, tmp_path, damaged):
    """Of a resumed run; a whole one is taken."""
    record = tmp_path / pseudo_labels.RECORD
    text = {**WHOLE, **damaged} if isinstance(damaged, dict) else damaged
    record.write_text(text if isinstance(text, str) else json.dumps(text))
    fresh = {**WHOLE, "teacher": "again.pt"}
    monkeypatch.setattr(pseudo_labels, "_found", lambda *_: fresh)
    said: list[str] = []
    kd, names = SimpleNamespace(pseudo_labels=0.4), {0: "car", 1: "truck", 2: "person"}
    trainer = SimpleNamespace(save_dir=tmp_path, resume=True, kd=kd, data={"names": names}, log=said.append)
    boxes = pseudo_labels.pseudo_labels(trainer, [Path("0.png"), Path("1.png")], {})
    assert [rows.tolist() for rows in boxes] == [[[0, 0.5, 0.5, 0.25, 0.5]], []]
    assert said[0].startswith("pseudo-labels of again.pt above 0.4: 1 boxes in 1 of 2") and len(said) == 1
    assert json.loads(record.read_text()) == fresh
    record.write_text(json.dumps(WHOLE))
    pseudo_labels.pseudo_labels(trainer, [Path("0.png"), Path("1.png")], {})
    assert said[1].startswith("pseudo-labels of t.pt")


def test_are_where_the_objects_are_and_are_recorded_with_counts(train, learnt, pictures, mixed_pool, lines):
    before = sorted(path.name for path in mixed_pool.iterdir())
    trainer = train(Seen, teacher=str(learnt), unlabeled=str(mixed_pool), epochs=2, force=True, **KEYS)
    record = json.loads((trainer.save_dir / "pseudo_labels.json").read_text())
    files = [Path(path) for path in json.loads((trainer.save_dir / "unlabeled.json").read_text())["images"]]
    assert sorted(path.name for path in mixed_pool.iterdir()) == before
    assert record["images"] == 11 and record["boxes"] == sum(map(len, record["boxes_of"])) == sum(
        record["classes"].values()
    )
    assert record["images_with_boxes"] == sum(map(bool, record["boxes_of"])) and record["teacher"] == learnt.name
    matched, boxes = 0, 0
    for path, rows in zip(files, record["boxes_of"], strict=True):
        assert path.stem.startswith("known") or not rows, "the teacher is sure of something in noise"
        truth = np.zeros((0, 5))
        if rows:
            truth = np.loadtxt(pictures.parent / "labels" / "train" / f"{path.stem[5:]}.txt", ndmin=2)
        for row in np.array(rows).reshape(-1, 6):
            boxes += 1
            matched += any(row[0] == t[0] and iou(row[1:5], t[1:]) > 0.6 for t in truth)
    assert boxes >= 8 and matched >= 0.8 * boxes
    assert any(line.startswith("pseudo-labels of last.pt above 0.4: ") for line in lines)
    assert any(line.endswith("pictures without a pseudo-label are left out, as nothing is distilled") for line in lines)
    shown = {Path(name).name for batch in trainer.batches for name in batch["im_file"][2:]}
    assert shown == {path.name for path, rows in zip(files, record["boxes_of"]) if rows}
    assert all(all(batch["labelled"]) for batch in trainer.batches)
    by_file = {path.name: np.array(rows).reshape(-1, 6) for path, rows in zip(files, record["boxes_of"])}
    for batch in trainer.batches:
        for i, name in list(enumerate(batch["im_file"]))[2:]:
            got = batch["bboxes"][batch["batch_idx"] == i].numpy()
            np.testing.assert_allclose(got, by_file[Path(name).name][:, 1:5], atol=1e-4)


def test_pictures_without_one_still_teach_where_something_is_distilled(train, learnt, mixed_pool):
    keys = {**KEYS, "distill": "pkd", "teacher_engine": "torch", "force": True, "epochs": 2}
    trainer = train(Seen, teacher=str(learnt), unlabeled=str(mixed_pool), **keys)
    flags = {}
    for batch in trainer.batches:
        assert batch["labelled"] == tuple(sorted(batch["labelled"], reverse=True)), "those with labels come first"
        flags.update({Path(name).name: flag for name, flag in zip(batch["im_file"], batch["labelled"])})
        silent = [i for i, flag in enumerate(batch["labelled"]) if not flag]
        assert not set(silent) & set(batch["batch_idx"].tolist())
    assert {name for name, flag in flags.items() if not flag} >= {"noise0.png", "noise1.png", "noise2.png"}
    assert any(flag for name, flag in flags.items() if name.startswith("known"))


def test_are_found_once_and_then_taken_from_the_cache(train, learnt, mixed_pool, monkeypatch):
    calls: list[int] = []
    detect = pseudo_labels._detect
    monkeypatch.setattr(pseudo_labels, "_detect", lambda *a: (calls.append(1), detect(*a))[1])
    keys = {**KEYS, "teacher": str(learnt), "unlabeled": str(mixed_pool), "force": True, "pseudo_labels": 0.41}
    records = []
    for name, sure in (("one", 0.41), ("two", 0.41), ("three", 0.42)):
        trainer = train(**{**keys, "pseudo_labels": sure, "name": name})
        records.append(json.loads((trainer.save_dir / "pseudo_labels.json").read_text()))
    assert len(calls) == 2 and records[0] == records[1] != records[2]


def test_are_all_there_is_to_learn_from_where_nothing_is_labelled(train, learnt, mixed_pool, pictures, tmp_path):
    raw = yaml.safe_load(pictures.read_text())
    del raw["train"]
    data = tmp_path / "without.yaml"
    data.write_text(yaml.safe_dump({**raw, "path": str(pictures.parent)}))
    trainer = train(Seen, data=str(data), teacher=str(learnt), unlabeled=str(mixed_pool), force=True, **KEYS)
    row = next(csv.DictReader(Path(trainer.csv).read_text().splitlines()))
    assert float(row["train/box_loss"]) > 0 and all(len(batch["cls"]) for batch in trainer.batches)


def test_a_teacher_that_knows_nothing_labels_nothing(train, make_checkpoint, mixed_pool):
    teacher = str(make_checkpoint(seed=1))
    with pytest.raises(
        GateError, match="pseudo_labels=0.99: the teacher is that sure in none of 11 pictures; lower it"
    ):
        train(teacher=teacher, unlabeled=str(mixed_pool), **{**KEYS, "pseudo_labels": 0.99})
    with pytest.raises(GateError, match="its mAP50 on the val split is 0.0000, below teacher_floor"):
        train(teacher=teacher, unlabeled=str(mixed_pool), **{**KEYS, "pseudo_labels": 0.05})
