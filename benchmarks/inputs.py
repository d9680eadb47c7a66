"""The inputs of a benchmark: how each was made, which a path in a command line does not say, and copies to work on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from yolo_kd.deploy.artifact import read_artifact, sha256

SHORT = 12  # hexadecimal digits that name a file


def origin(key: str, path: Path) -> str:
    """What a checkpoint or an artifact was made from, as far as it says so itself.

    Args:
        key: The benchmark's key that named it.
        path: A .pt, or the folder of an artifact.
    """
    said = _checkpoint(path) if path.suffix == ".pt" else _artifact(path)
    return f"{key}={path.name}: {said}"


def _checkpoint(path: Path) -> str:
    from yolo_kd.engine import ultra

    named = f"checkpoint, sha256 {sha256(path)[:SHORT]}"
    args: Any = getattr(ultra.load_detector(str(path), "weights"), "args", {})
    args = args if isinstance(args, dict) else vars(args)
    if not (args.get("model") and args.get("data")):
        return f"{named}, of which it does not say how it was trained"
    recipe = f"{Path(str(args['model'])).name} after {args.get('epochs')} epochs of {Path(str(args['data'])).name}"
    return f"{named}, {recipe} at {args.get('imgsz')} px, seed {args.get('seed')}"


def _artifact(path: Path) -> str:
    found = read_artifact(path)
    facts = found.facts
    parent = facts.get("parent") or {}
    made_from = "weights that it does not name"
    if "file" in parent and "sha256" in parent:
        made_from = f"{parent['file']}, sha256 {str(parent['sha256'])[:SHORT]}"
    size = "x".join(map(str, found.input_hw))
    if found.precision != "int8":
        return f"{found.format} in {found.precision}, {size}, as yolo-kd export leaves it, from {made_from}"
    calibration = facts.get("calibration") or {}
    recipe = ", ".join(
        f"{k} {v}" for k, v in (facts.get("recipe") or {}).items() if k != "backend" and v not in ([], None)
    )
    return (
        f"{found.format} in INT8, {size}, as yolo-kd quantize leaves it, from {made_from}; recipe {recipe}; calibrated on "
        f"{calibration.get('images')} pictures, list sha256 {str(calibration.get('hash'))[:SHORT]}"
    )


def private_copy(data: Path, target: Path) -> Path:
    """The data set copied to `target`: Ultralytics writes caches next to labels.

    Raises:
        SystemExit: `target` holds another data set.
    """
    if target.exists():
        if _contents(target) != _contents(data.parent):
            raise SystemExit(f"{target} is not a copy of {data.parent}; choose another out= or name=, or delete it")
    else:
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(data.parent, part)
        part.rename(target)
    return target / data.name


def _contents(folder: Path) -> set[tuple[str, int]]:
    """Files and their sizes, without the caches that Ultralytics writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".cache")
    return {(str(path.relative_to(folder)), path.stat().st_size) for path in files}


def listed(value: Any) -> list[str]:
    """The words of a key such as `seeds=0,1`, which the command line may have made a tuple of.

    >>> listed((0.36, 0)), listed("plain, pkd"), listed("")
    (['0.36', '0'], ['plain', 'pkd'], [])
    """
    words = value if isinstance(value, list | tuple) else str(value).strip("()[]").split(",")
    return [word for given in words if (word := str(given).strip())]
