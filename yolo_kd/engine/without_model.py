"""A .pt that holds numbers only: no model, and none of the code that a model needs, so it is not for trust to open."""

from __future__ import annotations

from pathlib import Path

import torch


def without_model(path: Path) -> str:
    """What a .pt holds that loads without any code; an empty text where it needs code, which is not run to find out."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of pickle, zipfile or torch: each says only that numbers are not all it holds
        return ""
    return "is what yolo-kd keeps beside a checkpoint" if path.name.endswith(".kd.pt") else "holds weights but no model"
