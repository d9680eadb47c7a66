"""Ultralytics' own mAP of a model on the same pictures, and what makes it another number than ours.

Three things can. It pads a checkpoint's pictures to rectangles, where the device has one shape. It averages precision over
recall in its own way: from the same boxes, COCO's code gives another number. And the boxes themselves can differ, which they
should not. Each is measured by changing one of them at a time, so that the three shares add up to the difference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.data.mirror import mirrored
from yolo_kd.data.split import Split, normalise
from yolo_kd.deploy.artifact import METADATA, read_artifact
from yolo_kd.deploy.detections import Detections
from yolo_kd.evidence.average_precision import PrecisionMeter
from yolo_kd.evidence.evaluation import by_name, read_frame, truth_of

AGREEMENT = 0.005  # between our AP and Ultralytics' mAP50-95; beyond it the difference is explained
SAID = 0.0005  # shares below it are not worth a word


def reference_map(
    source: str, split: Split, ours: float, imgsz: int | tuple[int, int] = 640, device: str = "cpu", trust: bool = False
) -> dict[str, Any]:
    """Ultralytics' mAP of a checkpoint or an artifact; nothing is written where model or data lie.

    Args:
        source: A .pt, or whatever `read_artifact` takes.
        split: The pictures.
        ours: Our AP of it on them.
        imgsz: Input size of a checkpoint; of height and width, Ultralytics takes the larger.
        device: Where a checkpoint runs; artifacts run on the CPU.
        trust: See `ultra.load_detector`.

    Returns:
        "mAP50-95" and "mAP50"; "ids" if the model's class ids are not the data set's, which Ultralytics takes them for;
        "input" if its is another one; and "apart", the shares of a difference above .005, which add up to ours - theirs:
        "padding", "averaging", "boxes".
    """
    checkpoint = source.endswith(".pt")
    options: dict[str, Any] = {"device": device if checkpoint else "cpu"}
    if checkpoint:
        options["imgsz"] = imgsz if isinstance(imgsz, int) else max(imgsz)
    with mirrored(split) as data, _known_to_ultralytics(source) as source:
        rectangles, fifty, boxes, names = _validate(source, data, trust, options)
        found: dict[str, Any] = {"mAP50-95": rectangles, "mAP50": fifty}
        if swapped := _swapped(names, split.names):
            found["ids"] = swapped
        if checkpoint and not isinstance(imgsz, int) and len(set(imgsz)) > 1:
            found["input"] = f"{max(imgsz)}x{max(imgsz)}"
        if abs(ours - rectangles) > AGREEMENT:
            squares = rectangles
            if checkpoint:
                squares, _, boxes, _ = _validate(source, data, trust, {**options, "rect": False})
            same_boxes = _by_coco(split, boxes, names)
            found["apart"] = {
                "padding": squares - rectangles,
                "averaging": same_boxes - squares,
                "boxes": ours - same_boxes,
            }
    return found


def explained(found: Mapping[str, Any], ours: float, name: str, shape: str = "one shape") -> list[str]:
    """What to say about the two numbers of a model, a line for each thing; nothing where they agree.

    Args:
        found: From `reference_map`.
        ours: Our AP.
        name: What to call the model.
        shape: The input's, such as "640x640".
    """
    lines = []
    if "ids" in found:
        lines.append(
            f"{name}: Ultralytics' mAP says nothing here, it compares class ids, and {found['ids']}; ours are matched by name"
        )
    elif "apart" in found:
        why = {
            "padding": f"it pads pictures to rectangles, the device to {shape}",
            "averaging": "it averages precision over recall in its own way, not in COCO's",
            "boxes": f"its input is {found['input']}" if "input" in found else "its boxes are others",
        }
        shares = sorted(found["apart"].items(), key=lambda share: -abs(share[1]))
        told = "; ".join(f"{value:+.4f} because {why[kind]}" for kind, value in shares if abs(value) >= SAID)
        theirs = found["mAP50-95"]
        lines.append(f"{name}: AP {ours:.4f} here, {theirs:.4f} in Ultralytics; of {ours - theirs:+.4f}, {told}")
        if abs(found["apart"]["boxes"]) > AGREEMENT and "input" not in found:
            lines.append(
                f"WARNING {name}: one net on one input gives other boxes here than in Ultralytics; trust neither number, and "
                "compare the versions with constraints.txt"
            )
    return lines


@contextmanager
def _known_to_ultralytics(source: str) -> Iterator[str]:
    """The name by which Ultralytics takes a model: it knows an OpenVINO net by the end of its folder's, ONNX by the file's."""
    if source.endswith(".pt"):
        yield source
        return
    artifact = read_artifact(source)
    if artifact.format == "onnx":
        yield str(artifact.model_path)
        return
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
        folder = Path(work) / "best_openvino_model"
        folder.mkdir()
        for name in (artifact.model, Path(artifact.model).with_suffix(".bin").name, METADATA):
            (folder / name).symlink_to((artifact.folder / name).absolute())
        yield str(folder)


def _validate(
    source: str, data: Path, trust: bool, options: Mapping[str, Any]
) -> tuple[float, float, list[dict[str, Any]], dict[int, str]]:
    """mAP50-95, mAP50, every box, and the model's class names, of one validation by Ultralytics."""
    from yolo_kd.engine import ultra
    from yolo_kd.engine.foreign_code import no_foreign_code
    from yolo_kd.engine.untouched import untouched_pictures

    with no_foreign_code(trust), untouched_pictures(), tempfile.TemporaryDirectory(prefix="yolo-kd-") as runs:
        model = ultra.YOLO(source, task="detect")
        seen: list[Any] = []

        class Listening(model.task_map["detect"]["validator"]):  # type: ignore[name-defined, misc]
            """One whose boxes we can read; it would install a package to evaluate them once more."""

            def init_metrics(self, model: Any) -> None:
                seen.append(self)
                super().init_metrics(model)

            def eval_json(self, stats: Any) -> Any:
                return stats

        box = model.val(
            Listening, data=str(data), split="val", plots=False, verbose=False, save_json=True, project=runs, **options
        ).box
    return float(box.map), float(box.map50), seen[0].jdict, dict(seen[0].names)


def _swapped(model: Mapping[int, str], data: Mapping[int, str]) -> str:
    """The first class that has another id in the model than in the data set, as words; empty if none has."""
    ids = {normalise(name): k for k, name in model.items()}
    for k, name in data.items():
        if ids.get(normalise(name), k) != k:
            return f"{name} is {ids[normalise(name)]} in the model and {k} in the data set"
        if k in model and normalise(model[k]) != normalise(name):
            return f"{k} is {model[k]} in the model and {name} in the data set"
    return ""


def _by_coco(split: Split, boxes: list[dict[str, Any]], names: Mapping[int, str]) -> float:
    """COCO's AP of boxes that Ultralytics found on a mirrored split."""
    rows: list[list[list[float]]] = [[] for _ in split.images]
    for box in boxes:
        rows[int(Path(box["file_name"]).stem)].append([*box["bbox"], box["score"], box["category_id"] - 1])
    truths, found = [], []
    for image, listed in zip(split.images, rows, strict=True):
        size_hw = read_frame(image).shape[:2]
        table = np.array(listed, np.float64).reshape(-1, 6)
        corners = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), 1)
        kinds = table[:, 5].astype(np.int64)
        truths.append(truth_of(split, image, (size_hw[0], size_hw[1])))
        found.append(by_name(Detections(corners, table[:, 4], kinds, names, (size_hw[0], size_hw[1])), split))
    return PrecisionMeter(truths, found, split.names).precision().ap
