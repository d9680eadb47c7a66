"""Makes what `.ci/run` carries to its devices: `python make_student.py FOLDER` leaves openvino.zip, onnx.zip, video.mp4.

A student that knows eight small pictures by heart, quantized, judged, bundled, and a video of these pictures. The limits are
wide, because nothing is measured here but that the whole way can be gone. Run at the root, with PYTHONPATH=. for the tests'
pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
from yolo_kd.data.split import read_split

from tests.conftest import write_pictures
from yolo_kd.cli import main

WIDE = ("max_drop=0.3", "max_class_drop=1", "max_score_error=0.3", "min_f1=0.5", "min_iou=0.5", "max_slowdown=20")
STILL = ("mosaic=0", "scale=0", "translate=0", "erasing=0", "hsv_h=0", "hsv_s=0", "hsv_v=0")
SIDE = 64


def run(*words: str) -> None:
    """One command, which has to end well."""
    code = main(list(words))
    assert code == 0, f"yolo-kd {' '.join(words)} ended with {code}"


def write_video(path: Path, images: tuple[Path, ...], repeats: int = 3) -> None:
    """The pictures one after another."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (SIDE, SIDE))
    for image in images * repeats:
        writer.write(cv2.imread(str(image)))
    writer.release()


def make(folder: Path) -> None:
    """Everything, from the first picture to the bundles."""
    data = write_pictures(folder / "pictures", size=SIDE)
    write_video(folder / "video.mp4", read_split(data, "train").images)
    run(
        "train", "distill=none", "student=yolov8n.yaml", f"data={data}", "epochs=120", f"imgsz={SIDE}", "batch=8", "nbs=8",
        "optimizer=AdamW", "lr0=0.004", "warmup_epochs=2", *STILL, "plots=false", "val=false", f"project={folder}", "name=run",
        "seed=1", "exist_ok=true",
    )  # fmt: skip
    best = folder / "run" / "weights" / "last.pt"
    words = ("split=train", f"imgsz={SIDE}", f"out={folder}", "sensitivity=false", *WIDE)
    run("quantize", f"model={best}", f"data={data}", *words)
    for backend in ("openvino", "onnx"):
        artifact, parent = (folder / f"last_{kind}{backend}_model" for kind in ("int8_", ""))
        words = (f"artifact={artifact}", f"parent={parent}", f"data={data}", "split=train", "references=8")
        run("bundle", *words, f"out={folder}/{backend}.zip")


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
