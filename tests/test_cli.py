"""The command line: one line, the right exit code, and a hint, for everything that a user gets wrong."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from logging import Handler
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics.nn.tasks import RTDETRDetectionModel
from yolo_kd.data import scenes

from tests.bomb import Bomb
from yolo_kd import __version__, api, distillers
from yolo_kd.cli import main
from yolo_kd.engine.readable_errors import readable_errors
from yolo_kd.engine.ultra import LOGGER
from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.modes import demo


def run(capsys, *args: str) -> tuple[int, str]:
    """Exit code and what went to stderr, without Ultralytics' own log."""
    code = main(list(args))
    return code, "\n".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("yolo-kd: "))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Ultralytics' log, line by line."""
    lines, handler = list[str](), Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    LOGGER.addHandler(handler)
    yield lines
    LOGGER.removeHandler(handler)


def test_help_and_version(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert main(words) == 0 and "yolo-kd MODE key=value" in capsys.readouterr().out
    for word in ("version", "--version"):
        assert main([word]) == 0 and capsys.readouterr().out.strip() == f"yolo-kd {__version__}"
    text = capsys.readouterr().out if main(["train", "--help"]) == 0 else ""
    for word in ("teacher=", "student=yolov8n.yaml", "data=", "teacher_engine=auto", "csgr_lqe", "csgr.tau=.2"):
        assert word in text
    assert f"classes: {', '.join(scenes.CLASSES)}" in " ".join(text.split()) and "imgsz=320" in text
    assert "until=" in text and "0..1" not in text, "0 is refused"
    methods = " ".join(text.partition("arguments of the methods")[2].split())
    for method in distillers.DISTILLERS:
        words = [f"{k}={v}" for k, v in distillers.arguments(method).items()]
        assert f" {method} {' '.join(words)}" in methods, "gains are told of apart"
    assert "form=paper" in text and all(len(line) < 200 for line in text.splitlines())
    assert main(["demo", "--help"]) == 0
    told = capsys.readouterr().out.splitlines()[3:]
    assert len(told) == len(demo.DEFAULTS) and all(len(line.split(maxsplit=1)[1]) > 10 for line in told)
    for mode in ("val", "predict", "demo"):
        assert main([mode, "--help"]) == 0 and f"yolo-kd {mode}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("trian",), "no such mode (did you mean 'train'?)"),
        (("train", "epochs"), "expected key=value"),
        (("train", "distill=none", "epchs=3"), "epchs=3: unknown key (did you mean 'epochs'?)"),
        (("train", "techer=a.pt"), "(did you mean 'teacher'?)"),
        (("train", "data=x.yaml"), "teacher= is missing"),
        (("train", "teacher=gone.pt"), "teacher=gone.pt: no such file"),
        (("train", "teacher=TEACHER", "distill=csgr_lq"), "(did you mean 'csgr_lqe'?)"),
        (("train", "teacher=TEACHER", "csgr.tua=.2"), "(did you mean 'tau'?)"),
        (("train", "teacher=TEACHER", "csrg.tau=.2"), "(did you mean 'csgr'?)"),
        (
            ("train", "teacher=TEACHER", "pkd.pkd=1"),
            "recipe 'csgr_lqe' has csgr, pcd, lqe; take distill=pkd, or a YAML",
        ),
        (("train", "distill=none", "csgr.tau=.2"), "recipe 'none' has no method; take distill=csgr, or a YAML"),
        (("train", "teacher=TEACHER", "csgr.cs=auto:x"), "expected a gain of 0 or more, or auto:SHARE"),
        (("train", "teacher=TEACHER", "teacher_every=often"), "expected a whole number"),
        (("train", "teacher=TEACHER", "max_feature_error=-1"), "max_feature_error=-1: expected 0 or more, e.g. 0.06"),
        (("train", "teacher=TEACHER", "teacher_engine=tensorrt"), "expected one of auto, torch"),
        (("train", "teacher=TEACHER", "schedule=cosin"), "(did you mean 'cosine'?)"),
        (("train", "teacher=TEACHER", "until=2"), "expected a share of the run"),
        (
            ("train", "teacher=TEACHER", "student=yolov8q.yaml", "data=DATA"),
            "student=yolov8q.yaml: no usable model YAML",
        ),
        (("train", "teacher=TEACHER", "student=yolov8n-seg.yaml", "data=DATA"), "is a 'segment' model"),
        (
            ("train", "teacher=TEACHER", "student=yolov8s-worldv2.yaml", "data=DATA"),
            "student=yolov8s-worldv2.yaml: is a 'detect' model with the head WorldDetect, expected",
        ),
        (("train", "teacher=TEACHER", "student=rtdetr-l.yaml", "data=DATA"), "with the head RTDETRDecoder, expected"),
        (
            ("train", "teacher=RTDETR", "data=DATA"),
            "rtdetr.pt: is a 'detect' model with the head RTDETRDecoder, expected",
        ),
        (
            ("train", "teacher=TEACHER", "data=DATA", "csgr.tau=abc"),
            "csgr.tau=abc: expected a number, e.g. csgr.tau=0.1",
        ),
        (("train", "teacher=TEACHER", "data=DATA", "csgr.tau=0"), "csgr.tau is a number above 0, not 0"),
        (("train", "teacher=TEACHER", "data=DATA", "csgr.form=papr"), "did you mean 'paper'"),
        (
            ("train", "teacher=STRANGER", "data=DATA"),
            ".pt: none of its classes (cat, dog) is in the data (car, truck, person);",
        ),
        (
            ("train", "teacher=TEACHER", "data=DATA", "classes=[0,7]"),
            "classes=7: no such class; expected ids of 0 car, 1",
        ),
        (("train", "teacher=TEACHER", "data=NONAMES"), "expected names: a list of class names, or id: name"),
        (("train", "teacher=TEACHER", "data=gone.yaml"), "data=gone.yaml: no such file"),
        (("train", "teacher=TEACHER", "data=DATA", "epochs=many"), "epochs=many"),
        (("train", "teacher=TEACHER", "data=DATA", "distill_model=TEACHER"), "use one"),
        (("train", "distill=none", "data=DATA", "seed=8589934592"), "seed=8589934592: expected a whole number from 0"),
        (("train", "distill=none", "data=DATA", "seed=-1"), "seed=-1: expected a whole number from 0"),
        (("train", "distill=none", "data=DATA", "pretrained=gone.pt"), "pretrained=gone.pt: no such file"),
        (("train", "distill=none", "data=DATA", "distill_model=gone.pt"), "distill_model=gone.pt: no such file"),
        (("train", "resume=gone.pt"), "resume=gone.pt: no such file"),
        (("val",), "model= is missing"),
        (("val", "model=TEACHER", "dta=x"), "(did you mean 'data'?)"),
        (("predict", "model=gone.pt"), "model=gone.pt: no such file"),
    ],
)
def test_misuse_is_one_line_and_exit_2(capsys, monkeypatch, tmp_path, pictures, make_checkpoint, args, said):
    monkeypatch.chdir(tmp_path)
    known = {"TEACHER": str(make_checkpoint("yolov8s.yaml", seed=1)), "DATA": str(pictures)}
    if "teacher=STRANGER" in args:
        known["STRANGER"] = str(make_checkpoint("yolov8s.yaml", names=("cat", "dog")))
    if "teacher=RTDETR" in args:
        known["RTDETR"] = str(tmp_path / "rtdetr.pt")
        net = RTDETRDetectionModel("rtdetr-l.yaml", nc=3, verbose=False)
        torch.save({"model": net, "train_args": {"task": "detect"}}, known["RTDETR"])
    if "data=NONAMES" in args:
        known["NONAMES"] = str(tmp_path / "nonames.yaml")
        Path(known["NONAMES"]).write_text("train: images/train\nval: images/val\n")
    args = tuple(
        a.replace(k, v) for a in args for k, v in [next(((k, v) for k, v in known.items() if k in a), ("", ""))]
    )
    # under pytest Ultralytics puts a relative project elsewhere
    code, line = run(capsys, *args, *([f"project={tmp_path / 'runs'}"] if args[0] != "trian" else []))
    assert code == 2, line
    assert said in line and len(line.splitlines()) == 1
    assert not (tmp_path / "runs").exists(), "a run folder was made for a run that cannot start"


@pytest.mark.parametrize("kind", ["text", "truncated", "classifier"])
def test_teacher_that_is_none(capsys, tmp_path, pictures, make_checkpoint, kind):
    path = tmp_path / "teacher.pt"
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "truncated":
        path.write_bytes(make_checkpoint("yolov8s.yaml", seed=1).read_bytes()[:50_000])
    else:
        from ultralytics import YOLO

        torch.save({"model": YOLO("yolov8n-cls.yaml", verbose=False).model, "train_args": {"task": "classify"}}, path)
    code, line = run(capsys, "train", f"teacher={path}", f"data={pictures}", f"project={tmp_path}")
    assert code == 2 and len(line.splitlines()) == 1
    assert ("'classify' model" if kind == "classifier" else "not a readable checkpoint") in line


def test_strangers_pickle_is_not_executed(capsys, tmp_path, pictures, make_checkpoint):
    mark, path = tmp_path / "executed", tmp_path / "teacher.pt"
    good = torch.load(make_checkpoint("yolov8s.yaml", seed=1), weights_only=False)
    torch.save({**good, "extra": Bomb(mark)}, path)
    code, line = run(capsys, "train", f"teacher={path}", f"data={pictures}", f"project={tmp_path}")
    assert code == 2 and "trust=true" in line
    assert not mark.exists()
    for mode in ("val", "predict"):
        code, line = run(capsys, mode, f"model={path}")
        assert code == 2 and not mark.exists()
    for key in ("pretrained", "distill_model"):
        code, line = run(
            capsys, "train", "distill=none", f"{key}={path}", f"data={pictures}", f"project={tmp_path / 'runs'}"
        )
        assert code == 2 and f"{key}={path}: " in line and not mark.exists() and not (tmp_path / "runs").exists()
    assert main(["train", f"teacher={path}", "trust=true", f"data={tmp_path / 'gone.yaml'}"]) == 2
    assert mark.exists(), "trust=true was asked for and ignored"


def test_name_that_cannot_be_downloaded_fails_with_1(capsys, monkeypatch, tmp_path, pictures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", _offline)
    code, line = run(capsys, "train", "teacher=yolov8l.pt", f"data={pictures}")
    assert code == 1 and "could not be downloaded" in line and "teacher=/path/to/yolov8l.pt" in line


def test_data_that_cannot_be_had(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.data.utils.safe_download", _offline)
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path)
    code, line = run(capsys, "train", "distill=none", "data=coco8.yaml", f"project={tmp_path}")
    assert code == 1 and "data=coco8.yaml: not on this disk and it could not be downloaded (no network)" in line
    assert "data=/path/to/data.yaml" in line
    gone = tmp_path / "gone.yaml"
    gone.write_text("train: images/train\nval: images/val\nnames: [car]\n")
    code, line = run(capsys, "train", "distill=none", f"data={gone}", f"project={tmp_path}")
    assert code == 2 and "images not found" in line and f"yolo-kd data check data={gone} looks at them" in line


def _offline(*args, **kwargs):
    raise ConnectionError("no network")


def test_unwritable_run_folder(capsys, tmp_path, pictures):
    (tmp_path / "file").write_text("in the way")
    code, line = run(capsys, "train", "distill=none", f"data={pictures}", f"project={tmp_path / 'file' / 'runs'}")
    assert code == 2 and "cannot write the run folder" in line and line.count("project=") >= 1


@pytest.mark.parametrize("given", [[], ["project=mine"]])
def test_unwritable_folder_of_ultralytics_settings(capsys, monkeypatch, tmp_path, pictures, given):
    """A project that is relative, or not given, lies in the folder that Ultralytics' settings name."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("ultralytics.cfg.TESTS_RUNNING", False)
    monkeypatch.setattr("ultralytics.cfg.SETTINGS", {"runs_dir": str(tmp_path / "file" / "runs")})
    code, line = run(capsys, "train", "distill=none", f"data={pictures}", *given)
    assert code == 2 and f"cannot write the run folder in {tmp_path / 'file' / 'runs' / 'detect'}" in line
    assert "absolute path, e.g. project=/" in line, "project=runs would lie in the same place"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_only_the_run_folder_is_called_so(tmp_path, number):
    project = tmp_path / "new" / "runs"
    for path in (tmp_path / "new", project / "train" / "args.yaml"):
        said = rf"^project={project}: cannot write the run folder"
        with pytest.raises(MisuseError, match=said), readable_errors({"project": str(project)}):
            raise OSError(number, os.strerror(number), str(path))
    for path in (tmp_path / "data" / "labels.cache", None):
        with pytest.raises(YoloKDError, match=os.strerror(number)) as told, readable_errors({"project": str(project)}):
            raise OSError(number, os.strerror(number), path and str(path))
        assert told.value.exit_code == 1


def test_weak_teacher_is_refused_with_3(capsys, tmp_path, pictures, make_checkpoint):
    teacher = make_checkpoint("yolov8s.yaml", seed=1)
    args = [f"teacher={teacher}", f"data={pictures}", f"project={tmp_path}", "imgsz=64", "epochs=1", "cpu_threads=1"]
    code, line = run(capsys, "train", *args)
    assert code == 3 and "below teacher_floor=0.05" in line and "force=true" in line
    assert not list(tmp_path.rglob("last.pt"))


def test_an_optimizer_that_there_is_not(capsys, tmp_path, pictures):
    words = ["distill=none", f"data={pictures}", f"project={tmp_path}", "imgsz=64", "batch=4", "optimizer=sdg"]
    code, line = run(capsys, "train", *words)
    assert code == 2 and line.startswith("yolo-kd: optimizer=sdg: ") and "'AdamW'" in line and "github" not in line


@pytest.mark.parametrize(
    "words", [["train", "data=x.yaml"], ["demo"], ["export", "model=best.pt"], ["predict", "source=x"]]
)
def test_on_a_device_it_says_what_a_mode_of_the_desk_needs(words: list[str]) -> None:
    block = "for name in ('torch', 'torchvision', 'ultralytics'): sys.modules[name] = None"
    code = f"import sys\n{block}\nfrom yolo_kd.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    said = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(said) == 1, done.stderr
    assert said[0].endswith('is not installed; run: pip install "yolo-kd[train]"') and f"{words[0]}: needs " in said[0]


def test_gains_that_are_all_0_leave_no_run_folder(capsys, tmp_path, pictures, make_checkpoint):
    teacher = make_checkpoint("yolov8s.yaml", seed=1)
    words = [f"teacher={teacher}", f"data={pictures}", "distill=pkd", "pkd.pkd=0", f"project={tmp_path / 'runs'}"]
    code, line = run(capsys, "train", *words)
    assert code == 3 and "pkd.pkd: every gain is 0" in line and not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(capsys):
    assert main(["train", "teacher=gone.pt", "debug=true"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["train", "teacher=gone.pt"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_main_job_then_val_and_predict(logged, monkeypatch, tmp_path, pictures, make_checkpoint):
    monkeypatch.chdir(tmp_path)
    args = [
        f"teacher={make_checkpoint('yolov8s.yaml', seed=1)}",
        "student=yolov8n.yaml",
        f"data={pictures}",
        "epochs=1",
    ]
    args += [
        "imgsz=64",
        "batch=4",
        "force=true",
        "teacher_engine=torch",
        "cpu_threads=1",
        f"project={tmp_path}",
        "name=7",
    ]
    assert main(["train", *args]) == 0
    best = tmp_path / "7" / "weights" / "best.pt"
    assert best.exists() and (tmp_path / "7" / "results.csv").exists() and (tmp_path / "7" / "args.yaml").exists()
    assert main(["val", f"model={best}", f"data={pictures}", "imgsz=64", f"project={tmp_path}"]) == 0
    overall = next(words for words in (line.split() for line in logged) if words[:1] == ["all"])
    assert overall[1:3] == ["4", "12"] and all(0 <= float(value) <= 1 for value in overall[3:7])
    source = tmp_path / "one.png"
    shutil.copy(next((pictures.parent / "images" / "val").glob("*.png")), source)
    assert main(["predict", f"model={best}", f"source={source}", "imgsz=64", f"project={tmp_path}", "name=seen"]) == 0
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["one.jpg"]
    words = [f"model={best}", f"source={source}", "imgsz=64", f"project={tmp_path}", "name=unseen", "save=false"]
    assert main(["predict", *words]) == 0
    assert not list(tmp_path.glob("unseen/*"))


@pytest.mark.parametrize(("keys", "size"), [({}, 320), ({"imgsz": 64}, 64), ({"data": "mine.yaml"}, None)])
def test_scenes_are_trained_at_the_size_they_are_rendered_at(logged, monkeypatch, keys, size):
    seen: list[dict] = []
    monkeypatch.setattr(scenes, "write_dataset", lambda root, size, **_: root / f"{size}.yaml")
    monkeypatch.setattr(api, "_check_before_folder", lambda *_: SimpleNamespace(trust=False))
    monkeypatch.setattr(api.ultra, "YOLO", lambda *_, **__: SimpleNamespace(train=lambda **keys: seen.append(keys)))
    api.distill(distill="none", **keys)
    assert seen[0].get("imgsz") == size, "Ultralytics' own default is 640"
    if "data" not in keys:
        assert Path(seen[0]["data"]).name == "320.yaml"
    assert ("yolo-kd: imgsz=320, the size of the scenes" in logged) is (size == 320)


@pytest.mark.parametrize("data", [["a.yaml", "b.yaml"], ("a.yaml",), 5, True])
def test_data_is_one_data_set(data):
    """Ultralytics trains on each of a list in turn, and only logs what fails: a refused teacher would be passed over."""
    with pytest.raises(MisuseError, match=r"^data=.*: expected one data set YAML; .*once for each"):
        api.distill(distill="none", data=data)


@pytest.mark.parametrize("key", ["teacher", "student"])
def test_a_model_is_named_by_its_file(key, tmp_path):
    """As text or as a path; of an object of Ultralytics' only the type is said, not every layer."""
    given = {"teacher": tmp_path / "t.pt", "student": "yolov8n.yaml", key: SimpleNamespace(layers="conv\n" * 500)}
    with pytest.raises(MisuseError) as refusal:
        api.distill(**given, data="d.yaml")
    said = "an object of type SimpleNamespace: expected the path of its file"
    assert said in str(refusal.value) and len(str(refusal.value)) < 120


@pytest.mark.slow
def test_training_without_data_uses_the_scenes_and_says_so(logged, monkeypatch, tmp_path):
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "home"))
    render, few = scenes.write_dataset, {"train": 4, "val": 2, "size": 64}
    monkeypatch.setattr(scenes, "write_dataset", lambda root, **keys: render(root, **{**keys, **few}))
    words = ["student=yolov8n.yaml", "distill=none", "epochs=1", "imgsz=64", "batch=2", "plots=false", "cpu_threads=1"]
    assert main(["train", *words, f"project={tmp_path}", "name=run"]) == 0
    said = f"yolo-kd: no data= given, so the embedded traffic scenes are used ({scenes.default_root()})"
    assert said in logged
    assert str(scenes.default_root()) in (tmp_path / "run" / "args.yaml").read_text()
    learnt = torch.load(tmp_path / "run" / "weights" / "last.pt", weights_only=False)["model"].names
    assert tuple(learnt.values()) == tuple(scenes.CLASSES)
    stripped = [line for line in logged if "Optimizer stripped" in line]
    assert len(stripped) == 2 and not any(".part" in line or "saved as" in line for line in stripped)


@pytest.mark.slow
def test_distill_from_python_returns_metrics(tmp_path, pictures, make_checkpoint):
    from yolo_kd import distill

    metrics = distill(
        teacher=make_checkpoint("yolov8s.yaml", seed=1), student="yolov8n.yaml", data=pictures, epochs=1, imgsz=64,
        batch=4, force=True, teacher_engine="torch", project=str(tmp_path), plots=False, cpu_threads=1, **{"csgr.tau": 0.2},
    )  # fmt: skip
    assert type(metrics).__name__ == "DetMetrics" and "metrics/mAP50-95(B)" in metrics.results_dict


@pytest.mark.slow
def test_demo_compares_three_models(capsys, monkeypatch, tmp_path):
    """That `auto` picks an engine is engine/test_selection.py's; the last part, INT8, is modes/test_demo.py's."""
    import json

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "VAL_IMAGES", 8)
    common, render, deployed = demo._common, demo.scenes.render_video, []
    monkeypatch.setattr(demo.scenes, "render_video", lambda path, frames, seed: render(path, frames=8, seed=seed))
    monkeypatch.setattr(demo, "_deploy", lambda *args: deployed.append(args))
    monkeypatch.setattr(demo, "_common", lambda *args: {**common(*args), "teacher_engine": "torch"})
    keys = ["images=16", "imgsz=64", "teacher=yolov8n.yaml", "teacher_epochs=1", "epochs=1", "force=true"]
    assert main(["demo", "out=demo", *keys]) == 0
    out = tmp_path / "demo"
    rows = json.loads((out / "demo.json").read_text())
    assert [r["model"] for r in rows] == ["teacher", "plain student", "distilled student"]
    assert all(r["parameters"] > 3e6 and r["GFLOPs"] > 0 and 0 <= r["mAP50-95"] <= r["mAP50"] <= 1 for r in rows)
    assert (out / "demo.jpg").exists() and (out / "traffic-0.mp4").exists()
    ((where, data, student, settings),) = deployed
    assert (where, student) == (out, out / "distilled" / "weights" / "best.pt") and student.exists()
    assert data == out / "scenes-16-64-0" / "data.yaml" and data.exists() and settings["imgsz"] == 64
    assert main(["demo", "imags=3"]) == 2 and "did you mean 'images'" in capsys.readouterr().err
