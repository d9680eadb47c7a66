"""Batches in which only the first pictures have labels: the detection loss sees those, distillation sees all.

An unlabeled picture must not reach the detection loss: it would count as one without objects. Where a method asks for
boxes (masks, regions), the teacher's own confident detections stand in; where there is no detection loss at all to hold a
gradient against, the one that these detections would give is the yardstick, and nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from yolo_kd.distillers.base import Branch, Distiller, HeadOutput, HeadSpec, Targets
from yolo_kd.engine import ultra

FLAGS = "labelled"  # of a batch: for each picture, whether its boxes are labels; all are where it is missing
SURE = 0.25  # Ultralytics' confidence of a detection that is shown
NMS_IOU = 0.7  # Ultralytics' default


def labelled_count(batch: Mapping[str, Any]) -> int:
    """How many pictures of a batch have labels; they come first."""
    return sum(batch[FLAGS]) if FLAGS in batch else len(batch["img"])


def labelled_only(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without the pictures that carry no loss in a step without the teacher; as it is if none would be left."""
    count = labelled_count(batch)
    if not count or count == len(batch["img"]):
        return batch
    of_boxes = {"cls", "bboxes", "batch_idx"}  # unlabeled pictures have none
    return {key: value if key in of_boxes else value[:count] for key, value in batch.items()}


def detection_loss(base: Any, preds: Any, batch: dict[str, Any], count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain criterion on the first `count` pictures, as if there were no others.

    Args:
        base: v8DetectionLoss or E2ELoss.
        preds: Training outputs for all pictures.
        batch: Boxes belong to the first `count` pictures only.
        count: 0 gives a loss of 0 that can still be differentiated.
    """
    if count == len(batch["img"]):
        return base(preds, batch)
    part = ultra.replace_outputs(preds, lambda t: t[:count])
    if count:
        return base(part, batch)
    names = tuple(getattr(base, "one2one", base).loss_names)
    zero = torch.stack([t.sum() for b in ultra.read_outputs(part).branches.values() for t in (b.boxes, b.scores)]).sum()
    return zero.expand(len(names)), dict.fromkeys(names, zero.detach())


def detections(
    output: HeadOutput, spec: HeadSpec, columns: Tensor, confidence: float, first: int = 0
) -> tuple[list[Tensor], tuple[int, int]]:
    """Boxes after NMS of the pictures from `first` on.

    Args:
        output: Raw outputs of any engine.
        spec: The head they come from.
        columns: (nc,) the output's class for each wanted class, -1 for none.
        confidence: Lowest probability.
        first: Index of a picture.

    Returns:
        For each picture (N, 6) x1, y1, x2, y2 in network pixels, confidence, class; height and width of the network's input.
    """
    rows = replace(
        output,
        feats=tuple(f[first:] for f in output.feats),
        branches={name: Branch(b.boxes[first:], b.scores[first:]) for name, b in output.branches.items()},
        towers=(),
    )
    decoded = ultra.decode(rows, spec, columns)
    # without its time limit, which would leave pictures out where a machine is busy
    found = ultra.non_max_suppression(decoded, confidence, NMS_IOU, max_time_img=math.inf)
    height, width = (side * spec.strides[0] for side in output.sizes_hw[0])
    return found, (height, width)


def class_columns(distiller: Distiller) -> Tensor:
    """(nc,) the teacher's class for each class of the student, -1 for none."""
    columns = torch.full((distiller.student.nc,), -1, dtype=torch.long, device=distiller.student_classes.device)
    columns[distiller.student_classes] = distiller.teacher_classes
    return columns


def teacher_targets(output: HeadOutput, spec: HeadSpec, columns: Tensor, first: int = 0) -> Targets:
    """The teacher's confident detections in the pictures from `first` on, in the form of labels."""
    found, (height, width) = detections(output, spec, columns, SURE, first)
    boxes = torch.cat(found)
    low, high = boxes[:, :2], boxes[:, 2:4]
    size = boxes.new_tensor([width, height])
    image = torch.cat([torch.full((len(rows),), first + i, device=boxes.device) for i, rows in enumerate(found)])
    return Targets(torch.cat(((low + high) / 2 / size, (high - low) / size), 1), boxes[:, 5].long(), image.long())


def joined(parts: Sequence[Targets], labelled: int) -> Targets:
    """Targets of unlike origin as one, the first `labelled` pictures with labels."""
    return Targets(
        torch.cat([t.boxes_xywhn for t in parts]),
        torch.cat([t.classes for t in parts]),
        torch.cat([t.image for t in parts]),
        labelled,
    )
