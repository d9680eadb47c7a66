"""Detectors that tests can make themselves: exported from random weights by Ultralytics, or made up of numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.artifact import Artifact, read_artifact, write_manifest

NET_HW = (96, 160)


@pytest.fixture(scope="session")
def exported(
    make_checkpoint: Callable[..., Path], frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """What Ultralytics exports from random weights: a folder, or an .onnx file; made once, not to be changed."""
    made: dict[str, Path] = {}

    def make(model: str = "yolov8n.yaml", form: str = "openvino", imgsz: Any = NET_HW, **keys: Any) -> Path:
        from ultralytics import YOLO

        key = repr((model, form, imgsz, sorted(keys.items())))
        if key not in made:
            checkpoint = tmp_path_factory.mktemp("export") / "best.pt"
            write_lively(make_checkpoint(model), checkpoint, frames)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
                if form == "onnx":
                    keys = {"simplify": False, **keys}
                size = list(imgsz) if isinstance(imgsz, tuple) else imgsz
                made[key] = Path(YOLO(checkpoint).export(format=form, imgsz=size, device="cpu", verbose=False, **keys))
        return made[key]

    return make


def write_lively(source: Path, target: Path, frames: list[np.ndarray]) -> None:
    """Random weights whose answers depend on the picture: batch norms measure the frames, else every map fades to a constant."""
    import cv2
    import torch

    saved = torch.load(source, weights_only=False)
    net = saved["model"].float().train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    small = np.stack([cv2.resize(frame, NET_HW[::-1]) for frame in frames])[..., ::-1].transpose(0, 3, 1, 2)
    with torch.no_grad():
        net(torch.from_numpy(small.copy()).float() / 255)
    for branch in (net.model[-1].cv3, getattr(net.model[-1], "one2one_cv3", None)):
        for tower in branch or ():
            tower[-1].weight.data *= 0.4  # scores between 0 and 1, not at either end
    torch.save({**saved, "model": net.eval().half()}, target)


@pytest.fixture
def artifact_folder(exported: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of the exported OpenVINO folder, with a manifest, that a test may ruin."""
    folder = tmp_path / "best_openvino_model"
    shutil.copytree(exported(), folder)
    write_manifest(read_artifact(folder))
    return folder


@pytest.fixture(scope="session")
def made_up() -> Callable[..., Artifact]:
    """Makes an artifact without files, for the fake back end."""

    def make(names: int = 3, net_hw: tuple[int, int] = (64, 64), end2end: bool = False) -> Artifact:
        kinds = {index: f"kind{index}" for index in range(names)}
        return Artifact(Path("nowhere"), "none", "fake", "fp32", net_hw, kinds, end2end)

    return make


@pytest.fixture(scope="session")
def cells() -> Callable[..., np.ndarray]:
    """Makes (1, 4 + classes, cells) as a net gives it, from a list of boxes xywh and a list of their scores."""

    def make(boxes_xywh: list[tuple[float, ...]], scores: list[list[float]]) -> np.ndarray:
        return np.concatenate((np.array(boxes_xywh, np.float32).T, np.array(scores, np.float32).T))[None]

    return make


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Pictures of several shapes: bright boxes on noise."""
    rng = np.random.default_rng(5)
    found = []
    for height, width in [(96, 160), (270, 480), (333, 517), (480, 360), (61, 47), (128, 128), (720, 1280)]:
        frame = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
        for _ in range(6):
            y, x = rng.integers(0, height * 3 // 4), rng.integers(0, width * 3 // 4)
            frame[y : y + height // 4, x : x + width // 4] = rng.integers(60, 256, 3)
        found.append(frame)
    return found
