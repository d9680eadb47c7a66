"""`yolo-kd demo`: the time it says is left, its video, and its last part, the student in INT8 beside its float parent."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy import Detector, open_detector
from yolo_kd.deploy.artifact import read_artifact

from tests.conftest import write_pictures
from yolo_kd.cli import main
from yolo_kd.evidence import judge
from yolo_kd.modes import demo


def write_video(path: Path, images: list[Path], size_wh: tuple[int, int] = (64, 64)) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size_wh)
    for image in images:
        writer.write(cv2.imread(str(image)))
    writer.release()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder with scenes and a video of the pictures that `learnt` knows."""
    data = write_pictures(tmp_path / "scenes")
    write_video(tmp_path / "traffic-0.mp4", list(read_split(data, "train").images))
    return tmp_path


def test_the_time_left_is_told_from_the_first_part_on(monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    clock = [0.0]
    monkeypatch.setattr(demo.time, "monotonic", lambda: clock[0])
    progress = demo.Progress(demo.expected_minutes(demo.DEFAULTS))
    whole = sum(progress.minutes.values())
    progress.begin("render scenes")
    assert f"(0.0 min so far, about {whole:.0f} min left on two cores with bf16)" in caplog.text
    progress.end("render scenes")  # at once: they were there already
    progress.begin("teacher")
    rest = whole - progress.minutes["render scenes"]
    assert f"part 2 of 6: teacher (0.0 min so far, about {rest:.0f} min left on two cores with bf16)" in caplog.text
    progress.end("teacher")
    rest -= progress.minutes["teacher"]
    clock[0] = 60 * 3 * (whole - rest)  # a third of the speed
    progress.begin("plain student")
    assert f"so far, about {3 * rest:.0f} min left)" in caplog.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distill=csgr_lq"], "distill=csgr_lq: no such recipe (did you mean 'csgr_lqe'?)"),
        (["student=yolov8q.yaml"], "student=yolov8q.yaml: no usable model YAML"),
        (["images=0"], "images=0: expected a whole number from 1 on"),
        (["epochs=0"], "epochs=0: expected a whole number from 1 on"),
        (["teacher_epochs=0"], "teacher_epochs=0: expected a whole number from 1 on"),
        (["imgsz=300"], "imgsz=300: expected a multiple of 32, e.g. imgsz=256"),
        (["distill=none"], "distill=None: expected a word, e.g. distill=csgr_lqe"),
    ],
)
def test_what_the_last_part_needs_is_looked_at_before_the_first(monkeypatch, tmp_path, capsys, words, said) -> None:
    monkeypatch.setattr(demo, "_render", lambda *_: pytest.fail("begun"))
    assert main(["demo", f"out={tmp_path}", *words]) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("name", demo.OWN)
def test_runs_that_no_demo_left_are_not_written_over(monkeypatch, tmp_path, capsys, name) -> None:
    """out=runs/detect is where a teacher of a hundred epochs may lie."""
    begun: list[Path] = []
    monkeypatch.setattr(demo, "_render", lambda out, keys: begun.append(out))
    monkeypatch.setattr(demo, "distill", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / name).mkdir()
    assert main(["demo", f"out={tmp_path}"]) == 2 and not begun
    assert f"holds {name}, which no demo left there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).rmdir()
    main(["demo", f"out={tmp_path}"])
    (tmp_path / name).mkdir()  # by that demo, which was interrupted
    main(["demo", f"out={tmp_path}"])
    assert len(begun) == 2


def test_a_place_that_cannot_be_written_is_known_before_anything_is_rendered(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(demo, "_render", lambda *_: pytest.fail("begun"))
    (tmp_path / "file").write_text("")
    assert main(["demo", f"out={tmp_path / 'file' / 'd'}"]) == 2
    assert f"out={tmp_path / 'file' / 'd'}" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["nncf", "pycocotools"])
def test_so_are_its_packages(monkeypatch, tmp_path, capsys, package) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == package else found(name, *a))
    monkeypatch.setattr("yolo_kd.evidence.average_precision.find_spec", importlib.util.find_spec)
    monkeypatch.setattr(demo, "_render", lambda *_: pytest.fail("begun"))
    assert main(["demo", f"out={tmp_path}"]) == 2 and f"{package}" in (said := capsys.readouterr().err), said


def test_a_stem_is_a_student_as_it_is_in_train(monkeypatch, tmp_path) -> None:
    seen: list[str] = []
    monkeypatch.setattr(demo, "check_student", seen.append)
    monkeypatch.setattr(demo, "_render", lambda *_: 1 / 0)
    assert main(["demo", f"out={tmp_path}", "student=yolov8n"]) == 1
    assert seen == ["yolov8n.pt"]


def test_fewer_pictures_and_epochs_take_less() -> None:
    usual = demo.expected_minutes(demo.DEFAULTS)
    assert demo.DEFAULTS["images"] == 416 and demo.VAL_IMAGES == 120, "which every epoch sees, too"
    less = demo.expected_minutes(
        {**demo.DEFAULTS, "images": 148, "imgsz": 128, "teacher_epochs": demo.DEFAULTS["teacher_epochs"] / 2}
    )
    assert less["render scenes"] == pytest.approx(usual["render scenes"] / 8)
    assert less["teacher"] == pytest.approx(usual["teacher"] / 16)
    assert less["distilled student"] == pytest.approx(usual["distilled student"] / 8)
    assert less["INT8"] == usual["INT8"] and list(less) == list(usual)


def test_the_table_has_size_cost_and_both_precisions_of_each_model() -> None:
    keys = ("model", "parameters", "GFLOPs", "epochs", "minutes", "mAP50", "mAP50-95")
    measured = [
        ("teacher", 11_140_000, 4.57, 13, 4.2, 0.612, 0.345),
        ("plain student", 3_010_000, 1.31, 12, 1.9, 0.5, 0.25),
        ("distilled student", 3_010_000, 1.31, 12, 3.1, 0.534, 0.271),
    ]
    rows = [dict(zip(keys, values, strict=True)) for values in measured]
    heading, *lines = demo._table(rows).splitlines()
    names = heading.split()
    assert names == ["parameters", "GFLOPs", "epochs", "minutes", "mAP50", "mAP50-95"]
    ends = [heading.index(f" {name}") + len(name) + 1 for name in names]
    shown = [
        ["11.14 M", "4.57", "13", "4.2", "0.612", "0.345"],
        ["3.01 M", "1.31", "12", "1.9", "0.500", "0.250"],
        ["3.01 M", "1.31", "12", "3.1", "0.534", "0.271"],
    ]
    for line, row, values in zip(lines, rows, shown, strict=True):
        assert line.startswith(f"{row['model']} ") and len(line) == len(heading)
        assert all(line[:end].endswith(f" {value}") for end, value in zip(ends, values, strict=True))
    assert demo._caution(rows).startswith(
        "equal epochs, not equal time: the distilled student's minutes are those of about 20 plain epochs; one seed"
    ), "12 * 3.1 / 1.9"


def test_the_demo_prints_the_table_of_what_it_trained(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    trained: list[dict[str, Any]] = []
    for name in ("_render", "_picture"):
        monkeypatch.setattr(demo, name, lambda *_: tmp_path)
    monkeypatch.setattr(demo, "_deploy", lambda *_: None)
    monkeypatch.setattr(demo, "distill", lambda **keys: trained.append(keys))
    sizes = {"parameters": 3e6, "GFLOPs": 1.31, "minutes": 1.0, "mAP50": 0.5, "mAP50-95": 0.25}
    monkeypatch.setattr(
        demo, "_row", lambda part, best, *_: {"model": part, **sizes, "epochs": len(trained), "weights": str(best)}
    )
    assert demo.main({"out": str(tmp_path)}) == 0
    assert [keys["student"] for keys in trained] == ["yolov8s.yaml", "yolov8n.yaml", "yolov8n.yaml"]
    own = {"name", "distill", "teacher", "force"}
    plain, distilled = ({k: v for k, v in keys.items() if k not in own} for keys in trained[1:])
    assert plain == distilled and {"epochs", "lr0", "batch", "nbs", "optimizer", "seed"} <= plain.keys()
    assert [keys["distill"] for keys in trained] == ["none", "none", "csgr_lqe"]
    assert trained[2]["teacher"] == str(tmp_path / "teacher" / "weights" / "best.pt")
    rows = json.loads((tmp_path / "demo.json").read_text())
    assert [row["model"] for row in rows] == ["teacher", "plain student", "distilled student"]
    assert caplog.text.count(demo._table(rows)) == 1


def test_another_seed_is_another_video(tmp_path: Path, monkeypatch) -> None:
    made: list[tuple[str, int]] = []

    def render(path: Path, frames: int, seed: int) -> None:
        path.write_bytes(b"")
        made.append((path.name, seed))

    monkeypatch.setattr(demo.scenes, "render_video", render)
    monkeypatch.setattr(demo.scenes, "write_dataset", lambda root, **_: root / "data.yaml")
    for seed in (0, 1, 0):
        demo._render(tmp_path, {"images": 2, "imgsz": 64, "seed": seed})
    assert made == [("traffic-0.mp4", 0), ("traffic-1.mp4", 1)]


def test_float_and_int8_stand_side_by_side(out: Path, learnt: Path, monkeypatch, caplog) -> None:
    runs: list[str] = []
    detect = Detector.__call__

    def counted(detector: Detector, frame: np.ndarray) -> Any:
        runs.append(detector.artifact.precision)
        return detect(detector, frame)

    timed: list[list[list[float]]] = []
    time_in_turn = judge.time_in_turn

    def noted(*args: Any) -> list[list[float]]:
        runs.clear()
        timed.append(time_in_turn(*args))
        assert runs[: 2 * judge.WARM_UP] == ["fp32", "int8"] * judge.WARM_UP and len(runs) == 2 * (judge.WARM_UP + 8)
        return timed[-1]

    monkeypatch.setattr(Detector, "__call__", counted)
    monkeypatch.setattr(demo, "time_in_turn", noted)
    caplog.set_level("INFO")
    demo._deploy(out, out / "scenes" / "data.yaml", learnt, {"imgsz": 64, "seed": 0})
    found = json.loads((out / "int8.json").read_text())
    judged = read_artifact(out / "deploy" / "last_int8_openvino_model")
    assert found["verdict"]["passed"] is judged.verdict.passed and judged.precision == "int8"
    exact, rounded = found["rows"]
    assert (exact["net"], rounded["net"]) == ("float", "INT8")
    assert rounded["runs in"].startswith("int8") and not exact["runs in"].startswith("int8")
    assert [rounded["AP"], exact["AP"]] == judged.facts["metrics"]["ap"]
    assert exact["MB"] > 1.2 * rounded["MB"] > 0.1
    assert [row["p50 ms"] for row in found["rows"]] == [pytest.approx(np.median(times)) for times in timed[0]]
    with open_detector(judged, allow_rejected=True, cache=False) as detector:
        assert rounded["boxes on the video"] == sum(len(detector(f)) for f in demo._frames(out / "traffic-0.mp4")) > 0
    speed = exact["p50 ms"] / rounded["p50 ms"]
    assert f"INT8 at {speed:.2f} x the speed of float in {exact['runs in']}" in caplog.text
    assert ("runs it on a device" in caplog.text) is judged.verdict.passed
