"""The descriptors that come along: their classes are those that the converters write, their downloads end in the layout
that they describe, and every mode finds them by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pytest import approx
from yolo_kd.data.converters import load
from yolo_kd.data.converters.bdd import NAMES as BDD
from yolo_kd.data.converters.kitti import TYPES
from yolo_kd.data.converters.visdrone import CATEGORIES
from yolo_kd.data.converters.voc import NAMES as VOC
from yolo_kd.data.description import descriptors, find_description, read_description

from tests.data.converters.samples import SAMPLES, picture, text

SHIPPED = {"visdrone", "soda10m", "voc", "minicoco", "coco", "kitti", "bdd100k", "hituav"}


def names(name: str) -> list[str]:
    found = read_description(f"{name}.yaml").names
    assert list(found) == list(range(len(found)))
    return list(found.values())


def test_all_are_there_and_have_both_parts() -> None:
    assert descriptors().keys() == SHIPPED
    for name, path in descriptors().items():
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert raw["train"] and raw["val"] and raw["path"] and not Path(raw["path"]).is_absolute(), name
        head = path.read_text(encoding="utf-8").split("path:")[0]
        assert "# Get it: " in head and "://" in head, name


@pytest.mark.parametrize(("name", "own"), [("visdrone", CATEGORIES), ("voc", VOC), ("kitti", TYPES), ("bdd100k", BDD)])
def test_the_classes_are_those_that_the_converter_writes(name: str, own: tuple[str, ...]) -> None:
    assert names(name) == list(own)


def test_the_classes_are_those_of_ultralytics_where_the_data_are_the_same() -> None:
    from ultralytics.utils import ROOT

    for ours, theirs in (
        ("visdrone", "VisDrone"),
        ("voc", "VOC"),
        ("kitti", "kitti"),
        ("coco", "coco"),
        ("minicoco", "coco"),
    ):
        raw = yaml.safe_load((ROOT / "cfg/datasets" / f"{theirs}.yaml").read_text(encoding="utf-8"))
        assert names(ours) == list(raw["names"].values())
        if ours in {"visdrone", "kitti", "coco"}:
            mine = yaml.safe_load(descriptors()[ours].read_text(encoding="utf-8"))
            assert all(mine[key] == raw[key] for key in ("path", "train", "val")), "one copy on the disk serves both"


def coco_file(root: Path, categories: dict[int, str]) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
        "annotations": [],
        "categories": [{"id": kind, "name": name} for kind, name in reversed(categories.items())],
    }
    text(root / "annotations/instances_train2017.json", json.dumps(content))
    picture(root / "train2017/a.jpg")
    return root


def test_coco_categories_end_in_the_order_of_the_descriptors(tmp_path: Path) -> None:
    """COCO's ids have gaps up to 90; SODA10M's are 1 to 6."""
    from ultralytics.data.converter import coco80_to_coco91_class

    coco = dict(zip(coco80_to_coco91_class(), names("coco"), strict=True))
    assert load("coco")(coco_file(tmp_path / "coco", coco)).names == names("coco") == names("minicoco")
    soda = dict(enumerate(("Pedestrian", "Cyclist", "Car", "Truck", "Tram", "Tricycle"), 1))
    assert load("coco")(coco_file(tmp_path / "soda", soda)).names == names("soda10m")


def test_hituav_goes_through_the_voc_reader(tmp_path: Path) -> None:
    """The first objects of normal_xml/Annotations/0_100_30_0_03280.xml, and a region that is not to be cared for."""
    from yolo_kd.cli import main

    place = tmp_path / "normal_xml"
    text(place / "ImageSets/Main/train.txt", "0_100_30_0_03280\n")
    box = "<bndbox><xmin>198</xmin><ymin>105</ymin><xmax>233</xmax><ymax>136</ymax></bndbox>"
    things = "".join(f"<object><name>{n}</name><difficult>0</difficult>{box}</object>" for n in ("Car", "DontCare"))
    text(place / "Annotations/0_100_30_0_03280.xml", f"<annotation>{things}</annotation>")
    (place / "JPEGImages").mkdir()
    cv2.imwrite(str(place / "JPEGImages/0_100_30_0_03280.jpg"), np.zeros((512, 640), np.uint8))
    head = descriptors()["hituav"].read_text(encoding="utf-8").split("Get it: yolo-kd ")[1].split("\n")[0]
    places = {"source": place, "out": tmp_path / "out"}
    words = [f"{key}={places.get(key, value)}" for key, _, value in (word.partition("=") for word in head.split()[2:])]
    assert main(["data", "convert", *words]) == 0
    # edges as they stand there, as in the YOLO labels of that picture: 411 of the data set's boxes begin at exactly 0
    kind, *box = (tmp_path / "out/labels/train/0_100_30_0_03280.txt").read_text().split()
    cx, cy, w, h = (float(share) * side for share, side in zip(box, (640, 512) * 2, strict=True))
    assert (int(kind), [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) == (1, approx([198, 105, 233, 136], abs=1e-3))
    report = json.loads((tmp_path / "out/convert.json").read_text())
    assert report["names"] == names("hituav")
    assert report["dropped"]["class 'DontCare' is not among the names"]["count"] == 1


@pytest.mark.parametrize("name", ["visdrone", "voc", "coco", "kitti"])
def test_a_download_ends_in_the_layout_that_is_described(tmp_path: Path, monkeypatch, name: str) -> None:
    """Ultralytics runs the script; only the fetching is put in place of the network here."""
    from ultralytics.data.utils import check_det_dataset

    fetched: list[str] = []

    def download(url: str | list[str], dir: Path, **_: Any) -> None:
        fetched.extend([url] if isinstance(url, str) else url)
        put(Path(dir), str(url))

    def put(folder: Path, url: str) -> None:
        if name in ("visdrone", "voc"):
            SAMPLES[name](folder / "VOCdevkit" if name == "voc" else folder)
        elif "labels" in url:
            for part in ("train", "val"):
                text(folder / "coco" / f"{part}2017.txt", f"./images/{part}2017/a.jpg\n")
                text(folder / f"coco/labels/{part}2017/a.txt", "0 .5 .5 .1 .1\n")
        else:
            for part in ("train2017", "val2017") if name == "coco" else ("images/train", "images/val"):
                picture(folder / part / "a.jpg")

    def safe_download(url: str, dir: Path, **_: Any) -> None:
        fetched.append(url)
        put(Path(dir) / "kitti", url)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.utils.downloads.download", download)
    monkeypatch.setattr("ultralytics.data.utils.safe_download", safe_download)
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path / "sets")
    data = check_det_dataset(str(find_description(f"{name}.yaml")))
    for part in ("train", "val"):
        assert Path(data[part]).exists() and Path(data[part]).is_relative_to(tmp_path / "sets")
    assert fetched and all(
        url.startswith(("https://github.com/ultralytics/assets/", "http://images.cocodataset.org/")) for url in fetched
    )


def test_a_mode_finds_a_descriptor_by_its_name(tmp_path: Path, monkeypatch, capsys) -> None:
    from yolo_kd import api
    from yolo_kd.cli import main

    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    monkeypatch.setattr(
        api.ultra, "YOLO", lambda *_, **__: type("Y", (), {"train": lambda self, **k: seen.append(k["data"])})()
    )
    api.distill(student="yolov8n.yaml", data="soda10m.yaml", distill="none")
    assert seen == [str(descriptors()["soda10m"])]
    assert main(["data", "check", "data=soda10m.yaml"]) == 2 and "not on this disk" in capsys.readouterr().err
    assert main(["data", "check", "data=soda10.yaml"]) == 2 and "did you mean 'soda10m.yaml'" in capsys.readouterr().err
