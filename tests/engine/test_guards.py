"""Ways in which a distillation could silently do nothing, or a key could be silently ignored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics.nn.tasks import DetectionModel
from yolo_kd.cfg.settings import resolve
from yolo_kd.data.description import descriptors

from tests.conftest import write_pictures
from tests.full_disk import files_end_at
from yolo_kd import DistillationTrainer, distill
from yolo_kd.cli import main
from yolo_kd.engine import run_settings
from yolo_kd.engine.criterion import MAX_BAD_STEPS, DistillationCriterion
from yolo_kd.engine.ranks import ELSEWHERE, reported_to, worker_error
from yolo_kd.engine.schedule import Schedule
from yolo_kd.engine.terms import Term
from yolo_kd.errors import GateError, MisuseError, YoloKDError

FAST = {"distill": "pkd", "force": True, "teacher_engine": "torch"}


@pytest.fixture
def teacher(make_checkpoint) -> str:
    return str(make_checkpoint(seed=1))


def test_frozen_student_cannot_be_taught(train, make_checkpoint, tiny):
    """Equal widths, so no adapter either: nothing that the term could move."""
    teacher = str(make_checkpoint(str(tiny), seed=1))
    with pytest.raises(GateError, match="does not reach the student's neck"):
        train(teacher=teacher, freeze=6, **{**FAST, "force": False, "teacher_floor": 0.0})


@pytest.mark.parametrize(("close", "said"), [(10, "nothing is distilled"), (0, "never closes")])
def test_mosaic_schedule_that_never_runs_or_never_stops(train, teacher, close, said):
    with pytest.raises(MisuseError, match=said):
        train(teacher=teacher, schedule="mosaic", close_mosaic=close, epochs=3, **FAST)


def test_compiled_student_is_run_eagerly(train, teacher, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    trainer = train(teacher=teacher, compile=True, **FAST)
    assert trainer.args.compile is False and any(line.startswith("compile is off") for line in lines)
    assert trainer.criterion.terms[0].gain > 0


@pytest.mark.parametrize(
    "keys", [{"rect": True}, {"classes": [0, 2]}, {"fraction": 0.5}, {"cls_pw": 0.5}, {"single_cls": False}]
)
def test_keys_of_ultralytics_go_along(train, teacher, keys):
    trainer = train(teacher=teacher, **{**FAST, "distill": "pcd"}, **keys)
    assert float(trainer.loss_items["kdcls_loss"]) > 0
    assert trainer.distillation.shared.shared == len(keys.get("classes", range(3)))


def test_trainer_finds_a_descriptor_by_its_name(monkeypatch, tmp_path):
    """Not Ultralytics' VisDrone.yaml, which a file system that ignores case would find."""
    write_pictures(tmp_path / "VisDrone")
    monkeypatch.chdir(tmp_path)
    keys = {"model": "yolov8n.yaml", "distill": "none", "project": str(tmp_path)}
    trainer = DistillationTrainer(overrides={**keys, "data": "visdrone.yaml"})
    assert trainer.args.data == str(descriptors()["visdrone"])
    assert Path(trainer.data["train"]) == tmp_path / "VisDrone" / "images" / "train"
    trainer = DistillationTrainer(overrides={**keys, "data": tmp_path / "VisDrone" / "data.yaml"})
    assert trainer.data["nc"] == 3, "a file is taken as it is"


def test_single_class_says_why_it_cannot(train, teacher):
    with pytest.raises(MisuseError, match="single_cls=True: renames every class"):
        train(teacher=teacher, single_cls=True, **FAST)


def test_a_teacher_of_colour_pictures_is_refused_on_grey_ones(train, teacher, pictures, tmp_path):
    data = tmp_path / "grey.yaml"
    described = yaml.safe_load(pictures.read_text())
    data.write_text(yaml.safe_dump({**described, "path": str(pictures.parent), "channels": 1}))
    with pytest.raises(MisuseError, match=r"takes 3-channel images, the data has 1; .*set 'channels' in data\.yaml"):
        train(teacher=teacher, data=str(data), **FAST)


def test_ultralytics_own_distillation_goes_through_the_same_trainer(train, make_checkpoint):
    """Alone, that is with distill=none: its loss is its own."""
    other = str(make_checkpoint(seed=1))
    trainer = train(model="yolov8n.yaml", distill="none", distill_model=other, amp=False)
    assert trainer.criterion is None and float(trainer.loss_items["dis_loss"]) > 0
    assert trainer.best.exists()


def test_own_checkpoint_teaches_nothing(train, make_checkpoint):
    path = str(make_checkpoint(seed=1))
    with pytest.raises(GateError, match="the student's own checkpoint"):
        train(model=path, teacher=path, **{**FAST, "force": False, "teacher_floor": 0.0})


def test_other_keys_on_resume_are_refused(train, make_checkpoint, teacher):
    class Stopped(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            self.add_callback("on_model_save", lambda t: setattr(t, "stop", t.epoch == 0))

        def final_eval(self):
            pass

    first = train(Stopped, teacher=teacher, epochs=3, **FAST)
    with pytest.raises(MisuseError, match="may not change on resume"):
        train(model=str(first.last), resume=True, teacher_every=2)
    with pytest.raises(MisuseError, match=r"teacher_engine=opnvino: expected one of"):
        train(model=str(first.last), resume=True, teacher_engine="opnvino")
    with pytest.raises(MisuseError, match="leave student= out"):
        distill(resume=first.last, student="yolov8n.yaml")


def test_keys_from_a_cfg_file(tmp_path, pictures, teacher):
    path = tmp_path / "my.yaml"
    path.write_text(f"teacher: {teacher}\nmodel: yolov8n.yaml\ndata: {tmp_path / 'gone.yaml'}\nepochs: 1\n")
    with pytest.raises(MisuseError, match=r"gone.yaml: no such file"):
        distill(cfg=path)
    with pytest.raises(MisuseError, match=r"teacher=missing.pt: no such file"):
        distill(teacher="missing.pt", cfg=path, data=str(pictures))


@pytest.mark.parametrize(("distill_keys", "warned"), [(FAST, 1), ({"distill": "none"}, 0)])
def test_automatic_batch_says_that_it_was_sized_without_the_teacher(train, teacher, monkeypatch, distill_keys, warned):
    lines: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    trainer = train(teacher=teacher if warned else None, batch=-1, **distill_keys)
    assert trainer.batch_size > 0
    assert sum("was sized for the student alone" in line for line in lines) == warned


def test_a_term_is_taken_out_from_the_command_line(tmp_path, pictures, teacher, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    words = [
        f"teacher={teacher}",
        "student=yolov8n.yaml",
        f"data={pictures}",
        "epochs=1",
        "imgsz=64",
        "batch=4",
        "force=true",
    ]
    words += [
        "teacher_engine=torch",
        "csgr.gr=auto:0.5",
        "csgr.gr=none",
        "lqe.lqe=none",
        f"project={tmp_path}",
        "name=run",
        "plots=false",
    ]
    assert main(["train", *words]) == 0
    header = (tmp_path / "run" / "results.csv").read_text().splitlines()[0]
    assert "train/cs_loss" in header and "gr_loss" not in header and "lqe_loss" not in header
    assert {"csgr.gr is off: its gain is none", "lqe.lqe is off: its gain is none"} <= set(lines)


def test_factor_stays_off_when_the_clock_falls_back():
    """With time= Ultralytics re-estimates the number of epochs, and progress may shrink."""
    criterion = DistillationCriterion(None, DetectionModel("yolov8n.yaml", verbose=False), schedule=Schedule(until=0.5))
    factors = []
    for progress in (0.4, 0.5, 0.45, 0.6):
        criterion.start_epoch(progress, False, True)
        factors.append(criterion.factor)
    assert factors == [1.0, 0.0, 0.0, 0.0]


def test_terms_that_stay_not_finite_end_the_run_and_say_what_to_do():
    lines: list[str] = []
    criterion = DistillationCriterion(None, DetectionModel("yolov8n.yaml", verbose=False), log=lines.append)
    criterion.terms = [Term("pcd", name, f"kd{name}_loss", "scores") for name in ("cls", "loc")]
    criterion.checked = True
    spoilt, fine = ({"kdcls_loss": torch.tensor(value), "kdloc_loss": torch.tensor(2.0)} for value in (math.nan, 1.0))
    assert not criterion._usable(spoilt) and criterion._usable(fine)
    for _ in range(MAX_BAD_STEPS - 1):
        assert not criterion._usable(spoilt)
    with pytest.raises(YoloKDError, match=r"pcd\.cls=nan, pcd\.loc=2; .*amp=False, a lower lr0=, or pcd\.cls=none$"):
        criterion._usable(spoilt)
    assert lines[0] == "WARNING distillation left out of step 0: pcd.cls=nan, pcd.loc=2"


def failed(folder: Path, rank: int, error: YoloKDError) -> None:
    with pytest.raises(type(error)), reported_to(folder, rank):
        raise error


def test_what_a_worker_refused_reaches_the_parent(tmp_path: Path):
    failed(tmp_path / "run", 0, GateError("teacher=x.pt: too weak"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["error.0.json"]
    error = worker_error(tmp_path / "run")
    assert isinstance(error, GateError) and str(error) == "teacher=x.pt: too weak" and error.exit_code == 3
    assert worker_error(tmp_path / "run") is None and worker_error(tmp_path / "no run") is None


def test_of_several_workers_the_one_whose_own_term_failed_is_heard(tmp_path: Path):
    elsewhere = GateError(f"rank 0: {ELSEWHERE} on the first batch")
    for rank, error in ((10, MisuseError("later")), (2, GateError("rank 2: x.b=0")), (0, elsewhere), (1, elsewhere)):
        failed(tmp_path, rank, error)
    error = worker_error(tmp_path)
    assert isinstance(error, GateError) and str(error) == "rank 2: x.b=0"
    assert not list(tmp_path.iterdir()), "what is left would be taken for a later run's"
    failed(tmp_path, 1, elsewhere)
    assert ELSEWHERE in str(worker_error(tmp_path))


@pytest.mark.parametrize("text", ["", '{"type": "GateError"', "[]", '{"type": 1, "message": "m"}', "\0\0"])
def test_a_report_that_cannot_be_read_hides_no_other(tmp_path: Path, text):
    (tmp_path / "error.0.json").write_text(text)
    assert worker_error(tmp_path) is None
    failed(tmp_path, 3, YoloKDError("from rank 3"))
    (tmp_path / "error.mine.json").write_text("the user's own")
    assert str(worker_error(tmp_path)) == "from rank 3"
    assert (tmp_path / "error.mine.json").exists()


def test_a_worker_whose_report_finds_no_room_ends_with_its_own_error(tmp_path: Path):
    with files_end_at(4):
        failed(tmp_path, 0, GateError("teacher=x.pt: too weak"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"teacher": "gone.pt", "until": 0.5, "schedule": "cosine"}, "schedule=cosine, teacher=gone.pt, until=0.5"),
        ({"teacher_every": 2, "teacher": None, "calibrate_batches": 4}, "calibrate_batches=4, teacher_every=2"),
        ({"teacher": None, "until": None, "force": True, "trust": True}, ""),
    ],
)
def test_what_a_plain_training_does_not_read_is_a_line(tmp_path, pictures, lines, keys, told):
    base = {"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "distill": "none"}
    DistillationTrainer(overrides={**base, **keys})
    warned = [line for line in lines if "change nothing" in line]
    assert warned == ([f"WARNING {told}: nothing is distilled (distill=none), so these change nothing"] if told else [])


def test_a_teacher_of_pseudo_labels_is_read(tmp_path, pictures, lines, teacher):
    (tmp_path / "more").mkdir()
    keys = {"teacher": teacher, "unlabeled": str(tmp_path / "more"), "pseudo_labels": 0.6, "teacher_floor": 0.1}
    base = {"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "distill": "none"}
    DistillationTrainer(overrides={**base, **keys, "teacher_engine": "torch"})
    warned = [line for line in lines if "change nothing" in line or "changes nothing" in line]
    assert warned == ["WARNING teacher_engine=torch: nothing is distilled (distill=none), so this changes nothing"]
    assert "until=0.5" not in run_settings.idle(resolve({"teacher": "t.pt"}), {"until": 0.5})
