"""mAP of anything that gives raw head outputs, by Ultralytics' own validator, on the run's val split.

The teacher's classes are looked up by name, so a COCO teacher is measured on the shared classes of any data set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolo_kd.distillers.base import ClassMap, HeadOutput, HeadSpec
from yolo_kd.engine import ultra


def evaluate(
    trainer: Any, predict: Callable[[Tensor], HeadOutput], spec: HeadSpec, classes: ClassMap, label: str
) -> dict[str, float] | None:
    """mAP50 and mAP50-95 on the val split, averaged over the shared classes that occur there.

    Args:
        trainer: The trainer whose data, loader and validator settings count.
        predict: From images (B, C, H, W) in [0, 1] to raw outputs.
        spec: The head that they come from.
        classes: Class of the data set and class of the outputs; others are neither predicted nor counted.
        label: What the progress bar calls it.

    Returns:
        {"mAP50", "mAP50-95"}, 0 if no shared class occurs; None on ranks other than the first, which gathers the others' results.
    """
    validator = trainer.get_validator()
    validator.device, validator.data = trainer.device, trainer.data
    validator.args.plots = validator.args.save_json = validator.args.save_txt = False
    validator.args.quantize = None
    validator.init_metrics(_Names(trainer.data["names"]))
    nc = len(trainer.data["names"])
    columns = torch.full((nc,), -1, dtype=torch.long, device=trainer.device)
    columns[classes.student.to(trainer.device)] = classes.teacher.to(trainer.device)
    with torch.inference_mode():
        for batch in ultra.TQDM(trainer.test_loader, desc=f"{label:>22}", total=len(trainer.test_loader)):
            batch = validator.preprocess(batch)
            decoded = ultra.decode(predict(batch["img"]), spec, columns)
            validator.update_metrics(validator.postprocess(decoded), batch)
    validator.gather_stats()
    if ultra.RANK not in {-1, 0}:
        return None
    validator.get_stats()
    box = validator.metrics.box
    counted = [i for i, c in enumerate(box.ap_class_index) if int(c) in set(classes.student.tolist())]
    if not counted:
        return {"mAP50": 0.0, "mAP50-95": 0.0}
    return {"mAP50": float(box.ap50[counted].mean()), "mAP50-95": float(box.ap[counted].mean())}


class _Names:
    """What the validator wants to know of a model: its class names, and that NMS has not been done yet."""

    end2end = False

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names
