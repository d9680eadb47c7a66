"""unlabeled=: pictures without labels beside the labelled ones, or in their place.

Found and checked once, and written down in the run folder: workers and resumed runs read that list, so that a folder
which grows in the meantime changes nothing. How they come into the batches is mixing.py, what the loss makes of them
labelled.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.documents import misfit, parse_json, parse_yaml
from yolo_kd.cfg.home import cache_home
from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.data.check import look_at_images
from yolo_kd.data.unlabeled import KEY, find_unlabeled, frames_of, images_of, same_files
from yolo_kd.deploy.machine import cores
from yolo_kd.engine import ultra
from yolo_kd.engine.loader import ResumableLoader
from yolo_kd.engine.mixing import Mixture, Stream, UnlabeledDataset, mix
from yolo_kd.engine.pseudo_labels import pseudo_labels
from yolo_kd.errors import GateError, MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

RECORD = "unlabeled.json"
LISTS = {"videos": [str], "images": [str]}  # in it
DATA = "data.yaml"  # in the run folder, where the user's has no train part
FOLDER = "frames"
SHOWN = 3  # files of each kind in the log
ENDLESS = frozenset({".bmp", ".tif", ".tiff"})  # formats that do not say where they end: only decoding tells a cut one


@dataclass(frozen=True)
class Unlabeled:
    """The unlabeled pictures of a run.

    Args:
        images: All of them.
        boxes: (N, 5) class and box in shares of each picture; None without pseudo-labels.
        quiet: Whether pictures without a box teach, too: not where nothing is distilled.
    """

    images: tuple[Path, ...]
    boxes: tuple[np.ndarray, ...] | None = None
    quiet: bool = True

    def parts(self) -> list[tuple[list[Path], list[np.ndarray] | None, bool]]:
        """Pictures, boxes, and whether these are labels, of the pictures with pseudo-labels and of those without."""
        if self.boxes is None:
            return [(list(self.images), None, False)]
        with_boxes = [i for i, rows in enumerate(self.boxes) if len(rows)]
        others = [image for image, rows in zip(self.images, self.boxes, strict=True) if not len(rows)]
        parts: list[tuple[list[Path], list[np.ndarray] | None, bool]] = [
            ([self.images[i] for i in with_boxes], [self.boxes[i] for i in with_boxes], True)
        ]
        return [*parts, (others, None, False)] if others and self.quiet else parts


def refuse_with(theirs: Mapping[str, Any]) -> None:
    """Refuse keys of Ultralytics under which unlabeled pictures would be trained on as pictures without objects.

    Raises:
        MisuseError: One of them.
    """
    if theirs.get("distill_model"):
        raise MisuseError(
            f"distill_model={theirs['distill_model']}: Ultralytics' own distillation would take unlabeled= pictures for empty "
            "ones; use teacher= instead"
        )
    if theirs.get("rect"):
        raise MisuseError("rect=True: gives labelled and unlabeled= pictures unlike shapes; leave it out")


def collect(trainer: Any) -> None:
    """Find the unlabeled pictures of a run, hold them against the data, and write the list into the run folder.

    Raises:
        MisuseError: There is none, or those of a resumed run are gone.
        GateError: A picture is one of val or test, and there is no `force`.
    """
    record = trainer.save_dir / RECORD
    if trainer.resume and record.exists():
        _require(record, trainer.kd)
        return
    sources = find_unlabeled(trainer.kd.unlabeled)
    images = [*sources.images, *(frame for video in sources.videos for frame in _frames(video, trainer.kd))]
    if sources.others:
        what = ", ".join(sorted({path.suffix.lower() for path in sources.others}))
        trainer.log(f"WARNING {KEY}: {len(sources.others)} pictures left out, as {what} is not read here")
    images = _readable(trainer, images)
    known = same_files(images, _labelled(trainer))
    if known:
        trainer.log(f"{KEY}: {len(known)} left out that are labelled training pictures{_first(known)}")
    images = [image for image in images if image not in known]
    if not images:
        raise MisuseError(f"{KEY}={_named(trainer.kd)}: no picture is left that is not labelled already")
    _refuse_leak(trainer, images)
    plain = {"sources": list(trainer.kd.unlabeled), "videos": [str(v) for v in sources.videos]}
    entries = [str(i.relative_to(cache_home()) if i.is_relative_to(cache_home() / FOLDER) else i) for i in images]
    write_text(record, json.dumps({**plain, "images": entries}, indent=1) + "\n", "project")


def written(trainer: Any) -> list[Path]:
    """What lies in the run folder before its training starts, and is read when it does."""
    files = (trainer.save_dir / RECORD, Path(str(trainer.args.data)))
    return [path for path in files if path.parent == trainer.save_dir] if trainer.kd.unlabeled else []


def training_loader(
    trainer: Any, build: Callable[..., ResumableLoader], path: Any, batch: int, rank: int
) -> ResumableLoader:
    """The training loader whose batches hold unlabeled pictures.

    Args:
        trainer: Its batch size counts all pictures.
        build: The trainer's `get_dataloader` without them.
        path: Of the labelled pictures; None where there are none.
        batch: Pictures of a batch, of this rank.
        rank: -1 in a single process.

    Raises:
        MisuseError: The batch has no room for both kinds, or would never hold a labelled one.
    """
    kd = trainer.kd
    pictures = _pictures(trainer)
    named = f"{KEY}: {len(pictures.images)} images from {_named(kd)}"
    if _on_disk(trainer):
        trainer.log(f"cache=disk: not for {KEY}= pictures, as nothing is written beside them; they are read each time")
    if not path:
        _require_lessons(kd)
        trainer.log(f"{named}; no labelled training picture, so an epoch is one pass over these")
        if kd.recipe.methods and kd.pseudo_labels is None:
            trainer.log("auto gains and shares: of the detection loss that the teacher's confident boxes would give")
        loader = build(path, batch, rank)
        return mix(loader, loader.dataset)
    if kd.unlabeled_ratio == 1:
        raise MisuseError(
            "unlabeled_ratio=1: the labelled pictures would never be seen; choose a share below 1, or a data= without train:"
        )
    if batch < 2:
        raise MisuseError(f"batch={batch}: has no room for a labelled and an unlabeled picture; expected 2 or more")
    count = min(max(round(kd.unlabeled_ratio * batch), 1), batch - 1)
    loader = build(path, batch - count, rank)
    parts, flags = _datasets(trainer, pictures, batch)
    total = sum(len(part) for part in parts)
    stream = Stream(total, trainer.args.seed, max(ultra.RANK, 0), max(trainer.world_size, 1))
    trainer.log(
        f"{named}, ratio {kd.unlabeled_ratio:g}: {count} beside {loader.batch_size} labelled ones in each batch; an epoch is "
        f"one pass over the {len(loader.dataset)} labelled"
    )
    return mix(loader, Mixture([loader.dataset, *parts], [True, *flags], len(loader.dataset)), stream, count)


def without_labels(trainer: Any, batch: int | None) -> Mixture:
    """The training data where there is no labelled picture.

    Raises:
        MisuseError: There are no unlabeled ones either.
    """
    if not trainer.kd.unlabeled:
        raise MisuseError(f"data={trainer.args.data}: names no training pictures; add train: to it, or give {KEY}=")
    parts, flags = _datasets(trainer, _pictures(trainer), batch or trainer.batch_size)
    return Mixture(parts, flags, sum(len(part) for part in parts))


def all_pictures(trainer: Any) -> Any:
    """Labelled and unlabeled pictures of a training as one data set, built anew."""
    path, batch = trainer.data["train"], trainer.batch_size
    first = trainer.build_dataset(path, mode="train", batch=batch)
    if not trainer.kd.unlabeled or not path:
        return first
    parts, flags = _datasets(trainer, _pictures(trainer), batch)
    return Mixture([first, *parts], [True, *flags], len(first) + sum(len(part) for part in parts))


def with_train_part(source: Any, run: Path, wanted: bool) -> Any:
    """A data.yaml that Ultralytics takes: the user's, or where that has no train part a copy of it in the run folder.

    Args:
        source: As given.
        run: The run folder.
        wanted: Whether a train part may be missing.
    """
    path, copy = Path(str(source)), run / DATA
    if path.suffix not in {".yaml", ".yml"} or not wanted:
        return source
    if not path.is_file():
        return str(copy) if copy.is_file() else source
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8", errors="ignore"))
    except (OSError, ValueError):
        return source  # Ultralytics says what is wrong with it
    if not isinstance(raw, dict) or raw.get("train") or path.resolve() == copy.resolve():
        return source
    root = Path(str(raw.get("path") or path.resolve().parent))
    raw |= {"path": str(root.resolve() if root.exists() else root), "train": None}
    if ultra.RANK in {-1, 0}:
        ultra.YAML.save(copy, raw)
    return str(copy)


def _pictures(trainer: Any) -> Unlabeled:
    """Read once; pseudo-labels are found by the first rank and read by the others."""
    if trainer.unlabeled is None:
        images = tuple(_recorded(trainer.save_dir / RECORD)["images"])
        boxes = None
        if trainer.kd.pseudo_labels is not None:
            with ultra.first_rank_first():
                boxes = tuple(pseudo_labels(trainer, images, _settings(trainer, trainer.batch_size)))
        trainer.unlabeled = Unlabeled(images, boxes, bool(trainer.kd.recipe.methods))
        if boxes is not None and not trainer.unlabeled.quiet:
            idle = sum(not len(rows) for rows in boxes)
            trainer.log(f"{KEY}: {idle} pictures without a pseudo-label are left out, as nothing is distilled")
    return trainer.unlabeled


def _datasets(trainer: Any, pictures: Unlabeled, batch: int) -> tuple[list[UnlabeledDataset], list[bool]]:
    settings = _settings(trainer, batch)
    parts = pictures.parts()
    return [UnlabeledDataset(files, boxes, **settings) for files, boxes, _ in parts], [flag for _, _, flag in parts]


def _settings(trainer: Any, batch: int) -> dict[str, Any]:
    """What Ultralytics gives the data set of the labelled pictures."""
    args = trainer.args
    return {
        "imgsz": args.imgsz, "batch_size": batch, "augment": True, "hyp": args,
        "cache": False if _on_disk(trainer) else args.cache,
        "single_cls": args.single_cls or False, "stride": trainer.stride, "pad": 0.0,
        "prefix": ultra.colorstr(f"{KEY}: "), "task": args.task, "classes": args.classes, "data": trainer.data,
        "fraction": 1.0,
    }  # fmt: skip


def _on_disk(trainer: Any) -> bool:
    return str(trainer.args.cache).lower() == "disk"


def _require_lessons(kd: DistillSettings) -> None:
    """Without a label there must be something to learn from in every step."""
    if kd.pseudo_labels is not None:
        return
    idle = f"teacher_every={kd.teacher_every}" if kd.teacher_every > 1 else ""
    idle = idle or (f"until={kd.recipe.until:g}" if kd.recipe.until < 1 else "")
    idle = idle or ("schedule=mosaic" if kd.recipe.schedule == "mosaic" else "")
    if idle:
        raise MisuseError(
            f"{idle}: there is no labelled picture, so steps without the teacher would learn from nothing"
        )


def _frames(video: Path, kd: DistillSettings) -> list[Path]:
    return frames_of(video, kd.unlabeled_frames, cache_home() / FOLDER)


def _recorded(path: Path) -> dict[str, list[Path]]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
        if wrong := misfit(found, LISTS):
            raise ValueError(f"{wrong} is no path")
        lists = {key: [_placed(Path(entry)) for entry in found[key]] for key in LISTS}
        others = [image for image in lists["images"] if image.suffix.lower() not in IMAGE_SUFFIXES]
        if others or not lists["images"]:
            raise ValueError(f"'{others[0]}' is no picture" if others else "no picture")
        return lists
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise MisuseError(f"{path}: no list of unlabeled pictures as a run writes it ({reason}); start anew") from None


def _placed(entry: Path) -> Path:
    """A recorded path; frames are recorded from the cache folder on, which may have moved: their names are of the content."""
    return cache_home() / entry if entry.parts[:1] == (FOLDER,) else entry


def _require(record: Path, kd: DistillSettings) -> None:
    """The pictures of a resumed run are where they were; frames are taken out of their videos again."""
    found = _recorded(record)
    for video in filter(_is_there, found["videos"]):
        _frames(video, kd)
    gone = [image for image in found["images"] if not _is_there(image)]
    if gone:
        raise MisuseError(
            f"{KEY}={_named(kd)}: {len(gone)} of {len(found['images'])} pictures of the resumed run are gone, first {gone[0]}; "
            "put them back"
        )


def _is_there(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  # Path raises for a name that is too long


def _readable(trainer: Any, images: Sequence[Path]) -> list[Path]:
    """Those that can be used; the others are listed, and not mended."""
    looks = look_at_images(images, deep=False, jobs=cores())
    looks |= look_at_images(
        (image for image, look in looks.items() if not look.fault and image.suffix.lower() in ENDLESS), jobs=cores()
    )
    faults = {image: look.fault for image, look in looks.items() if look.fault}
    if faults:
        trainer.log(f"WARNING {KEY}: {len(faults)} of {len(images)} pictures cannot be used and are left out:")
        for image in list(faults)[:SHOWN]:
            trainer.log(f"  {image}: {(faults[image] or ('', ''))[1].removeprefix(f'{image}: ')}")
    if len(faults) == len(images):
        raise MisuseError(f"{KEY}={_named(trainer.kd)}: none of {len(images)} pictures can be used")
    return [image for image in images if image not in faults]


def _refuse_leak(trainer: Any, images: Sequence[Path]) -> None:
    """A picture of val or test is no training picture, labels or not."""
    for part in dict.fromkeys((trainer.args.split, "val", "test")):
        shared = same_files(images, _part(trainer, part))
        if not shared:
            continue
        for image, twin in list(shared.items())[:SHOWN]:
            trainer.log(f"  {image}: the same file as {twin} in {part}")
        reason = f"{KEY}={_named(trainer.kd)}: {len(shared)} pictures are the same files as pictures of {part}{_first(shared)}"
        if not trainer.kd.force:
            raise GateError(f"{reason}: what was trained on would be validated; take them out, or force=true")
        trainer.log(f"WARNING forced: {reason}")


def _labelled(trainer: Any) -> list[Path]:
    """The training pictures that Ultralytics takes: `fraction=` cuts their sorted list."""
    found, share = sorted(_part(trainer, "train"), key=str), trainer.args.fraction
    share = next(iter(share), 1.0) if isinstance(share, list) else share
    return found[: share if isinstance(share, int) and share > 1 else max(1, round(len(found) * share))]


def _part(trainer: Any, part: str) -> list[Path]:
    entries = trainer.data.get(part) or []
    return images_of(Path(str(entry)) for entry in (entries if isinstance(entries, list) else [entries]))


def _first(found: Mapping[Path, Path]) -> str:
    return f" (first {next(iter(found))})"


def _named(kd: DistillSettings) -> str:
    return ", ".join(kd.unlabeled or ())
