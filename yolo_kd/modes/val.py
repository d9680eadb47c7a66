"""`yolo-kd val`: handed over to Ultralytics."""

from __future__ import annotations

from typing import Any

from yolo_kd.api import hand_over, known_keys


def main(settings: dict[str, Any]) -> int:
    """Validate; returns the exit code."""
    return hand_over("val", settings)


def defaults() -> dict[str, Any]:
    """Every key with its default."""
    return known_keys("val")


def help_text() -> str:
    """Where the keys are described."""
    return (
        "usage: yolo-kd val model=<.pt> data=<.yaml> [key=value ...]\n\nUltralytics' own mode, with its keys: yolo cfg"
    )
