"""The lists of labels that lie beside a data set are read without running what a stranger may have put into them.

Ultralytics keeps what its scan of a data set found in a pickle beside the labels (`labels/train.cache`), and takes the one
that came with a data set for its own. Here such a file may hold plain values and arrays; with anything else in it, it is no
list of Ultralytics', and the data set is scanned anew.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.engine import ultra

ARRAYS = {  # by both names that NumPy had for its inner module
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


@contextmanager
def plain_label_lists() -> Iterator[None]:
    """Inside, Ultralytics reads its lists of labels with `read_label_list`."""
    with ultra.renamed(ultra.data_sets, load_dataset_cache_file=read_label_list):
        yield


def read_label_list(path: Path) -> dict[str, Any]:
    """The dict in a list of labels, as `numpy.save` left it.

    Raises:
        OSError: There is none; Ultralytics then scans the data set.
        ValueError: No such file, or one that holds more than plain values; likewise.
    """
    with Path(path).open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        try:
            found = _Plain(file).load()
        except _ForeignError as error:
            ultra.LOGGER.warning(
                f"yolo-kd: {path} holds {error}, which is no part of a list of labels and would run code of its own; "
                "the labels are read anew"
            )
            raise ValueError(f"{path}: {error}") from None
        return found.item()


class _ForeignError(Exception):
    pass


class _Plain(pickle.Unpickler):
    """Knows nothing to call but what makes an array."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise _ForeignError(f"{module}.{name}")
        return super().find_class(module, name)
