"""What student and teacher see in one picture: boxes, where the teacher attends, where the neck is busy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from yolo_kd.deploy.decode import decode
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.nms import nms
from yolo_kd.distillers.base import ONE2MANY, HeadOutput, HeadSpec
from yolo_kd.distillers.csgr import score_attention
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import TeacherNet, cut_output

CONFIDENCE, IOU, MOST = 0.25, 0.7, 300  # the runtime's defaults


@dataclass(frozen=True)
class Level:
    """One neck level; maps (H, W) in cells.

    Args:
        name: Such as "P3" for a stride of 8.
        attention: Where the teacher sees a class, in [0, 1].
        teacher: Energy of the teacher's neck map, 1 on average.
        student: The same of the student's.
    """

    name: str
    attention: np.ndarray
    teacher: np.ndarray
    student: np.ndarray


@dataclass(frozen=True)
class Maps:
    """One picture.

    Args:
        name: Its file.
        frame: (H, W, 3) uint8 in BGR, as the nets saw it.
        labels: Its labels, with a confidence of 1.
        teacher: The teacher's boxes, of classes that the student has.
        student: The student's boxes.
        levels: Finest first.
    """

    name: str
    frame: np.ndarray
    labels: Detections
    teacher: Detections
    student: Detections
    levels: tuple[Level, ...]


def feature_energy(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Where a map is busy: the mean over channels of the squared values, each channel at zero mean and unit variance.

    Args:
        x: (C, H, W).
        eps: Added to the variance; a channel that is constant counts nothing.

    Returns:
        (H, W), 1 on average over cells and channels that vary.
    """
    centred = x.float() - x.float().mean((1, 2), keepdim=True)
    return (centred.square() / (centred.square().mean((1, 2), keepdim=True) + eps)).mean(0)


def class_attention(scores: Tensor, size_hw: tuple[int, int], power: float, presence: float) -> Tensor:
    """The category semantic attention of csgr in one map: of all classes present, the one that is strongest in a cell.

    Args:
        scores: (nc, H * W) class logits of the teacher.
        size_hw: H and W.
        power: As in `score_attention`.
        presence: As in `score_attention`.

    Returns:
        (H, W) in [0, 1]: the attention of each class as a share of its highest, times how sure the teacher is of it.
    """
    attention, present = score_attention(scores[None].float(), power, presence)
    share = attention[0] / attention[0].amax(1, keepdim=True).clamp_min(1e-12)
    return (share * present[0][:, None]).amax(0).view(size_hw)


@torch.no_grad()
def look(
    student: TeacherNet,
    teacher: TeacherNet,
    item: Mapping[str, Tensor],
    names: Mapping[int, str],
    columns: Tensor,
    strides: tuple[int, ...],
    attention: tuple[float, float] = (2.0, 0.05),
) -> Maps:
    """What both see in one item of a validation set.

    Args:
        student: The student as a frozen net.
        teacher: The teacher.
        item: "img" (3, H, W) uint8 in RGB, "cls" (N, 1), "bboxes" (N, 4) as shares, "im_file".
        names: Class id to name of the student.
        columns: (nc,) the teacher's class for each of the student's, -1 for none.
        strides: Levels that both have.
        attention: Power and presence of `score_attention`.
    """
    device = next(student.parameters()).device
    image = item["img"][None].to(device).float() / 255
    outputs = [net.unflatten([t.float() for t in net(image)]) for net in (student, teacher)]
    own = torch.arange(len(names), device=device)
    found = [
        _boxes(output, net.spec, which.to(device), names, (image.shape[2], image.shape[3]))
        for output, net, which in zip(outputs, (student, teacher), (own, columns), strict=True)
    ]
    mine, theirs = (
        cut_output(output, net.spec, strides) for output, net in zip(outputs, (student, teacher), strict=True)
    )
    sizes = theirs.sizes_hw
    scores = theirs.branch(ONE2MANY).scores[0].split([h * w for h, w in sizes], dim=1)
    levels = tuple(
        Level(
            f"P{round(math.log2(stride))}",
            class_attention(scores[i], sizes[i], *attention).cpu().numpy(),
            feature_energy(theirs.feats[i][0]).cpu().numpy(),
            feature_energy(mine.feats[i][0]).cpu().numpy(),
        )
        for i, stride in enumerate(strides)
    )
    frame = np.ascontiguousarray(item["img"].permute(1, 2, 0).cpu().numpy()[..., ::-1])
    return Maps(str(item["im_file"]), frame, _labels(item, names), found[1], found[0], levels)


def _boxes(
    output: HeadOutput, spec: HeadSpec, columns: Tensor, names: Mapping[int, str], size_hw: tuple[int, int]
) -> Detections:
    raw = ultra.decode(output, spec, columns)[0].cpu().numpy()
    boxes, scores, kinds = decode(raw, len(names), CONFIDENCE, False)
    kept = nms(boxes, scores, kinds, IOU, MOST)
    limit = np.array([size_hw[1], size_hw[0]] * 2, np.float32)
    return Detections(boxes[kept].clip(0, limit), scores[kept], kinds[kept], names, size_hw)


def _labels(item: Mapping[str, Tensor], names: Mapping[int, str]) -> Detections:
    height, width = item["img"].shape[1:]
    shares = item["bboxes"].reshape(-1, 4).cpu().numpy()
    corners = np.concatenate((shares[:, :2] - shares[:, 2:] / 2, shares[:, :2] + shares[:, 2:] / 2), 1)
    boxes = (corners * np.array([width, height, width, height])).astype(np.float32)
    kinds = item["cls"].reshape(-1).long().cpu().numpy()
    return Detections(boxes, np.ones(len(boxes), np.float32), kinds, names, (int(height), int(width)))
