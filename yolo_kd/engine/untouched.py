"""The user's files stay as they are, also where Ultralytics would mend them.

Its scan of a data set takes every JPEG whose last two bytes are no end mark for damaged, and saves it anew over the old
one: one that lacks its end, but also one behind whose end a camera left padding or a film. Here such a file is decoded as
it would have been, so that it is left out if it cannot be, and nothing is written.

Whatever cache= says it also takes `x.npy` beside `x.jpg` for a copy of the picture that it once made: reads it instead,
writes over it where the shape is another, and deletes it where it cannot be read. Here no such file is looked at, but with
cache=disk, which asks for them, and then only if each could be such a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.engine import ultra
from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import PictureError, glance

NOWHERE = Path("/dev/null/none.npy")  # exists on no system


@contextmanager
def untouched_pictures() -> Iterator[None]:
    """Inside, no scan of a data set writes a picture, and no data set takes an array beside one for it."""
    scan, base = ultra.data_scan, ultra.picture_files.BaseDataset
    look, before = scan.check_image, vars(base).get("cache")

    def check_image(file: Any) -> Any:
        said, shape = look(file)
        return (f"{file}: a JPEG that goes on behind its end; used and left as it is" if said else ""), shape

    with ultra.renamed(scan, check_image=check_image, _replace_image=lambda file, _: scan._exif_jpeg(file)):
        # set once the names of the arrays are, and again where Ultralytics finds that it cannot cache
        base.cache = property(lambda dataset: vars(dataset)["cache"], _set_cache)
        try:
            yield
        finally:
            del base.cache
            if before is not None:
                base.cache = before


def _set_cache(dataset: Any, cache: str | None) -> None:
    vars(dataset)["cache"] = cache
    if cache == "disk":
        _refuse_others(dataset)
    else:
        dataset.npy_files = [NOWHERE] * len(dataset.npy_files)


def _refuse_others(dataset: Any) -> None:
    """Say how many pictures will be read from arrays that lie beside them, if all of these can be cached pictures.

    Raises:
        MisuseError: One cannot, so it is the user's own and would be lost.
    """
    there = [(Path(image), array) for image, array in zip(dataset.im_files, dataset.npy_files) if array.exists()]
    for image, array in there:
        found = _unlike(image, array, dataset.channels)
        if found:
            raise MisuseError(
                f"cache=disk: {array} is {found}, so it is no cached picture, and would be written over; use cache=ram, or "
                "move it elsewhere"
            )
    if there:
        ultra.LOGGER.info(
            f"{dataset.prefix}cache=disk: {len(there)} of {len(dataset.im_files)} pictures are read from .npy files that lay "
            "beside them"
        )


def _unlike(image: Path, array: Path, channels: int) -> str:
    """What an array is if it is no copy of a picture as training reads it, by its header; else an empty text."""
    try:
        found = np.load(array, mmap_mode="r", allow_pickle=False)
        shape, kind = found.shape, found.dtype
    except (OSError, ValueError, EOFError, AttributeError):  # AttributeError: an archive of several arrays
        return "no array"
    try:
        size = glance(image)
    except PictureError:  # of a format that is not read here
        size = None
    # a camera's picture that was turned has its sides swapped in the header
    alike = size is None or sorted(shape[:2]) == sorted(size)
    if kind == np.uint8 and alike and (shape[2:] == (channels,) or (len(shape) == 2 and channels == 1)):
        return ""
    return f"{shape} {kind}"
