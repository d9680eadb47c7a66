"""New parts of a data set in which no scene is on both sides.

A scene is what hangs together by pictures that look alike, by recordings that file names tell, and by a table of groups
where somebody has one: that two flights were over one street, from other heights, no picture hash knows. With validation
frames from the flights that were trained on, a figure says how well the flight was learnt by heart. Images are read,
never touched: the parts are lists.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from yolo_kd.cfg.atomic import refuse_taken, write_text
from yolo_kd.data.check import Progress, look_at_images
from yolo_kd.data.description import PARTS, Description
from yolo_kd.data.split import Split, read_split

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.likeness import NEAR, chains

STEP = NEAR + 2  # bits; two more than what a check calls alike, so that packing anew moves no pair over the limit
RECORDINGS = 10  # names of so many recordings are believed; IMG_0001 or 2007_000027 say camera or year, no place
TRIALS = 64  # orders in which the scenes are dealt out; the best is kept
MARK = "# parts without a common scene, by yolo-kd data split"
_OWN_KEYS = {"path", "train", "val", "validation", "test", "minival", "download", "nc"}


@dataclass(frozen=True)
class SceneSplit:
    """Every image with its scene and its part.

    Args:
        images: (N) paths, sorted.
        scene: (N,) number of the scene, from 0.
        part: (N,) index into `PARTS`.
        recordings: How many recordings the file names told; 0 where they were not believed.
    """

    images: Sequence[Path]
    scene: np.ndarray
    part: np.ndarray
    recordings: int


def split_by_scene(
    data: Description,
    shares: Mapping[str, float],
    seed: int = 0,
    step: int = STEP,
    names: bool = True,
    groups: Path | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> SceneSplit:
    """Deal out the scenes of all parts of a data set.

    Args:
        data: The data set; what its parts are now does not matter.
        shares: Share of the images for each part, summing to 1.
        seed: Decides the order in which scenes are dealt out.
        step: Of 64 bits, the distance up to which two pictures are of one scene.
        names: Whether file names may tell recordings.
        groups: CSV with a column `image` (file name, with or without suffix, or with folders before it) and a column
            `group`; it takes the place of file names.
        jobs: Threads.
        progress: Called with (step, done, total).

    Raises:
        MisuseError: No, missing or unreadable images, labels that make no sense, or too few scenes.
    """
    splits = [read_split(data.source, part) for part in data.parts]
    owner = {path: split for split in splits for path in split.images}
    images = sorted(owner)
    if not images:
        raise MisuseError(
            f"data={data.source}: none of its parts ({', '.join(data.parts) or 'it has none'}) names an image"
        )
    looks = look_at_images(images, True, jobs, progress)
    bad = [look.fault[1] for look in looks.values() if look.fault]
    if bad:
        raise MisuseError(f"{len(bad)} images cannot be used, first {bad[0]}; yolo-kd data check lists them")
    prints = np.array([looks[path].print for path in images], np.uint64)
    told = recordings(images) if names and groups is None else None
    known = None if groups is None else read_groups(groups, images)
    scene = joined([chains(prints, step), *(group for group in (told, known) if group is not None)])
    part = deal(scene, _classes(images, owner, data.names), [shares.get(name, 0.0) for name in PARTS], seed)
    return SceneSplit(images, scene, part, 0 if told is None else len(set(told.tolist())))


def recordings(images: Sequence[Path]) -> np.ndarray | None:
    """(N,) number of the recording of each image by its name, or None if the names tell none.

    A recording is what is equal before the last number: `0_100_30_0_03306` is frame 3306 of `0_100_30_0_`. Names that
    are numbers alone count by their folder.

    >>> recordings([Path("a/000001.jpg"), Path("a/000002.jpg")]) is None
    True
    """
    keys = [re.sub(r"\d+$", "", path.stem) or str(path.parent) for path in images]
    if sum(count > 1 for count in Counter(keys).values()) < RECORDINGS:
        return None
    return np.unique(np.array(keys), return_inverse=True)[1]


def read_groups(path: Path, images: Sequence[Path]) -> np.ndarray:
    """(N,) number of the group of each image as a table says.

    Raises:
        MisuseError: No such table, one that contradicts itself, or images that it does not name.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["image"].strip(), row["group"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, AttributeError, csv.Error):
        raise MisuseError(f"groups={path}: expected a CSV file with the columns image and group") from None
    table = dict(rows)
    for name, group in rows:
        if table[name] != group:
            raise MisuseError(
                f"groups={path}: puts {name} into {group} and into {table[name]}; where pictures in several folders have one "
                f"name, give the folder too, such as {_example(name, images)}"
            )
    found = [next((table[name] for name in _names_of(image) if name in table), None) for image in images]
    missing = [image.name for image, group in zip(images, found, strict=True) if group is None]
    if missing:
        raise MisuseError(f"groups={path}: has no row for {len(missing)} of {len(images)} images, first {missing[0]}")
    return np.unique(np.array(found, str), return_inverse=True)[1]


def _names_of(image: Path) -> Iterator[str]:
    """What a table may call a picture: the end of its path, the longest first, or its name without suffix."""
    parts = image.parts
    yield from ("/".join(parts[i:]) for i in range(len(parts)))
    yield image.stem


def _example(name: str, images: Sequence[Path]) -> str:
    """The last picture of a name with its folder."""
    found = [image for image in images if name in (image.name, image.stem)]
    return "/".join(found[-1].parts[-2:]) if found else f"folder/{name}"


def joined(groups: Sequence[np.ndarray]) -> np.ndarray:
    """What hangs together by any of several groupings.

    >>> joined([np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])]).tolist()
    [0, 0, 0, 1]
    """
    parent = list(range(len(groups[0])))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for labels in groups:
        first: dict[int, int] = {}
        for i, label in enumerate(labels.tolist()):
            parent[root(i)] = root(first.setdefault(label, i))
    return np.unique([root(i) for i in range(len(parent))], return_inverse=True)[1]


def deal(scene: np.ndarray, classes: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """A part for each image, the same for all of a scene.

    Large scenes go first, each to the part that lacks most of its share. Of several random orders the one is taken
    whose parts come closest to their shares, of images and of the boxes of every class.

    Args:
        scene: (N,) number of the scene.
        classes: (N, C) boxes of each class.
        shares: Of each part; those of 0 get nothing.
        seed: Of the orders.

    Returns:
        (N,) index of the part.

    Raises:
        MisuseError: Too few scenes, or scenes too large, to fill every part.
    """
    sizes = np.bincount(scene).astype(float)
    boxes = (
        np.stack([np.bincount(scene, kind, len(sizes)) for kind in classes.T], 1) if classes.size else sizes[:, None]
    )
    wanted = np.array(shares) / sum(shares)
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(sizes), int), np.inf
    for _ in range(max(1, min(TRIALS, 300_000 // len(sizes)))):
        order = rng.permutation(len(sizes))
        order = order[np.argsort(-np.floor(np.log2(sizes[order])), kind="stable")]
        trial = _dealt(order, sizes, wanted)
        off = _distance(trial, sizes[:, None], wanted).max() + _distance(trial, boxes, wanted).mean()
        if off < least:
            best, least = trial, off
    empty = [PARTS[i] for i in range(len(wanted)) if wanted[i] > 0 and not (best == i).any()]
    if empty:
        raise MisuseError(
            f"{len(sizes)} scenes, the largest with {sizes.max() / sizes.sum():.0%} of the images, leave nothing for "
            f"{' and '.join(empty)}; names=false does not go by file names, a smaller near= makes more scenes"
        )
    return best[scene]


def write_split(found: SceneSplit, data: Description, out: Path, note: str) -> list[Path]:
    """Write the YAML, a list per part, and a table of scenes; the YAML comes last.

    Args:
        found: The parts.
        data: What the names and other keys are taken from.
        out: The YAML; the others are called after it.
        note: A line on how it was made.

    Returns:
        The files.

    Raises:
        MisuseError: Something of somebody else lies there.
    """
    lists = {name: out.with_name(f"{out.stem}_{name}.txt") for i, name in enumerate(PARTS) if (found.part == i).any()}
    table = out.with_name(f"{out.stem}_scenes.csv")
    here = out.absolute().parent.resolve()  # where its lists are read
    texts = {}
    for name, path in lists.items():
        mine = [image for image, part in zip(found.images, found.part, strict=True) if PARTS[part] == name]
        texts[path] = "".join(f"./{_relative(image, here)}\n" for image in mine)
    rows = io.StringIO()
    lines = csv.writer(rows, lineterminator="\n")  # it quotes names with a comma
    lines.writerow(("image", "scene", "part"))
    for image, scene, part in zip(found.images, found.scene.tolist(), found.part, strict=True):
        lines.writerow((_relative(image, here), scene, PARTS[part]))
    texts[table] = rows.getvalue()
    ours = out.is_file() and out.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    for path in (out, *texts):
        left = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
        if left is None or left != texts.get(path):  # else it is of one that was killed
            refuse_taken(path, MARK if path == out or not ours else "")
    for path, text in texts.items():
        write_text(path, text)
    content = {name: path.name for name, path in lists.items()} | {"names": dict(data.names)}
    content |= {key: value for key, value in data.raw.items() if key not in _OWN_KEYS | {"names"}}
    write_text(out, f"{MARK}\n# {note}\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return [out, *lists.values(), table]


def _relative(image: Path, folder: Path) -> str:
    return Path(os.path.relpath(image.absolute(), folder)).as_posix()


def _dealt(order: np.ndarray, sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    parts = np.flatnonzero(wanted)
    lack = wanted[parts] * sizes.sum()
    target = lack.copy()
    found = np.zeros(len(sizes), int)
    for group in order:
        i = int((lack / target).argmax())
        found[group] = parts[i]
        lack[i] -= sizes[group]
    return found


def _distance(part: np.ndarray, amounts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(P, C) distance of the share of each column in each part from the wanted share."""
    total = np.maximum(amounts.sum(0), 1)
    got = np.stack([amounts[part == i].sum(0) for i in range(len(wanted))]) / total
    return np.abs(got - wanted[:, None])


def _classes(images: Sequence[Path], owner: Mapping[Path, Split], names: Mapping[int, str]) -> np.ndarray:
    """(N, C) boxes of each class in each image."""
    column = {kind: i for i, kind in enumerate(sorted(names))}
    found = np.zeros((len(images), len(column)))
    for row, image in enumerate(images):
        kinds, _ = owner[image].labels(image)
        np.add.at(found[row], [column[int(kind)] for kind in kinds], 1)
    return found
