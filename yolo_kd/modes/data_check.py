"""`yolo-kd data check`: images, labels, parts, and what train shares with the others; exit code 3 if there are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import refuse_taken, write_text
from yolo_kd.data.check import LEAK, check
from yolo_kd.data.description import read_description
from yolo_kd.data.findings import KINDS
from yolo_kd.deploy.machine import cores
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.errors import GateError, MisuseError
from yolo_kd.pictures.likeness import NEAR

DEFAULTS: dict[str, Any] = {
    "data": None,
    "out": None,
    "near": NEAR,
    "leak": LEAK,
    "quick": False,
    "shown": 5,
    "jobs": cores(),
    "debug": False,
}


def main(keys: dict[str, Any]) -> int:
    """Look, print, and with `out=` write; returns the exit code.

    Raises:
        GateError: There are errors.
    """
    if not keys["data"]:
        raise MisuseError("data= is missing: yolo-kd data check data=<data.yaml>")
    if keys["near"] > 64 or not 0 <= keys["leak"] <= 1:
        raise MisuseError(
            f"near={keys['near']} leak={keys['leak']}: expected bits from 0 to 64 and a share from 0 to 1"
        )
    out = Path(str(keys["out"])) if keys["out"] else None
    if out is not None:
        refuse_taken(out, '"findings"')
    data = read_description(str(keys["data"]))
    places = [place for entries in data.parts.values() for place in entries]
    if places and not any(place.exists() for place in places):
        raise MisuseError(
            f"data={keys['data']}: not on this disk: {places[0]} is not there, nor is any other that {data.source} names; fetch it, "
            "or mend path: in a copy"
        )
    report = check(data, not keys["quick"], keys["near"], float(keys["leak"]), keys["jobs"], Line())
    if out is not None:
        write_text(out, report.to_json())
    where = f", all in {out}" if out else "; out=check.json lists all"
    print("\n".join(report.lines(keys["shown"], where)))
    if report.errors:
        kinds = ", ".join(kind for kind in report.counts() if KINDS[kind].error)
        raise GateError(f"data={keys['data']}: {report.errors} errors ({kinds}); mend them before you train on it")
    return 0


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd data check data=<data.yaml> [key=value ...]

  data=         data set YAML, or the name of one that comes with yolo-kd or Ultralytics; nothing is written or repaired there
  out=          JSON file for all findings; the terminal shows the first of each kind
  near={NEAR}        of 64 bits: two pictures that differ in no more look the same (val and test against train)
  leak={LEAK:g}     share of val or test that may look like training pictures; more is an error
  quick=false   true decodes nothing: headers, ends, checksums, labels; as a training does before its first step
  shown=5       findings of each kind on the terminal
  jobs={cores()}        threads

  Exit code 0: clean, or remarks only. 3: errors."""
