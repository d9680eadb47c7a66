"""A data set's parts, read as Ultralytics reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from yolo_kd.data.mirror import mirrored
from yolo_kd.data.split import label_path, read_split

from yolo_kd.errors import MisuseError


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """The tests' pictures described from another folder, with a list for val and two folders for train."""
    root = pictures.parent
    lines = [str(p) for p in sorted((root / "images" / "val").iterdir())]
    (tmp_path / "val.txt").write_text("\n".join(reversed(lines)) + "\n")
    raw = {
        "path": str(root),
        "train": ["images/train", "images/val"],
        "val": str(tmp_path / "val.txt"),
        "names": list("abc"),
    }
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_folders_are_sorted_and_lists_keep_their_order(data: Path):
    train, val = read_split(data, "train"), read_split(data)
    assert [p.name for p in train.images] == [f"{i:03}.png" for i in (*range(8), *range(4))]
    assert [p.name for p in val.images] == ["003.png", "002.png", "001.png", "000.png"]
    assert val.names == {0: "a", 1: "b", 2: "c"}


def test_labels_are_those_that_ultralytics_reads(pictures: Path):
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    split = read_split(pictures, "train")
    theirs = check_det_dataset(str(pictures), autodownload=False)
    assert split.names == theirs["names"] and split.images[0].parent == Path(theirs["train"])
    for image in split.images:
        assert str(label_path(image)) == img2label_paths([str(image)])[0]
        kinds, boxes = split.labels(image)
        table = np.loadtxt(label_path(image), ndmin=2)
        assert (kinds == table[:, 0]).all() and np.allclose(boxes, table[:, 1:]) and len(kinds) == 3


@pytest.mark.parametrize(
    "image", ["images/train/0.jpg", "a/images/0.jpg", "images/images/0.jpg", "images.d/0.jpg", "0.jpg"]
)
def test_a_relative_path_in_a_list_is_taken_as_it_stands(image: str):
    """Ultralytics replaces a folder `images` that is not the first of the path: for others it finds no label."""
    from ultralytics.data.utils import img2label_paths

    assert str(label_path(Path(image))) == img2label_paths([image])[0]


def test_only_the_last_images_folder_is_replaced():
    assert label_path(Path("/images/a/images/b/x.y.jpg")) == Path("/images/a/labels/b/x.y.txt")


def test_image_without_label_file_has_no_box(data: Path, tmp_path: Path):
    kinds, boxes = read_split(data).labels(tmp_path / "images" / "none.jpg")
    assert kinds.shape == (0,) and boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"val": None}, "has no 'val' part; it has train"),
        ({"val": "nowhere"}, "is neither a folder nor a .txt list"),
        ({"names": None}, "expected names"),
        ({"names": {"x": "car"}}, "expected names"),
        ({"val": "labels/val"}, "'val' holds no image"),
    ],
)
def test_what_is_wrong_is_one_line(data: Path, change: dict, said: str):
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), **change}))
    with pytest.raises(MisuseError, match=said):
        read_split(data)


def test_missing_files_are_named(data: Path, tmp_path: Path):
    with pytest.raises(MisuseError, match=r"no such data set YAML \(did you mean 'data.yaml'\?\)"):
        read_split(tmp_path / "dat.yaml")
    with (tmp_path / "val.txt").open("a") as file:
        file.write("./gone.jpg\n")
    with pytest.raises(MisuseError, match=r"1 of 5 images of val.txt are missing, first .*gone.jpg"):
        read_split(data)


def test_an_outline_counts_as_its_box(data: Path, tmp_path: Path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 .1 .1 .9 .1 .9 .9 .1 .9\n0 .5 .5 .2 .4\n")
    kinds, boxes = read_split(data).labels(tmp_path / "images" / "a.png")
    assert kinds.tolist() == [1, 0] and np.allclose(boxes, [[0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.2, 0.4]])


@pytest.mark.parametrize("shape", [[2, 3], [3, 2]], ids=str)
def test_keypoints_behind_a_box_are_left_out_as_in_the_training_of_a_detector(
    data: Path, tmp_path: Path, shape: list[int]
):
    """With an odd number of columns such a line would pass for an outline. A file may hold lines without them, too."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset
    from yolo_kd.data.check import check
    from yolo_kd.data.description import read_description

    root = Path(shutil.copytree(Path(yaml.safe_load(data.read_text())["path"]), tmp_path / "pose"))
    (root / "labels.cache").unlink(missing_ok=True)
    for label in (root / "labels").glob("*/*.txt"):
        first, *others = label.read_text().splitlines()
        label.write_text("\n".join([first, *(f"{line} .1 .2 .3 .4 .5 .6" for line in others)]) + "\n")
    raw = {**yaml.safe_load((root / "data.yaml").read_text()), "kpt_shape": shape}
    (root / "data.yaml").write_text(yaml.safe_dump(raw))
    assert check(read_description(root / "data.yaml"), deep=False).findings == []
    found = check_det_dataset(str(root / "data.yaml"), autodownload=False)
    theirs = YOLODataset(img_path=found["val"], data=found, task="detect", imgsz=64).labels
    split = read_split(root / "data.yaml")
    with mirrored(split) as there:
        seen = [read_split(there).labels(image)[1] for image in read_split(there).images]
    for image, label, mirror in zip(split.images, theirs, seen, strict=True):
        assert np.allclose(split.labels(image)[1], label["bboxes"]) and np.allclose(mirror, label["bboxes"])
        assert len(label["bboxes"]) == 3
    (root / "data.yaml").write_text(yaml.safe_dump({**raw, "kpt_shape": [17, 3]}))
    assert "label_mixed" in check(read_description(root / "data.yaml"), deep=False).counts(), "of other poses"


@pytest.mark.parametrize(("text", "said"), [("0 .5 .5 x 1", "expected 'class cx cy w h'"), ("7 .5 .5 1 1", "class 7 is not among"),
                                            ("nan .5 .5 1 1", "expected finite numbers"), ("0 .5 .5", "expected 'class cx cy w h'"), ("0 .5 .5 1 1 1", "expected 'class cx cy w h'"), ("0 .5 .5 3 1", "from 0 to 1, found 3"),
                                            (".7 .5 .5 1 1", "class 0.7 is not among"), ("0 .5 .5 -.2 1", "from 0 to 1")])  # fmt: skip
def test_labels_that_make_no_sense_are_named(data: Path, tmp_path: Path, text: str, said: str):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(text + "\n")
    with pytest.raises(MisuseError, match=said):
        read_split(data).labels(tmp_path / "images" / "a.png")
