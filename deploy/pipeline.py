"""Many frames through a back end with several slots: the next ones are under way while one is decoded, order is kept.

Slots are used in turn and waited for in turn, by one thread; so there is no queue that could fill, lose or reorder
anything, and every wait has the back end's bound.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from yolo_kd.deploy.backends import Backend

from yolo_kd.errors import YoloKDError

Frame = TypeVar("Frame")
Note = TypeVar("Note")
Found = TypeVar("Found")


def in_order(
    frames: Iterable[Frame],
    backend: Backend,
    start: Callable[[int, Sequence[Frame]], list[Note]],
    finish: Callable[[np.ndarray, Note], Found],
) -> Iterator[Found]:
    """One result per frame, in order.

    Args:
        frames: Read as slots get free, `backend.slots - 1` batches ahead of the results.
        backend: Where `start` puts them.
        start: Begins up to `backend.batch` frames in a slot; returns one note per frame.
        finish: Makes a result of one picture's raw output (without the batch) and its note.

    Raises:
        YoloKDError: From `start`, `finish` or the back end. What is under way then is waited for, so that the slots are
            free again, unless the back end hangs.
    """
    under_way: deque[tuple[int, list[Note]]] = deque()
    slot = 0
    source = iter(frames)
    try:
        while group := list(islice(source, backend.batch)):
            under_way.append((slot, start(slot, group)))
            slot = (slot + 1) % backend.slots
            if len(under_way) == backend.slots:
                yield from _finished(under_way, backend, finish)
        while under_way:
            yield from _finished(under_way, backend, finish)
    finally:
        for busy, _ in under_way:
            with contextlib.suppress(YoloKDError):  # the first error is on its way already
                backend.wait(busy)


def _finished(
    under_way: deque[tuple[int, list[Note]]], backend: Backend, finish: Callable[[np.ndarray, Note], Found]
) -> list[Found]:
    slot, notes = under_way.popleft()
    raw = backend.wait(slot)
    return [finish(picture, note) for picture, note in zip(raw, notes)]
