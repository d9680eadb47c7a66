"""Runs a bundled student on videos in an environment that has no torch: `python -I on_device.py student.zip VIDEO...`."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
from yolo_kd.deploy import bundle, open_detector

import yolo_kd

DESK = ("torch", "torchvision", "ultralytics")


def main(zipped: Path, videos: list[Path]) -> None:
    """Unpack, run every frame, print; a video without a frame is a failure, and so is no box on any."""
    there = [name for name in DESK if importlib.util.find_spec(name)]
    assert not there, f"expected an environment without {', '.join(there)}"
    home = Path(yolo_kd.__file__).parent
    assert home.is_relative_to(sys.prefix), f"yolo_kd was imported from {home}, not from the wheel"
    with tempfile.TemporaryDirectory() as temporary:
        artifact = bundle.unpack(zipped, Path(temporary) / "student")
        boxes = 0
        with open_detector(artifact, cache=False) as detector:
            for video in videos:
                reader, frames, seen = cv2.VideoCapture(str(video)), 0, Counter[str]()
                while (found := reader.read())[0]:
                    frames += 1
                    seen.update(name for *_, name in detector(found[1]))
                reader.release()
                told = ", ".join(f"{count} {name}" for name, count in seen.most_common(5))
                print(f"{video.name}: {frames} frames, {seen.total()} boxes ({told})", flush=True)
                assert frames > 0, f"{video}: no frame could be read"
                boxes += seen.total()
            print(f"{zipped.name} ran in {detector.backend.precision} on {detector.backend.device}")
    assert boxes > 0, "the student saw nothing on any video"
    assert not set(DESK) & set(sys.modules), "running it loaded what a device does not have"


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
