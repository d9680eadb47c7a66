"""Inputs made wrong on purpose: bytes, lines, trees and command lines, each with a seeded source of chance.

Half of what hurts is known beforehand (numbers at the edge of a type, deep nesting, aliases that swell, text that is no
text), so the mutations draw from a list of it; the other half is left to chance.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

# Marks what must never be run; the guard looks for it. Relative: the working folder is the sandbox.
MARK = "executed"
WORDS = (
    "", "0", "-1", "1", "2", "3.7", "-0.0", ".5", "1e-400", "1e309", "nan", "-inf", "99999999999999999999", "1_000", "0x10",
    "٣", "²", "true", "null", "~", "none", "[]", "{}", "[1, 2]", "{a: 1}", "''", '"', "'", ":", "- ", "#", "..", ".",
    "../..", "./", "a/b", "~root", "nowhere", "a" * 300, "\x00", "\x1b[2J", "\r", "\u2028", "\ufeff", "\u202e", "é", "\ud800",
    "&a", "*a", "<<: *a", "!!python/object/apply:os.system ['touch executed']", "!!binary aGk=", "2001-01-01", "1:30", "=", "%s",
    "{0}", "$HOME", "`touch executed`", "; touch executed", "car", "images", "labels", "data.yaml", "teacher.pt", "picture.png",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 255, 2**31, 2**63, 10**30, -(10**400), 0.0, 0.5, -1.5, 1e-320, 1e308, float("nan"),
    float("inf"), "", "0", "x", "a" * 2000, "..", "../x", "nowhere", "\x1b[2J\n\x00", [], {}, [[]], [None], [1, 2], [1, 2, 3], ["a"], {"a": 1},
    {"0": "a"}, {"1": "a"}, [0, "a", None], {"a": {"b": {"c": []}}}, "images/train", "int8", "auto:0", "auto:x",
)  # fmt: skip
BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xd9",
    b"\xff\xfe",
    b"PK\x03\x04",
    b"\x80\x04",
    b"\x89PNG\r\n\x1a\n",
    b"\r\n",
    b"\x1a",
)
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
DEEP = 20_000  # brackets: more than any parser that calls itself can go down
SWELLING = "\n".join(
    [f"a0: &a0 [{', '.join('x' * 9)}]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to six changes of a file that nobody looks into."""
    found = bytearray(data)
    for _ in range(_few(rng)):
        at = rng.randrange(len(found) + 1)
        to = min(at + rng.choice((1, 2, 4, 16, 200)), len(found))
        kind = rng.randrange(9)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at:to] = rng.choice(BYTES)
        elif kind == 2:
            del found[at:to]
        elif kind == 3:
            found[at:at] = found[at:to] * rng.choice((1, 2, 50))
        elif kind == 4:
            found[at:at] = rng.randbytes(rng.choice((1, 8, 64)))
        elif kind == 5 and rng.random() < 0.4:
            del found[at:]
        elif kind == 6:
            width, edge = rng.choice((1, 2, 4)), rng.choice(EDGES)
            found[at : at + width] = (edge % (1 << 8 * width)).to_bytes(width, rng.choice(("big", "little")))
        elif kind == 7:
            found[at:to] = bytes(rng.randrange(256) for _ in range(to - at))
        elif kind == 8 and rng.random() < 0.05:
            found = bytearray()
    return bytes(found)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """One to six changes of lines and words; now and then of bytes, so that it is no UTF-8 any more."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(_few(rng)):
        at, kind = rng.randrange(len(lines)), rng.randrange(9)
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines[at:at] = [lines[at]] * rng.choice((1, 2, 30))
        elif kind == 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 3:
            lines[at] = rng.choice((" ", "\t", "    ", "- ", "")) + lines[at].strip()
        elif kind == 4:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        elif kind == 5 and rng.random() < 0.1:
            lines[at] += rng.choice("[{(<") * DEEP
        else:
            lines[at] = _other_word(lines[at], rng)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """Changes of the tree that a YAML stands for, or of its text."""
    if rng.random() < 0.04:  # a thousand million x behind a few words
        key = rng.choice([line for line in data.decode().splitlines() if re.match(r"\w+:", line)] or ["names:"])
        return f"{SWELLING}\n".encode() + data + f"\n{key.partition(':')[0]}: *a9\n".encode()
    if rng.random() < 0.02:
        return data + b"\nnames: &n [*n]\n"
    return _mutate_tree(
        data, rng, yaml.safe_load, lambda tree: yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    )


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Changes of the tree that a JSON stands for, or of its text."""
    return _mutate_tree(data, rng, json.loads, json.dumps)


def mutate_words(words: Sequence[str], rng: random.Random) -> list[str]:
    """One to six changes of a command line."""
    found = list(words)
    for _ in range(_few(rng)):
        at, kind = rng.randrange(len(found) + 1), rng.randrange(6)
        if kind == 0 and len(found) > 1 and at < len(found):
            del found[at]
        elif kind == 1:
            found[at:at] = [rng.choice((rng.choice(WORDS), "help", "--help", "debug=true", "="))]
        elif at < len(found):
            key, equals, value = found[at].partition("=")
            if kind == 2:
                key = _other_word(key, rng)
            else:
                value = rng.choice(WORDS) if rng.random() < 0.8 else _other_word(value, rng)
            found[at] = key + equals + value
    return [
        w.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for w in found
    ]  # argv


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of nested lists and dicts with one to six changes."""
    tree = copy.deepcopy(tree)
    for _ in range(_few(rng)):
        tree = _change(tree, rng, rng.choice((0, 1, 1, 2, 2, 2, 3, 4)))
    return tree


def _mutate_tree(data: bytes, rng: random.Random, load: Callable[[bytes], Any], dump: Callable[[Any], str]) -> bytes:
    if rng.random() < 0.4:
        return mutate_text(data, rng)
    return dump(mutate_tree(load(data), rng)).encode("utf-8", "surrogatepass")


def _change(node: Any, rng: random.Random, depth: int) -> Any:
    """The node with one change at most `depth` levels below it."""
    if depth and isinstance(node, dict) and node:
        key = rng.choice(list(node))
        kind = rng.randrange(12)
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[_other_word(str(key), rng)] = node.pop(key)
        elif kind == 2:
            node[rng.choice(WORDS)] = copy.deepcopy(rng.choice(VALUES))
        else:
            node[key] = _change(node[key], rng, depth - 1)
        return node
    if depth and isinstance(node, list) and node:
        at, kind = rng.randrange(len(node)), rng.randrange(8)
        if kind == 0:
            del node[at]
        elif kind == 1:
            node.insert(at, node[at])
        else:
            node[at] = _change(node[at], rng, depth - 1)
        return node
    kind = rng.randrange(8)
    if kind == 0:
        return [node]
    if kind == 1:
        return str(node)
    if kind == 2 and isinstance(node, str):
        return _other_word(node, rng)
    if kind == 3 and isinstance(node, dict):
        return list(node.values())
    if kind == 4 and isinstance(node, list):
        return {str(i): value for i, value in enumerate(node)}
    if kind == 5 and isinstance(node, int | float):
        return rng.choice((-node, node + 1, node * 1000, node / 7 if abs(node) < 1e300 else 0.5, str(node)))
    return copy.deepcopy(rng.choice(VALUES))


def _other_word(text: str, rng: random.Random) -> str:
    """The text with one of its words replaced, cut, doubled or joined by another."""
    spans = [m.span() for m in re.finditer(r"[^\s,:=\[\]{}<>\"']+", text)] or [(0, len(text))]
    start, stop = rng.choice(spans)
    word = text[start:stop]
    cut = rng.randrange(len(word) + 1)
    other = rng.choice(
        (
            rng.choice(WORDS),
            rng.choice(WORDS),
            rng.choice(WORDS),
            word[:cut],
            word + word,
            word + rng.choice(WORDS),
            "-" + word,
        )
    )
    return text[:start] + other + text[stop:]


def _few(rng: random.Random) -> int:
    return 1 + min(int(rng.expovariate(0.8)), 5)
