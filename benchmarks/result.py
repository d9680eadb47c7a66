"""The result file of a benchmark: measured rows, bars they are held against, and the machine they came from.

from benchmarks.machine import quiet
from benchmarks.result import bar, command_line, write

notes = quiet()
rows = [{"engine": "torch bf16", "seconds": 2.02}, {"engine": "openvino bf16", "seconds": 1.59}]
write("teacher", command_line(), rows, [bar("openvino over torch", 1.59 / 2.02, 1.0, "<=")], notes=notes)
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, versions
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.table import aligned, number

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

_KEYS = {
    "benchmark": str,
    "command": str,
    "machine": dict,
    "versions": dict,
    "date": str,
    "rows": list,
    "bars": list,
}
_MACHINE_KEYS = {"cpu", "isa", "cores", "gpu"}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
# A path from the root: it begins a word or follows = , : [ ( or a quote. In running text it has two parts or more,
# because "12 /s" is no path; a word of a command may hold spaces.
_PATH_IN_TEXT = re.compile(r"(?<![^\s=,:\[(\"'])/(?!/)[^\s,:\])\"']+/[^\s,:\])\"']+")
_PATH_IN_WORD = re.compile(r"(?<![^=,:\[(\"'])/(?!/)[^,:\])\"']+")


@dataclass(frozen=True)
class Bar:
    """One claim: `value` has to be `sense` ("<=" or ">=") `limit`."""

    name: str
    value: float
    limit: float
    sense: str

    def __post_init__(self) -> None:
        if self.sense not in ("<=", ">="):
            raise MisuseError(f"bar '{self.name}': sense is '<=' or '>=', not '{self.sense}'")
        for label in ("value", "limit"):
            given = getattr(self, label)
            if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
                raise MisuseError(f"bar '{self.name}': {label} is a finite number, not {given!r}")

    @property
    def holds(self) -> bool:
        """Whether the claim is met; equality meets it."""
        return self.value <= self.limit if self.sense == "<=" else self.value >= self.limit

    def verdict(self) -> str:
        """HOLDS or FALLS SHORT, and the distance to the limit.

        >>> Bar("step", 1.2, 1.0, "<=").verdict()
        'FALLS SHORT by 0.2 (20 %)'
        """
        gap = abs(self.value - self.limit)
        share = f" ({100 * gap / abs(self.limit):.3g} %)" if self.limit else ""
        return f"{'HOLDS' if self.holds else 'FALLS SHORT'} by {number(gap)}{share}"


@dataclass(frozen=True)
class Result:
    """What one result file holds."""

    benchmark: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str
    rows: list[dict[str, Any]]
    bars: list[Bar]
    notes: list[str]

    def to_json(self) -> str:
        """The text of the file; `notes` is left out when there is none."""
        fields = asdict(self) | {"bars": [asdict(each) | {"holds": each.holds} for each in self.bars]}
        if not self.notes:
            del fields["notes"]
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def bar(name: str, value: float, limit: float, sense: str) -> Bar:
    """A claim to be held against a measurement; `sense` is "<=" or ">="."""
    # float() unpacks numpy scalars, which JSON cannot hold.
    return Bar(name, float(value), float(limit), sense)


def write(
    name: str,
    command: str | Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    bars: Sequence[Bar],
    notes: Sequence[str] = (),
    folder: Path = RESULTS,
) -> Path:
    """Print a result and keep it as `folder/name.json`, replacing an older one in one move.

    Args:
        name: Lower-case letters, digits, `_` and `-`; also the first part of the names of its plots.
        command: What repeats the benchmark, as one line or as words; see `command_line`.
        rows: Flat dictionaries of numbers and short texts, one per line of the table.
        bars: The claims, see `bar`.
        notes: Free text, such as the answer of `quiet()`.
        folder: Where the file goes.
    """
    if not _NAME.fullmatch(name):
        raise MisuseError(f"a benchmark is named with a-z, 0-9, '_' and '-', not '{name}'")
    result = Result(
        benchmark=name,
        command=portable(command),
        machine=machine(),
        versions=versions(),
        date=date.today().isoformat(),
        rows=[{key: _plain(value) for key, value in row.items()} for row in rows],
        bars=list(bars),
        notes=[_shorten(note) for note in notes],
    )
    _check_rows(result.rows, f"benchmark '{name}'")
    target = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".json.part")
    temporary.write_text(result.to_json(), encoding="utf-8")
    os.replace(temporary, target)  # noqa: PTH105 - one move, also over an existing file
    print(report(result))
    return target


def report(result: Result) -> str:
    """The table, the bars with HOLDS or FALLS SHORT, and the notes, for a terminal."""
    parts = [f"{result.benchmark} on {result.machine['cpu']}, {result.machine['cores']} cores", aligned(result.rows)]
    width = max((len(each.name) for each in result.bars), default=0)
    parts += [
        f"{each.name:<{width}}  {number(each.value)} {each.sense} {number(each.limit)}  {each.verdict()}"
        for each in result.bars
    ]
    parts += [f"note: {note}" for note in result.notes]
    return "\n".join(parts)


def load(path: Path) -> Result:
    """Read a result file; what is wrong with it is said in one line."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MisuseError(f"{path.name} is not a result file: {error}") from error
    if not isinstance(raw, dict):
        raise MisuseError(f"{path.name}: a result file is one JSON object, not {type(raw).__name__}")
    missing, unknown = sorted(_KEYS.keys() - raw.keys()), sorted(raw.keys() - _KEYS.keys() - {"notes"})
    if missing or unknown:
        raise MisuseError(f"{path.name}: missing keys {missing}, unknown keys {unknown}; run the benchmark again")
    for key, kind in {**_KEYS, "notes": list}.items():
        if key in raw and not isinstance(raw[key], kind):
            raise MisuseError(f"{path.name}: '{key}' is a {kind.__name__}, not {raw[key]!r}")
    if raw["benchmark"] != path.stem:
        raise MisuseError(f"{path.name} names its benchmark '{raw['benchmark']}'; the file has to be called after it")
    if raw["machine"].keys() != _MACHINE_KEYS:
        raise MisuseError(f"{path.name}: 'machine' holds {sorted(_MACHINE_KEYS)}, not {sorted(raw['machine'])}")
    _check_rows(raw["rows"], path.name)
    if not all(isinstance(note, str) for note in raw.get("notes", [])):
        raise MisuseError(f"{path.name}: notes are texts, not {raw['notes']!r}")
    bars = [_load_bar(each, path.name) for each in raw["bars"]]
    return Result(**{key: raw[key] for key in _KEYS if key != "bars"}, bars=bars, notes=raw.get("notes", []))


def command_line() -> list[str]:
    """The words that started this process, with the interpreter called plainly `python`."""
    return ["python", *sys.orig_argv[1:]]


def portable(command: str | Sequence[str]) -> str:
    """The command as one line in which absolute paths are cut to their last two parts.

    >>> portable(["python", "-m", "benchmarks.teacher", "weights=/mnt/models/best.pt", "runs/a"])
    'python -m benchmarks.teacher weights=models/best.pt runs/a'
    """
    words = shlex.split(command) if isinstance(command, str) else command
    return shlex.join(_PATH_IN_WORD.sub(_last_two, word) for word in words)


def _shorten(text: str) -> str:
    return _PATH_IN_TEXT.sub(_last_two, text)


def _last_two(match: re.Match[str]) -> str:
    return "/".join([part for part in match.group().split("/") if part][-2:])


def _plain(value: Any) -> Any:
    """A row's value as JSON knows it: numpy scalars unpacked, paths in texts shortened."""
    if isinstance(value, str):
        return _shorten(value)
    return value.item() if hasattr(value, "item") and not isinstance(value, int | float) else value


def _check_rows(rows: Any, where: str) -> None:
    for row in rows:
        if not isinstance(row, dict):
            raise MisuseError(f"{where}: a row is a flat dictionary, not {row!r}")
        for key, value in row.items():
            if value is not None and not isinstance(value, str | int | float):
                raise MisuseError(f"{where}: row value '{key}' is a number, a text or None, not {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise MisuseError(f"{where}: row value '{key}' is {value}; leave it out or say why in a note")


def _load_bar(raw: Any, where: str) -> Bar:
    if not isinstance(raw, dict) or raw.keys() != {"name", "value", "limit", "sense", "holds"}:
        raise MisuseError(f"{where}: a bar has name, value, limit, sense and holds, not {raw!r}")
    try:
        loaded = Bar(raw["name"], raw["value"], raw["limit"], raw["sense"])
    except MisuseError as error:
        raise MisuseError(f"{where}: {error}") from error
    if loaded.holds is not raw["holds"]:
        raise MisuseError(f"{where}: bar '{loaded.name}' says holds={raw['holds']}, its numbers say {loaded.holds}")
    return loaded
