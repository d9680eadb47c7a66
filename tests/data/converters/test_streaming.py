"""Picture by picture: what is wrong far behind is met when the pictures before it are there, so nothing is read as a whole.

COCO's annotations stand behind all of its images; what is kept of them is numbers, see test_json_stream.py for the rest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from yolo_kd.data.convert import convert

from tests.data.converters.samples import SAMPLES
from yolo_kd.errors import MisuseError

VIS = "VisDrone2019-DET-train/annotations/9999.txt"
DET = "labels/det_20/det_train.json"
LATER = {
    "visdrone": (VIS, "", "words\n", "0000001_02999_d_0000005.jpg"),
    "kitti": ("training/label_2/000001.txt", "Car", "Car and", "000000.png"),
    "voc": ("VOC2012/Annotations/2012_000003_val.xml", "</size>", "", "2007_000005_train.jpg"),
    "bdd": (DET, '"name": "train-b.jpg"', '"name": "/train-b.jpg"', "train-a.jpg"),
}


@pytest.mark.parametrize("kind", LATER)
def test_a_picture_is_there_before_the_labels_of_the_next_are_read(tmp_path: Path, kind: str) -> None:
    SAMPLES[kind](tmp_path / "in")
    place, old, new, first = LATER[kind]
    file = tmp_path / "in" / place
    file.write_text(file.read_text().replace(old, new, 1) if old else new)
    with pytest.raises(MisuseError, match=file.name):
        convert(kind, tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/images/train" / first).is_file()
