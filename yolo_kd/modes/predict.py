"""`yolo-kd predict`: handed over to Ultralytics."""

from __future__ import annotations

from typing import Any

from yolo_kd.api import hand_over, known_keys


def main(settings: dict[str, Any]) -> int:
    """Predict; returns the exit code."""
    return hand_over("predict", settings)


def defaults() -> dict[str, Any]:
    """Every key with its default."""
    return known_keys("predict")


def help_text() -> str:
    """Where the keys are described."""
    return "usage: yolo-kd predict model=<.pt> source=<image, folder or video> [key=value ...]\n\nUltralytics' own mode, with its keys: yolo cfg"
