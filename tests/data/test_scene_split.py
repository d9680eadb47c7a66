"""Parts without a common scene: told by looks, by names and by a table; the same for a seed; no image touched."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from yolo_kd.cfg.atomic import write_text
from yolo_kd.data import scene_split
from yolo_kd.data.check import check
from yolo_kd.data.description import PARTS, read_description
from yolo_kd.data.scene_split import deal, joined, read_groups, recordings, split_by_scene
from yolo_kd.data.split import read_split

from yolo_kd.cli import main
from yolo_kd.errors import MisuseError


def frames(place: int, count: int) -> list[np.ndarray]:
    """A camera over one place, and a bright thing that moves through."""
    coarse = np.random.default_rng(place).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    still = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
    return [cv2.circle(still.copy(), (10 * i + 5, 40), 4, (255, 255, 255), -1) for i in range(count)]


def write_places(root: Path, places: int = 12, count: int = 8, name: Callable[[int, int], str] | None = None) -> Path:
    """Frames of every place, dealt out to all parts as an official split would, under names that tell nothing."""
    number = 0
    for place in range(places):
        for i, frame in enumerate(frames(place, count)):
            part = PARTS[i % 3]
            stem = name(place, i) if name else f"{number * 7919 % 9973:06}"
            for folder in ("images", "labels"):
                (root / folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "images" / part / f"{stem}.png"), frame)
            (root / "labels" / part / f"{stem}.txt").write_text(f"{place % 2} .5 .5 .1 .1\n")
            number += 1
    path = root / "data.yaml"
    raw = {part: f"images/{part}" for part in PARTS} | {"names": ["a", "b"], "channels": 3}
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_places(tmp_path_factory.mktemp("places"))


def place_of(image: Path, pixels: dict[bytes, int]) -> int:
    return pixels[cv2.imread(str(image))[60:].tobytes()]


def test_the_check_finds_the_leak_before_and_none_after(places: Path, tmp_path: Path, capsys) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in places.parent.rglob("*") if p.is_file()}
    assert check(read_description(places)).near["val"] == 1.0
    out = tmp_path / "new" / "scene.yaml"
    assert main(["data", "split", f"data={places}", "by=scene", f"out={out}", "val=.25"]) == 0
    after = check(read_description(out))
    assert after.findings == [] and after.near == {"val": 0.0, "test": 0.0}
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in places.parent.rglob("*") if p.is_file()} == before
    pixels = {frames(place, 1)[0][60:].tobytes(): place for place in range(12)}
    parts = {part: read_split(out, part).images for part in PARTS}
    seen = {part: {place_of(image, pixels) for image in images} for part, images in parts.items()}
    assert {part: len(images) for part, images in parts.items()} == {"train": 48, "val": 24, "test": 24}
    assert sum(len(s) for s in seen.values()) == 12, "a place in two parts"
    assert all({int(read_split(out, p).labels(i)[0][0]) for i in images} == {0, 1} for p, images in parts.items())
    assert "96 images of 12 scenes" in capsys.readouterr().out


def test_ultralytics_reads_the_new_parts(places: Path, tmp_path: Path) -> None:
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    out = tmp_path / "scene.yaml"
    assert main(["data", "split", f"data={places}", f"out={out}"]) == 0
    found = check_det_dataset(str(out), autodownload=False)
    lines = Path(found["val"]).read_text().splitlines()
    images = [line.replace("./", f"{out.parent}/", 1) for line in lines]
    assert images and all(Path(p).is_file() for p in (*images, *img2label_paths(images)))
    assert found["channels"] == 3 and found["names"] == {0: "a", 1: "b"}


def test_lists_behind_a_link_lead_to_the_pictures(places: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "deep" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "deep" / "folder")
    out = tmp_path / "link" / "scene.yaml"
    assert main(["data", "split", f"data={places}", f"out={out}"]) == 0
    assert check(read_description(out), deep=False).counts() == {}


def test_the_seed_decides_and_nothing_else(places: Path) -> None:
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    one, two, other = (
        split_by_scene(read_description(places), shares, seed, jobs=j) for seed, j in ((3, 1), (3, 4), (4, 1))
    )
    assert (one.part == two.part).all() and (one.scene == two.scene).all()
    assert (one.part != other.part).any() and (one.scene == other.scene).all()


def test_names_that_tell_recordings_keep_them_together(tmp_path: Path) -> None:
    """Two places each seen in one recording: looks alone would part them."""
    source = write_places(tmp_path, 24, 3, lambda place, i: f"flight{place // 2 + 100}_{place % 2 * 50 + i:04}")
    shares = {"train": 0.6, "val": 0.4}
    found = split_by_scene(read_description(source), shares)
    assert found.recordings == 12 and len(set(found.scene.tolist())) == 12
    blind = split_by_scene(read_description(source), shares, names=False)
    assert blind.recordings == 0 and len(set(blind.scene.tolist())) == 24
    flights = {}
    for image, part in zip(found.images, found.part, strict=True):
        flights.setdefault(image.stem.split("_")[0], set()).add(int(part))
    assert all(len(parts) == 1 for parts in flights.values())


def test_names_of_photographs_tell_nothing() -> None:
    assert recordings([Path(f"a/IMG_{i:04}.jpg") for i in range(50)]) is None
    assert recordings([Path(f"a/200{i % 9}_{i:06}.jpg") for i in range(90)]) is None
    told = recordings([Path(f"seq{i % 11}/{i:06}.jpg") for i in range(66)])
    assert told is not None and len(set(told.tolist())) == 11


def test_a_table_of_groups_takes_the_place_of_names(tmp_path: Path) -> None:
    """By suffix or without; four places, told to be two streets, and 24 by frame number, under names that tell flights."""
    source = write_places(tmp_path / "data", 4, 3, lambda place, i: f"p{place}x{i}")
    table = tmp_path / "groups.csv"
    rows = [f"p{place}x{i}{'.png' if i else ''},street {place // 2}" for place in range(4) for i in range(3)]
    table.write_text("image,group\n" + "\n".join(rows) + "\n")
    shares = {"train": 0.5, "val": 0.5}
    assert split_by_scene(read_description(source), shares, groups=table).scene.max() == 1
    assert split_by_scene(read_description(source), shares).scene.max() == 3
    one = write_places(tmp_path / "one", 24, 3, lambda place, i: f"flight{place // 2 + 100}_{place % 2 * 50 + i:04}")
    images = sorted(one.parent.glob("images/*/*"))
    table.write_text("image,group\n" + "".join(f"{p.name},{p.stem[-4:-1]}\n" for p in images))  # across the flights
    found = split_by_scene(read_description(one), shares, groups=table)
    assert found.scene.max() == 1 and not found.recordings
    for text, said in (("\n".join(["image,group", *rows[1:]]), "no row for 1 of 12"), ("a,b\n1,2\n", "expected a CSV")):
        table.write_text(text)
        with pytest.raises(MisuseError, match=said):
            split_by_scene(read_description(source), shares, groups=table)


def test_pictures_of_one_name_are_told_apart_in_a_table_by_their_folders(tmp_path: Path) -> None:
    images = [Path(f"/d/images/drive{drive}/{i}.png") for drive in (1, 2) for i in (0, 1)]
    table = tmp_path / "groups.csv"
    table.write_text("image,group\n" + "".join(f"drive{d}/{i}.png,street {d}\n" for d in (1, 2) for i in (0, 1)))
    assert read_groups(table, images).tolist() == [0, 0, 1, 1]
    table.write_text("image,group\n0.png,a\n1.png,b\n0.png,a\n")
    assert read_groups(table, images).tolist() == [0, 1, 0, 1], "one row is for all of the name"
    table.write_text("image,group\n0.png,a\n1.png,b\n0.png,c\n")
    with pytest.raises(MisuseError, match=r"puts 0\.png into a and into c; .* drive2/0\.png"):
        read_groups(table, images)


def test_scenes_are_joined_over_all_groupings() -> None:
    assert joined([np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 3])]).tolist() == [0, 0, 0, 0, 1]


def test_shares_and_classes_are_met() -> None:
    """100 scenes of 1 to 9 images, a class that only every tenth scene has: each part gets its share of both."""
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(100), rng.integers(1, 10, 100))
    classes = np.stack([np.ones(len(scene)), (scene % 10 == 0).astype(float)], 1)
    part = deal(scene, classes, [0.6, 0.2, 0.2], seed=0)
    for i, share in enumerate((0.6, 0.2, 0.2)):
        assert (part == i).mean() == pytest.approx(share, abs=0.02)
        assert classes[part == i, 1].sum() / classes[:, 1].sum() == pytest.approx(share, abs=0.08)
    assert all(len(set(part[scene == s].tolist())) == 1 for s in range(100))


def test_one_scene_cannot_be_parted(tmp_path: Path) -> None:
    source = write_places(tmp_path, 1, 6)
    with pytest.raises(MisuseError, match=r"1 scenes, the largest with 100% .* leave nothing for val"):
        split_by_scene(read_description(source), {"train": 0.8, "val": 0.2})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=DATA"], "out= is missing"),
        (["data=DATA", "out=x.txt"], "expected a data set YAML"),
        (["data=DATA", "out=DATA"], "is the data set itself"),
        (["data=DATA", "out=OUT", "by=image"], "expected by=scene"),
        (["data=DATA", "out=OUT", "val=0"], "expected some for val"),
        (["data=DATA", "out=OUT", "val=.6", "test=.4"], "less than 1 together"),
        (["data=DATA", "out=OUT", "val=half"], "expected a number"),
        (["data=DATA", "out=OUT", "test=half"], "expected a share"),
        (["data=DATA", "out=TAKEN"], "was not written by this command"),
        (["data=DATA", "out=LIST"], "taken_train.txt: exists and was not written"),
    ],
)
def test_misuse_is_one_line_and_writes_nothing(
    places: Path, tmp_path: Path, capsys, words: list[str], said: str
) -> None:
    (tmp_path / "mine.yaml").write_text("names: [a]\n")
    (tmp_path / "taken_train.txt").write_text("./mine.jpg\n")
    known = {
        "DATA": places,
        "OUT": tmp_path / "x.yaml",
        "TAKEN": tmp_path / "mine.yaml",
        "LIST": tmp_path / "taken.yaml",
    }
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    args = [w.partition("=")[0] + "=" + str(known.get(w.partition("=")[2], w.partition("=")[2])) for w in words]
    assert main(["data", "split", *args]) == 2
    line = [text for text in capsys.readouterr().err.splitlines() if text.startswith("yolo-kd")]
    assert len(line) == 1 and said in line[0]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_table_of_scenes_is_csv_whatever_the_pictures_are_called(tmp_path: Path) -> None:
    source = write_places(tmp_path, 3, 4, lambda place, i: f'{place}, from "above"{i}')
    out = tmp_path / "scene.yaml"
    assert main(["data", "split", f"data={source}", f"out={out}"]) == 0
    with (tmp_path / "scene_scenes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parts = {str(image.relative_to(tmp_path)): part for part in PARTS for image in read_split(out, part).images}
    assert len(rows) == 12 and {row["image"]: row["part"] for row in rows} == parts
    places_of = {(Path(row["image"]).name[0], row["scene"]) for row in rows}
    assert len(places_of) == 3, "a number for each place"


def test_a_second_run_replaces_its_own_files(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "scene.yaml"
    for seed in (0, 1):
        assert main(["data", "split", f"data={places}", f"out={out}", f"seed={seed}"]) == 0
        assert f"seed={seed}" in out.read_text()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("written", [1, 2, 3])
def test_what_a_killed_one_left_is_not_in_the_way_of_the_next(
    places: Path, tmp_path: Path, monkeypatch, written
) -> None:
    """The lists and the table have no mark of ours, and the YAML that has one comes last."""
    left = iter(range(written))

    def write(path: Path, text: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write_text(path, text)

    command = ["data", "split", f"data={places}", f"out={tmp_path / 'scene.yaml'}"]
    with monkeypatch.context() as patch:
        patch.setattr(scene_split, "write_text", write)
        assert main(command) == 130, "interrupted"
    assert len(list(tmp_path.glob("scene_*"))) == written and not (tmp_path / "scene.yaml").exists()
    assert main([*command, "seed=1"]) == 2, "what another command left is not known to be ours"
    assert main(command) == 0 and (tmp_path / "scene.yaml").exists()


def test_an_image_that_cannot_be_read_stops_it(tmp_path: Path, capsys) -> None:
    source = write_places(tmp_path, 3, 3)
    next((tmp_path / "images/val").iterdir()).write_bytes(b"")
    assert main(["data", "split", f"data={source}", f"out={tmp_path / 'x.yaml'}"]) == 2
    assert "1 images cannot be used, first" in capsys.readouterr().err
