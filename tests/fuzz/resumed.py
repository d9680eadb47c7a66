"""What a resumed run reads from its folder, by the functions that read it: the training itself would take minutes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from yolo_kd.cfg.settings import resolve

from tests.evidence.sample_run import PREFLIGHT
from yolo_kd.engine import preflight, setup, unlabeled
from yolo_kd.engine.history import cut_history
from yolo_kd.engine.mixing import Stream
from yolo_kd.engine.pseudo_labels import RECORD, VERSION, pseudo_labels

RUN = Path("run")
NAMES = {0: "car", 1: "truck", 2: "person"}


def write_records(run: Path, images: list[str]) -> None:
    """What a run with unlabeled pictures and pseudo-labels leaves in its folder."""
    found = {"sources": ["images/train"], "videos": ["gone.mp4"], "images": images}
    (run / unlabeled.RECORD).write_text(json.dumps(found))
    boxes = [[[i % 3, 0.5, 0.25, 0.125, 0.5, 0.75]] * i for i in range(len(images))]
    count = sum(map(len, boxes))
    record = {
        "version": VERSION, "confidence": 0.4, "teacher": "teacher.pt", "teacher_sha256": PREFLIGHT["teacher_sha256"],
        "images": len(images), "images_with_boxes": len(images) - 1, "boxes": count, "classes": {"car": count}, "boxes_of": boxes,
    }  # fmt: skip
    (run / RECORD).write_text(json.dumps(record))


def read_preflight() -> None:
    """The report on the teacher, and the engine that it ran on."""
    report = preflight.load_report(RUN, PREFLIGHT["teacher_sha256"])
    if report is not None:
        setup._chosen_before(_trainer(), report)
        preflight.save_report(RUN, report)


def read_unlabeled() -> None:
    """The list of unlabeled pictures, and the first batch of them."""
    trainer = _trainer()
    unlabeled.collect(trainer)
    images = unlabeled._recorded(RUN / unlabeled.RECORD)["images"]
    Stream(len(images), 0).take(2)


def read_pseudo_labels() -> None:
    """The boxes of these, which would be found again where they are damaged."""
    images = [Path(name) for name in json.loads((RUN / unlabeled.RECORD).read_text())["images"]]
    boxes = pseudo_labels(_trainer(), images, {})
    unlabeled.Unlabeled(tuple(images), tuple(boxes)).parts()


def read_results() -> None:
    """The epochs, of which the last one is trained again."""
    cut_history(RUN / "results.csv", 2)


def _trainer() -> Any:
    kd = resolve({"teacher": "teacher.pt", "unlabeled": "images/train", "pseudo_labels": 0.4})
    device = torch.device("cpu")
    return SimpleNamespace(save_dir=RUN, resume=True, kd=kd, data={"names": NAMES}, device=device, log=print)
