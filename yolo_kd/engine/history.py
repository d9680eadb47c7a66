"""The epochs of a run as Ultralytics wrote them into results.csv, with our columns beside its own.

`train/x_loss` are the items of the criterion, unscaled; those that `val/` has not are distillation terms. `gain/method.term`
and `share/method.term` are what a term was multiplied by, and the ratio of its weighted gradient to the detection loss's.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolo_kd.cfg.atomic import write_text
from yolo_kd.errors import MisuseError

RESULTS = "results.csv"
LOSS = "_loss"


@dataclass(frozen=True)
class History:
    """Columns of results.csv, one value an epoch; what was not measured is nan.

    Args:
        columns: By name, all of one length.
        broken: Rows that could not be read, such as one whose writing was cut off.
    """

    columns: Mapping[str, Sequence[float]]
    broken: int = 0

    @property
    def epochs(self) -> Sequence[float]:
        """Numbers of the epochs, from 1 on."""
        return self.columns["epoch"]

    def group(self, prefix: str) -> dict[str, Sequence[float]]:
        """The columns `prefix/...` without the prefix, in their order."""
        start = f"{prefix}/"
        return {name[len(start) :]: values for name, values in self.columns.items() if name.startswith(start)}

    def terms(self) -> dict[str, Sequence[float]]:
        """Unscaled distillation terms by name: losses of the training that validation has not."""
        own = self.group("val")
        found = {n: v for n, v in self.group("train").items() if n.endswith(LOSS) and n not in own}
        return {name.removesuffix(LOSS): values for name, values in found.items()}

    def losses(self, part: str) -> dict[str, Sequence[float]]:
        """Detection losses by name, of "train" or "val"."""
        own = self.group("val")
        return {n.removesuffix(LOSS): v for n, v in self.group(part).items() if n.endswith(LOSS) and n in own}


def read_history(path: Path) -> History:
    """A results.csv.

    Raises:
        MisuseError: Missing, not readable, or no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise MisuseError(
            f"{path}: not readable as a table ({error}); expected the results.csv of a training"
        ) from None
    heads = [name.strip() for name in rows[0]] if rows else []
    if "epoch" not in heads or len(set(heads)) != len(heads):
        raise MisuseError(
            f"{path}: expected a line of column names with 'epoch' in it; it is no results.csv of a training"
        )
    table, broken = [], 0
    for row in rows[1:]:
        numbers = [_number(cell) for cell in row]
        if len(row) != len(heads) or not math.isfinite(numbers[heads.index("epoch")]):
            broken += bool(row)
        else:
            table.append(numbers)
    return History({name: [row[i] for row in table] for i, name in enumerate(heads)}, broken)


def cut_history(path: Path, epochs: int) -> None:
    """Leave the rows of the first `epochs` epochs: those after them are trained again, and one may have been cut off."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    head, *rows = text.splitlines(keepends=True) or [""]
    if not head.endswith("\n"):
        path.unlink()  # it is begun anew, with its head
        return
    whole = [row for row in rows if row.endswith("\n") and row.count(",") == head.count(",")]
    kept = "".join([head, *(row for row in whole if _number(row.split(",")[0]) <= epochs)])
    if kept != text:
        write_text(path, kept)


def wanted_shares(methods: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    """The shares asked for as `auto:SHARE` in a recipe, by `method.term`.

    >>> wanted_shares({"csgr": {"cs": "auto:0.25", "tau": 0.1}, "pcd": {"cls": 2.0}})
    {'csgr.cs': 0.25}
    """
    found = {}
    for method, settings in methods.items():
        for name, value in (settings or {}).items():
            if isinstance(value, str) and value.startswith("auto:"):
                found[f"{method}.{name}"] = _number(value.removeprefix("auto:"))
    return {key: share for key, share in found.items() if math.isfinite(share)}


def events(epochs: int, close_mosaic: int, schedule: str, until: float) -> dict[str, float]:
    """What changes in the course of a run: words to the first epoch with the change, counted from 1.

    >>> events(100, 10, "constant", 0.5)
    {'mosaic closes': 91, 'teacher stops': 51}
    """
    found: dict[str, float] = {}
    if 0 < close_mosaic < epochs:
        found["mosaic closes"] = epochs - close_mosaic + 1
    if schedule == "mosaic" and found:
        found["teacher stops"] = min(found["mosaic closes"], math.ceil(until * epochs) + 1)
    elif until < 1:
        found["teacher stops"] = math.ceil(until * epochs) + 1
    return {words: epoch for words, epoch in found.items() if epoch <= epochs}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
