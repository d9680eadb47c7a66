"""What every file of the checkout has to keep to, and that version, requirements and public names agree."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import yolo_kd

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400
VAGUE = {"utils.py", "helpers.py", "misc.py", "common.py", "core.py"}
# Folders that belong to one machine only, at the start of a path; put together here so that this file passes itself.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|root|home)" + "/")
UNFINISHED = re.compile(r"\b(?:TO" + "DO|FIX" + r"ME)\b")


@cache
def files() -> list[Path]:
    """The files that git keeps or would keep; outside of a git checkout, all but the virtual environment."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = (".venv", ".git", "build", "dist", "runs")
        paths = [path for path in ROOT.rglob("*") if not set(path.relative_to(ROOT).parts) & set(hidden)]
    return [path for path in paths if path.is_file()]


def text_of(path: Path) -> str:
    """The text of a file, empty for pictures and weights."""
    raw = path.read_bytes()
    return "" if b"\0" in raw else raw.decode("utf-8", errors="replace")


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Where the pattern occurs, as `path:line`."""
    return [
        f"{path.name}:{number}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_tree_is_seen() -> None:
    assert {ROOT / "setup.py", ROOT / "yolo_kd/errors.py", Path(__file__).resolve()} <= set(files())


def test_no_python_file_is_too_long() -> None:
    lengths = {path: len(text_of(path).splitlines()) for path in files() if path.suffix == ".py"}
    assert {path.name: length for path, length in lengths.items() if length > LONGEST} == {}


def test_make_test_brings_the_browser_that_it_needs() -> None:
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < done.stdout.index("command -v chromium") < done.stdout.index("-m pytest")


@pytest.mark.parametrize(("target", "ends"), [("demo", 'yolo-kd" demo'), ("test", "-m pytest")])
def test_on_a_fresh_machine_one_command_makes_the_environment_installs_and_runs(tmp_path, target, ends) -> None:
    command = ["make", "-n", target, f"VENV={tmp_path / 'new'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    steps = [done.find(step) for step in ("-m venv ", 'pip install --disable-pip-version-check -e ".[all,dev]"', ends)]
    assert -1 < steps[0] < steps[1] < steps[2], done


def test_make_alone_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = re.findall(r"^  ([a-z]+) +\S", done.stdout, re.MULTILINE)
    assert told == re.findall(r"^\.PHONY: (\S+)", text_of(ROOT / "Makefile"), re.MULTILINE)


def test_no_file_has_a_vague_name() -> None:
    assert [path for path in files() if path.name in VAGUE] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_with(MACHINE_PATH, files()) == []


def test_nothing_is_left_for_later() -> None:
    assert lines_with(UNFINISHED, files()) == []


@pytest.mark.parametrize(
    ("line", "pattern", "hit"),
    [
        ("see /ro" + "ot/x", MACHINE_PATH, True),
        ("path='/ho" + "me/me'", MACHINE_PATH, True),
        ("runs/work/a", MACHINE_PATH, False),
        ("# TO" + "DO: later", UNFINISHED, True),
        ("mastodon", UNFINISHED, False),
    ],
)
def test_the_patterns_hit_what_they_should(tmp_path: Path, line: str, pattern: re.Pattern[str], hit: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_text(line, encoding="utf-8")
    assert lines_with(pattern, [file]) == (["a.txt:1"] if hit else [])


def test_every_yaml_parses_to_a_mapping() -> None:
    found = [path for folder in ("cfg", "data") for path in (ROOT / folder).rglob("*.yaml")]
    assert found
    for path in found:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path.name


def test_the_public_names() -> None:
    assert sorted(yolo_kd.__all__) == ["DistillationTrainer", "__version__", "distill"]


def test_public_names_resolve() -> None:
    for name in yolo_kd.__all__:
        assert getattr(yolo_kd, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = yolo_kd.nothing


def test_the_changelog_opens_with_this_version() -> None:
    numbers = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert numbers[0] == yolo_kd.__version__ == metadata.version("yolo-kd")


def test_the_constraints_pin_every_requirement_to_a_version_it_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    for text in metadata.requires("yolo-kd") or []:
        requirement = Requirement(text)
        assert requirement.name.lower() in pins, f"{requirement.name} is missing in constraints.txt"
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def asked_for(extra: str) -> set[str]:
    """What the package asks for with this extra, or without one, more than without it."""
    found = [Requirement(text) for text in metadata.requires("yolo-kd") or []]
    return {r.name for r in found if (r.marker.evaluate({"extra": extra}) if r.marker else not extra)}


def test_the_base_has_no_torch_and_each_extra_brings_what_it_is_for() -> None:
    assert asked_for("") == {"numpy", "opencv-python-headless", "PyYAML"}
    training = {"ultralytics-opencv-headless", "torch", "torchvision", "albumentations", "pycocotools"}
    assert asked_for("train") == training
    assert asked_for("all") == training | asked_for("openvino") | asked_for("onnx") | asked_for("sign")
    assert {"openvino", "nncf"} <= asked_for("openvino") and {"onnxruntime", "onnx"} <= asked_for("onnx")
    assert {"pytest", "ruff", "mypy"} <= asked_for("dev")


def test_one_opencv_is_asked_for_and_installed() -> None:
    """All of its distributions write the same folder, so that a second one overwrites half of the first."""
    asked = {Requirement(text).name for text in metadata.requires("yolo-kd") or []}
    assert {name for name in asked if name.startswith("opencv")} == {"opencv-python-headless"}
    assert "ultralytics" not in asked, "it asks for opencv-python; ultralytics-opencv-headless is the same code"
    found = metadata.packages_distributions()["cv2"]
    assert set(found) == {"opencv-python-headless"}


def test_a_device_can_judge_with_what_its_extra_installs() -> None:
    """The gate runs again on the target, and measures average precision there."""
    extras = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List)
    }
    for extra, runtime in (("OPENVINO", "openvino"), ("ONNX", "onnxruntime")):
        names = {Requirement(text).name for text in extras[extra]}
        assert {runtime, "pycocotools"} <= names and not names & {"torch", "torchvision", "ultralytics"}


def test_the_license_is_the_whole_agpl() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in text and "END OF TERMS AND CONDITIONS" in text
    assert [f"  {number}. " in text for number in range(18)] == [True] * 18
