"""YAML and JSON that somebody else wrote, read so that no text of theirs can do more than be wrong.

A few lines of YAML can stand for thousands of millions of values by aliases of aliases, or for one that contains itself;
either can be nested deeper than a parser can follow, or hold half a character that no file can be written with.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from yolo_kd.errors import MisuseError

DIGITS = 300  # of a whole number; a float holds no more, and raises when it is asked to
LARGEST = 1_000_000  # values that a text stands for once its aliases are followed


def parse_yaml(text: str) -> Any:
    """The values that a YAML text stands for.

    Raises:
        ValueError: No YAML, or one that cannot be followed; the message is one line.

    >>> parse_yaml("a: [1, x]")
    {'a': [1, 'x']}
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _size(node, {}, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


def read_mapping(key: str, path: Path) -> dict[str, Any]:
    """The 'key: value' lines of a YAML.

    Args:
        key: The user's key that led to it, for messages.
        path: The file.

    Raises:
        MisuseError: Not readable, cannot be followed, or something else.
    """
    try:
        found = parse_yaml(path.read_text(encoding="utf-8", errors="ignore"))  # as Ultralytics reads it
    except (OSError, ValueError) as error:
        raise MisuseError(f"{key}={path}: not readable as YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(found, dict):
        raise MisuseError(f"{key}={path}: expected 'key: value' lines")
    return found


def parse_json(text: str | bytes) -> Any:
    """The values that a JSON text stands for.

    Raises:
        ValueError: No JSON, or one that cannot be followed; the message is one line.

    >>> parse_json('{"a": [1, "x"]}')
    {'a': [1, 'x']}
    """
    try:
        found = json.loads(text, parse_int=_whole)
        if b"\\ud" in (text.encode() if isinstance(text, str) else text).lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a character is an error now, not when we write it
        return found
    except RecursionError:
        raise ValueError("nested too deep") from None


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """The dotted name of the first value that is not of its shape, or an empty text; None fits anywhere.

    Args:
        value: What was read.
        shape: A type (float: any finite number), the shapes of values by name ("*": of all others), or a list of the one
            shape that all entries have. Names that are missing are no misfit.
        where: The name of the value itself.

    >>> misfit({"maps": {"teacher": 7}}, {"maps": {"*": dict}})
    'maps.teacher'
    """
    if value is None or shape is object:
        return ""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        parts = [(name, part, shape.get(name, shape.get("*", object))) for name, part in value.items()]
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return where
        parts = [(i, part, shape[0]) for i, part in enumerate(value)]
    elif shape is float:
        return "" if isinstance(value, int | float) and math.isfinite(value) else where
    else:
        return "" if isinstance(value, shape) else where
    found = (misfit(part, wanted, f"{where}.{name}".lstrip(".")) for name, part, wanted in parts)
    return next(filter(None, found), "")


def _size(node: yaml.Node, known: dict[int, int], inside: set[int]) -> int:
    """Values below a node, counted as often as aliases lead to them.

    Raises:
        ValueError: It contains itself, stands for too many, or holds half a character.
    """
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
            raise ValueError(f"a number of {len(node.value)} digits")
        return 1
    name = id(node)
    if name in inside:
        raise ValueError("an alias that contains itself")
    if name not in known:
        inside.add(name)
        below = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[name] = 1 + sum(_size(part, known, inside) for part in below)
        inside.remove(name)
        if known[name] > LARGEST:
            raise ValueError(f"stands for more than {LARGEST} values by its aliases")
    return known[name]
