"""The training loader, able to stand where another one stood: same order, same batch, same augmentations.

What an epoch shows depends on the loader's own generator (the order), on what Albumentations keeps to itself, and on the
pictures that mosaic chooses its partners from. Ultralytics draws all of it from streams that run through the whole
training, and a plain training must stay bit-equal to its; so the streams are kept, instead of a seed for each epoch.

With workers (on GPUs) pictures are read ahead in other processes, whose streams cannot be kept: then a resumed run draws
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from yolo_kd.engine import ultra
from yolo_kd.engine.rng import packed, unpacked


class NotedOrder:
    """A sampler that notes from which state of its generator each epoch's order was drawn.

    Args:
        sampler: The loader's own.
        generator: What the sampler draws from.
    """

    def __init__(self, sampler: Any, generator: Any) -> None:
        self.sampler, self.generator = sampler, generator
        self.state, self.taken = generator.get_state(), 0

    def __iter__(self) -> Iterator[int]:
        # runs when the first index is asked for: an order that just ended has drawn from the generator by then
        self.state, self.taken = self.generator.get_state(), 0
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


class ResumableLoader(ultra.InfiniteDataLoader):
    """Ultralytics' loader, which can start in the middle of an epoch; made by `resumable`."""

    order: NotedOrder
    stream: Any = None  # of unlabeled pictures, which goes on from epoch to epoch
    iterator: Any
    first = 0  # number of the first batch of the coming epoch
    closed = False  # whether mosaic is over
    digest = ""  # of its pictures, once it was asked for
    pending: Callable[[], None] | None = None  # runs before the first batch, when everything else stands

    def __iter__(self) -> Iterator[Any]:
        pending, self.pending = self.pending, None
        if pending is not None:
            pending()
        first, self.first = self.first, 0
        if self.iterator is None:
            self.iterator = self._get_iterator()
        for _ in range(first, len(self)):
            batch = next(self.iterator)
            self.order.taken += 1
            yield batch


def resumable(loader: Any) -> ResumableLoader:
    """Ultralytics' training loader as one that can be resumed."""
    loader.__class__ = ResumableLoader  # it has everything that ours needs; building it anew would repeat its settings
    batches = loader.batch_sampler.sampler
    loader.order = batches.sampler = NotedOrder(batches.sampler, loader.generator)
    return loader


def numbered(items: Iterable[Any], start: int = 0) -> Iterator[tuple[int, Any]]:
    """`enumerate`, which counts a loader's batches from where it starts."""
    return enumerate(items, getattr(items, "first", start))


def loader_state(loader: ResumableLoader) -> dict[str, Any] | None:
    """Where a loader stands, as plain values and tensors; None with workers."""
    if loader.num_workers:
        return None
    first, *others = [_part_state(part) for part in _parts(loader)]
    return {
        "order": loader.order.state,
        "taken": loader.order.taken,
        "closed": loader.closed,
        **first,
        "others": others,
        "stream": loader.stream.noted if loader.stream is not None else None,
    }


def pictures(loader: ResumableLoader) -> str:
    """Tells what a loader draws from, in its order: a digest of names, sizes and labels, wherever the pictures lie."""
    if not loader.digest:
        digest = sha256()
        for part in _parts(loader):
            for file, label in zip(map(Path, part.im_files), part.labels, strict=True):
                digest.update(f"{file.name} {file.stat().st_size if file.exists() else 0}\n".encode())
                digest.update(label["cls"].tobytes() + label["bboxes"].tobytes())
        loader.digest = digest.hexdigest()
    return loader.digest


def set_loader(loader: ResumableLoader, state: dict[str, Any]) -> None:
    """Bring a fresh loader to where another one stood.

    Args:
        loader: Of the same pictures and batch size; mosaic is closed already if the coming epoch is without.
        state: From `loader_state`.
    """
    iterator: Any = loader._get_iterator()
    loader.generator.set_state(state["order"])
    if loader.stream is not None:
        loader.stream.go_to(state["stream"])
    for _ in range(state["taken"]):
        iterator._next_index()
    loader.order.taken = state["taken"]
    # where mosaic closes Ultralytics starts a new iterator, and new transforms with random states of their own
    closes_now = loader.closed != state["closed"]
    loader.iterator = loader._get_iterator() if closes_now else iterator
    if closes_now:  # within an epoch only where epochs= or close_mosaic= changed: then so much of this order is done
        for _ in range(loader.first):
            loader.iterator._next_index()
            loader.order.taken += 1
    for part, kept in zip(_parts(loader), [state, *state.get("others", [])], strict=True):
        for index in kept["buffer"]:
            part.load_image(index)
        nodes = [] if closes_now else zip(_albumentations(part), kept["albumentations"], strict=True)
        for node, saved in nodes:
            node.seed = saved["seed"]
            node.random_generator.bit_generator.state = saved["numpy"]
            node.py_random.setstate(unpacked(saved["python"]))


def _parts(loader: Any) -> list[Any]:
    """The data sets of a loader: its own, or those that it mixes."""
    return list(getattr(loader.dataset, "parts", [loader.dataset]))


def _part_state(dataset: Any) -> dict[str, Any]:
    """What mosaic chooses its partners from, and the transforms that draw from states of their own."""
    return {
        "buffer": list(getattr(dataset, "buffer", [])),
        "albumentations": [
            {"seed": node.seed, "numpy": node.random_generator.bit_generator.state, "python": packed(node.py_random)}
            for node in _albumentations(dataset)
        ],
    }


def _albumentations(dataset: Any) -> list[Any]:
    """Every transform of Albumentations in a data set's pipeline; each has random states of its own."""
    found: list[Any] = []
    waiting = [getattr(t, "transform", None) for t in getattr(getattr(dataset, "transforms", None), "transforms", [])]
    while waiting:
        node = waiting.pop(0)
        if hasattr(node, "random_generator") and hasattr(node, "py_random"):
            found.append(node)
            waiting += list(getattr(node, "transforms", []))
    return found
