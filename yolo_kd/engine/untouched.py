"""The user's pictures stay as they are, also where Ultralytics would mend them.

Its scan of a data set takes every JPEG whose last two bytes are no end mark for damaged, and saves it anew over the old
one: one that lacks its end, but also one behind whose end a camera left padding or a film. Here such a file is decoded as
it would have been, so that it is left out if it cannot be, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yolo_kd.engine import ultra


@contextmanager
def untouched_pictures() -> Iterator[None]:
    """Inside, no scan of a data set writes a picture."""
    scan = ultra.data_scan
    look = scan.check_image

    def check_image(file: Any) -> Any:
        said, shape = look(file)
        return (f"{file}: a JPEG that goes on behind its end; used and left as it is" if said else ""), shape

    with ultra.renamed(scan, check_image=check_image, _replace_image=lambda file, _: scan._exif_jpeg(file)):
        yield
