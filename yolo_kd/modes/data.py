"""`yolo-kd data ACTION`: is a data set what it says, new parts without a scene on both sides, other people's formats."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from yolo_kd.errors import MisuseError, did_you_mean

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
    return module.main(settled(keys, module.DEFAULTS, action))


def settled(keys: Mapping[str, Any], defaults: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The keys of an action with those left out at their defaults.

    Raises:
        MisuseError: An unknown key, or a value that is not of the default's type.
    """
    for key, value in keys.items():
        if key not in defaults:
            hint = did_you_mean(key, defaults)
            raise MisuseError(f"{key}={value}: unknown key of data {action}{hint}; see yolo-kd data --help")
        wanted = defaults[key]
        if isinstance(wanted, bool) and not isinstance(value, bool):
            raise MisuseError(f"{key}={value}: expected true or false")
        if type(wanted) is int and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise MisuseError(f"{key}={value}: expected a whole number from 0 on, e.g. {key}={wanted}")
        if isinstance(wanted, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise MisuseError(f"{key}={value}: expected a number, e.g. {key}={wanted:g}")
    return {**defaults, **keys}


def help_text() -> str:
    """The keys of every action."""
    return "\n\n".join(import_module(module).help_text() for module in ACTIONS.values())
