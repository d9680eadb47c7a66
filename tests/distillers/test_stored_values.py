"""Every file of stored values is opened by a test."""

from __future__ import annotations

import runpy
from pathlib import Path

FOLDER = Path(__file__).parent


def opened() -> set[str]:
    """The names that tests give to `fake.Golden`, written out in their bodies or as parameters."""
    names: set[str] = set()
    for path in FOLDER.glob("test_*.py"):
        for name, test in runpy.run_path(str(path), run_name=path.stem).items():
            if name.startswith("test_") and "Golden" in getattr(getattr(test, "__code__", None), "co_names", ()):
                values = [value for mark in getattr(test, "pytestmark", []) for value in mark.args[1]]
                names.update(value for value in (*values, *test.__code__.co_consts) if isinstance(value, str))
    return names


def test_every_file_of_stored_values_is_opened_by_a_test(fake):
    stored = {path.stem for path in fake.GOLDEN.iterdir() if path.suffix == ".npz"}
    assert len(stored) == 31
    assert sorted(stored - opened()) == []
