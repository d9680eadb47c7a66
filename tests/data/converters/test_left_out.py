"""What a converter does not take is said: pictures that no list names, lists and folders of no part, parts without a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from yolo_kd.data.convert import REPORT, Conversion, convert

from tests.data.converters.samples import SAMPLES, bdd, coco, kitti, picture, text, visdrone, voc
from yolo_kd.cli import main
from yolo_kd.errors import YoloKDError


def converted(tmp_path: Path, kind: str, **options: object) -> Conversion:
    return convert(kind, tmp_path / "in", tmp_path / "out", **options)


@pytest.mark.parametrize("kind", SAMPLES)
def test_of_a_whole_data_set_nothing_is_left_to_say(tmp_path: Path, kind: str) -> None:
    SAMPLES[kind](tmp_path / "in")
    if kind == "visdrone":
        (tmp_path / "in/VisDrone2019-DET-train/images/9999.jpg").unlink()
    found = converted(tmp_path, kind)
    assert not found.refused and not found.remarks


def kitti_with_lists(root: Path) -> None:
    kitti(root)
    text(root / "ImageSets/train.txt", "000001\n")
    text(root / "ImageSets/val.txt", "000000\n")


@pytest.mark.parametrize(
    ("kind", "make", "name", "reason"),
    [
        ("coco", coco, "train2017/new.jpg", "no entry in instances_train2017.json or instances_val2017.json"),
        ("coco", coco, "val2017/new.png", "no entry in instances_train2017.json or instances_val2017.json"),
        ("bdd", bdd, "images/100k/val/new.jpg", "no entry in det_val.json"),
        ("kitti", kitti_with_lists, "training/image_2/000002.png", "in no list of ImageSets"),
        ("voc", voc, "VOC2012/JPEGImages/new.jpg", "in no list of ImageSets/Main that was used"),
    ],
)
def test_a_picture_that_nothing_names_is_counted(
    tmp_path: Path, capsys, kind: str, make, name: str, reason: str
) -> None:
    make(tmp_path / "in")
    picture(tmp_path / "in" / name)
    hidden = tmp_path / "in" / name
    hidden.with_name(f"._{hidden.name}").write_bytes(b"\0\5\x16\7")
    assert main(["data", "convert", f"from={kind}", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 0
    refused = json.loads((tmp_path / "out" / REPORT).read_text())["refused"]
    assert {why: row["count"] for why, row in refused.items()} == {reason: 1}
    assert f"({Path(name).name})" in refused[reason]["examples"][0]
    assert f"pictures left out: 1, {reason}; e.g. " in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob("*new*"))


def test_pictures_of_other_parts_in_the_same_folder_have_their_entry_there(tmp_path: Path) -> None:
    coco(tmp_path / "in")
    (tmp_path / "in/images").mkdir()
    for path in sorted((tmp_path / "in").glob("*2017/*.jpg")):
        path.rename(tmp_path / "in/images" / path.name)
    assert not converted(tmp_path, "coco").refused
    picture(tmp_path / "in/images/new.jpg")
    assert [row["count"] for row in convert("coco", tmp_path / "in", tmp_path / "more").refused.values()] == [1]


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / old).rename(root / new) and None


def without_annotations(root: Path) -> None:
    for path in (root / "VisDrone2019-DET-val/annotations").iterdir():
        path.unlink()
    (root / "VisDrone2019-DET-val/annotations").rmdir()


UNUSED = [
    ("visdrone", without_annotations, {"train", "test"}, ["VisDrone2019-DET-val: no annotations/ there"]),
    ("visdrone", lambda root: picture(root / "VisDrone2019-DET-test-challenge/images/a.jpg"), {"train", "val", "test"},
     ["VisDrone2019-DET-test-challenge: no annotations/ there"]),
    ("visdrone", lambda root: visdrone_again(root), {"train", "val", "test"},
     ["VisDrone2020-DET-val: val is VisDrone2019-DET-val already"]),
    ("coco", lambda root: text(root / "annotations/all.json", "{}"), {"train", "val"},
     ["annotations/all.json: no train, val or test in its name"]),
    ("coco", lambda root: text(root / "annotations/train.json", "{}"), {"train", "val"},
     ["annotations/train.json: another file of its part is used"]),
    ("coco", lambda root: picture(root / "test2017/a.jpg"), {"train", "val"}, ["test2017: no file for test in annotations/"]),
    ("bdd", rename("labels/det_20/det_val.json", "labels/det_20/val.json"), {"train"},
     ["images/100k/val: no file of labels for val"]),
    ("bdd", lambda root: text(root / "labels/bdd100k_labels_images_val.json", "[]"), {"train", "val"},
     ["labels/bdd100k_labels_images_val.json: labels/det_20/det_val.json is used"]),
    ("kitti", lambda root: text(root / "ImageSets/train.txt", "000001\n"), {"train"},
     ["ImageSets/train.txt: train.txt and val.txt are used together only"]),
    ("kitti", lambda root: picture(root / "testing/image_2/0.png"), {"train"}, ["testing/image_2: no labels for it"]),
    ("voc", lambda root: text(root / "VOC2012/ImageSets/Main/extra.txt", "a\n"), {"train", "val"},
     ["VOC2012/ImageSets/Main/extra.txt: only train.txt, val.txt and test.txt are parts"]),
    ("voc", lambda root: text(root / "VOC2007/ImageSets/Main/trainval.txt", "a\n"), {"train", "val"}, []),
    ("voc", lambda root: [text(root / "VOC2012/ImageSets/Main/trainval.txt", "a\n"),
                          (root / "VOC2012/ImageSets/Main/val.txt").unlink()], {"train", "val"},
     ["VOC2012/ImageSets/Main/trainval.txt: only train.txt, val.txt and test.txt are parts"]),
    ("voc", lambda root: text(root / "VOC2007/ImageSets/Main/dog_trainval.txt", "a 1\n"), {"train", "val"}, []),
]  # fmt: skip


def visdrone_again(root: Path) -> None:
    visdrone(root / "more")
    (root / "more/VisDrone2019-DET-val").rename(root / "VisDrone2020-DET-val")


@pytest.mark.parametrize(("kind", "change", "parts", "said"), UNUSED)
def test_what_is_of_no_part_is_named(
    tmp_path: Path, capsys, kind: str, change, parts: set[str], said: list[str]
) -> None:
    SAMPLES[kind](tmp_path / "in")
    change(tmp_path / "in")
    assert main(["data", "convert", f"from={kind}", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["parts"].keys() == parts and report["remarks"] == [f"not used: {text}" for text in said]
    assert all(remark in capsys.readouterr().out for remark in report["remarks"])


def test_voc_trainval_is_train_where_it_is_alone(tmp_path: Path) -> None:
    """A folder of trainval.txt and test.txt would be a test part and nothing else."""
    voc(tmp_path / "vocs")
    place = (tmp_path / "vocs/VOC2007").rename(tmp_path / "in")
    for name in ("train", "val"):
        (place / f"ImageSets/Main/{name}.txt").unlink()
    text(place / "ImageSets/Main/trainval.txt", "2007_000005_train\n2007_000003_val\n")
    found = converted(tmp_path, "voc")
    assert {part: (row["images"], row["from"]) for part, row in found.parts.items()} == {
        "train": (2, "in/trainval.txt"), "test": (1, "in/test.txt"),
    }  # fmt: skip
    assert not found.remarks


def test_voc_files_that_count_from_0_are_told_of(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    path = tmp_path / "in/VOC2007/Annotations/2007_000005_train.xml"
    path.write_text(path.read_text().replace("<xmin>11</xmin><ymin>21</ymin>", "<xmin>0</xmin><ymin>21</ymin>"))
    found = converted(tmp_path, "voc")
    assert found.remarks == [
        "1 boxes begin before pixel 1, where this format counts from 1; first=0 is for files that do not"
    ]
    assert not convert("voc", tmp_path / "in", tmp_path / "zero", first=0).remarks


def test_a_part_without_a_picture_is_no_part(tmp_path: Path, capsys) -> None:
    """Ultralytics refuses a data.yaml whose folder is not there."""
    coco(tmp_path / "in")
    for path in (tmp_path / "in/val2017").iterdir():
        path.write_bytes(b"")
    assert main(["data", "convert", "from=coco", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 0
    assert "val" not in yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    printed = capsys.readouterr().out
    assert "val: none of its pictures can be used, so data.yaml does not name it" in printed
    assert "there is no validation part yet" in printed


def test_without_any_picture_there_is_no_data_set(tmp_path: Path) -> None:
    kitti(tmp_path / "in")
    for path in (tmp_path / "in/training/image_2").iterdir():
        path.write_bytes(b"")
    with pytest.raises(YoloKDError, match=r"none of 2 pictures can be used \(the picture is empty\).*convert\.json"):
        converted(tmp_path, "kitti")
    assert not (tmp_path / "out/data.yaml").exists()
    assert json.loads((tmp_path / "out" / REPORT).read_text())["refused"]["the picture is empty"]["count"] == 2


BAD_BOXES = ["[]", "null", "[10, 20, 40]", '[10, 20, 40, "wide"]', "[10, 20, 40, NaN]", '{"x": 10}']


@pytest.mark.parametrize("box", [*BAD_BOXES, None], ids=[*BAD_BOXES, "missing"])
def test_a_coco_annotation_without_a_box_is_left_out_and_counted(tmp_path: Path, box: str | None) -> None:
    """Exporters write bbox: [] for what was only outlined or tagged; one of these must not cost the data set."""
    coco(tmp_path / "in")
    path = tmp_path / "in/annotations/instances_val2017.json"
    whole = '"bbox": [10, 20, 40, 60], '
    path.write_text(path.read_text().replace(whole, "" if box is None else f'"bbox": {box}, ', 1))
    found = convert("coco", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/val/val0.txt").read_text() == "0 0.975000 0.950000 0.050000 0.100000\n", (
        "the others are as they were"
    )
    row = json.loads((tmp_path / "out" / REPORT).read_text())["dropped"]["bbox is not 4 finite numbers"]
    shown = str(None if box is None else json.loads(box))
    assert row == {"count": 1, "examples": [f"{path}:1, annotations[0]: {shown}"]}
    assert any("objects left out: 1, bbox is not 4 finite numbers" in line for line in found.lines())
