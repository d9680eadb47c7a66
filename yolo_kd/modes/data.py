"""`yolo-kd data ACTION`: is a data set what it says, new parts without a scene on both sides, other people's formats."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from yolo_kd.errors import MisuseError, did_you_mean
from yolo_kd.modes.keys import settled

ACTIONS = {
    "check": "yolo_kd.modes.data_check",
    "split": "yolo_kd.modes.data_split",
    "convert": "yolo_kd.modes.data_convert",
    "sheet": "yolo_kd.modes.data_sheet",
}


def main(settings: dict[str, Any]) -> int:
    """Run an action; returns the exit code."""
    keys = dict(settings)
    action = str(keys.pop("action", ""))
    if action not in ACTIONS:
        which = f"{action}: no such action{did_you_mean(action, ACTIONS)}" if action else "an action is missing"
        raise MisuseError(f"{which}; use one of {', '.join(f'yolo-kd data {name}' for name in ACTIONS)}")
    module = import_module(ACTIONS[action])
    return module.main(settled(keys, module.DEFAULTS, f"data {action}"))


def help_text() -> str:
    """The keys of every action."""
    return "\n\n".join(import_module(module).help_text() for module in ACTIONS.values())
