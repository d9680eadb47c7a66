"""The grammar and the keys are Ultralytics': what its own program takes, `yolo-kd` takes, and means the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.cfg import CFG_BOOL_KEYS, DEFAULT_CFG_DICT, merge_equals_args, parse_key_value_pair
from ultralytics.utils.checks import check_model_file_from_stem
from yolo_kd.cfg.settings import default_keys, resolve

from yolo_kd import DistillationTrainer, api
from yolo_kd.api import known_keys
from yolo_kd.cli import joined, main, parse
from yolo_kd.engine import run_settings
from yolo_kd.errors import MisuseError

FLAGS = ["half", "int8", "end2end", "nms", *(k for k, v in DEFAULT_CFG_DICT.items() if isinstance(v, bool))]


@pytest.fixture
def called(monkeypatch, tmp_path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """What Ultralytics is asked to do, and does not: model, method, keys."""
    calls: list[tuple[str, str, dict[str, Any]]] = []

    class Model:
        def __init__(self, model: str, **_: Any) -> None:
            self.model = model

        def __getattr__(self, name: str) -> Any:
            return lambda **keys: calls.append((self.model, name, keys)) or []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api.ultra, "YOLO", Model)
    monkeypatch.setattr(api.ultra, "load_detector", lambda *_, **__: None)
    monkeypatch.setattr(api, "_check_before_folder", lambda *_: SimpleNamespace(trust=False))
    return calls


@pytest.mark.parametrize(
    "words",
    [
        ["epochs", "=", "3"],
        ["epochs=", "3"],
        ["epochs", "=3"],
        ["epochs=3", "imgsz=[64,", "96]", "lr0=1e-3"],
        ["classes", "=", "[0,", "2]", "batch", "=", "4"],
        ["epochs=3,", "imgsz=64,"],
    ],
    ids=" ".join,
)
def test_words_mean_what_ultralytics_takes_them_for(words: list[str]) -> None:
    theirs = dict(parse_key_value_pair(word.removesuffix(",")) for word in merge_equals_args(words))
    dashed = [f"--{word}" if word[0].isalpha() else word for word in words]
    assert parse(words) == theirs == parse(dashed)


def test_dashes_before_a_key_are_overlooked() -> None:
    assert parse(["--epochs=3", "--lr0", "=", ".1"]) == {"epochs": 3, "lr0": 0.1}
    assert joined(["--plots", "name=a--b"]) == ["plots", "name=a--b"]


@pytest.mark.parametrize("mode", ["train", "val", "predict"])
def test_a_key_alone_is_true_where_ultralytics_takes_it(mode: str) -> None:
    assert parse(FLAGS, known_keys(mode)) == dict.fromkeys(FLAGS, True)
    assert {"plots", "save", "augment", "half"} <= set(FLAGS)


@pytest.mark.parametrize("key", sorted(DEFAULT_CFG_DICT.keys() - {"task", "mode", "model", "data", "resume", "cfg"}))
def test_every_key_of_ultralytics_arrives_under_its_name(called, key: str) -> None:
    """Also one that it has for another mode or task; a few values say whether numbers and words stay what they are."""
    value = DEFAULT_CFG_DICT[key]
    given = 3 if value is None else not value if isinstance(value, bool) else value
    assert main(["train", "distill=none", "model=a.pt", "data=d.yaml", f"{key}={given}"]) == 0
    keys = called[-1][2]
    assert keys[key] == (str(given) if key in {"project", "name"} else given)
    assert key not in default_keys() or key == "augment", "ours would take it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "plts"], "plts: expected key=value, e.g. epochs=100 (did you mean 'plots'?)"),
        (["train", "epochs"], "epochs: expected key=value, e.g. epochs=100"),
        (["train", "--epchs=3"], "epchs=3: unknown key (did you mean 'epochs'?)"),
        (["train", "epochs", "="], "epochs=: expected key=value"),
        (["train", "= 3"], "expected key=value"),
        (["val", "plts"], "(did you mean 'plots'?)"),
        (["val", "force"], "force: expected key=value"),
        (["predict", "--hafl"], "(did you mean 'half'?)"),
        (["train", "classes=[0,", "2", "epochs=3"], "a list without its ']'"),
        (["gate", "forc"], "forc: expected key=value"),
    ],
)
def test_another_word_is_one_line_and_exit_2(capsys, words: list[str], said: str) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_our_own_switches_may_stand_alone_too(capsys) -> None:
    ours = [k for k, v in default_keys().items() if isinstance(v, bool)]
    assert parse(ours, known_keys("train")) == dict.fromkeys(ours, True) and "force" in ours
    for words in (["--debug"], ["debug"], ["debug", "=", "true"]):
        assert main(["train", "teacher=gone.pt", *words]) == 2
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("half", {"quantize": 16}),
        ("half=true", {"quantize": 16}),
        ("half=false", {"quantize": None}),
        ("int8=True", {"quantize": 8}),
        ("end2end=true", {"nms": False}),
        ("end2end=false", {"nms": None}),
        ("boxes=false", {"show_boxes": False}),
        ("hide_labels=true", {"show_labels": False}),
        ("line_thickness=2", {"line_width": 2}),
        ("label_smoothing=.1", {}),
        ("crop_fraction=.5", {}),
        ("augment=true", {"augment": True}),
        ("augment", {"augment": True}),
        ("save_dir=here", {"save_dir": "here"}),
    ],
)
def test_keys_of_earlier_days_mean_what_ultralytics_maps_them_to(called, given: str, meant: dict[str, Any]) -> None:
    for mode, words in (
        ("val", ["model=a.pt"]),
        ("predict", ["model=a.pt"]),
        ("train", ["distill=none", "data=d.yaml"]),
    ):
        assert main([mode, *words, given]) == 0
        keys = called[-1][2]
        assert {k: keys[k] for k in meant} == meant and called[-1][1] == mode
        assert given.partition("=")[0] not in keys or given.partition("=")[0] in meant


def test_what_it_refuses_of_them_is_one_line(called, capsys) -> None:
    for mode in ("val", "train"):
        assert main([mode, "model=a.pt", "end2end=3"]) == 2 and "end2end=3: " in capsys.readouterr().err
    assert called == []


def test_a_trainer_of_ultralytics_interface_sees_the_present_names() -> None:
    theirs, ours = run_settings.split_keys({"int8": True, "augment": True, "force": True, "qat": True})
    assert theirs == {"quantize": 8, "augment": True} and ours == {"force": True, "qat": True}
    with pytest.raises(MisuseError, match="qat=true and quantize=8"):
        DistillationTrainer(overrides={"model": "a.pt", "distill": "none", "qat": True, "int8": True})


def test_augment_is_ours_by_its_value() -> None:
    for value in (True, False):
        assert run_settings.split_keys({"augment": value}) == ({"augment": value}, {})
    assert run_settings.split_keys({"augment": "field"}) == ({}, {"augment": "field"})
    assert resolve({"distill": "none", "augment": "field"}).augment == "field"
    assert "augment" in CFG_BOOL_KEYS, "Ultralytics takes nothing but true and false"


@pytest.mark.parametrize("name", ["yolov8n", "yolo11s", "yolov8n.pt", "best.pt"])
def test_a_stem_is_the_checkpoint_that_ultralytics_takes_it_for(called, name: str) -> None:
    wanted = str(check_model_file_from_stem(name))
    for words in (["val"], ["predict"], ["train", "distill=none", "data=d.yaml"]):
        assert main([*words, f"model={name}"]) == 0
        assert called[-1][0] == wanted
    assert main(["val", "model=yolov8q"]) == 2, "no stem, no file"


@pytest.mark.slow
def test_ultralytics_itself_takes_them(monkeypatch, tmp_path: Path, pictures: Path, make_checkpoint) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(make_checkpoint("yolov8n.yaml", seed=1), "yolov8n.pt")
    words = ["model=yolov8n", "--imgsz", "=", "64", "half", "augment", f"project={tmp_path}"]
    picture = next((pictures.parent / "images" / "val").glob("*.png"))
    assert main(["predict", *words, f"source={picture}", "name=seen"]) == 0
    assert main(["val", *words, f"data={pictures}", "plots=false", "name=judged"]) == 0
    assert (tmp_path / "seen").is_dir() and (tmp_path / "judged").is_dir()
    keys = {"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "name": "run", "imgsz": 64}
    trainer = DistillationTrainer(overrides={**keys, "distill": "none", "augment": True, "half": True})
    assert (trainer.args.augment, trainer.args.quantize, trainer.kd.augment) == (True, 16, None)


def test_keys_of_a_file_are_taken_too(called, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: a.pt\nimgsz: 96\nconf: .5\nhalf: true\nmode: train\ndata:\n")
    assert main(["val", "cfg=mine.yaml", "conf=.1"]) == 0
    assert called == [("a.pt", "val", {"imgsz": 96, "conf": 0.1, "quantize": 16, "mode": "val"})]


@pytest.mark.parametrize("words", [["detect", "train"], ["train", "detect"], ["train"]], ids=" ".join)
@pytest.mark.parametrize("task", [[], ["task=detect"]], ids=str)
def test_the_task_may_stand_before_or_behind_the_mode(called, words: list[str], task: list[str]) -> None:
    assert main([*words, "model=a.pt", "distill=none", "data=d.yaml", *task]) == 0
    model, mode, keys = called[-1]
    assert (model, mode) == ("a.pt", "train") and "task" not in keys
    for mode in ("val", "predict"):
        assert main([mode if word == "train" else word for word in words] + ["model=a.pt"]) == 0
        assert called[-1][:2] == ("a.pt", mode)


def test_another_task_is_refused(called, capsys) -> None:
    for words in (["segment", "train"], ["train", "segment"], ["train", "task=segment"], ["detect"]):
        assert main([*words, "model=a.pt", "distill=none", "data=d.yaml"]) == 2
    assert "task=segment: only detectors are distilled" in capsys.readouterr().err
    assert called == []


@pytest.mark.parametrize(
    "words", [["resume", "model=LAST"], ["resume=True", "student=LAST"], ["resume=LAST"]], ids=" ".join
)
def test_a_run_is_resumed_as_ultralytics_resumes_one(called, monkeypatch, tmp_path: Path, words: list[str]) -> None:
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"a checkpoint")
    monkeypatch.setattr(api, "resumed_settings", lambda *_: resolve({"distill": "none"}))
    assert main(["train", *(word.replace("LAST", str(last)) for word in words)]) == 0
    model, mode, keys = called[-1]
    assert (model, mode, keys["resume"]) == (str(last), "train", str(last))
    assert "data" not in keys, "a run that starts anew would get the scenes"


def test_what_is_no_run_cannot_be_resumed(called, capsys) -> None:
    for words, said in (
        (["resume", "model=yolov8n.yaml"], "resume=yolov8n.yaml: expected the last.pt of a run"),
        (["resume", "model=gone.pt"], "resume=gone.pt: no such file"),
        (["resume"], "resume=True: expected the last.pt of a run"),
        (["resume=gone.pt", "model=a.pt"], "leave student= out"),
    ):
        assert main(["train", *words]) == 2 and said in capsys.readouterr().err
    assert called == []
