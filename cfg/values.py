"""Reading values as people mean them: YAML takes `1e-3` for text and `on` for True; we try numbers first."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

from yolo_kd.errors import MisuseError

PATHS = frozenset({
    "artifact", "beside", "bundle", "calibration", "cfg", "data", "distill", "distill_model", "evaluation", "groups", "model",
    "name", "out", "parent", "pretrained", "project", "recipe", "require_signature", "resume", "run", "save_dir", "sign",
    "source", "student", "teacher", "tracker", "unlabeled",
})  # fmt: skip
NUMBERED = frozenset({"distill", "pretrained", "resume", "source"})  # of which 0 or 1 mean a switch, or a camera
NAMES = frozenset({"name", "project"})  # which Ultralytics takes as they are, a number or a word alike
_WORDS: dict[str, Any] = {"none": None, "null": None, "true": True, "false": False}


def read_value(text: Any) -> Any:
    """The value that a person means by `text`; anything but a string is returned as it is.

    >>> [read_value(t) for t in ("1e-3", ".2", "8", "True", "none", "on", "[1, 2]", "auto:0.5")]
    [0.001, 0.2, 8, True, None, 'on', [1, 2], 'auto:0.5']
    """
    if not isinstance(text, str):
        return text
    word = text.strip()
    for kind in (int, float) if "_" not in word else ():  # 2026_11_24 is a name to anyone but Python
        try:
            return kind(word)
        except ValueError:
            continue
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        value = ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
    return word if "_" in word and isinstance(value, int | float | complex) else value


def read_key(key: str, text: Any) -> Any:
    """The value that a person means by `key=text`; of a path it is the text itself, or a folder 007 would become 7.

    True, false and none stay what they are, and so do a list of paths, the number of a camera and 0 for false.

    >>> read_key("out", "007"), read_key("epochs", "007"), read_key("resume", "true"), read_key("source", "0")
    ('007', 7, True, 0)
    """
    value = read_value(text)
    if key not in PATHS or not isinstance(text, str):
        return value
    if key in NAMES:
        return None if text.lower() == "none" else text
    number = key in NUMBERED and type(value) is int and str(value) == text.strip()
    listed = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return value if value is None or isinstance(value, bool | str) or listed or number else text.strip()


def shown(value: Any) -> str:
    """A value as a message quotes it: what a person can have written as it is, of anything else its type.

    >>> shown("a.pt"), shown(True), shown(object())
    ('a.pt', 'True', 'an object of type object')
    """
    written = isinstance(value, str | int | float | list | tuple | dict | Path | None)
    return str(value) if written else f"an object of type {type(value).__name__}"


def like_default(key: str, value: Any, default: Any) -> Any:
    """The value as the type of its default.

    Raises:
        MisuseError: It is of another, or no finite number.

    >>> like_default("csgr.tau", 1, 0.1), like_default("plots", 0, True)
    (1.0, False)
    """
    kind = type(default)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is bool and value in (0, 1):
        return bool(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
        raise MisuseError(f"{key}={value}: expected {names[kind]}, e.g. {key}={default}")
    return value


def read_size(key: str, value: Any) -> tuple[int, int]:
    """Height and width from a side or a pair.

    Raises:
        MisuseError: It is neither.

    >>> read_size("imgsz", 640), read_size("imgsz", "384,640"), read_size("imgsz", [384, 640])
    ((640, 640), (384, 640), (384, 640))
    """
    found = read_value(value)
    sides = list(found) if isinstance(found, list | tuple) else [found, found]
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise MisuseError(f"{key}={value}: expected a side or height,width in pixels, e.g. {key}=640 or {key}=384,640")
    return sides[0], sides[1]


def read_paths(key: str, value: Any) -> list[str]:
    """Paths from one path or several: a list, or names with commas between them where no file has that whole name.

    Raises:
        MisuseError: It is neither.

    >>> read_paths("unlabeled", "frames, flight.mp4"), read_paths("unlabeled", ["a, b.txt"])
    (['frames', 'flight.mp4'], ['a, b.txt'])
    """
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        several = "," in value and not Path(value).exists()
        value = [word.strip(" \"'") for word in value.strip("[]() ").split(",")] if several else [value]
    if not isinstance(value, list | tuple) or not value or not all(isinstance(v, str | Path) and str(v) for v in value):
        raise MisuseError(f"{key}={value}: expected a path, or several with commas between them, e.g. {key}=a,b")
    return [str(path) for path in value]
