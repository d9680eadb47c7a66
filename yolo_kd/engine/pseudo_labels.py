"""pseudo_labels=: the teacher's confident boxes as labels of unlabeled pictures, found once before the training.

The teacher runs in float32 on whole pictures, as validation shows them, and NMS leaves what counts. A picture in which it
is nowhere that sure gets no label, rather than the label that nothing is there; it stays an unlabeled one. What it
overlooks in the others counts as background: that is the price of labels that nobody drew.

They are kept in the cache folder under the hash of teacher and pictures, and in the run folder with counts, never beside
the pictures.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.documents import misfit, parse_json
from yolo_kd.cfg.home import cache_home
from yolo_kd.data.unlabeled import digest_of
from yolo_kd.distillers.base import ClassMap
from yolo_kd.engine import classes as class_lists
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import require_padding
from yolo_kd.engine.ir_cache import key_digest
from yolo_kd.engine.labelled import detections
from yolo_kd.engine.mixing import UnlabeledDataset
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.teacher import Teacher
from yolo_kd.errors import GateError

RECORD = "pseudo_labels.json"
FOLDER = "pseudo_labels"
VERSION = 1  # raise it when the same inputs would give other boxes
DIGITS = 6  # of a coordinate, as in label files
ROW = 6  # class, box, confidence
KEPT = {
    "version": int, "confidence": float, "teacher": str, "images": int, "images_with_boxes": int, "boxes": int,
    "classes": {"*": int}, "boxes_of": [[[float]]],
}  # fmt: skip


def pseudo_labels(trainer: Any, images: Sequence[Path], settings: Mapping[str, Any]) -> list[np.ndarray]:
    """Class and box (N, 5) in shares of the picture for each picture; read from the run folder if they are there.

    Args:
        trainer: Knows teacher, confidence, classes and image size.
        images: The pictures.
        settings: Of an `UnlabeledDataset`.

    Raises:
        MisuseError: The teacher cannot be used, or shares no class with the data.
        GateError: It is sure of nothing in any picture.
    """
    record = trainer.save_dir / RECORD
    known = trainer.resume or ultra.RANK > 0  # else what lies there is of a run that was here before
    found = _read(record, len(images), len(trainer.data["names"])) if known else None
    if found is None:
        found = _found(trainer, images, settings)
        if ultra.RANK in {-1, 0}:
            write_text(record, json.dumps(found) + "\n", "project")
    trainer.log(_line(found))
    if not found["boxes"]:
        raise GateError(
            f"pseudo_labels={trainer.kd.pseudo_labels:g}: the teacher is that sure in none of {len(images)} pictures; lower it"
        )
    return [np.array([row[:5] for row in rows], np.float32).reshape(-1, 5) for rows in found["boxes_of"]]


def _found(trainer: Any, images: Sequence[Path], settings: Mapping[str, Any]) -> dict[str, Any]:
    """From the cache, or from the teacher; random states stay as they are."""
    kd = trainer.kd
    with preserved_rng(trainer.args.seed):
        teacher = Teacher(kd.teacher, trainer.device, trust=kd.trust)
        require_padding(ultra.head_spec(trainer.model), teacher.full_spec, teacher.path.name)
        shared = shared_classes(trainer, teacher)
        key = {
            "version": VERSION,
            "teacher": teacher.sha256,
            "confidence": kd.pseudo_labels,
            "imgsz": trainer.args.imgsz,
            "channels": trainer.data["channels"],
            "classes": [shared.student.tolist(), shared.teacher.tolist()],
            "images": digest_of(images),
        }
        path = cache_home() / FOLDER / f"{teacher.sha256[:16]}-{key_digest(key)}.json"
        found = _read(path, len(images), len(trainer.data["names"]))
        if found is None:
            boxes = _detect(trainer, teacher, shared, images, settings)
            found = _counted(boxes, kd.pseudo_labels, teacher, trainer.data["names"])
            if ultra.RANK in {-1, 0}:
                write_text(path, json.dumps(found) + "\n", "pseudo_labels", shared=True)
    return found


def shared_classes(trainer: Any, teacher: Teacher) -> ClassMap:
    """Classes of the data that the teacher knows.

    Raises:
        MisuseError: None.
    """
    names = trainer.data["names"]
    shared = class_lists.match(names, teacher.names, trainer.args.classes)
    class_lists.require_shared(names, teacher.names, shared)
    return shared


@torch.no_grad()
def _detect(
    trainer: Any, teacher: Teacher, shared: ClassMap, images: Sequence[Path], settings: Mapping[str, Any]
) -> list[list[list[float]]]:
    """Class, box in shares of the picture, and confidence of every detection in every picture."""
    plain = UnlabeledDataset(images, None, **{**settings, "augment": False, "cache": False})
    columns = torch.full((len(trainer.data["names"]),), -1, dtype=torch.long)
    columns[shared.student] = shared.teacher
    columns = columns.to(trainer.device)
    size = max(int(settings["batch_size"]), 1)
    boxes: list[list[list[float]]] = []
    for start in ultra.TQDM(range(0, len(plain), size), desc=f"{'pseudo-labels':>22}"):
        samples = [plain[i] for i in range(start, min(start + size, len(plain)))]
        img = torch.stack([sample["img"] for sample in samples]).to(trainer.device).float() / 255
        found, _ = detections(
            teacher.net.unflatten(teacher.net(img)), teacher.full_spec, columns, trainer.kd.pseudo_labels
        )
        boxes += [_in_shares(rows.cpu().numpy(), sample) for rows, sample in zip(found, samples, strict=True)]
    return boxes


def _in_shares(rows: np.ndarray, sample: Mapping[str, Any]) -> list[list[float]]:
    """Detections (N, 6) in network pixels as shares of the letterboxed picture, those outside of it left out."""
    (gain_h, gain_w), (left, top) = sample["ratio_pad"]
    height, width = sample["ori_shape"][0] * gain_h, sample["ori_shape"][1] * gain_w
    corners = (rows[:, :4] - np.array([left, top, left, top])) / np.array([width, height, width, height])
    x1, y1, x2, y2 = corners.clip(0, 1).T
    table = np.stack((rows[:, 5], (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, rows[:, 4]), 1)
    return [[int(row[0]), *(round(float(v), DIGITS) for v in row[1:])] for row in table if row[3] > 0 and row[4] > 0]


def _counted(
    boxes: list[list[list[float]]], confidence: float, teacher: Teacher, names: Mapping[int, str]
) -> dict[str, Any]:
    kinds = Counter(names[int(row[0])] for rows in boxes for row in rows)
    return {
        "version": VERSION,
        "confidence": confidence,
        "teacher": teacher.path.name,
        "teacher_sha256": teacher.sha256,
        "images": len(boxes),
        "images_with_boxes": sum(bool(rows) for rows in boxes),
        "boxes": sum(kinds.values()),
        "classes": dict(kinds.most_common()),
        "boxes_of": boxes,
    }


def _read(path: Path, images: int, classes: int) -> dict[str, Any] | None:
    """What was kept for as many pictures and classes; None where it is missing or damaged, and is made again."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        rows = [row for rows in found["boxes_of"] for row in rows]
        whole = (
            not misfit(found, KEPT)
            and None not in [found[name] for name in KEPT]
            and (found["version"], len(found["boxes_of"]), found["boxes"]) == (VERSION, images, len(rows))
            and all(len(row) == ROW and row[0] in range(classes) and 0 <= min(row) <= max(row[1:]) <= 1 for row in rows)
        )
        return found if whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _line(found: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{name} {count}" for name, count in found["classes"].items())
    return (
        f"pseudo-labels of {found['teacher']} above {found['confidence']:g}: {found['boxes']} boxes in "
        f"{found['images_with_boxes']} of {found['images']} pictures{f' ({kinds})' if kinds else ''}"
    )
