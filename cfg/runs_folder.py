"""Where Ultralytics puts its runs, which need not be below the folder that one stands in.

What it says of itself is read from its settings, so that a device without it, and a mode that has no use for it, need not
load it.
"""

from __future__ import annotations

import os
from pathlib import Path

from yolo_kd.cfg.documents import parse_json

_SETTINGS = Path("Ultralytics") / "settings.json"


def elsewhere(missing: str | Path) -> str:
    """Of a path below runs/ that is not here: ` here; there is one at /abs/runs/...` if it is in Ultralytics' runs folder.

    An empty text otherwise; for messages, behind 'no such file'.
    """
    path = Path(missing)
    if path.parts[:1] != ("runs",) or path.exists():
        return ""
    runs = _runs_folder()
    found = runs and runs.joinpath(*path.parts[1:])
    return f" here; there is one at {found}" if found and found.exists() else ""


def _runs_folder() -> Path | None:
    """The absolute `runs_dir` of Ultralytics' settings; None if there is none, or it cannot be read."""
    own, home = os.environ.get("YOLO_CONFIG_DIR"), Path.home()
    linux = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    mac, windows = home / "Library" / "Application Support", home / "AppData" / "Roaming"
    for folder in [Path(own).expanduser()] if own else [linux, mac, windows]:
        try:
            found = parse_json((folder / _SETTINGS).read_bytes())
        except (OSError, ValueError):  # none of this kind, or one that Ultralytics will make anew
            continue
        named = found.get("runs_dir") if isinstance(found, dict) else None
        return Path(named) if isinstance(named, str) and Path(named).is_absolute() else None
    return None
