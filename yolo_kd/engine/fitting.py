"""Distillers that learn from the teacher before the first step, and what they learnt last time.

A quality predictor is fitted once per teacher and data: with a large teacher on a CPU that takes minutes, so the result
is kept in the cache folder under the hash of everything that it depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_kd.cfg.atomic import write_bytes
from yolo_kd.cfg.home import HOME, cache_home
from yolo_kd.distillers.base import HeadOutput, Targets
from yolo_kd.engine import ultra
from yolo_kd.engine.ir_cache import key_digest
from yolo_kd.engine.openvino_engine import images_digest
from yolo_kd.engine.samples import sample_batches, sample_pictures
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import Method
from yolo_kd.errors import YoloKDError

MIN_CORRELATION = 0.1  # of predicted quality and IoU, below which a quality predictor says nothing
FIT_BATCHES = 16  # batches of teacher outputs that a distiller is fitted on
FIT_VERSION = 2  # raise it when a fit of the same inputs would give something else
FOLDER = "fits"


def fit(trainer: Any, teacher: Teacher, methods: list[Method]) -> None:
    """Fit every distiller that needs it, or take over what was fitted for the same teacher and data."""
    for method in methods:
        if not method.distiller.needs_fit:
            continue
        path = _path(trainer, teacher, method)
        found = _stored(path, method, trainer)
        if found is None:
            found = method.distiller.fit(_taught(trainer, teacher, f"{method.name} fits on teacher"))
            _store(path, method, found, trainer)
        trainer.log(f"{method.name} fitted: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
        if found.get("correlation", 1.0) < MIN_CORRELATION:
            trainer.log(
                f"WARNING {method.name}: the shape of this teacher's boxes hardly says how good they are (correlation "
                f"{found['correlation']:.2f}); consider leaving it out: {method.name}.{method.terms[0].name}=none"
            )


def _taught(trainer: Any, teacher: Teacher, label: str) -> Iterator[tuple[HeadOutput, Targets]]:
    """The teacher's outputs with labels, batch by batch: all at once would be gigabytes."""
    batches = sample_batches(trainer, FIT_BATCHES, sample_pictures(trainer, labelled=True))
    for batch in ultra.TQDM(batches, desc=f"{label:>22}", total=FIT_BATCHES):
        targets = Targets(batch["bboxes"], batch["cls"].reshape(-1).long(), batch["batch_idx"].long())
        yield teacher(batch["img"]), targets


def _path(trainer: Any, teacher: Teacher, method: Method) -> Path:
    pictures = sample_pictures(trainer, labelled=True)
    data, distiller = labels_digest(pictures.labels), method.distiller
    first = next(sample_batches(trainer, 1, pictures))  # tells how pictures are augmented
    key = {
        "version": FIT_VERSION,
        "teacher": teacher.sha256,
        "engine": teacher.engine_name,
        "strides": list(teacher.strides),
        "method": method.name,
        "settings": {k: v for k, v in trainer.kd.recipe.methods[method.name].items() if k not in distiller.terms},
        "seed": trainer.args.seed,
        "classes": [distiller.student_classes.tolist(), distiller.teacher_classes.tolist()],
        "images": images_digest(first["img"].cpu()),
        "labels": images_digest(torch.cat((first["cls"].float().cpu(), first["bboxes"].cpu()), 1)),
        "data": data,
    }
    return cache_home() / FOLDER / f"{teacher.sha256[:16]}-{method.name}-{key_digest(key)}.pt"


def labels_digest(labels: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the labels and picture sizes of a whole data set, because mosaics may draw on any of its pictures.

    Args:
        labels: As Ultralytics keeps them: `im_file`, `shape`, `cls` (N, 1), `bboxes` (N, 4) of each picture.
    """
    digest = hashlib.sha256()
    for label in labels:
        boxes = np.concatenate((label["cls"], label["bboxes"]), 1).astype(np.float32)
        digest.update(f"{Path(label['im_file']).stat().st_size} {label['shape']} {len(boxes)};".encode())
        digest.update(boxes.tobytes())
    return digest.hexdigest()


def _stored(path: Path, method: Method, trainer: Any) -> dict[str, float] | None:
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location=trainer.device, weights_only=True)
        method.distiller.load_fit_state(stored["state"])
        return dict(stored["found"])
    except Exception as error:  # torch raises many types for a damaged archive
        trainer.log(f"{method.name}: {path.name} in the cache is damaged ({type(error).__name__}); fitting again")
        return None


def _store(path: Path, method: Method, found: dict[str, float], trainer: Any) -> None:
    if ultra.RANK not in {-1, 0}:
        return
    content = BytesIO()  # torch itself raises no OSError where a disk is full
    torch.save({"state": method.distiller.fit_state(), "found": found}, content)
    try:
        write_bytes(path, content.getvalue(), HOME, shared=True)
    except YoloKDError as error:
        trainer.log(f"{method.name}: {error}; it is fitted again next time")
