"""Where yolo-kd keeps what it can make again: rendered scenes, compiled teachers."""

from __future__ import annotations

import os
from pathlib import Path

HOME = "YOLO_KD_HOME"


def cache_home() -> Path:
    """$YOLO_KD_HOME, or ~/.cache/yolo-kd."""
    home = os.environ.get(HOME)
    return Path(home).expanduser() if home else Path.home() / ".cache" / "yolo-kd"
