"""A data.yaml means to us what it means to Ultralytics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from yolo_kd.data.description import descriptors, find_description, miscount, read_description

from yolo_kd.cli import main
from yolo_kd.errors import MisuseError


def write(folder: Path, **raw: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a"], **raw}))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and Ultralytics' folder of data sets at tmp_path/sets."""
    monkeypatch.chdir((tmp_path / "cwd").mkdir() or tmp_path / "cwd")
    config = tmp_path / "config"
    (config / "Ultralytics").mkdir(parents=True)
    (config / "Ultralytics" / "settings.json").write_text(json.dumps({"datasets_dir": str(tmp_path / "sets")}))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(config))
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path / "sets")
    return tmp_path


@pytest.mark.parametrize("place", ["cwd", "sets", "absolute", "left out"])
def test_the_parts_lie_where_ultralytics_looks(elsewhere: Path, place: str) -> None:
    from ultralytics.data.utils import check_det_dataset

    root = {"cwd": "cwd/birds", "sets": "sets/birds"}.get(place, "yaml")
    for part in ("train", "val"):
        (elsewhere / root / "images" / part).mkdir(parents=True)
    given = {"absolute": {"path": str(elsewhere / root)}, "left out": {}}.get(place, {"path": "birds"})
    source = write(elsewhere / "yaml", **given)
    found = read_description(source)
    assert found.parts["val"] == (elsewhere / root / "images" / "val",)
    assert str(found.parts["val"][0]) == check_det_dataset(str(source), autodownload=False)["val"]


@pytest.mark.parametrize("part", ["images/val", "val.txt", ["images/val"]], ids=str)
def test_links_are_followed_as_ultralytics_follows_them(elsewhere: Path, part: str | list[str]) -> None:
    """It looks for labels where the pictures really lie, so a check that looked elsewhere would pass what has none."""
    from ultralytics.data.utils import check_det_dataset

    (elsewhere / "disk" / "val").mkdir(parents=True)
    (elsewhere / "disk" / "val.txt").write_text("./val/0.png\n")
    source = write(elsewhere / "yaml", train=part, val=part)
    (elsewhere / "yaml" / "images").symlink_to(elsewhere / "disk")
    (elsewhere / "yaml" / "val.txt").symlink_to(elsewhere / "disk" / "val.txt")
    theirs = check_det_dataset(str(source), autodownload=False)["val"]
    assert [str(p) for p in read_description(source).parts["val"]] == (theirs if isinstance(theirs, list) else [theirs])


def test_a_path_beside_the_yaml_is_told_of(elsewhere: Path) -> None:
    """Ultralytics does not look there, so a check that did would pass what cannot be trained on."""
    from ultralytics.data.utils import check_det_dataset

    for part in ("train", "val"):
        (elsewhere / "yaml/birds/images" / part).mkdir(parents=True)
    source = write(elsewhere / "yaml", path="birds")
    with pytest.raises(FileNotFoundError):
        check_det_dataset(str(source), autodownload=False)
    with pytest.raises(MisuseError, match=f"path: birds .*not beside it; write path: {elsewhere / 'yaml/birds'}$"):
        read_description(source)
    (elsewhere / "cwd/birds").mkdir()
    assert read_description(source).parts["val"] == (elsewhere / "cwd/birds/images/val",)


def test_a_folder_here_goes_before_one_of_ultralytics(elsewhere: Path) -> None:
    for root in ("cwd", "sets", "yaml"):
        (elsewhere / root / "birds").mkdir(parents=True)
    source = write(elsewhere / "yaml", path="birds")
    assert read_description(source).parts["val"][0] == elsewhere / "cwd" / "birds/images/val"
    (elsewhere / "cwd" / "birds").rmdir()
    assert read_description(source).parts["val"][0] == elsewhere / "sets" / "birds/images/val"


def test_one_step_up_too_many_and_validation(elsewhere: Path) -> None:
    source = write(elsewhere / "yaml", train="../train/images", val=None, validation=["a", "b.txt"])
    (elsewhere / "yaml" / "train" / "images").mkdir(parents=True)
    found = read_description(source)
    assert found.parts["train"] == (source.parent / "train/images",)
    assert found.parts["val"] == (source.parent / "a", source.parent / "b.txt") and "test" not in found.parts
    source = write(elsewhere / "yaml", train=["../train/images"])
    assert read_description(source).parts["train"] == (elsewhere / "train/images",), "forgiven outside of lists only"


@pytest.mark.parametrize("names", [None, ["a", "b"], {"0": "a", 1: "b"}, {0: "a", 2: "b"}, [], "ab"], ids=str)
@pytest.mark.parametrize("nc", ["left out", 2, "2", 2.0, "2.0", 3, 1.5, "two", None, 0, -1, True, [2], "inf"], ids=str)
def test_names_and_nc_mean_what_they_mean_to_ultralytics(elsewhere: Path, names: object, nc: object) -> None:
    from ultralytics.data.utils import check_det_dataset

    for part in ("train", "val"):
        (elsewhere / "yaml/images" / part).mkdir(parents=True)
    source = write(elsewhere / "yaml", names=names, **({} if nc == "left out" else {"nc": nc}))
    try:
        theirs = check_det_dataset(str(source), autodownload=False)["names"]
    except (SyntaxError, TypeError, KeyError, OverflowError):
        theirs = None
    try:
        found = read_description(source)
        refused = bool(miscount(found.raw)) or sorted(found.names) != list(
            range(len(found.names))
        )  # the check says both
        ours = None if refused else found.names
    except MisuseError:
        ours = None
    assert ours == theirs


def test_a_number_of_classes_beyond_any_data_set_is_one_line(elsewhere: Path) -> None:
    with pytest.raises(
        MisuseError, match=r"data\.yaml: expected names: or nc: the number of classes, got nc: 2000000000$"
    ):
        read_description(write(elsewhere / "yaml", names=None, nc=2_000_000_000))


def test_a_name_without_a_file_is_one_that_comes_along(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = {"birds": write(elsewhere / "shipped")}
    monkeypatch.setattr("yolo_kd.data.description.descriptors", lambda: shipped)
    assert find_description("birds.yaml") == shipped["birds"] and read_description("birds.yaml").names == {0: "a"}
    assert find_description("Birds.yaml") is None, "Ultralytics' VOC.yaml is not our voc.yaml"
    assert find_description("sub/birds.yaml") is None and find_description("birds") is None
    with pytest.raises(MisuseError, match=r"bird.yaml: no such data set YAML \(did you mean 'birds.yaml'\?\)"):
        read_description("bird.yaml")


@pytest.mark.parametrize("name", ["coco8.yaml", "coco8", "VisDrone.yaml", "DOTAv1.5"])
def test_a_name_of_ultralytics_is_its_descriptor(elsewhere: Path, name: str) -> None:
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils import ROOT

    source = ROOT / "cfg/datasets" / (name if name.endswith(".yaml") else f"{name}.yaml")
    raw = yaml.safe_load(source.read_text(encoding="utf-8"))
    for part in ("train", "val"):
        (elsewhere / "sets" / raw["path"] / raw[part]).mkdir(parents=True)
    found, theirs = read_description(name), check_det_dataset(name, autodownload=False)
    assert found.source == source and found.names == theirs["names"]
    assert all(str(found.parts[part][0]) == theirs[part] for part in ("train", "val"))
    (elsewhere / "cwd/coco8.yaml").write_text(write(elsewhere / "mine").read_text())
    assert read_description("coco8.yaml").names == {0: "a"}, "a file that lies here goes first"


@pytest.mark.parametrize("mode", ["check", "split"])
@pytest.mark.parametrize("name", ["coco8.yaml", "visdrone.yaml"])
def test_a_data_set_that_is_known_and_not_there_is_one_line(elsewhere: Path, capsys, mode: str, name: str) -> None:
    more = ["by=scene", "out=new.yaml"] if mode == "split" else []
    assert main(["data", mode, f"data={name}", *more]) == 2
    said = capsys.readouterr()
    assert not said.out and len(said.err.splitlines()) == 1
    place = elsewhere / "cwd" / ("VisDrone" if name == "visdrone.yaml" else "coco8") / "images/train"
    assert f"{name}: " in said.err and str(place) in said.err


def test_what_is_nearly_a_name_of_ultralytics(elsewhere: Path) -> None:
    with pytest.raises(MisuseError, match=r"coco1288\.yaml: no such data set YAML \(did you mean 'coco128\.yaml'\?\)"):
        read_description("coco1288.yaml")


def test_those_that_come_along_are_yaml_files() -> None:
    assert all(path.suffix == ".yaml" for path in descriptors().values())


@pytest.mark.parametrize(("text", "said"), [("- a", "expected 'key: value' lines"), ("a: [", "not readable as YAML")])
def test_what_is_no_description(elsewhere: Path, text: str, said: str) -> None:
    path = elsewhere / "x.yaml"
    path.write_text(text)
    with pytest.raises(MisuseError, match=said):
        read_description(path)
