"""Writes the scenes as an Ultralytics data set: images/, labels/, data.yaml, and a manifest of how they were made."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import cv2
import yaml
from yolo_kd.cfg.atomic import refusal
from yolo_kd.cfg.home import cache_home
from yolo_kd.data.labels import label_text
from yolo_kd.data.scenes.scene import VERSION, check_request, render_scene
from yolo_kd.data.scenes.traffic import CLASSES

from yolo_kd.errors import MisuseError, YoloKDError

MANIFEST = "scenes.json"
# The scene has its JPEG faults already; this only stores it, at a size that stays near 40 kB for 320 px.
_STORE_QUALITY = 93


def default_root() -> Path:
    """Where the embedded data set lives: $YOLO_KD_HOME/scenes, or ~/.cache/yolo-kd/scenes."""
    return cache_home() / "scenes"


def write_dataset(
    root: Path,
    train: int = 1200,
    val: int = 240,
    test: int = 0,
    size: int = 320,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    jobs: int = 1,
    key: str = "root",
) -> Path:
    """Render a data set into `root`, or reuse the one that is there if it was made with the same numbers.

    The folder appears under its name only when it is complete. A killed run leaves a hidden folder
    `.<name>.<random>.partial` beside it, which may be deleted.

    Args:
        root: Folder to create; its parents are created too.
        train, val, test: Pictures per split; without test pictures there is no test split.
        size: Side of the pictures in pixels.
        seed: Seed of the data set.
        progress: Called with (pictures done, pictures in all) in this process.
        jobs: Processes that render; the files do not depend on it. Above 1 the caller must be importable
            (a script needs `if __name__ == "__main__"`).
        key: What the user calls the folder's place, for messages.

    Returns:
        The path of data.yaml; it has no `path` key, so Ultralytics takes its folder.

    Raises:
        MisuseError: A number is out of range, the place cannot be written, or `root` holds something else than this data set.
        YoloKDError: The disk is full.
    """
    root = Path(root).expanduser().resolve()
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < (split != "test"):
            raise MisuseError(f"{split} must be at least {int(split != 'test')}, got {count}: ask for more pictures")
    if jobs < 1:
        raise MisuseError(f"jobs must be at least 1, got {jobs}: use 1 or the number of cores")
    check_request(seed, "train", max(counts.values()), size)
    manifest = {"renderer": VERSION, "seed": seed, "size": size, "counts": counts, "classes": list(CLASSES)}
    if _reusable(root, manifest):
        return root / "data.yaml"
    partial = root.parent / f".{root.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        _write_pictures(partial, counts, size, seed, progress, jobs)
        _write_descriptions(partial, counts, manifest)
        if not _publish(partial, root) and not _reusable(root, manifest):
            raise YoloKDError(f"{root} could not be created from {partial.name}: check the folder's permissions")
    except OSError as error:
        raise refusal(error, root.parent, key) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root / "data.yaml"


def _reusable(root: Path, manifest: dict) -> bool:
    """True for the same data set, False for nothing there; anything else is refused, never overwritten."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise MisuseError(
            f"{root} exists but holds no readable {MANIFEST}: choose another root or move that away"
        ) from error
    for key, wanted in manifest.items():
        if found.get(key) != wanted:
            raise MisuseError(
                f"{root} was rendered with {key}={found.get(key)}, wanted {key}={wanted}: "
                "ask for the same, choose another root, or delete the folder"
            )
    for split, count in manifest["counts"].items():
        for kind, ending in (("images", "jpg"), ("labels", "txt")):
            there = len(list((root / kind / split).glob(f"*.{ending}")))
            if there != count:
                raise MisuseError(
                    f"{root / kind / split} should hold {count} {kind}, has {there}: delete {root} to render it again"
                )
    return True


def _write_pictures(
    folder: Path,
    counts: dict[str, int],
    size: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
    jobs: int,
) -> None:
    tasks = [(split, index) for split, count in counts.items() for index in range(count)]
    for split, count in counts.items():
        for kind in ("images", "labels"):
            if count:
                (folder / kind / split).mkdir(parents=True)
    with _mapper(jobs) as run:
        results = run(_write_one, repeat(folder), repeat(seed), *zip(*tasks), repeat(size))
        for done, _ in enumerate(results, start=1):
            if progress:
                progress(done, len(tasks))


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable]:
    """`map` in this process, or over a pool."""
    if jobs == 1:
        yield map
        return
    # Spawned, not forked: the caller may have threads of torch or OpenCV running.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield lambda work, *arguments: pool.map(work, *arguments, chunksize=8)


def _write_one(folder: Path, seed: int, split: str, index: int, size: int) -> None:
    scene = render_scene(seed, split, index, size)
    stem = f"{split}_{index:06d}"
    _, packed = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, _STORE_QUALITY])
    (folder / "images" / split / f"{stem}.jpg").write_bytes(packed.tobytes())
    (folder / "labels" / split / f"{stem}.txt").write_text(label_text(scene.boxes_xywhn, scene.classes))


def _write_descriptions(folder: Path, counts: dict[str, int], manifest: dict) -> None:
    data: dict[str, object] = {split: f"images/{split}" for split, count in counts.items() if count}
    data["names"] = dict(enumerate(CLASSES))
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    # The manifest comes last and reaches the disk: a folder that has one is complete.
    with (folder / MANIFEST).open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _publish(partial: Path, root: Path) -> bool:
    """Give the finished folder its name; False if somebody else's data set got there first."""
    try:
        partial.rename(root)
    except OSError:
        return False
    return True
