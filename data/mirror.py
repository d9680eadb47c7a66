"""The same pictures and labels in a folder of ours, for tools that write beside what they read.

Ultralytics leaves a cache beside the labels whenever it looks at a data set.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolo_kd.data.split import Split, label_path


@contextmanager
def mirrored(split: Split) -> Iterator[Path]:
    """The data.yaml of a data set that holds only this part, as its val part; it is gone afterwards.

    Pictures are links, labels copies. Picture number i of the split is the file with the stem i in six digits.
    """
    with tempfile.TemporaryDirectory(prefix="yolo-kd-mirror-") as temporary:
        root = Path(temporary).resolve()
        for folder in ("images", "labels"):
            (root / folder).mkdir()
        for index, image in enumerate(split.images):
            link = root / "images" / f"{index:06}{image.suffix}"
            try:
                link.symlink_to(image.resolve())
            except OSError:  # a system or disk without links
                shutil.copyfile(image, link)
            if label_path(image).is_file():
                shutil.copyfile(label_path(image), label_path(link))
        data = root / "data.yaml"
        plain = {"path": str(root), "train": "images", "val": "images", "names": dict(split.names)}
        plain |= {"kpt_shape": [split.keypoints, 1]} if split.keypoints else {}
        data.write_text(json.dumps(plain), encoding="utf-8")  # JSON is YAML, and quotes every name
        yield data
