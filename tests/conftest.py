"""What several tests train on: a handful of tiny pictures, and teachers with random weights."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = ("car", "truck", "person")
TINY = {  # a detector that trains three times as fast as YOLOv8n, most of whose time at 64 px goes into its many layers
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [24, 3, 2]],
        [-1, 1, "C2f", [24, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [48, 3, 2]],
    ],
    "head": [[[3, 4, 5], 1, "Detect", ["nc"]]],
}
TRAINED = {"learnt", "float_export"}  # fixtures that take half a minute to make


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_garbage() -> None:
    """What was imported so far stays: each training collects garbage, and need not look at all that."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What is left to be freed at the end is freed, or libraries report it as lost."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a trained net is slow."""
    for item in items:
        if TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


def write_pictures(root: Path, names: tuple[str, ...] = NAMES, train: int = 8, val: int = 4, size: int = 64) -> Path:
    """Bright boxes on noise, a class per colour; returns data.yaml."""
    import cv2
    import yaml

    rng = np.random.default_rng(3)
    for split, count in (("train", train), ("val", val)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            rows = []
            for _ in range(3):
                kind = int(rng.integers(len(names)))
                w, h = rng.integers(size // 5, size // 2, 2)
                x, y = rng.integers(0, size - w), rng.integers(0, size - h)
                picture[y : y + h, x : x + w] = (80 + 60 * kind, 255 - 60 * kind, 40 * kind)
                rows.append(f"{kind} {(x + w / 2) / size:.6f} {(y + h / 2) / size:.6f} {w / size:.6f} {h / size:.6f}")
            cv2.imwrite(str(root / "images" / split / f"{i:03}.png"), picture)
            (root / "labels" / split / f"{i:03}.txt").write_text("\n".join(rows) + "\n")
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": dict(enumerate(names))}))
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own, so that they neither fill the user's nor pass because of it."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_KD_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium without network; a test that needs one fails where there is none."""
    from tests.browser import Browser

    with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of 8 training and 4 validation pictures of 64 px with three classes."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def write_tiny(path: Path, width: int = 1) -> Path:
    """The YAML of a tiny detector, so many times as wide."""
    import yaml

    backbone = [[source, count, kind, [args[0] * width, *args[1:]]] for source, count, kind, args in TINY["backbone"]]
    path.write_text(yaml.safe_dump({"nc": len(NAMES), **TINY, "backbone": backbone}))
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a student for tests that are not about its architecture."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.yaml")


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint as Ultralytics saves it, from a model YAML with random weights; cached by its arguments.

    Without a YAML it is a teacher for `tiny`: the same, and wider, so that there are adapters.
    """
    folder = tmp_path_factory.mktemp("checkpoints")
    wide = str(write_tiny(folder / "wide.yaml", width=2))
    made: dict[tuple, Path] = {}

    def make(model: str = wide, names: tuple[str, ...] = NAMES, seed: int = 0) -> Path:
        import torch
        from ultralytics import YOLO

        key = (model, names, seed)
        if key not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                net = YOLO(model, verbose=False).model
                if len(names) != net.model[-1].nc:
                    net = type(net)(model, nc=len(names), verbose=False)
                for module in net.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                        torch.nn.init.normal_(module.bias, 0, 0.2)
                # scores of a fresh head are all near 0; a teacher says something
                for branch in (getattr(net.model[-1], "cv3", None), getattr(net.model[-1], "one2one_cv3", None)):
                    for tower in branch or ():
                        torch.nn.init.normal_(tower[-1].weight, 0, 0.3)
                        torch.nn.init.constant_(tower[-1].bias, -1.0)
            net.names = dict(enumerate(names))
            path = folder / f"{Path(model).stem}-{len(made)}.pt"
            torch.save({"model": net.half(), "train_args": {"task": "detect"}, "epoch": -1}, path)
            made[key] = path
        return made[key]

    return make


@pytest.fixture(scope="session")
def learnt(pictures: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 64 px that has learnt the training pictures by heart: mAP50-95 about .9 on them."""
    from filelock import FileLock

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the whole run: the first worker that comes trains it for all
    checkpoint = folder / "learnt" / "weights" / "last.pt"
    with FileLock(folder / "learnt.lock"):
        if not checkpoint.exists():
            _learn(pictures, tiny, checkpoint.parents[1])
    return checkpoint


def _learn(pictures: Path, student: Path, folder: Path) -> None:
    from ultralytics import YOLO

    from yolo_kd import DistillationTrainer

    still = dict.fromkeys(("mosaic", "scale", "translate", "erasing", "hsv_h", "hsv_s", "hsv_v"), 0)
    YOLO(str(student), task="detect", verbose=False).train(
        trainer=DistillationTrainer, distill="none", data=str(pictures), epochs=200, imgsz=64, batch=8, nbs=8,
        optimizer="AdamW", lr0=0.008, warmup_epochs=2, project=str(folder.parent), name=folder.name, plots=False, val=False,
        exist_ok=True, seed=1, verbose=False, cpu_threads=1, save=False, check_data=False, **still,
    )  # fmt: skip


@pytest.fixture(scope="session")
def float_export(learnt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that knows the training pictures, exported to OpenVINO in float."""
    from ultralytics import YOLO

    checkpoint = shutil.copy(learnt, tmp_path_factory.mktemp("export") / "best.pt")
    return Path(YOLO(checkpoint).export(format="openvino", imgsz=64, verbose=False))


@pytest.fixture
def train(pictures: Path, tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train one tiny epoch and return the trainer; keys override."""

    def run(trainer_class: Any = None, model: str = str(tiny), **keys: Any) -> Any:
        from ultralytics import YOLO

        from yolo_kd import DistillationTrainer

        defaults = {
            "data": str(pictures), "epochs": 1, "imgsz": 64, "batch": 4, "nbs": 4, "optimizer": "SGD", "lr0": 0.01,
            "warmup_epochs": 0, "project": str(tmp_path), "name": "run", "exist_ok": True, "plots": False, "val": False,
            "seed": 1, "verbose": False,
        }  # fmt: skip
        if keys.get("resume"):
            del defaults["epochs"]  # a resumed run has its own, and may only be given more
        chosen = trainer_class or DistillationTrainer
        if issubclass(chosen, DistillationTrainer):
            defaults |= {"cpu_threads": 1, "teacher_engine": "torch"}  # `auto` would compile three more each time
        yolo = YOLO(model, task="detect", verbose=False)
        yolo.train(trainer=chosen, **{**defaults, **keys})
        return yolo.trainer

    return run
