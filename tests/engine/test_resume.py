"""What a stopped run keeps, what it refuses to go on from, and that there is always something to go on from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from yolo_kd.deploy.artifact import sha256

from tests.full_disk import files_end_at
from yolo_kd import DistillationTrainer, distill
from yolo_kd.engine import exact, resumable, resume
from yolo_kd.engine import trainer as trainer_module
from yolo_kd.errors import GateError, MisuseError, YoloKDError

PLAIN = {"distill": "none", "check_data": False}
FAST = {"distill": "pkd", "force": True, "teacher_engine": "torch", "optimizer": "AdamW", "check_data": False}


def stopped(after: int) -> type[DistillationTrainer]:
    """A trainer that ends after so many saves as if it had been killed: without the final evaluation."""

    class Stopped(DistillationTrainer):
        saves = 0

        def _save(self, within_epoch):
            super()._save(within_epoch)
            self.saves += 1
            if self.saves == after:
                raise KeyboardInterrupt

    return Stopped


def stop(train: Callable[..., Any], after: int, **keys: Any) -> Path:
    """The last.pt of a run that ended after so many saves."""
    kept: list[Path] = []

    class Seen(stopped(after)):
        def _setup_train(self):
            super()._setup_train()
            kept.append(self.last)

    with pytest.raises(KeyboardInterrupt):
        train(Seen, **keys)
    return kept[0]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    said: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: said.append(line))
    return said


def test_adapters_gains_and_epoch_go_on(train, make_checkpoint):
    teacher = str(make_checkpoint("yolov8s.yaml", seed=1))
    start: dict[str, Any] = {}

    class Resumed(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            start["moments"] = [self.optimizer.state[p]["exp_avg"].abs().sum() for p in self._adapters()]
            start["gain"], start["fixed"] = self.criterion.terms[0].gain, self.criterion.terms[0].fixed
            start["epoch"], start["step"] = self.start_epoch, self.criterion.step

    last = stop(train, 2, teacher=teacher, epochs=3, calibrate_batches=2, **FAST)
    state = resume.load_sidecar(resume.sidecar_path(last))
    plain = yaml.safe_load((last.parents[1] / "kd.yaml").read_text())
    assert plain["fixed_gains"] == {"pkd.pkd": pytest.approx(state["gains"]["pkd.pkd"])}
    assert plain["teacher"] == teacher
    again = train(Resumed, model=str(last), resume=True)
    assert start["epoch"] == 2 and start["step"] == 4 and again.epoch == 2
    assert all(m > 0 for m in start["moments"])
    assert start["fixed"] and start["gain"] == state["gains"]["pkd.pkd"]


class TestPlace:
    def test_save_steps_go_on_within_the_epoch(self, train, lines):
        """8 pictures in 4 batches; saved after batches 3, 4 (the epoch's end), 6, 8: the third save is batch 2 of epoch 2."""
        last = stop(train, 3, batch=2, nbs=2, epochs=2, save_steps=3, **PLAIN)
        seen: list[tuple[int, int]] = []

        class Resumed(DistillationTrainer):
            def optimizer_step(self):
                seen.append((self.epoch, self.batches_done))
                super().optimizer_step()

        trainer = train(Resumed, model=str(last), resume=True, batch=2)
        assert seen == [(1, 2), (1, 3)] and "going on with epoch 2 of 2, batch 3 of 4" in lines
        assert [row["epoch"] for row in csv.DictReader(Path(trainer.csv).read_text().splitlines())] == ["1", "2"]

    def test_the_first_epoch_too(self, train, lines):
        last = stop(train, 1, batch=2, epochs=1, save_steps=3, **PLAIN)
        assert torch.load(last, weights_only=False)["epoch"] == -1
        distill(resume=last)
        assert "going on with epoch 1 of 1, batch 4 of 4" in lines

    @pytest.mark.parametrize("other", ["batch", "pictures"])
    def test_other_batches_start_the_epoch_anew_and_say_so(self, train, pictures, tmp_path, lines, other):
        """As many as before: 8 pictures are two batches of 5 as of 6."""
        data = Path(shutil.copytree(pictures.parent, tmp_path / "data")) / "data.yaml"
        last = stop(train, 1, data=str(data), batch=5, nbs=5, epochs=1, save_steps=1, **PLAIN)
        if other == "pictures":
            for name, another in (("images/train/000.png", "008.png"), ("labels/train/000.txt", "008.txt")):
                (data.parent / name).rename((data.parent / name).with_name(another))
        distill(resume=last, batch=6 if other == "batch" else 5)
        anew = any(line.startswith("WARNING not bit-exact: other pictures or another batch size") for line in lines)
        assert anew and "going on with epoch 1 of 1" in lines

    def test_the_same_pictures_elsewhere_are_the_same(self, train, pictures, tmp_path, lines):
        last = stop(train, 1, batch=5, nbs=5, epochs=1, save_steps=1, **PLAIN)
        data = Path(shutil.copytree(pictures.parent, tmp_path / "data")) / "data.yaml"
        distill(resume=last, data=data)
        assert "going on with epoch 1 of 1, batch 2 of 2" in lines

    def test_other_threads_and_another_cpu_are_said(self, train, lines, monkeypatch):
        """The weights end otherwise then, and nothing else tells so."""
        last = stop(train, 1, epochs=2, **PLAIN)
        distill(resume=last, cpu_threads=1)
        assert not any("not bit-exact" in line for line in lines)
        last = stop(train, 1, epochs=2, **PLAIN)
        monkeypatch.setattr(exact, "model_name", lambda: "another CPU")
        distill(resume=last, cpu_threads=2)
        (said,) = [line for line in lines if "not bit-exact" in line]
        assert "threads 1 -> 2, CPU " in said and " -> another CPU (" in said and "torch" not in said

    def test_a_cpu_without_bf16_is_said(self, train, lines, monkeypatch):
        """amp=bf16 was asked for there and emulated; a checkpoint only keeps that amp was on."""
        last = stop(train, 1, epochs=2, amp="bf16", **PLAIN)
        monkeypatch.setattr(trainer_module, "has_bf16", lambda: False)
        distill(resume=last, cpu_threads=1)
        assert "WARNING not bit-exact: bf16 on a CPU True -> False" in lines

    def test_a_later_run_in_the_folder_that_saved_nothing(self, train, make_checkpoint):
        """Its settings would be taken for those of the checkpoint that the older run left."""
        last = stop(train, 1, epochs=2, **PLAIN)

        class Killed(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                raise KeyboardInterrupt

        again = {**FAST, "distill": "pkd", "teacher": str(make_checkpoint("yolov8n.yaml", seed=1)), "epochs": 2}
        with pytest.raises(KeyboardInterrupt):
            train(Killed, exist_ok=True, **again)
        assert yaml.safe_load((last.parents[1] / "kd.yaml").read_text())["recipe"]["name"] == "pkd"
        with pytest.raises(MisuseError, match="trained with another recipe than kd.yaml .* start that one anew"):
            train(model=str(last), resume=True)

    def test_the_memory_format_stays_as_it_was_asked_for(self, train):
        last = stop(train, 1, epochs=2, channels_last=False, **PLAIN)
        trainer = train(model=str(last), resume=True)
        assert trainer.epoch == 1 and not trainer.cpu_channels_last

    def test_a_run_folder_that_was_moved(self, train, tmp_path):
        last = stop(train, 1, epochs=2, **PLAIN)
        moved = shutil.move(last.parents[1], tmp_path / "elsewhere")
        trainer = train(model=f"{moved}/weights/last.pt", resume=str(moved / "weights" / "last.pt"))
        assert trainer.save_dir == moved and trainer.epoch == 1 and not last.exists()

    def test_without_a_sidecar_it_says_so_and_goes_on_as_ultralytics_does(self, train, lines):
        last = stop(train, 1, epochs=2, **PLAIN)
        resume.sidecar_path(last).unlink()
        assert train(model=str(last), resume=True).epoch == 1
        assert any("no last.kd.pt beside the checkpoint: not bit-exact" in line for line in lines)

    @pytest.mark.parametrize("calibrated", [True, False])
    def test_without_a_sidecar_gains_that_were_fixed_stay_and_the_rest_starts_anew(
        self, train, make_checkpoint, lines, calibrated
    ):
        kept: list[dict[str, Any]] = []

        class Seen(stopped(1)):
            def _setup_train(self):
                super()._setup_train()
                (term,) = self.criterion.terms
                adapters = [p.detach().clone() for p in self._adapters()]
                kept.append({"last": self.last, "gain": term.gain, "fixed": term.fixed, "adapters": adapters})

        keys = {"teacher": str(make_checkpoint("yolov8s.yaml", seed=1)), "epochs": 2, **FAST}
        with pytest.raises(KeyboardInterrupt):
            train(Seen, calibrate_batches=2 if calibrated else 8, **keys)
        last = kept[0]["last"]
        sidecar = resume.load_sidecar(resume.sidecar_path(last))
        resume.sidecar_path(last).unlink()
        with pytest.raises(KeyboardInterrupt):
            train(Seen, model=str(last), resume=True)
        first, again = kept
        gain = sidecar["gains"]["pkd.pkd"]
        assert gain > 0 and (again["gain"], again["fixed"]) == ((gain, True) if calibrated else (0.0, False))
        assert again["adapters"] and all(map(torch.equal, again["adapters"], first["adapters"]))
        assert not all(map(torch.equal, again["adapters"], sidecar["distillers"]["pkd"].values()))
        (line,) = (line for line in lines if "no last.kd.pt beside" in line)
        assert "gains that were fixed stay (kd.yaml), other gains, adapters and ranges start anew" in line

    def test_a_damaged_checkpoint_gives_way_to_the_one_before(self, train, lines, monkeypatch):
        settled = []
        monkeypatch.setattr(
            resumable, "settle", lambda path, state: settled.append(path.name) or resume.settle(path, state)
        )
        last = stop(train, 2, epochs=3, **PLAIN)
        last.write_bytes(last.read_bytes()[:1000])
        distill(resume=last)
        assert "going on with epoch 2 of 3" in lines and any("previous.pt" in line for line in lines)
        assert settled == ["previous.pt"], "else the next save would take the place of the only whole pair"
        assert resume.is_stripped(last, resume.state_of(last))


class TestLonger:
    def test_more_epochs_change_the_schedule_and_say_so(self, train, lines):
        last = stop(train, 1, epochs=2, **PLAIN)
        with pytest.raises(MisuseError, match=r"epochs=1: the resumed run has 2; it may be raised"):
            train(model=str(last), resume=True, epochs=1)
        trainer = train(model=str(last), resume=True, epochs=4)
        assert trainer.epoch == 3 and any("epochs 2 -> 4: the schedule changes" in line for line in lines)
        assert trainer.scheduler.get_last_lr()[0] == pytest.approx(0.01 * (0.25 * 0.99 + 0.01))
        assert torch.load(trainer.last, weights_only=False)["train_args"]["epochs"] == 4

    def test_a_run_that_is_over_goes_on_from_its_float32_weights(self, train, tmp_path):
        first = train(epochs=2, **PLAIN)
        with pytest.raises(MisuseError, match=r"this run is over after 2 of 2 epochs; to train longer raise epochs="):
            distill(resume=first.last)
        plain = Path(shutil.copytree(first.save_dir, tmp_path / "plain")) / "weights/last.pt"
        plain.with_name("last.kd.pt").unlink()
        for keys in ({}, {"epochs": 3}):  # Ultralytics' own refusal is an AssertionError, and names no epochs=
            with pytest.raises(
                MisuseError, match=r"this run is over, .* needs the last\.kd\.pt .* use student="
            ) as refusal:
                distill(resume=plain, **keys)
            assert str(plain) in str(refusal.value)
        start: dict[str, Any] = {}

        class Resumed(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                start.update({k: v.clone() for k, v in self.ema.ema.state_dict().items()})

        again = train(Resumed, model=str(first.last), resume=str(first.last), epochs=3)
        assert again.epoch == 2
        assert all(torch.equal(start[k], v) for k, v in first.ema.ema.state_dict().items())

    def test_patience_counts_anew(self, train, lines):
        class Flat(DistillationTrainer):
            def validate(self):
                self.best_fitness = 0.5
                return dict(self.metrics), 0.5

        first = train(Flat, epochs=9, patience=2, val=True, **PLAIN)
        assert first.epoch == 2, "the first was the best, and two did not improve on it"
        again = train(Flat, model=str(first.last), resume=str(first.last), epochs=10)
        assert again.epoch == 4 and any(line.endswith("; patience= counts anew") for line in lines)


class TestTeacher:
    def test_that_was_moved_or_changed(self, train, make_checkpoint, tmp_path, lines):
        teacher = Path(shutil.copy(make_checkpoint("yolov8n.yaml", seed=1), tmp_path / "teacher.pt"))
        last = stop(train, 1, teacher=str(teacher), epochs=2, **FAST)
        settings = last.parents[1] / "args.yaml"
        before = settings.read_bytes()
        moved = teacher.rename(tmp_path / "moved.pt")
        with pytest.raises(MisuseError, match=rf"teacher={teacher}: this is the teacher of the resumed run"):
            distill(resume=last, batch=2)
        shutil.copy(make_checkpoint("yolov8n.yaml", seed=2), teacher)
        with pytest.raises(GateError, match=rf"teacher={teacher}: not the checkpoint .* expected {sha256(moved)[:12]}"):
            distill(resume=last, epochs=4)
        assert settings.read_bytes() == before, "settings of what never ran"
        distill(resume=last, teacher=moved, epochs=3, batch=2)
        assert not any("another teacher" in line for line in lines)
        assert {"epochs": 3, "batch": 2}.items() <= yaml.safe_load(settings.read_text()).items()

    def test_another_one_is_taken_when_it_is_named(self, train, make_checkpoint, lines):
        last = stop(train, 1, teacher=str(make_checkpoint("yolov8n.yaml", seed=1)), epochs=2, **FAST)
        with pytest.raises(MisuseError, match="other sizes than those of the run's teacher"):
            distill(resume=last, teacher=make_checkpoint("yolov8s.yaml", seed=1))
        distill(resume=last, teacher=make_checkpoint("yolov8n.yaml", seed=2))
        assert "WARNING another teacher than before: this is no longer the run that was stopped" in lines


@pytest.mark.parametrize(
    ("method", "what", "epoch", "limit"),
    [
        ("_write_settings", r"kd\.yaml", 1, 100),
        ("save_metrics", r"results\.csv", 1, 100),
        ("save_model", "the checkpoint of epoch 2", 1, 10_000_000),
        ("final_eval", "the final checkpoint", 2, 1_000_000),
    ],
)
def test_a_full_disk_leaves_the_older_pair_and_ends_with_a_line(
    train, make_checkpoint, method, what, epoch, limit, lines
):
    kept: dict[str, str] = {}
    keys = PLAIN
    if method == "_write_settings":  # that say something new in this epoch only: the gain, fixed after 4 batches
        keys = {"teacher": str(make_checkpoint("yolov8n.yaml", seed=1)), "calibrate_batches": 4, **FAST}

    def narrow(self, **given):
        if getattr(self, "epoch", None) != epoch:
            return getattr(DistillationTrainer, method)(self, **given)
        kept.update({path.name: sha256(path) for path in self.wdir.iterdir()})
        with files_end_at(limit):
            return getattr(DistillationTrainer, method)(self, **given)

    with pytest.raises(YoloKDError, match=f"no room left on the disk for {what};") as refusal:
        train(type("Full", (DistillationTrainer,), {method: narrow}), model="yolov8n.yaml", epochs=3, **keys)
    assert refusal.value.exit_code == 1 and "\n" not in str(refusal.value)
    last = Path(str(refusal.value).split("resume=")[1])
    assert {path.name: sha256(path) for path in last.parent.iterdir()} == kept
    assert not list(last.parents[1].glob("*.part"))
    assert f"the checkpoint after epoch {epoch + (method == 'final_eval')} is whole" in str(refusal.value)
    trainer = train(model=str(last), resume=True)
    assert trainer.epoch == 2 and resume.is_stripped(last, resume.state_of(last))
    assert [row["epoch"] for row in csv.DictReader(trainer.csv.read_text().splitlines())] == ["1", "2", "3"]
    assert ("every epoch is done; what is left is the final evaluation" in lines) == (method == "final_eval")
    assert "going on with epoch 4 of 3" not in lines


def test_results_are_drawn_while_a_kill_can_still_be_made_up_for(train, monkeypatch):
    drawn: list[Path] = []
    monkeypatch.setattr("ultralytics.engine.trainer.plot_results", lambda file, on_plot: drawn.append(file))

    class Killed(DistillationTrainer):
        def _place(self, stripped):
            drawn.append(self.last)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Killed, plots=True, **PLAIN)
    results, last = drawn
    assert results.name == "results.csv" and last.name == "last.pt"
    train(model=str(last), resume=True, plots=True)
    assert drawn == [results, last, results] and resume.is_stripped(last, resume.state_of(last))


@pytest.mark.parametrize("name", ["last.kd.pt", "previous.kd.pt"])
def test_a_sidecar_is_no_checkpoint(tmp_path, name):
    """It was taken for a stranger's, with the advice to trust it."""
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(MisuseError, match=r"lies beside a checkpoint .* resume=\S+last\.pt$"):
        distill(resume=tmp_path / name)


def test_run_without_settings_is_not_ours(train):
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Stock(DetectionTrainer):
        def final_eval(self):
            pass

    stock = train(Stock, epochs=2)
    with pytest.raises(MisuseError, match=r"no kd.yaml there"):
        train(model=str(stock.last), resume=True, distill="pkd")
