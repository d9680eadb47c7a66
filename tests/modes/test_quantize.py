"""`yolo-kd quantize` from checkpoint to judged artifact: it passes, is rescued, or is refused, and never silently."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from yolo_kd.deploy import open_detector
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.quantize.calibration import read_calibration
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings

from tests.conftest import write_pictures
from yolo_kd.cli import main
from yolo_kd.evidence import search
from yolo_kd.evidence.outcome import ATTEMPTS
from yolo_kd.modes import quantize

CLIPPED = ("onnx.ranges=percentile", "onnx.percent=50.5")  # cuts off a quarter of all values at either end


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training pictures, of which `learnt` knows the first 8 by heart, and 12 to judge on."""
    return write_pictures(tmp_path_factory.mktemp("many"), train=100, val=12)


@pytest.fixture
def words(learnt: Path, data: Path, tmp_path: Path) -> list[str]:
    checkpoint = shutil.copy(learnt, tmp_path / "best.pt")
    limits = [
        "max_slowdown=1000",
        "max_drop=0.1",
        "max_class_drop=0.3",
        "min_f1=0.6",
        "min_iou=0.6",
        "max_score_error=0.2",
    ]
    return [
        "quantize",
        f"model={checkpoint}",
        f"data={data}",
        "imgsz=64",
        "backend=onnx",
        "count=12",
        "threads=1",
        *limits,
    ]


def manifest(tmp_path: Path, backend: str = "onnx") -> dict:
    return json.loads((tmp_path / f"best_int8_{backend}_model" / "artifact.json").read_text())


def test_an_artifact_is_made_judged_and_opens(words, tmp_path, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "best_int8_onnx_model: PASSED" in out and "12 images" in out
    plain = manifest(tmp_path)
    assert plain["verdict"]["passed"] and plain["evaluation"]["images"] == 12 and plain["metrics"]["overlap"] == 0
    assert len(plain["calibration"]["pictures"]) == plain["calibration"]["images"] == 12
    with open_detector(tmp_path / "best_int8_onnx_model") as detector:
        assert detector.backend.precision == "int8+f32"
    page = (tmp_path / "best_int8_report.html").read_text()
    assert len(plain["sensitivity"]) == 10 and f"{plain['sensitivity'][0]['layer']}" in page
    assert "onnx INT8 passed and was chosen" in page and page.count("data:image/jpeg") == 16  # 8 pictures, both nets
    gate = [
        "gate",
        f"artifact={tmp_path / 'best_int8_onnx_model'}",
        *(w for w in words if w.startswith(("data=", "m", "th"))),
    ]
    gate = [w for w in gate if not w.startswith("model=")]
    assert main([*gate, "split=train"]) == 0  # finds its parent by itself, and that it was calibrated on these
    assert "12 of the 100 images were calibrated on as well" in capsys.readouterr().out


@pytest.mark.slow
def test_both_back_ends_are_calibrated_on_the_same_pictures(make_checkpoint, tiny, data, tmp_path):
    checkpoint = shutil.copy(make_checkpoint(str(tiny)), tmp_path / "best.pt")
    keys = [f"model={checkpoint}", f"data={data}", "imgsz=64", "count=12", "backend=all", "openvino.bias=none"]
    assert main(["quantize", *keys, "gate=false", "sensitivity=false"]) == 0
    openvino, onnx = (manifest(tmp_path, backend)["calibration"] for backend in ("openvino", "onnx"))
    assert openvino == onnx and len(openvino["pictures"]) == 12
    assert openvino["hash"] == read_calibration(tmp_path / "best_calibration.json").hash


def test_a_data_set_to_judge_on_alone_needs_a_list_to_calibrate_on_and_no_more(words, data, tmp_path, capsys):
    """Whoever distils on flights without labels has such a one."""
    judged = data.with_name("val_only.yaml")
    judged.write_text("".join(line for line in data.read_text().splitlines(True) if not line.startswith("train:")))
    known = [w for w in words if not w.startswith(("data=", "count="))] + [f"data={judged}", "sensitivity=false"]
    assert main(known) == 2
    assert "yolo-kd calibrate source=<folder or video>" in capsys.readouterr().err
    flights = tmp_path / "flights.json"
    assert main(["calibrate", f"source={data.parent / 'images' / 'train'}", "count=12", f"out={flights}"]) == 0
    assert main([*known, f"calibration={flights}"]) == 0
    assert manifest(tmp_path)["verdict"]["passed"]
    assert main([*known, f"calibration={flights}", "recipe=auto"]) == 2
    assert "too few training pictures to choose between recipes on" in capsys.readouterr().err


def test_without_pycocotools_it_says_so_before_it_quantizes(words, tmp_path):
    code = f"import sys\nsys.modules['pycocotools'] = None\nfrom yolo_kd.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "run: pip install pycocotools" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_net_that_lost_too_much_gets_layers_back_in_float(words, tmp_path, capsys):
    assert main([*words, *CLIPPED, "sensitivity=false"]) == 0
    assert "its most sensitive layers go back into float" in capsys.readouterr().out
    plain = manifest(tmp_path)
    counts = [row["float_layers"] for row in plain["accuracy_aware"]]
    assert counts[:2] == [1, 2] and counts == sorted(counts)
    assert plain["accuracy_aware"][-1]["AP"] > plain["accuracy_aware"][0]["AP"]
    assert len(plain["recipe"]["float_layers"]) == counts[-1] and plain["verdict"]["passed"]


def test_without_that_it_is_rejected_and_the_layers_are_named(words, tmp_path, capsys):
    assert main([*words, *CLIPPED, "accuracy_aware=false", "sensitivity=false"]) == 3
    out = capsys.readouterr().out
    assert "best_int8_onnx_model: REJECTED" in out and "no layer goes back into float: accuracy_aware=false" in out
    assert "The one candidate did not pass: keep the float model" in (tmp_path / "best_int8_report.html").read_text()
    plain = manifest(tmp_path)
    errors = [row["error"] for row in plain["sensitivity"]]
    assert (
        not plain["verdict"]["passed"]
        and len(errors) == 10
        and errors == sorted(errors, reverse=True)
        and errors[0] > 0.05
    )


def test_auto_takes_the_fastest_that_passes_and_keeps_every_candidate(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search, "TIMED", 2)
    assert main([*words, "recipe=auto"]) == 0
    out = capsys.readouterr().out
    assert search.NOTES["latency"] in out
    assert f"the fastest that passed: {tmp_path / 'best_int8_onnx_model'}" in out
    page = (tmp_path / "best_int8_report.html").read_text()
    assert "passed and was chosen" in page and "compared on 88 training pictures" in page
    assert all(f"onnx {name}" in page for name in search.RECIPES["onnx"])
    plain = manifest(tmp_path)
    assert len(plain["sensitivity"]) == 10 and plain["sensitivity"][0]["layer"] in page
    recipes = {row["recipe"] for row in plain["search"]}
    assert recipes == {"float", *search.RECIPES["onnx"]} and all(row["p50 ms"] > 0 for row in plain["search"])
    assert plain["verdict"]["passed"] and plain["runtime"]["target"] == "latency"
    rows = sorted((r for r in plain["search"] if r["recipe"] != "float"), key=lambda r: r["p50 ms"])
    recipe = {k: tuple(v) if isinstance(v, list) else v for k, v in plain["recipe"].items() if k != "backend"}
    settings = ", ".join(f"{k}={v}" for k, v in search.changed(ONNXSettings(**recipe)).items())
    assert settings in [r["settings"] for r in rows[:ATTEMPTS]]
    assert read_artifact(tmp_path / "best_int8_onnx_model").precision == "int8"


def test_everything_goes_where_out_says(words, data, tmp_path, capsys):
    """From a float artifact, from a bare .onnx file, and with out=."""
    checkpoint = Path(words[1].removeprefix("model="))
    assert main(["export", f"model={checkpoint}", "format=onnx", "imgsz=64", f"out={tmp_path / 'float'}"]) == 0
    folder = tmp_path / "float" / "best_onnx_model"
    (tmp_path / "bare").mkdir()
    bare = shutil.copy(folder / "best.onnx", tmp_path / "bare" / "best.onnx")
    made = {"best_calibration.json", "best_int8_onnx_model"}
    plain = [w for w in words if not w.startswith(("model=", "imgsz="))] + ["gate=false", "sensitivity=false"]
    before = sorted(p.name for p in tmp_path.iterdir())
    for model, out, where in ((folder, None, tmp_path / "float"), (bare, None, tmp_path / "bare"),
                              (folder, tmp_path / "one", tmp_path / "one"), (bare, tmp_path / "two", tmp_path / "two")):  # fmt: skip
        assert main([*plain, f"model={model}", *([f"out={out}"] if out else [])]) == 0
        assert made <= {p.name for p in where.iterdir()}
        assert f"{where / 'best_int8_onnx_model'}: " in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "one", "two"])
    assert {p.name for p in (tmp_path / "bare").iterdir()} == {"best.onnx", *made}
    assert {p.name for p in folder.iterdir()} == {"best.onnx", "artifact.json"}, "the parent's folder is as it was"
    gate = ["gate", f"artifact={tmp_path / 'bare' / 'best_int8_onnx_model'}", f"data={data}", "max_slowdown=1000"]
    assert main([*gate, "max_drop=1", "max_class_drop=1", "min_f1=0", "min_iou=0", "max_score_error=1"]) == 0


@pytest.mark.slow
def test_a_plan_for_an_npu_takes_no_further_key(words, tmp_path, capsys, monkeypatch):
    recipes = {"fast bias": OpenVINOSettings(preset="performance", bias="fast", ranges="quantile")}
    monkeypatch.setattr(search, "NPU_RECIPES", recipes)
    words = [w for w in words if not w.startswith("backend=")]
    assert main([*words, "target=npu", "sensitivity=false"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("target=npu: backend=openvino, recipe=auto, openvino.preset=performance\n")
    assert search.NOTES["npu"] in out and "the most precise that passed: " in out
    plain = manifest(tmp_path, "openvino")
    assert plain["recipe"]["preset"] == "performance" and plain["runtime"]["target"] == "npu"
    assert plain["verdict"]["passed"] and plain["metrics"]["ms"] is None
    assert not any("p50 ms" in row or "frames/s" in row for row in plain["search"])


@pytest.mark.slow
def test_for_an_npu_without_a_judgement_what_it_would_stumble_over_is_said(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quantize, "npu_faults", lambda artifact: ["open shapes"])
    words = [w for w in words if not w.startswith("backend=")]
    assert main([*words, "target=npu", "gate=false", "sensitivity=false", "openvino.bias=none"]) == 3
    out = capsys.readouterr().out
    assert out.startswith("target=npu: backend=openvino, recipe=default, ") and "  on an NPU: open shapes\n" in out
    recipe = manifest(tmp_path, "openvino")["recipe"]
    assert (recipe["preset"], recipe["bias"]) == ("performance", "none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["recipe=atuo"], "recipe=atuo: expected default or auto (did you mean 'auto'?)"),
        (["target=throughput"], "add recipe=auto"),
        (["target=npu"], "backend=onnx: target=npu is served by OpenVINO alone; leave backend= out"),
        (["target=npu", "backend=openvino", "openvino.preset=mixed"], "target=npu takes symmetric activations"),
        (["target=npu", "backend=openvino", "recipe=auto", "gate=false"], "recipe=auto: needs data= and gate=true"),
        (["recipe=auto", "onnx.stem=0"], "recipe=auto: tries recipes of its own"),
        (["recipe=auto", "gate=false"], "recipe=auto: needs data= and gate=true"),
        (["max_drop=much"], "max_drop=much: expected a number of 0 or more"),
        (["split=tset"], "has no 'tset' part; it has train, val"),
        (["accuracy_aware=1"], "accuracy_aware=1: expected true or false"),
    ],
)
def test_mistakes_are_one_line(words, tmp_path, capsys, change, said):
    assert main([*words, *change]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_what_cannot_end_well_is_refused_before_it_is_calibrated(words, float_export, data, tmp_path, capsys):
    """A folder of Ultralytics' own INT8 export in the way was found after a search of hours."""
    (taken := tmp_path / "best_int8_openvino_model").mkdir()
    (taken / "best.xml").write_text("theirs")
    plain = ["quantize", f"model={float_export}", f"data={data}", f"out={tmp_path}"]
    assert main(plain) == 2
    assert "best_int8_openvino_model: exists and holds no artifact.json" in capsys.readouterr().err
    shutil.copytree(float_export, theirs := tmp_path / "half_openvino_model")
    (theirs / "metadata.yaml").write_text((theirs / "metadata.yaml").read_text() + "args: {half: true}\n")
    assert main([f"model={theirs}" if w.startswith("model=") else w for w in plain]) == 2
    assert "half_openvino_model: is fp16, and INT8 is made from fp32" in capsys.readouterr().err
    assert main([*plain, "imgsz=64,96"]) == 2
    assert f"imgsz=64,96: {float_export} takes 64x64" in capsys.readouterr().err
    assert not list(tmp_path.glob("*calibration*"))


@pytest.mark.parametrize("name", ["best_calibration.json", "best_int8_report.html"])
def test_no_list_or_page_of_somebody_else_is_replaced(words, data, tmp_path, capsys, name):
    """The list that one chose of one's own flights was replaced by one of the training pictures."""
    taken, flights = tmp_path / name, data.parent / "images" / "train"
    if name.endswith("html"):
        taken.write_text("<p>notes</p>")
    else:
        assert main(["calibrate", f"source={flights}", "count=9", f"out={taken}"]) == 0
    before = taken.read_bytes()
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"{taken}: exists and was not" in error and error.count("\n") == 1 and taken.read_bytes() == before
    if name.endswith("json"):
        words = [*words, "gate=false", "sensitivity=false"]
        assert main([*words, f"calibration={taken}"]) == 0 and taken.read_bytes() == before
        assert main([*words, "overwrite=true"]) == 0 and taken.read_bytes() != before
        assert main(words) == 0, "its own is replaced"


def test_the_help_names_every_key_and_setting(capsys):
    assert main(["quantize", "--help"]) == 0
    text = capsys.readouterr().out
    keys = [*quantize.DEFAULTS, "openvino.preset", "openvino.stem", "onnx.activations", "onnx.per_channel"]
    assert all(f"\n  {key}=" in text for key in keys if key != "debug")
    assert all(len(line) <= 130 for line in text.splitlines())
