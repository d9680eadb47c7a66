"""How long `yolo-kd demo` takes on this machine, and how many epochs fit into twelve minutes.

A step of the teacher's training is timed at the start. The parts of the demo were timed once on a machine with a known
step; here they take as many times longer as the step does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from yolo_kd.deploy.machine import cores
from yolo_kd.engine import ultra
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.teacher import half_precision

TEACHER, IMAGES, VAL_IMAGES, IMGSZ, BATCH = "yolov8s.yaml", 448, 120, 256, 16
TEACHER_EPOCHS, EPOCHS = 13, 12
LIMIT = 11.5  # minutes, of the twelve that the demo may take
LEAST_EPOCHS = 6  # below, the teacher has learnt too little to teach
SIZES = ("images", "imgsz", "teacher_epochs", "epochs")
# Measured with the sizes above on two cores of an AMD EPYC (family 25, AVX512-BF16), where a step took STEP seconds.
STEP = 0.74
SET_UP = 0.8  # minutes: choice of the teacher's engine, fit of lqe
MINUTES = {
    "render scenes": 0.5, "teacher": 7.7, "plain student": 3.4, "distilled student": 4.7, "table": 0.1, "INT8": 0.9,
}  # fmt: skip


@dataclass
class Progress:
    """Says which part runs, and how long the rest may take.

    Args:
        minutes: Expected of each part.
    """

    minutes: dict[str, float]

    def __post_init__(self) -> None:
        self.start, self.done = time.monotonic(), 0.0

    def begin(self, part: str) -> None:
        """Announce a part."""
        spent, whole = (time.monotonic() - self.start) / 60, sum(self.minutes.values())
        left = whole - self.done
        if self.done > 0.1 * whole:  # rendering alone, which may have been done before, says little about this machine
            left *= spent / self.done
        number = list(self.minutes).index(part) + 1
        ultra.LOGGER.info(
            f"\nyolo-kd demo: part {number} of {len(self.minutes)}: {part} ({spent:.1f} min so far, about {left:.0f} min left)"
        )

    def end(self, part: str) -> None:
        """Note that a part is done."""
        self.done += self.minutes[part]


def seconds_per_step() -> float:
    """Shortest of three training steps (forward, backward) of the demo's own teacher, in the precision that it trains in."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(cores())  # as the trainer will
    dtype = half_precision(device)
    with preserved_rng(0):
        model = ultra.DetectionModel(TEACHER, verbose=False).to(device, memory_format=torch.channels_last).train()
        images = torch.rand(BATCH, 3, IMGSZ, IMGSZ, device=device).contiguous(memory_format=torch.channels_last)
    spent = []
    for _ in range(4):  # the first is a warm-up
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            outputs = model(images)
        sum(outputs[name].float().mean() for name in ("boxes", "scores")).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def expected_minutes(keys: Mapping[str, Any], step: float) -> dict[str, float]:
    """What each part takes.

    Args:
        keys: `images`, `imgsz`, `teacher_epochs` and `epochs`.
        step: Of `seconds_per_step`.
    """
    pace = step / STEP
    pixels = (keys["images"] + VAL_IMAGES) / (IMAGES + VAL_IMAGES) * (keys["imgsz"] / IMGSZ) ** 2
    teacher, student = pixels * keys["teacher_epochs"] / TEACHER_EPOCHS, pixels * keys["epochs"] / EPOCHS
    sizes = {"render scenes": pixels, "teacher": teacher, "plain student": student, "distilled student": student}
    minutes = {part: pace * sizes.get(part, 1.0) * of_part for part, of_part in MINUTES.items()}
    minutes["distilled student"] += pace * SET_UP
    return minutes


def fitted(keys: Mapping[str, Any], given: Mapping[str, Any], step: float) -> dict[str, Any]:
    """The keys with as many epochs as end in time, unless one of the sizes is the user's choice; says so where that is fewer.

    Args:
        keys: All of the demo's.
        given: Those that the user gave.
        step: Of `seconds_per_step`.
    """
    whole = sum(expected_minutes(keys, step).values())
    if whole <= LIMIT or given.keys() & set(SIZES):
        return dict(keys)
    for epochs in range(keys["epochs"] - 1, LEAST_EPOCHS - 1, -1):
        shorter = {**keys, "epochs": epochs, "teacher_epochs": epochs}
        if sum(expected_minutes(shorter, step).values()) <= LIMIT:
            break
    ultra.LOGGER.info(
        f"yolo-kd demo: a step of {TEACHER} takes {step:.2f} s here, and the whole demo would take about {whole:.0f} min: "
        f"{epochs} epochs for each net (epochs={keys['epochs']} teacher_epochs={keys['teacher_epochs']} trains as long as elsewhere)"
    )
    return shorter
