"""`yolo-kd demo`: the whole story without a download, in some ten minutes on two cores.

Renders traffic scenes and a short video, trains a teacher, then a plain and a distilled student under the same budget,
and prints one table; then quantizes the distilled student, lets the gate judge it, and times it beside its float parent on
the video, in the runtime that needs no torch. Everything stays in the run folder.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from yolo_kd.api import check_student, distill
from yolo_kd.cfg.atomic import refuse_unwritable, write_text
from yolo_kd.cfg.settings import load_recipe
from yolo_kd.data import scenes
from yolo_kd.data.split import label_path
from yolo_kd.deploy import open_detector
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.engine import ultra
from yolo_kd.engine.openvino_graph import require_packages
from yolo_kd.engine.terms import check_arguments
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.average_precision import require_pycocotools
from yolo_kd.evidence.judge import time_in_turn
from yolo_kd.evidence.search import size_mb
from yolo_kd.evidence.table import aligned
from yolo_kd.modes import quantize
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {
    "out": "runs/demo",
    "teacher": "yolov8s.yaml",
    "student": "yolov8n.yaml",
    "images": 416,
    "imgsz": 256,
    "teacher_epochs": 7,
    "epochs": 7,
    "seed": 0,
    "distill": "csgr_lqe",
    "force": False,
    "debug": False,
}
MEANING = {
    "out": "folder that everything is left in",
    "teacher": "model that learns first, and then teaches",
    "student": "model that is trained plainly, and then under the teacher",
    "images": "rendered training scenes",
    "imgsz": "pixels of a scene's side, and of the training",
    "teacher_epochs": "epochs of the teacher",
    "epochs": "epochs of each student",
    "seed": "of the scenes and of the trainings",
    "distill": "recipe, as in yolo-kd train",
    "force": "go on where the pre-flight would refuse the teacher",
    "debug": "show tracebacks",
}
VAL_IMAGES = 120
CALIBRATION = 100
BATCH = 8  # with 16, half as many steps, every net had half the precision after as many minutes
OWN = ("teacher", "plain", "distilled", "deploy")  # folders that it writes over
MARK = "demo.yaml"  # its keys; what lies beside it is a demo's
STRIDE = 32  # the largest of the families' heads, which the exported net's input is a multiple of
METRICS = {"mAP50": "metrics/mAP50(B)", "mAP50-95": "metrics/mAP50-95(B)"}


@dataclass
class Progress:
    """Says which part runs, and how long the rest may take.

    Args:
        minutes: Expected of each part, on two cores with bf16.
    """

    minutes: dict[str, float]

    def __post_init__(self) -> None:
        self.start, self.done = time.monotonic(), 0.0

    def begin(self, part: str) -> None:
        """Announce a part."""
        spent, whole = (time.monotonic() - self.start) / 60, sum(self.minutes.values())
        left = whole - self.done
        if self.done > 0.1 * whole:
            told = f"about {left * spent / self.done:.0f} min left"
        else:  # rendering alone, which may have been done before, says little about this machine
            told = f"about {left:.0f} min left on two cores with bf16"
        number = list(self.minutes).index(part) + 1
        ultra.LOGGER.info(
            f"\nyolo-kd demo: part {number} of {len(self.minutes)}: {part} ({spent:.1f} min so far, {told})"
        )

    def end(self, part: str) -> None:
        """Note that a part is done."""
        self.done += self.minutes[part]


def expected_minutes(keys: Mapping[str, Any]) -> dict[str, float]:
    """What each part takes on two cores with bf16: measured with the default keys, scaled by the pixels and epochs."""
    pictures = (keys["images"] + VAL_IMAGES) / (DEFAULTS["images"] + VAL_IMAGES)
    pixels = pictures * (keys["imgsz"] / DEFAULTS["imgsz"]) ** 2
    teacher, student = (pixels * keys[key] / DEFAULTS[key] for key in ("teacher_epochs", "epochs"))
    return {
        "render scenes": 0.5 * pixels,
        "teacher": 4.6 * teacher,
        "plain student": 1.7 * student,
        "distilled student": 3.1 * student,
        "table": 0.1,
        "INT8": 1.0,
    }


def main(settings: dict[str, Any]) -> int:
    """Run the demo; returns the exit code."""
    keys = settled(settings, DEFAULTS, "demo", least={"images": 1, "teacher_epochs": 1, "epochs": 1})
    _check_what_is_needed_last(keys)
    out = Path(str(keys["out"])).resolve()
    _check_out(out)
    write_text(out / MARK, yaml.safe_dump(keys, sort_keys=False))
    progress = Progress(expected_minutes(keys))

    progress.begin("render scenes")
    data = _render(out, keys)
    progress.end("render scenes")

    rows = []
    teacher = out / "teacher" / "weights" / "best.pt"
    budget = {"epochs": keys["epochs"], "lr0": 0.002}
    for part, model, extra in (
        ("teacher", keys["teacher"], {"distill": "none", "epochs": keys["teacher_epochs"], "lr0": 0.002}),
        ("plain student", keys["student"], {"distill": "none", **budget}),
        (
            "distilled student",
            keys["student"],
            {"teacher": str(teacher), "distill": keys["distill"], "force": keys["force"], **budget},
        ),
    ):
        progress.begin(part)
        start = time.monotonic()
        name = part.split()[0]
        metrics = distill(student=model, data=data, **_common(keys, out, name), **extra)
        best, spent = out / name / "weights" / "best.pt", time.monotonic() - start
        rows.append(_row(part, best, metrics, keys["imgsz"], spent, extra["epochs"]))
        progress.end(part)

    progress.begin("table")
    picture = _picture(out, data, rows, keys["imgsz"])
    write_text(out / "demo.json", json.dumps(rows, indent=2) + "\n")
    ultra.LOGGER.info("\n" + _table(rows))
    ultra.LOGGER.info(f"{_caution(rows)}\npicture: {picture}")
    progress.end("table")

    progress.begin("INT8")
    _deploy(out, data, Path(rows[-1]["weights"]), keys)
    return 0


def _check_what_is_needed_last(keys: Mapping[str, Any]) -> None:
    """Refuse now what would stop the demo minutes from now."""
    check_arguments(load_recipe(keys["distill"]))
    check_student(str(ultra.check_model_file_from_stem(str(keys["student"]))))
    if keys["imgsz"] % STRIDE:
        raise MisuseError(f"imgsz={keys['imgsz']}: expected a multiple of {STRIDE}, e.g. imgsz={DEFAULTS['imgsz']}")
    require_packages("yolo-kd demo", quantized=True)
    require_pycocotools()


def _check_out(out: Path) -> None:
    """Refuse a place that cannot be written, or where folders of these names are not an earlier demo's."""
    refuse_unwritable(out / MARK)
    taken = [name for name in OWN if (out / name).exists()]
    if taken and not (out / MARK).exists():
        raise MisuseError(
            f"out={out}: holds {', '.join(taken)}, which no demo left there and this one would write over; choose another folder "
            "with out="
        )


def _deploy(out: Path, data: Path, best: Path, keys: dict[str, Any]) -> None:
    """The distilled student as an INT8 artifact with its verdict, side by side with its float parent on the video."""
    folder = out / "deploy"
    told = quantize.main(
        {
            "model": str(best), "data": str(data), "backend": "openvino", "imgsz": keys["imgsz"], "count": CALIBRATION,
            "out": str(folder), "seed": keys["seed"], "overwrite": True, "sensitivity": False,
        }
    )  # fmt: skip
    nets = [folder / f"{best.stem}_{kind}openvino_model" for kind in ("", "int8_")]
    frames = _frames(_video(out, keys))
    judged = read_artifact(nets[1])
    aps = (judged.facts["metrics"].get("ap") or (None, None))[::-1]  # of the artifact, of its parent
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_detector(net, allow_rejected=True)) for net in nets]
        times = time_in_turn(opened, frames, len(frames))  # warmed up, frame by frame in turns
        rows = [
            {
                "net": name, "runs in": detector.backend.precision, "AP": ap, "MB": size_mb(detector.artifact),
                "boxes on the video": sum(len(detector(frame)) for frame in frames), "p50 ms": statistics.median(spent),
            }
            for name, detector, ap, spent in zip(("float", "INT8"), opened, aps, times, strict=True)
        ]  # fmt: skip
    assert judged.verdict is not None
    write_text(out / "int8.json", json.dumps({"verdict": asdict(judged.verdict), "rows": rows}, indent=2) + "\n")
    ultra.LOGGER.info(
        f"\n{aligned(rows)}\n{len(frames)} frames of the video in turns, frame to boxes, no torch in it: INT8 at "
        f"{rows[0]['p50 ms'] / rows[1]['p50 ms']:.2f} x the speed of float in {rows[0]['runs in']}\n"
        + (
            f"yolo_kd.deploy.open_detector('{nets[1]}') runs it on a device"
            if told == 0
            else f"the gate rejected it, and the runtime refuses it without allow_rejected=true: {nets[1]}"
        )
    )


def help_text() -> str:
    """The demo's keys."""
    lines = [f"  {f'{key}={value}':<22} {MEANING[key]}" for key, value in DEFAULTS.items()]
    return "\n".join(["usage: yolo-kd demo [key=value ...]", "", "keys with their defaults:", *lines])


def _render(out: Path, keys: dict[str, Any]) -> Path:
    bar = ultra.TQDM(total=keys["images"] + VAL_IMAGES, desc="rendering scenes")
    root = out / f"scenes-{keys['images']}-{keys['imgsz']}-{keys['seed']}"
    data = scenes.write_dataset(
        root,
        train=keys["images"],
        val=VAL_IMAGES,
        size=keys["imgsz"],
        seed=keys["seed"],
        progress=lambda done, total: bar.update(done - bar.n),
        key="out",
    )
    bar.close()
    video = _video(out, keys)
    if not video.exists():
        scenes.render_video(video, frames=75, seed=keys["seed"])
    ultra.LOGGER.info(f"data set: {data}\nvideo with labels per frame: {video}")
    return data


def _video(out: Path, keys: Mapping[str, Any]) -> Path:
    return out / f"traffic-{keys['seed']}.mp4"


def _frames(video: Path) -> list[Any]:
    import cv2

    reader, frames = cv2.VideoCapture(str(video)), []
    while (found := reader.read())[0]:
        frames.append(found[1])
    reader.release()
    return frames


def _common(keys: dict[str, Any], out: Path, name: str) -> dict[str, Any]:
    return {
        "imgsz": keys["imgsz"], "batch": BATCH, "nbs": BATCH, "optimizer": "AdamW", "seed": keys["seed"], "cache": "ram",
        "close_mosaic": 2, "warmup_epochs": 1, "project": str(out), "name": name, "exist_ok": True, "plots": False,
        "verbose": False, "amp": True,
    }  # fmt: skip


def _row(part: str, best: Path, metrics: Any, imgsz: int, seconds: float, epochs: int) -> dict[str, Any]:
    """Of best.pt, which the training looked at last."""
    parameters, gflops = ultra.size_of(ultra.YOLO(best).model, imgsz)
    found = {name: float(metrics.results_dict[key]) for name, key in METRICS.items()}
    return {
        "model": part, "epochs": epochs, "minutes": seconds / 60, "parameters": parameters, "GFLOPs": gflops, **found,
        "weights": str(best),
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':<18} {'parameters':>11} {'GFLOPs':>7} {'epochs':>7} {'minutes':>8} {'mAP50':>7} {'mAP50-95':>9}"]
    for r in rows:
        lines.append(
            f"{r['model']:<18} {r['parameters'] / 1e6:>9.2f} M {r['GFLOPs']:>7.2f} {r['epochs']:>7} {r['minutes']:>8.1f} "
            f"{r['mAP50']:>7.3f} {r['mAP50-95']:>9.3f}"
        )
    return "\n".join(lines)


def _caution(rows: list[dict[str, Any]]) -> str:
    """What the table does not say: the students had the same epochs, not the same time."""
    _, plain, distilled = rows
    epochs = round(plain["epochs"] * distilled["minutes"] / plain["minutes"])
    return (
        f"equal epochs, not equal time: the distilled student's minutes are those of about {epochs} plain epochs; one seed, one "
        "small budget: an illustration, not evidence (that is docs/results.md)"
    )


def _picture(out: Path, data: Path, rows: list[dict[str, Any]], imgsz: int) -> Path:
    """The three of the first validation scenes with the most objects: labels, teacher, plain, distilled."""
    import cv2
    import numpy as np

    images = sorted((data.parent / "images" / "val").glob("*.jpg"))[:24]
    images = sorted(images, key=lambda path: -label_path(path).read_text().count("\n"))[:3]
    columns = [[_labelled(path) for path in images]]
    for row in rows:
        found = ultra.YOLO(row["weights"])([str(p) for p in images], imgsz=imgsz, verbose=False, conf=0.3, iou=0.5)
        columns.append([f.plot(line_width=1, labels=False, conf=False) for f in found])
    titles = ["labels", *(f"{r['model']}  {r['mAP50-95']:.3f}" for r in rows)]
    side = 320
    canvas = np.full((26 + side * len(images), side * len(columns), 3), 255, np.uint8)
    for c, (title, column) in enumerate(zip(titles, columns)):
        cv2.putText(canvas, title, (c * side + 8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        for r, picture in enumerate(column):
            canvas[26 + r * side : 26 + (r + 1) * side, c * side : (c + 1) * side] = cv2.resize(
                picture, (side, side), interpolation=cv2.INTER_CUBIC
            )
    path = out / "demo.jpg"
    cv2.imwrite(str(path), canvas)
    return path


def _labelled(image: Path) -> Any:
    """The picture with its labels drawn in the colours that Ultralytics gives the classes."""
    import cv2

    picture: Any = cv2.imread(str(image))
    height, width = picture.shape[:2]
    for line in label_path(image).read_text().splitlines():
        kind, x, y, w, h = (float(v) for v in line.split())
        low, high = ((round((x + s * w / 2) * width), round((y + s * h / 2) * height)) for s in (-1, 1))
        cv2.rectangle(picture, low, high, ultra.colors(int(kind), bgr=True), 1)
    return picture
