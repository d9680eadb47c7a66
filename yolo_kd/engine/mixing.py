"""Batches of labelled and unlabeled pictures, made by one loader.

Ultralytics builds the loader of the labelled pictures with its share of the batch; what draws its batches then adds
unlabeled ones to each. So an epoch is one pass over the labelled pictures, and the unlabeled ones run through in an
order of their own, begun anew when all were seen. Without a labelled picture an epoch is one pass over the others.

The pictures of a batch are sorted: first those whose boxes are labels. Each kind is a data set of its own, with its own
buffer and transforms, so mosaic, mixup and cutmix never combine pictures with and without labels: an unlabeled quarter
of a labelled mosaic would count as a place without objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_kd.engine import ultra
from yolo_kd.engine.labelled import FLAGS
from yolo_kd.engine.loader import ResumableLoader

STREAM_SEED = 7919  # keeps the order of the unlabeled pictures from being that of the labelled ones


class UnlabeledDataset(ultra.YOLODataset):
    """Ultralytics' data set without its scan, which writes a cache beside labels and over damaged JPEGs.

    Args:
        files: The pictures.
        boxes: (N, 5) class and box in shares of the picture, for each of them; none if None.
        **settings: As of Ultralytics' data set; cached in memory or not at all, as cached files would lie beside them.
    """

    def __init__(self, files: Sequence[Path], boxes: Sequence[np.ndarray] | None, **settings: Any) -> None:
        self.files = [str(path) for path in files]
        self.boxes = boxes or [np.zeros((0, 5), np.float32)] * len(self.files)
        super().__init__(img_path="", **settings)

    def get_img_files(self, img_path: Any) -> list[str]:
        """The files that were given."""
        return self.files

    def get_labels(self) -> list[dict[str, Any]]:
        """The boxes that were given, as Ultralytics keeps labels."""
        return [
            {
                "im_file": file, "cls": boxes[:, :1].astype(np.float32), "bboxes": boxes[:, 1:5].astype(np.float32),
                "segments": [], "keypoints": None, "normalized": True, "bbox_format": "xywh",
            }
            for file, boxes in zip(self.files, self.boxes, strict=True)
        ]  # fmt: skip


class Mixture:
    """Data sets one after the other, as one.

    Args:
        parts: Those whose boxes are labels come first.
        labelled: For each part, whether they are.
        length: Pictures of an epoch; those beyond are only drawn by a `Stream`.
    """

    def __init__(self, parts: Sequence[Any], labelled: Sequence[bool], length: int) -> None:
        self.parts, self.labelled, self.length = list(parts), list(labelled), length
        self.collate_fn = parts[0].collate_fn

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        for part, labelled in zip(self.parts, self.labelled):
            if index < len(part):
                return {**part[index], FLAGS: labelled}
            index -= len(part)
        raise IndexError(index)

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels of the pictures of an epoch, for Ultralytics' statistics."""
        return [label for part in self.parts for label in part.labels][: self.length]

    def close_mosaic(self, hyp: Any) -> None:
        """As Ultralytics' data sets do at the end of a training."""
        for part in self.parts:
            part.close_mosaic(copy(hyp))


class Stream:
    """Indices without end: one permutation after the other, drawn from a generator of its own.

    Args:
        count: How many there are.
        seed: Of the generator.
        rank: This process.
        ranks: Processes; each takes its share of the same permutations.
    """

    def __init__(self, count: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.count, self.rank, self.ranks = count, rank, ranks
        self.generator = torch.Generator().manual_seed(seed + STREAM_SEED)
        self._draw()
        self.note()

    def take(self, count: int) -> list[int]:
        """The next indices."""
        taken: list[int] = []
        while len(taken) < count:
            if self.at == len(self.order):
                self._draw()
            more = self.order[self.at : self.at + count - len(taken)]
            taken += more
            self.at += len(more)
        return taken

    def note(self) -> None:
        """Note the place, as plain values and tensors; `go_to` comes back to it."""
        self.noted = {"drawn": self.drawn, "at": self.at}

    def go_to(self, place: dict[str, Any]) -> None:
        """Stand where another stream of the same count and ranks stood."""
        self.generator.set_state(place["drawn"])
        self._draw()
        self.at = place["at"]
        self.note()

    def _draw(self) -> None:
        self.drawn, self.at = self.generator.get_state(), 0
        whole = torch.randperm(self.count, generator=self.generator).tolist()
        each = -(-self.count // self.ranks)
        self.order = [whole[(self.rank + i * self.ranks) % self.count] for i in range(each)]


class MixedBatches:
    """A batch sampler that adds unlabeled pictures to the batches of another one, and sorts each by its parts.

    Args:
        batches: Batches of the labelled pictures; of all pictures where none is labelled.
        stream: Of the unlabeled pictures.
        count: How many of them a batch gets.
        offset: Index of the first of them.
    """

    def __init__(self, batches: Any, stream: Stream | None = None, count: int = 0, offset: int = 0) -> None:
        self.batches, self.stream, self.count, self.offset = batches, stream, count, offset

    def __iter__(self) -> Iterator[list[int]]:
        if self.stream is None:
            yield from (sorted(batch) for batch in self.batches)
            return
        self.stream.note()
        for batch in self.batches:
            yield [*batch, *sorted(self.offset + index for index in self.stream.take(self.count))]

    def __len__(self) -> int:
        return len(self.batches)


def mix(loader: ResumableLoader, mixture: Mixture, stream: Stream | None = None, count: int = 0) -> ResumableLoader:
    """A training loader whose batches hold unlabeled pictures.

    Args:
        loader: Of the labelled pictures, or of the mixture itself where there are none.
        mixture: Of all pictures, the loader's own first.
        stream: Of those that are not the loader's own; None where there are no others.
        count: How many of them a batch gets.
    """
    batches = loader.batch_sampler
    batches.sampler = MixedBatches(batches.sampler, stream, count, len(mixture))
    object.__setattr__(loader, "dataset", mixture)  # torch refuses to change it; nothing was read from it yet
    loader.stream = stream
    return loader
