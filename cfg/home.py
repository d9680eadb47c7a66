"""Where yolo-kd keeps what it can make again: rendered scenes, compiled teachers."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """$YOLO_KD_HOME, or ~/.cache/yolo-kd."""
    home = os.environ.get("YOLO_KD_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "yolo-kd"
