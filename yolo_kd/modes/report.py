"""`yolo-kd report`: a training as one page that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.errors import MisuseError
from yolo_kd.evidence import page
from yolo_kd.evidence.run import read_run
from yolo_kd.evidence.run_report import write_run_report
from yolo_kd.modes.keys import settled

NAME = "report.html"
DEFAULTS: dict[str, Any] = {"run": None, "out": None, "debug": False}


def main(settings: dict[str, Any]) -> int:
    """Read the run's folder, write the page, say where; returns the exit code."""
    keys = settled(settings, DEFAULTS, "report")
    if not keys["run"]:
        raise MisuseError("run= is missing: yolo-kd report run=runs/detect/train")
    folder = Path(str(keys["run"]))
    out = Path(str(keys["out"])) if keys["out"] else folder / NAME
    if out.is_dir():
        out = out / NAME
    run = read_run(folder)
    page.require_own(out)
    write_run_report(out, run)
    print(out)
    return 0


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd report run=<folder of a training> [out=<file>]

One page that needs no network: verdict, curves, gradient shares, teacher, maps, settings, verdicts of the gate.

  run=   folder of a training, such as runs/detect/train
  out=   the page; {NAME} in that folder if left out"""
