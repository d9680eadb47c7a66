"""The data before the first step: what Ultralytics would leave out with a line in the log is refused, where that shows undecoded.

Quick: headers, the ends of JPEGs, the checksums of PNGs, the lengths of WebPs, labels, and the hash of files whose size
occurs in two parts; .2 to .5 s for 1000 JPEGs here, and a PNG takes a sixteenth of decoding it (.3 ms, 256 pictures of
HIT-UAV and COCO). Only `yolo-kd data check` sees what a decoder alone notices: a TIFF or BMP that ends behind its header,
pixels that no checksum guards. It runs before the loader is built, which leaves out what it cannot read. What is a leak and
changes no training is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yolo_kd.data.check import OTHER_SUFFIXES, check
from yolo_kd.data.description import Description
from yolo_kd.data.findings import KINDS, Report
from yolo_kd.deploy.machine import cores
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.engine.classes import check_ids
from yolo_kd.errors import GateError, MisuseError

SHOWN = 3  # findings of each kind in the log
MANY = 5000  # images from which on the progress is shown


def check_data(trainer: Any) -> None:
    """Look at the trainer's data and say what was seen: one line if it is clean.

    Raises:
        MisuseError: `classes` names none of the data's, or a part that training needs has no picture.
        GateError: Something would silently change the training, and there is no `force`.
    """
    single, data = bool(trainer.args.single_cls), describe(trainer)
    if not single:  # else the names are those after all became one, and the ids those before
        check_ids(trainer.args.classes, data.names)
    if not trainer.kd.check_data:
        return
    line = Line()

    def progress(step: str, done: int, total: int) -> None:
        if total >= MANY:
            line(step, done, total)

    # beside unlabeled pictures there need be no others
    needed = ("val",) if trainer.kd.unlabeled and not data.parts["train"] else ("train", "val")
    report = check(data, False, jobs=cores(), progress=progress, any_class=single, needed=needed)
    lines = report.lines(SHOWN, f"; yolo-kd data check data={trainer.args.data} lists all")
    if not report.findings:
        lines = [f"data checked, nothing wrong: {', '.join(text.strip() for text in lines[1:])}"]
    for text in lines:
        trainer.log(text)
    _refuse_empty(trainer, data, report, needed)
    if not report.stops:
        return
    kinds = ", ".join(kind for kind in report.counts() if KINDS[kind].stops)
    reason = f"data={trainer.args.data}: {report.stops} findings would silently change this training ({kinds})"
    if not trainer.kd.force:
        raise GateError(f"{reason}; yolo-kd data check lists them, force=true goes on, check_data=false does not look")
    trainer.log(f"WARNING forced past the check of the data: {reason}")


def _refuse_empty(trainer: Any, data: Description, report: Report, needed: Iterable[str]) -> None:
    """A part without a picture ends the training whatever is forced; one of a format that is not read here may not."""
    others = {
        f.part
        for f in report.findings
        if f.kind == "image_other_format" and Path(f.path).suffix.lower() in OTHER_SUFFIXES
    }
    for part in needed:
        count = report.parts.get(part)
        if (count is None or not count.images) and part not in others:
            called = trainer.args.split if part == "val" else part
            places = " and ".join(map(str, data.parts[part])) or "it is not in the data.yaml"
            why = next((f.text() for f in report.findings if f.part == part and f.kind != "part_empty"), places)
            raise MisuseError(
                f"data={trainer.args.data}: no picture in {called} that training could use ({why}); put some there, or mend "
                f"{called}: in the data.yaml"
            )


def describe(trainer: Any) -> Description:
    """What Ultralytics made of a data.yaml, with every path resolved, as ours; only what the training reads of it."""
    data, parts = trainer.data, {}
    for part, entries in (("train", data.get("train")), ("val", data.get(trainer.args.split))):
        given = entries if isinstance(entries, list) else [entries] if entries else []
        parts[part] = tuple(Path(str(entry)) for entry in given)
    return Description(Path(str(trainer.args.data)), data["names"], parts, data)
