"""Converters: samples against boxes worked out by hand; what is dropped is counted with its place; a stopped run goes on; misuse and malformed files are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from yolo_kd.data.check import check
from yolo_kd.data.convert import REPORT, convert
from yolo_kd.data.converters import CONVERTERS, load
from yolo_kd.data.description import read_description

from tests.data.converters.samples import SAMPLES, bdd, coco, kitti, picture, text, visdrone, voc
from yolo_kd.cli import main
from yolo_kd.errors import MisuseError, YoloKDError

WHOLE, CORNER = "0.150000 0.500000 0.200000 0.600000", "0.975000 0.950000 0.050000 0.100000"
EXPECTED = {
    "visdrone": ("train/0000001_02999_d_0000005.txt", f"3 {WHOLE}\n0 {CORNER}\n"),
    "coco": ("val/val0.txt", f"2 {WHOLE}\n0 {CORNER}\n"),
    "voc": ("val/2007_000004_test.txt", f"11 {WHOLE}\n14 0.500000 0.500000 1.000000 1.000000\n"),
    "kitti": ("train/000001.txt", f"0 {WHOLE}\n4 {CORNER}\n"),
    "bdd": ("train/train-a.txt", f"2 {WHOLE}\n0 {CORNER}\n"),
}
DROPPED = {
    "visdrone": {"category 0: ignored region": 3, "category 11: others": 3, "score 0: not counted in the evaluation": 3},
    "coco": {"iscrowd: a group as one region": 2, "a box without area": 2, "category 2 is not in the file's categories": 2,
             "annotation of a picture that is not in the file": 2},
    "voc": {"difficult: not counted in the evaluation": 5, "class 'unicorn' is not among the names": 5},
    "kitti": {"DontCare": 2},
    "bdd": {"class 'other vehicle' is not among the names": 2, "crowd or ignored: not counted in the evaluation": 2,
            "no box2d: lane": 2},
}  # fmt: skip
IMAGES = {
    "visdrone": {"train": 1, "val": 1, "test": 1}, "coco": {"train": 2, "val": 2}, "voc": {"train": 4, "val": 1},
    "kitti": {"train": 2}, "bdd": {"train": 2, "val": 2},
}  # fmt: skip


def test_every_format_has_a_sample() -> None:
    assert SAMPLES.keys() == CONVERTERS.keys()


@pytest.mark.parametrize("kind", CONVERTERS)
def test_a_sample_becomes_the_boxes_worked_out_by_hand(tmp_path: Path, capsys, kind: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    SAMPLES[kind](source)
    before = state(source)
    assert main(["data", "convert", f"from={kind}", f"source={source}", f"out={out}"]) == 0
    name, lines = EXPECTED[kind]
    assert (out / "labels" / name).read_text() == lines
    report = json.loads((out / REPORT).read_text())
    assert report["done"] and {part: row["images"] for part, row in report["parts"].items()} == IMAGES[kind]
    assert {reason: row["count"] for reason, row in report["dropped"].items()} == DROPPED[kind]
    assert report["cut"] == (0 if kind == "voc" else sum(IMAGES[kind].values()) // (1 + (kind in {"coco", "bdd"})))
    printed = capsys.readouterr().out
    for reason, row in report["dropped"].items():
        assert f"objects left out: {row['count']}, {reason}; e.g. {row['examples'][0]}" in printed
        path, _, line = row["examples"][0].partition(":")
        assert Path(path).is_file() and line
    found = check(read_description(out / "data.yaml"), leak=1.0)
    assert {kind for kind in found.counts() if kind != "part_empty"} <= {"class_unused"}
    assert state(source) == before, "the source stays as it is"


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", CONVERTERS)
def test_ultralytics_trains_on_it(tmp_path: Path, kind: str) -> None:
    """Its loader finds every image with every box; kitti has no validation part, and is told how to get one."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    SAMPLES[kind](tmp_path / "in")
    found = convert(kind, tmp_path / "in", tmp_path / "out")
    if kind == "kitti":
        raw = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
        assert "val" not in raw
        (tmp_path / "out/data.yaml").write_text(yaml.safe_dump({**raw, "val": "images/train"}))
    data = check_det_dataset(str(tmp_path / "out/data.yaml"), autodownload=False)
    loaded = YOLODataset(img_path=data["train"], data=data, augment=False, imgsz=64)
    assert len(loaded.labels) == found.parts["train"]["images"]
    assert sum(len(label["cls"]) for label in loaded.labels) == sum(found.parts["train"]["boxes"].values())
    assert data["names"] == dict(enumerate(found.names))


def test_a_picture_that_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    kitti(source)
    for stem in ("000002", "000003", "000004"):
        picture(source / "training/image_2" / f"{stem}.png")
    for stem in ("000002", "000003"):
        text(source / "training/label_2" / f"{stem}.txt", "")
    (source / "training/image_2/000002.png").write_bytes(b"")
    (source / "training/image_2/000003.png").write_bytes((source / "training/image_2/000001.png").read_bytes()[:-40])
    found = convert("kitti", source, tmp_path / "out")
    assert {reason: row["count"] for reason, row in found.refused.items()} == {
        "the picture is empty": 1, "the picture is damaged": 1, "no annotation file": 1,
    }  # fmt: skip
    assert "000004" in found.refused["no annotation file"]["examples"][0]
    assert len(list((tmp_path / "out/images/train").iterdir())) == found.parts["train"]["images"] == 2


def test_labels_for_another_size_are_left_out(tmp_path: Path) -> None:
    """A folder of scaled pictures beside the labels of the originals would put every box in the wrong place."""
    coco(tmp_path / "in")
    path = tmp_path / "in/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": 400, "height": 200}
    path.write_text(json.dumps(content))
    found = convert("coco", tmp_path / "in", tmp_path / "out")
    row = found.refused["the labels are for another size of picture"]
    assert row["count"] == 1 and row["examples"][0].endswith("says 400x200, val0.jpg has 200x100")
    assert found.parts["val"]["images"] == 1


def test_boxes_again_and_outside_are_left_out(tmp_path: Path) -> None:
    visdrone(tmp_path / "in")
    label = tmp_path / "in/VisDrone2019-DET-val/annotations/0000001_02999_d_0000005.txt"
    label.write_text("10,20,40,60,1,4,0,0\n10,20,40,60,1,4,1,0\n300,20,40,60,1,4,0,0\n10,20,40,0,1,4,0,0\n")
    found = convert("visdrone", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/val" / label.name).read_text() == f"3 {WHOLE}\n"
    assert found.dropped["the same box again"]["count"] == found.dropped["a box without area"]["count"] == 1
    outside = found.dropped["a box outside of the picture, or less than half a pixel thin"]["examples"]
    assert outside == [f"{label}: box 300, 20, 340, 80"]


def test_labels_lie_where_training_looks_when_names_have_folders(tmp_path: Path) -> None:
    """COCO files of one's own often say images/x.jpg: the last folder of that name is the one that becomes `labels`."""
    from ultralytics.data.utils import img2label_paths

    coco(tmp_path / "in")
    for part in ("train", "val"):
        path = tmp_path / f"in/annotations/instances_{part}2017.json"
        content = json.loads(path.read_text())
        for image in content["images"]:
            name = f"images/{image['file_name']}"
            (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
            next((tmp_path / "in").rglob(image["file_name"])).rename(tmp_path / "in" / name)
            image["file_name"] = name
        path.write_text(json.dumps(content))
    found = convert("coco", tmp_path / "in", tmp_path / "out")
    images = sorted(str(path) for path in (tmp_path / "out/images/val").rglob("*.jpg"))
    texts = [Path(path).read_text() for path in img2label_paths(images)]
    assert len(texts) == found.parts["val"]["images"] == 2 and EXPECTED["coco"][1] in texts


@pytest.mark.parametrize("also", ["", "instances_test2017.json"])
def test_a_coco_file_that_two_parts_could_be_is_refused(tmp_path: Path, also: str) -> None:
    """Else val is train, without a word."""
    coco(tmp_path / "in")
    folder = tmp_path / "in/annotations"
    (folder / "instances_train2017.json").rename(folder / "instances_trainval2017.json")
    if also:
        (folder / "instances_val2017.json").rename(folder / also)
    else:
        (folder / "instances_val2017.json").unlink()
    with pytest.raises(
        MisuseError, match=r"instances_trainval2017\.json could be train and val; .*one of them only.*data split"
    ):
        convert("coco", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_choose_and_order_the_classes(tmp_path: Path) -> None:
    kitti(tmp_path / "in")
    found = convert("kitti", tmp_path / "in", tmp_path / "out", names=["person-sitting", "tram"])
    assert (tmp_path / "out/labels/train/000001.txt").read_text() == f"0 {CORNER}\n"
    assert found.dropped["class 'Car' is not among the names"]["count"] == 2
    (tmp_path / "names.yaml").write_text("names: {0: car, 1: Person sitting}\n")
    words = [f"source={tmp_path / 'in'}", f"out={tmp_path / 'b'}", f"names={tmp_path / 'names.yaml'}"]
    assert main(["data", "convert", "from=kitti", *words]) == 0
    assert (tmp_path / "b/labels/train/000001.txt").read_text() == f"0 {WHOLE}\n1 {CORNER}\n"


def test_kitti_takes_the_usual_lists_where_they_are(tmp_path: Path) -> None:
    kitti(tmp_path / "in")
    text(tmp_path / "in/ImageSets/train.txt", "000001\n")
    text(tmp_path / "in/ImageSets/val.txt", "000000\n")
    found = convert("kitti", tmp_path / "in", tmp_path / "out")
    assert {part: row["images"] for part, row in found.parts.items()} == {"train": 1, "val": 1}
    assert (tmp_path / "out/images/val/000000.png").is_file()


def test_kitti_without_lists_is_told_to_split(tmp_path: Path, capsys) -> None:
    kitti(tmp_path / "in")
    assert main(["data", "convert", "from=kitti", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]) == 0
    assert "no validation part yet: yolo-kd data split" in capsys.readouterr().out


def test_voc_other_lists_stay_as_they_are_and_difficult_may_stay(tmp_path: Path) -> None:
    """HIT-UAV comes like this: one folder with train, val and test lists."""
    voc(tmp_path / "vocs")
    source = (tmp_path / "vocs/VOC2007").rename(tmp_path / "normal_xml")
    found = convert("voc", source, tmp_path / "out", difficult=True, names=["dog", "cat"])
    assert {part: row["images"] for part, row in found.parts.items()} == {"train": 1, "val": 1, "test": 1}
    assert found.parts["val"]["boxes"] == {"dog": 1, "cat": 1}
    assert main(["data", "convert", "from=kitti", "source=x", f"out={tmp_path / 'y'}", "difficult=true"]) == 2


def test_voc_names_may_have_blanks(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    place, old = tmp_path / "in/VOC2007", "2007_000003_val"
    for file in (f"JPEGImages/{old}.jpg", f"Annotations/{old}.xml"):
        (place / file).rename((place / file).with_stem("my flight 2"))
    (place / "ImageSets/Main/val.txt").write_text("my flight 2\n")
    found = convert("voc", place, tmp_path / "out")
    assert not found.refused and (tmp_path / "out/labels/train/my flight 2.txt").is_file()


def test_voc_counts_from_1_or_from_0(tmp_path: Path) -> None:
    voc(tmp_path / "in")
    for first, edges in (("1", WHOLE), ("0", "0.152500 0.505000 0.195000 0.590000")):
        out = tmp_path / first
        assert main(["data", "convert", "from=voc", f"source={tmp_path / 'in'}", f"out={out}", f"first={first}"]) == 0
        assert (out / "labels" / EXPECTED["voc"][0]).read_text().startswith(f"11 {edges}\n")


@pytest.mark.parametrize("words", [["from=voc", "first=2"], ["from=voc", "first=false"], ["from=kitti", "first=0"]])
def test_where_counting_begins_is_0_or_1_and_of_voc_only(tmp_path: Path, capsys, words: list[str]) -> None:
    voc(tmp_path / "in")
    assert main(["data", "convert", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}", *words]) == 2
    assert "expected 0 or 1, with from=voc only" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_bdd_of_2018_and_a_list_below_frames(tmp_path: Path) -> None:
    bdd(tmp_path / "in")
    for part in ("train", "val"):
        path = tmp_path / f"in/labels/det_20/det_{part}.json"
        frames = {"frames": json.loads(path.read_text()), "config": {}}
        text(tmp_path / f"in/labels/bdd100k_labels_images_{part}.json", json.dumps(frames))
        path.unlink()
    convert("bdd", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/train/train-a.txt").read_text() == EXPECTED["bdd"][1]


@pytest.mark.parametrize(("how", "linked"), [("copy", False), ("hardlink", True), ("symlink", True)])
def test_pictures_are_copied_or_linked_and_never_moved(tmp_path: Path, how: str, linked: bool) -> None:
    kitti(tmp_path / "in")
    convert("kitti", tmp_path / "in", tmp_path / "out", images=how)
    one, other = tmp_path / "in/training/image_2/000000.png", tmp_path / "out/images/train/000000.png"
    assert one.samefile(other) == linked and one.read_bytes() == other.read_bytes()
    assert other.is_symlink() == (how == "symlink")


class Killed(BaseException):
    """As if the process were gone."""


@pytest.mark.parametrize("kind", CONVERTERS)
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch, kind: str) -> None:
    """Stopped in the middle of every copy in turn; each picture is copied once, and nothing half-written has its name."""
    from yolo_kd.data import convert as module

    SAMPLES[kind](tmp_path / "in")
    whole = convert(kind, tmp_path / "in", tmp_path / "once")
    copied: list[str] = []
    real = module.shutil.copy2

    def copy(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        if stop[0] == len(copied):
            raise Killed
        copied.append(Path(source).name)
        real(source, target)

    monkeypatch.setattr(module.shutil, "copy2", copy)
    total, stop = sum(row["images"] for row in whole.parts.values()), [0]
    for at in range(total):
        stop[0] = at
        with pytest.raises(Killed):
            convert(kind, tmp_path / "in", tmp_path / "twice")
        assert not (tmp_path / "twice/data.yaml").exists()
        assert json.loads((tmp_path / "twice" / REPORT).read_text())["done"] is False
        assert len([p for p in (tmp_path / "twice/images").rglob("[!.]*") if p.is_file()]) == at
        stop[0] = at + 1
        if at + 1 < total:
            with pytest.raises(Killed):
                convert(kind, tmp_path / "in", tmp_path / "twice")
    assert convert(kind, tmp_path / "in", tmp_path / "twice") == whole
    assert len(copied) == total
    files = {p.relative_to(tmp_path / "once") for p in (tmp_path / "once").rglob("*")}
    assert {p.relative_to(tmp_path / "twice") for p in (tmp_path / "twice").rglob("*")} == files
    for name in files:
        one, two = tmp_path / "once" / name, tmp_path / "twice" / name
        assert one.is_dir() or one.read_bytes() == two.read_bytes()


def test_a_full_disk_is_one_line_and_another_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    import errno

    from yolo_kd.data import convert as module

    kitti(tmp_path / "in")
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copy2", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
        with pytest.raises(YoloKDError, match="no room left on the disk; make room and run the same command again"):
            convert("kitti", tmp_path / "in", tmp_path / "out")
    assert convert("kitti", tmp_path / "in", tmp_path / "out").parts["train"]["images"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "from= is missing"),
        (["from=kiti", "source=IN", "out=OUT"], "no such format (did you mean 'kitti'?)"),
        (["from=kitti", "source=GONE", "out=OUT"], "no such folder"),
        (["from=kitti", "source=IN", "out=IN"], "lies in the source"),
        (["from=kitti", "source=IN", "out=IN/new"], "lies in the source"),
        (["from=kitti", "source=IN", "out=TAKEN"], "is not empty and holds no convert.json"),
        (["from=kitti", "source=IN", "out=OTHER"], "was begun with images=copy, asked for is images=symlink"),
        (["from=kitti", "source=IN", "out=OUT", "images=move"], "expected one of copy, hardlink, symlink"),
        (["from=kitti", "source=IN", "out=OUT", "names=car,,van"], "expected class names with commas"),
        (["from=kitti", "source=IN", "out=OUT", "names=car,CAR"], "two of them are the same"),
        *((["from=" + kind, "source=EMPTY", "out=OUT"], "source=EMPTY: expected") for kind in CONVERTERS),
    ],
)
def test_misuse_is_one_line(tmp_path: Path, capsys, words: list[str], said: str) -> None:
    kitti(tmp_path / "in")
    convert("kitti", tmp_path / "in", tmp_path / "other")
    for name in ("empty", "taken"):
        (tmp_path / name).mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    extra = ["images=symlink"] if any("OTHER" in w for w in words) else []
    places = {name.upper(): str(tmp_path / name) for name in ("in", "out", "gone", "taken", "other", "empty")}
    before = {str(p) for p in tmp_path.rglob("*")}
    for name, place in places.items():
        words = [w.replace(f"={name}", f"={place}") for w in words]
        said = said.replace(f"={name}", f"={place}")
    assert main(["data", "convert", *words, *extra]) == 2
    line = capsys.readouterr().err
    assert said in line and len(line.splitlines()) == 1
    assert {str(p) for p in tmp_path.rglob("*")} == before


def spoil(path: str, old: str, new: str) -> Callable[[Path], str]:
    def change(root: Path) -> str:
        file = root / path
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new, 1))
        return str(file)

    return change


VIS = "VisDrone2019-DET-val/annotations/0000001_02999_d_0000005.txt"
KIT, XML = "training/label_2/000001.txt", "VOC2007/Annotations/2007_000005_train.xml"
JSN, DET = "annotations/instances_val2017.json", "labels/det_20/det_val.json"
MALFORMED = [
    ("visdrone", spoil(VIS, "190,90,20,20,1,1,1,0,", "190,90,20"), 2, "expected 8 numbers with commas between"),
    ("visdrone", spoil(VIS, "190,90", "190,x"), 2, "expected numbers, found"),
    ("visdrone", spoil(VIS, "190,90", "190,inf"), 2, "expected finite numbers"),
    ("visdrone", spoil(VIS, "0,0,9,9,1,11", "0,0,9,9,1,12"), 4, "expected a category from 0 to 11, found 12"),
    ("kitti", spoil(KIT, "-1.57 10.00", "10.00"), 1, "expected 15 columns, type first"),
    ("kitti", spoil(KIT, "190.00", "a"), 2, "expected numbers"),
    ("voc", spoil(XML, "</size>", ""), 12, "no XML (mismatched tag)"),
    ("voc", spoil(XML, "<xmin>11</xmin>", ""), 4, "bndbox has no xmin"),
    ("voc", spoil(XML, "<xmin>11<", "<xmin>left<"), 4, "expected numbers, found 'left'"),
    ("voc", spoil(XML, "<name>person</name>", ""), 7, "expected an object with name and bndbox"),
    ("voc", spoil(XML, "<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>'), 1, "has a DOCTYPE"),
    ("coco", spoil(JSN, '"annotations":', '"annotation":'), 1, "has no 'annotations'"),
    ("coco", spoil(JSN, '"category_id": 90', '"category_id": "x"'), 1, "expected a whole number as category id"),
    ("coco", spoil(JSN, '"file_name": "val0.jpg"', '"file_name": "../val0.jpg"'), 1, "leads out of the folder"),
    ("coco", spoil(JSN, '"id": 8', '"id": 7'), 1, "images[1]: id 7 was the id of val0.jpg already"),
    ("coco", spoil(JSN, '"image_id": 7', '"image_id": [7]'), 1, "expected a number or a name as image id"),
    ("coco", spoil(JSN, '"categories": [', '"categories": {'), 1, "no JSON as expected"),
    ("bdd", spoil(DET, '"category": "car",', ""), 2, "frames[0], labels[0]: expected an object with category"),
    ("bdd", spoil(DET, '"x1": 10,', ""), 2, "labels[0]: expected box2d with x1"),
    ("bdd", spoil(DET, '"name": "val-a.jpg"', '"name": "/etc/x.jpg"'), 2, "expected the file name of a picture"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "line", "said"), MALFORMED)
def test_a_malformed_file_is_one_line_with_file_and_line(
    tmp_path: Path, kind: str, change: Callable[[Path], str], line: int, said: str
) -> None:
    SAMPLES[kind](tmp_path / "in")
    file = change(tmp_path / "in")
    with pytest.raises(MisuseError) as caught:
        convert(kind, tmp_path / "in", tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}") and said in message and "\n" not in message
    assert not (tmp_path / "out/data.yaml").exists()


def test_no_reader_is_loaded_for_another_format() -> None:
    assert load("voc").__name__ == "Voc"
    with pytest.raises(MisuseError, match="use visdrone, coco, voc, kitti, bdd"):
        load("yolo")
