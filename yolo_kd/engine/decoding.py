"""The pictures of a batch are decoded by all cores, ahead of what augments them.

On a CPU Ultralytics loads in the thread of the training: it reads, decodes and augments one picture after the other while
every other core stands still. Which files a batch needs is known before its first picture, decoding draws no random
number, and OpenCV decodes without the interpreter's lock. So threads decode, and the training's own thread, which draws
for mosaic, affine and colours in the order that it always did, finds pixels instead of files. Pixels, random streams and
the buffer of mosaic's partners are Ultralytics' own, and an exact resume has nothing more to keep.

The batch after that is left alone: a step uses all cores, and what is decoded beside it is added to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from yolo_kd.engine import ultra


def decode_ahead(loader: Any) -> None:
    """Let a training loader decode with as many threads as the training has; with one, or with workers, it stays as it is."""
    threads, dataset = torch.get_num_threads(), loader.dataset
    if loader.num_workers == 0 and threads > 1:
        dataset.__getitems__ = DecodedAhead(dataset, threads)


class DecodedAhead:
    """What torch's loader asks for all pictures of a batch at once.

    Args:
        dataset: Ultralytics' data set, or several in `parts`, whose pictures are counted through.
        threads: That decode.
    """

    def __init__(self, dataset: Any, threads: int) -> None:
        self.dataset, self.pool = dataset, ThreadPoolExecutor(threads, "decode")

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The samples of these indices, in order."""
        read = ultra.picture_files.imread
        ahead = {file: self.pool.submit(read, file, flags=flags) for file, flags in self._files(indices)}

        def decoded(file: Any, flags: int) -> Any:
            future = ahead.pop(str(file), None)
            return read(file, flags=flags) if future is None else future.result()

        with ultra.renamed(ultra.picture_files, imread=decoded):
            return [self.dataset[index] for index in indices]

    def _files(self, indices: Sequence[int]) -> Iterator[tuple[str, int]]:
        """Files that will be read: those of pictures that are in no cache, neither in memory nor beside them."""
        for index in indices:
            for part in getattr(self.dataset, "parts", [self.dataset]):
                if index < len(part):
                    if part.ims[index] is None and not part.npy_files[index].exists():
                        yield part.im_files[index], part.cv2_flag
                    break
                index -= len(part)
