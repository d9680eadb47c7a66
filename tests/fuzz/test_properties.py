"""Inputs that Hypothesis makes up, not made of good ones: command lines, YAML and label files of any shape.

They go the way of the other inputs. One that escapes is shrunk and printed; keep it in `corpus/` once it is mended.
"""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yolo_kd.cfg.settings import default_keys

from tests.fuzz.guard import Sandbox
from tests.fuzz.kinds import COMMANDS, LINES, SLOTS, Input
from tests.fuzz.mutate import VALUES

PROFILE = settings(
    derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip
QUICK = {"train", "val", "predict", "data", "calibrate", "export", "verify", "report"}  # the others run a net
QUICK_LINES = [line for line in LINES if line[0] in QUICK]
THEIRS = (
    "epochs",
    "imgsz",
    "batch",
    "optimizer",
    "lr0",
    "mosaic",
    "classes",
    "cache",
    "fraction",
    "close_mosaic",
    "seed",
)
DATA = ("path", "train", "val", "test", "names", "nc", "channels", "download", "kpt_shape")
RECIPE = ("methods", "schedule", "until", "csgr", "pcd", "cs", "cls", "tau")
TEXTS = st.text(max_size=12)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXTS, st.dates(), st.binary(max_size=4)
)  # fmt: skip


@st.composite
def near_misses(draw: st.DrawFn, known: tuple[str, ...]) -> str:
    """A known word, now and then as somebody mistypes it."""
    word = draw(st.sampled_from(known))
    at = draw(st.integers(0, len(word)))
    typos = (word[:at] + word[at + 1 :], word[:at] + word[at : at + 1] + word[at:], word[:at] + draw(TEXTS) + word[at:])
    return draw(st.sampled_from((word, word, *typos, word.upper(), word.replace("_", "-"))))


def trees(*keys: str) -> st.SearchStrategy[Any]:
    """What a YAML can hold: any value, and mappings of keys that are known or nearly so."""
    names = near_misses(keys) | TEXTS | st.integers() | st.none()
    leaves = SCALARS | st.sampled_from(VALUES)
    return st.recursive(
        leaves, lambda below: st.lists(below, max_size=4) | st.dictionaries(names, below, max_size=4), max_leaves=12
    )


def documents(*keys: str) -> st.SearchStrategy[bytes]:
    """YAML texts: mostly mappings, with an alias where a value comes twice."""
    values = trees(*keys)
    whole = st.dictionaries(near_misses(keys), values, max_size=6)
    found = st.one_of(whole, whole, values, values.map(lambda value: [value, value]))
    return found.map(lambda tree: yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace"))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command line with a word or two left out, mistyped, or of another value."""
    words = list(draw(st.sampled_from(QUICK_LINES)))
    known = (*default_keys(), *(word.partition("=")[0] for line in LINES for word in line[1:]))
    others = st.tuples(near_misses(known), TEXTS | st.integers().map(str) | st.floats().map(str)).map("=".join)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(words)))
        words[at : at + draw(st.integers(0, 1))] = [draw(st.one_of(others, others, near_misses(tuple(words)), TEXTS))]
    return [word.replace("\0", "") for word in words]  # no command line can hold it


NUMBERS = st.one_of(
    st.floats(0, 1), st.floats(), st.integers(-2, 9), st.sampled_from((10**400, "1e999", "0x1", "nan", ""))
)
ROWS = st.lists(NUMBERS, max_size=9).map(lambda row: " ".join(map(str, row)))
BOXES = st.tuples(st.integers(0, 3), *[st.floats(0, 1)] * 4).map(lambda row: " ".join(map(str, row)))
LABELS = st.lists(BOXES | BOXES | ROWS | TEXTS, max_size=8).flatmap(
    lambda lines: st.sampled_from(("\n", "\r\n", "\n\n", "\r")).map(lambda end: end.join(lines).encode())
)


def ends_well(sandbox: Sandbox, kind: str, name: str, content: bytes) -> None:
    """A clear line, or a clean run."""
    slot = next(slot for slot in SLOTS[kind] if slot.name == name)
    found = Input(kind, slot, content).run(sandbox)
    assert found.word != "escape", f"{kind}~{name}: {found.what}: {content!r}"


@PROFILE
@given(words=command_lines())
def test_command_lines(sandbox: Sandbox, words: list[str]) -> None:
    ends_well(sandbox, COMMANDS, "line", json.dumps(words).encode())


@PROFILE
@given(content=documents(*default_keys(), *THEIRS, "csgr.tau", "pcd.cls"), name=st.sampled_from(("keys", "resumed")))
def test_settings(sandbox: Sandbox, content: bytes, name: str) -> None:
    ends_well(sandbox, "settings", name, content)


@PROFILE
@given(content=documents(*RECIPE))
def test_recipes(sandbox: Sandbox, content: bytes) -> None:
    ends_well(sandbox, "settings", "recipe", content)


@PROFILE
@given(content=documents(*DATA), name=st.sampled_from(("quick", "check", "split", "train")))
def test_data_descriptions(sandbox: Sandbox, content: bytes, name: str) -> None:
    ends_well(sandbox, "data.yaml", name, content)


@PROFILE
@given(content=LABELS, name=st.sampled_from(("check", "choose", "split")))
def test_label_files(sandbox: Sandbox, content: bytes, name: str) -> None:
    ends_well(sandbox, "labels", name, content)
