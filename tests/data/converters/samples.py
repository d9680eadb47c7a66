"""Small data sets in their original formats, written by hand from the formats' documentation.

Each has a box of 40 x 60 pixels at 10, 20 of pictures of 200 x 100, and most one that reaches out of the lower right corner.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 200, 100


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (5, 10, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def visdrone(root: Path) -> None:
    """Of the toolkit's README: <left>,<top>,<width>,<height>,<score>,<category>,<truncation>,<occlusion>."""
    for part in ("train", "val", "test-dev"):
        folder = root / f"VisDrone2019-DET-{part}"
        picture(folder / "images" / "0000001_02999_d_0000005.jpg", len(part))
        text(folder / "annotations" / "0000001_02999_d_0000005.txt",
             "10,20,40,60,1,4,0,0\n"  # car: centre 30, 50 of 200 x 100
             "190,90,20,20,1,1,1,0,\n"  # pedestrian, half out of the picture; many lines end in a comma
             "0,0,50,50,0,0,0,0\n0,0,9,9,1,11,0,0\n5,5,9,9,0,10,0,2\n")  # fmt: skip
    picture(root / "VisDrone2019-DET-train/images/9999.jpg")


def coco(root: Path) -> None:
    """Of cocodataset.org/#format-data: bbox is left, top, width, height; category ids have gaps."""
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}]
    for part in ("train", "val"):
        images = [{"id": 7 + i, "file_name": f"{part}{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(2)]
        for image in images:
            picture(root / f"{part}2017" / str(image["file_name"]))
        notes = [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 20, 40, 60], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [190.0, 90.0, 20.0, 20.0], "iscrowd": 0},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 99, 99],
                "iscrowd": 1,
                "segmentation": {"counts": []},
            },
            {"id": 4, "image_id": 7, "category_id": 3, "bbox": [50, 50, 0, 10], "iscrowd": 0},
            {"id": 5, "image_id": 999, "category_id": 3, "bbox": [50, 50, 10, 10], "iscrowd": 0},
            {"id": 6, "image_id": 7, "category_id": 2, "bbox": [50, 50, 10, 10], "iscrowd": 0},
        ]
        content = {"info": {"year": 2017}, "images": images, "annotations": notes, "categories": categories}
        text(root / "annotations" / f"instances_{part}2017.json", json.dumps(content))
    text(root / "annotations" / "captions_train2017.json", "{}")


def voc(root: Path) -> None:
    """Of the devkit's documentation: pixels from 1, ends included: xmin=11, xmax=50 is 40 wide and starts at 10."""
    for year, names in (("2007", ("train", "val", "test")), ("2012", ("train", "val"))):
        place = root / f"VOC{year}"
        for name in names:
            stem = f"{year}_00000{len(name)}_{name}"
            text(place / "ImageSets/Main" / f"{name}.txt", f"{stem}\n")
            picture(place / "JPEGImages" / f"{stem}.jpg")
            text(place / "Annotations" / f"{stem}.xml", f"""<annotation>
  <size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>
  <object><name>dog</name><truncated>1</truncated><difficult>0</difficult>
    <bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>80</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
  </object>
  <object><name>person</name><bndbox><ymin>1</ymin><xmin>1</xmin><ymax>100</ymax><xmax>200</xmax></bndbox></object>
  <object><name>cat</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
  <object><name>unicorn</name>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
</annotation>
""")  # fmt: skip


def kitti(root: Path) -> None:
    """Of the development kit's readme: type truncated occluded alpha left top right bottom, then 3D; counted from 0."""
    for stem in ("000000", "000001"):
        picture(root / "training/image_2" / f"{stem}.png")
        text(root / "training/label_2" / f"{stem}.txt",
             "Car 0.00 0 -1.57 10.00 20.00 50.00 80.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
             "Person_sitting 0.88 3 0.21 190.00 90.00 210.00 110.00 1.9 0.5 1.2 1.8 1.5 8.4 0.01\n"
             "DontCare -1 -1 -10 5.00 5.00 9.00 9.00 -1 -1 -1 -1000 -1000 -1000 -10\n")  # fmt: skip


def bdd(root: Path) -> None:
    """Of doc.bdd100k.com/format.html: box2d's last pixel belongs to it: x1=10, x2=49 is 40 wide."""
    for part in ("train", "val"):
        labels = [
            {"id": "1", "category": "car", "attributes": {"occluded": False, "truncated": False},
             "box2d": {"x1": 10, "y1": 20, "x2": 49, "y2": 79}},
            {"id": "2", "category": "person", "box2d": {"x1": 190, "y1": 90, "x2": 209, "y2": 109}},
            {"id": "3", "category": "other vehicle", "box2d": {"x1": 5, "y1": 5, "x2": 9, "y2": 9}},
            {"id": "4", "category": "car", "attributes": {"crowd": True}, "box2d": {"x1": 5, "y1": 5, "x2": 9, "y2": 9}},
            {"id": "5", "category": "lane", "poly2d": [{"vertices": [[1, 2]]}]},
        ]  # fmt: skip
        frames = [{"name": f"{part}-a.jpg", "attributes": {"weather": "rainy"}, "labels": labels}]
        frames.append({"name": f"{part}-b.jpg"})
        for frame in frames:
            picture(root / "images/100k" / part / str(frame["name"]))
        text(root / "labels/det_20" / f"det_{part}.json", json.dumps(frames, indent=1))


SAMPLES: dict[str, Callable[[Path], None]] = {
    "visdrone": visdrone,
    "coco": coco,
    "voc": voc,
    "kitti": kitti,
    "bdd": bdd,
}
