"""The keys of a mode: known ones only, each of the type that its default has."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from yolo_kd.errors import MisuseError, did_you_mean


def settled(
    keys: Mapping[str, Any],
    defaults: Mapping[str, Any],
    mode: str,
    least: Mapping[str, int] | None = None,
    free: Collection[str] = (),
) -> dict[str, Any]:
    """The keys of a mode with those left out at their defaults; where the default is None anything goes.

    Args:
        keys: As given.
        defaults: Every key that there is.
        mode: As people type it, such as "gate" or "data check".
        least: Smallest whole number that a key takes, where that is not 0.
        free: Keys that take values of more than one type.

    Raises:
        MisuseError: An unknown key, or a value that is not of the default's type.
    """
    for key, value in keys.items():
        if key not in defaults:
            hint = did_you_mean(key, defaults)
            raise MisuseError(f"{key}={value}: unknown key{hint}; see yolo-kd {mode.split()[0]} --help")
        if key in free:
            continue
        wanted, number = defaults[key], isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(wanted, bool):
            if not isinstance(value, bool):
                raise MisuseError(f"{key}={value}: expected true or false")
        elif isinstance(wanted, int):
            low = (least or {}).get(key, 0)
            if not (number and isinstance(value, int) and value >= low):
                raise MisuseError(f"{key}={value}: expected a whole number from {low} on, e.g. {key}={wanted}")
        elif isinstance(wanted, float) and not (number and 0 <= value < math.inf):
            raise MisuseError(f"{key}={value}: expected a number of 0 or more, e.g. {key}={wanted:g}")
        elif isinstance(wanted, str) and not isinstance(value, str | int | float):
            raise MisuseError(f"{key}={value}: expected a word, e.g. {key}={wanted}")
    return {**defaults, **keys}
