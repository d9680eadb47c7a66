"""YAML and JSON that somebody else wrote, read so that no text of theirs can do more than be wrong.

A few lines of YAML can stand for thousands of millions of values by aliases of aliases, or for one that contains itself;
either can be nested deeper than a parser can follow, or hold half a character that no file can be written with.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

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


def parse_json(text: str | bytes) -> Any:
    """The values that a JSON text stands for.

    Raises:
        ValueError: No JSON, or one that cannot be followed; the message is one line.

    >>> parse_json('{"a": [1, "x"]}')
    {'a': [1, 'x']}
    """
    try:
        found = json.loads(text)
        if b"\\ud" in (text.encode() if isinstance(text, str) else text).lower():
            json.dumps(
                found, ensure_ascii=False
            ).encode()  # half a character is an error here, and not when we write it
        return found
    except RecursionError:
        raise ValueError("nested too deep") from None


def _size(node: yaml.Node, known: dict[int, int], inside: set[int]) -> int:
    """Values below a node, counted as often as aliases lead to them.

    Raises:
        ValueError: It contains itself, stands for too many, or holds half a character.
    """
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()
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
