"""`yolo-kd accept`: a bundle at installation, on the drone or in the car."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import refuse_taken, write_text
from yolo_kd.deploy.acceptance import Limits, accept
from yolo_kd.errors import MisuseError
from yolo_kd.modes.keys import settled

REJECTED = 3
LIMITS = {f.name: f.default for f in fields(Limits)}
DEFAULTS: dict[str, Any] = {
    "bundle": None,
    "minutes": 1.0,
    "device": "CPU",
    "threads": None,
    "require_signature": None,
    "out": None,
    "debug": False,
    **LIMITS,
}


def main(settings: dict[str, Any]) -> int:
    """Check, load, decide; 0 if the device is accepted, 3 if not."""
    keys = settled(settings, DEFAULTS, "accept")
    if not keys["bundle"]:
        raise MisuseError("which bundle? yolo-kd accept student.zip")
    if keys["out"] and not Path(str(keys["out"])).resolve().parent.is_dir():
        raise MisuseError(f"out={keys['out']}: no such folder to write into")
    bundle = Path(str(keys["bundle"]))
    out = Path(str(keys["out"])) if keys["out"] else bundle.with_name(f"{bundle.stem}_acceptance.json")
    refuse_taken(out, '"start_seconds"')  # before minutes of load
    report = accept(
        bundle,
        float(keys["minutes"]),
        str(keys["device"]),
        keys["threads"],
        Path(str(keys["require_signature"])) if keys["require_signature"] else None,
        Limits(**{key: keys[key] for key in LIMITS}),
    )
    print(text(report))
    write_text(out, json.dumps(report, indent=2) + "\n")
    print(f"report: {out}")
    return 0 if report["passed"] else REJECTED


def text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    parity, load, device = report["parity"], report["load"], report["device"]
    lines = [
        f"{report['bundle']}: {'ACCEPTED' if report['passed'] else 'REJECTED'} on {device['cpu']} ({device['isa']})"
    ]
    lines += [f"  because {reason}" for reason in report["reasons"]]
    lines += [f"  note: {remark}" for remark in report["remarks"]]
    if report["hashes"]:
        lines.append(f"  hashes fine, {'signature fine' if report['signed'] else 'signature not asked for'}")
    if parity is not None:
        lines.append(
            f"  {parity['pictures']} reference pictures: F1 {parity['f1']:.3f}, IoU {parity['iou']:.3f}, "
            f"confidences off by {parity['score_error']:.3f}"
        )
    if load is not None:
        lines += [
            f"  {load['frames']} frames in {load['minutes']:g} min, {device['runs in']} on {device['name']}: p50 / p95 / p99 "
            f"{_ms(load['start_ms'])} at the start, {_ms(load['end_ms'])} at the end",
            f"  ready after {report['start_seconds']:.2f} s; memory {load['resident_mb']:.0f} MB, grown by "
            f"{load['growth_mb']:.1f} MB",
        ]
    return "\n".join(lines)


def help_text() -> str:
    """The keys."""
    limits = "\n".join(f"  {key}={value}" for key, value in LIMITS.items())
    return f"""usage: yolo-kd accept student.zip [key=value ...]

Needs neither torch nor labels. Exits 3 if bundle or device are not accepted; the report says why, whatever the reason.

  bundle=             the .zip that yolo-kd bundle made
  minutes=1           of load; its last minute is compared with its first
  device=CPU          CPU, GPU, NPU, AUTO
  threads=            of the CPU; the runtime chooses unless given
  require_signature=  public key (PEM) that the bundle must be signed for
  out=                JSON file for the report; <name>_acceptance.json beside the bundle if left out

limits:
{limits}"""


def _ms(times: Any) -> str:
    return " / ".join(f"{t:.1f}" for t in times) + " ms"
