"""The grammar and the keys are Ultralytics': what its own program takes, `yolo-kd` takes, and means the same."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.cfg import CFG_BOOL_KEYS, DEFAULT_CFG_DICT, merge_equals_args, parse_key_value_pair
from ultralytics.utils.checks import check_model_file_from_stem
from yolo_kd.cfg.settings import default_keys, resolve
from yolo_kd.cfg.values import NUMBERED, PATHS

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
    monkeypatch.setattr(api, "check_input", lambda *_: None)
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
    assert keys[key] == (str(given) if key in PATHS - NUMBERED else given)
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


@pytest.mark.parametrize(
    "words",
    [
        ["epoch=none"],
        ["lqe=none", "gnr=none"],
        ["cfg=mine.yaml"],
    ],
    ids=" ".join,
)
def test_a_key_that_there_is_not_is_refused_with_a_value_of_none_too(called, capsys, tmp_path: Path, words) -> None:
    (tmp_path / "mine.yaml").write_text("imgsz: 64\nepoch:\n")
    for mode in ("train", "val", "predict"):
        assert main([mode, "model=a.pt", *words]) == 2
        key = words[0].partition("=")[0].replace("cfg", "epoch")
        assert capsys.readouterr().err.startswith(f"yolo-kd: {key}=None: unknown key")
    for name in ("epoch", "csgr"):
        with pytest.raises(MisuseError, match=f"^{name}=None: unknown key"):
            api.distill("t.pt", "a.pt", "d.yaml", **{name: None})
    assert called == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lqe=none", " (did you mean 'lqe.lqe'?)"),
        ("lqe=1", " (did you mean 'lqe.lqe'?)"),
        ("csgr=auto:.5", " (did you mean 'csgr.cs' or 'csgr.gr'?)"),
        ("gr=none", " (did you mean 'csgr.gr'?)"),
    ],
)
def test_a_method_or_a_term_alone_is_told_its_whole_name(called, capsys, given: str, meant: str) -> None:
    assert main(["train", "model=a.pt", "teacher=t.pt", given]) == 2
    assert f": unknown key{meant}; see yolo-kd train" in capsys.readouterr().err


def test_none_leaves_a_key_at_its_default(called, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("time:\nline_thickness:\nschedule:\nsave_dir:\nhalf:\n")
    words = ["half=none", "int8=none", "boxes=none", "device=none", "until=none", "csgr.gr=none", "resume=none"]
    assert main(["train", "model=a.pt", "data=d.yaml", "teacher=t.pt", "cfg=mine.yaml", *words]) == 0
    assert called[-1][2].keys() - {"trainer"} == {"data", "teacher", "csgr.gr"}


MODES = ["accept", "bundle", "calibrate", "data_check", "data_convert", "data_sheet", "data_split", "demo", "doctor"]
MODES += ["evaluate", "export", "gate", "quantize", "report", "verify"]
WORDS = {  # keys whose default is a word or nothing, and which are no paths
    "threads", "device", "max_ms", "split", "licence", "from", "names", "images", "difficult", "first", "by", "test",
    "imgsz", "format", "precision", "backend", "target", "task", "mode", "time", "optimizer", "freeze", "channels_last",
    "conf", "quantize", "nms", "classes", "embed", "line_width", "opset", "workspace", "copy_paste_mode", "auto_augment",
    "augmentations", "schedule", "until", "teacher_engine", "augment", "pseudo_labels", "cpu_threads",
}  # fmt: skip


def test_every_key_is_known_for_a_path_or_for_none() -> None:
    """A new one has to be put on one of the lists: of a path the text counts."""
    keys = known_keys("train")
    for mode in MODES:
        keys |= {k: v for k, v in import_module(f"yolo_kd.modes.{mode}").DEFAULTS.items() if not isinstance(v, bool)}
    assert {k for k, v in keys.items() if v is None or isinstance(v, str)} - WORDS <= PATHS
    assert not PATHS & WORDS and keys.keys() >= PATHS


@pytest.mark.parametrize("text", ["2026_11_24", "007", "1e3", "1.50", "20261124", "0x10", "(1, 2)"])
def test_the_text_of_a_path_is_kept(text: str) -> None:
    for key in PATHS:
        assert parse([f"{key}={text}"]) == {key: 20261124 if key in NUMBERED and text == "20261124" else text}
    settings = resolve({"distill": "pkd", "teacher": text, "unlabeled": text})
    assert (settings.teacher, settings.unlabeled) == (text, ["1", "2"] if text == "(1, 2)" else [text])


def test_what_a_path_may_be_besides_text_stays() -> None:
    assert parse(["resume=True", "pretrained=false", "out=none"]) == {"resume": True, "pretrained": False, "out": None}
    assert parse(["source=0", "resume=0", "pretrained=1"]) == {"source": 0, "resume": 0, "pretrained": 1}
    assert parse(["unlabeled=['a, b','c']"]) == {"unlabeled": ["a, b", "c"]}
    assert parse(["unlabeled=2026_11_23,2026_11_24"]) == {"unlabeled": "2026_11_23,2026_11_24"}
    for word in ("project=True", "name=none", "name=null", "name=7_0"):  # as Ultralytics reads them
        assert parse([word]) == dict([parse_key_value_pair(word)])


def test_no_number_has_underscores() -> None:
    assert parse(["epochs=1_000", "lr0=1_0.5"]) == {"epochs": "1_000", "lr0": "1_0.5"}


def test_digits_arrive_as_they_were_typed(called, tmp_path: Path, capsys) -> None:
    assert main(["train", "model=a.pt", "data=007", "teacher=1_0", "distill=none"]) == 0
    assert (called[-1][2]["data"], called[-1][2]["teacher"]) == ("007", "1_0")
    for text, taken in (("2026_11_23", "20261123"), ("2026-11-23", "2026-11-23"), ("007", "7")):
        (tmp_path / "mine.yaml").write_text(f"unlabeled: {text}\n")
        assert main(["train", "model=a.pt", "data=d.yaml", "teacher=t.pt", "cfg=mine.yaml"]) == 2
        said = f"cfg=mine.yaml: YAML takes unlabeled: for {taken}, no text; put the path in quotes"
        assert said in capsys.readouterr().err
