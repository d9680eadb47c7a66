"""Runs the examples in the docstrings of every module, and so also imports every module."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The four packages under the names they are installed with: found under a folder's name, a module would load twice.
PACKAGES = {"yolo_kd": "yolo_kd", "cfg": "yolo_kd.cfg", "data": "yolo_kd.data", "deploy": "yolo_kd.deploy"}
PACKAGES |= {"benchmarks": "benchmarks"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """The importable names of all our modules; `__main__` would run instead of load."""
    names = []
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            names.append(".".join([package, *inner]).removesuffix(".__init__"))
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_the_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    assert Path(module.__file__ or "").is_relative_to(ROOT), "this is not the checkout's module"
    outcome = doctest.testmod(module, optionflags=FLAGS)
    assert outcome.failed == 0, f"{outcome.failed} of {outcome.attempted} examples of {name} are wrong, see above"


def test_there_are_examples_and_none_is_skipped() -> None:
    texts = [path.read_text(encoding="utf-8") for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    assert any(">>> " in text for text in texts)
    assert [text for text in texts if "doctest: +SKIP" in text] == []
