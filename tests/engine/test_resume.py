"""What a stopped run keeps, what it refuses to go on from, and that there is always something to go on from."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from yolo_kd.deploy.artifact import sha256

from tests.engine.stopping import FAST, PLAIN, stop, stopped
from tests.full_disk import files_end_at
from yolo_kd import DistillationTrainer, distill
from yolo_kd.engine import exact, resumable, resume
from yolo_kd.engine import trainer as trainer_module
from yolo_kd.errors import MisuseError, YoloKDError


def test_adapters_gains_and_epoch_go_on(train, make_checkpoint):
    teacher = str(make_checkpoint(seed=1))
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

    @pytest.mark.parametrize("other", ["batch", "pictures", "labels"])
    def test_other_batches_start_the_epoch_anew_and_say_so(self, train, pictures, tmp_path, lines, other):
        """As many as before: 8 pictures are two batches of 5 as of 6."""
        data = Path(shutil.copytree(pictures.parent, tmp_path / "data")) / "data.yaml"
        last = stop(train, 1, data=str(data), batch=5, nbs=5, epochs=1, save_steps=1, **PLAIN)
        if other == "pictures":
            for name, another in (("images/train/000.png", "008.png"), ("labels/train/000.txt", "008.txt")):
                (data.parent / name).rename((data.parent / name).with_name(another))
        if other == "labels":
            label = data.parent / "labels/train/000.txt"
            kind, *box = label.read_text().split()[:5]
            label.write_text(" ".join([str(1 - min(int(kind), 1)), *box]) + "\n")
        distill(resume=last, batch=6 if other == "batch" else 5)
        anew = any(line.startswith("WARNING not bit-exact: other pictures, labels or another batch") for line in lines)
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

    def test_another_version_of_what_decodes_or_teaches_is_said(self, train, lines, monkeypatch):
        last = stop(train, 1, epochs=2, **PLAIN)
        now = exact.installed
        assert now("numpy") == np.__version__ and now("no-such-package") == "none"
        state = resume.load_sidecar(resume.sidecar_path(last))
        assert [name for name, value in state["arithmetic"].items() if value == "none"] == ["opencv-python"]
        monkeypatch.setattr(exact, "installed", lambda name: "9.9" if name in {"openvino", "numpy"} else now(name))
        distill(resume=last)
        (said,) = [line for line in lines if "not bit-exact" in line]
        assert said == f"WARNING not bit-exact: numpy {now('numpy')} -> 9.9, openvino {now('openvino')} -> 9.9"

    def test_a_cpu_without_bf16_is_said(self, train, lines, monkeypatch):
        """amp=bf16 was asked for there and emulated; a checkpoint only keeps that amp was on."""
        last = stop(train, 1, epochs=2, amp="bf16", **PLAIN)
        monkeypatch.setattr(trainer_module, "has_bf16", lambda: False)
        distill(resume=last, cpu_threads=1)
        assert "WARNING not bit-exact: bf16 on a CPU True -> False" in lines

    @pytest.mark.parametrize("another", ["recipe", "rate"])
    def test_a_later_run_in_the_folder_that_saved_nothing(self, train, make_checkpoint, another):
        """Its settings would be taken for those of the checkpoint that the older run left."""
        last = stop(train, 1, epochs=2, **PLAIN)

        class Killed(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                raise KeyboardInterrupt

        again = {**PLAIN, "lr0": 0.5} if another == "rate" else {**FAST, "teacher": str(make_checkpoint(seed=1))}
        with pytest.raises(KeyboardInterrupt):
            train(Killed, exist_ok=True, epochs=2, **again)
        assert yaml.safe_load((last.parents[1] / "kd.yaml").read_text())["recipe"]["name"] == again["distill"]
        with pytest.raises(
            MisuseError, match="not of the run that kd.yaml .* is of, a later one .* start that one anew"
        ):
            train(model=str(last), resume=True)

    def test_the_save_before_is_gone_on_from_where_that_is_asked_for(self, train, lines):
        last = stop(train, 2, epochs=3, **PLAIN)
        distill(resume=last.with_name("previous.pt"))
        assert "WARNING going on from the save before (previous.pt): as asked" in lines
        assert "going on with epoch 2 of 3" in lines

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

    def test_without_a_sidecar_a_save_within_the_first_epoch_is_no_run_that_is_over(self, train):
        last = stop(train, 1, batch=2, epochs=1, save_steps=1, **PLAIN)
        resume.sidecar_path(last).unlink()
        with pytest.raises(MisuseError, match=r"saved within the first epoch, .* last\.kd\.pt .* start the run anew"):
            distill(resume=last)

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

        keys = {"teacher": str(make_checkpoint(seed=1)), "epochs": 2, **FAST}
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
        assert "going on with epoch 2 of 3" in lines
        assert "WARNING going on from the save before (previous.pt): last.pt or its sidecar is damaged" in lines
        assert settled == ["previous.pt"], "else the next save would take the place of the only whole pair"
        assert resume.is_stripped(last, resume.state_of(last))


@pytest.mark.parametrize(
    ("method", "what", "epoch", "limit"),
    [
        ("_write_settings", r"kd\.yaml", 1, 100),
        ("save_metrics", r"results\.csv", 1, 100),
        ("save_model", "the checkpoint of epoch 2", 1, 800_000),
        ("final_eval", "the final checkpoint", 2, 100_000),
    ],
)
def test_a_full_disk_leaves_the_older_pair_and_ends_with_a_line(
    train, make_checkpoint, method, what, epoch, limit, lines
):
    kept: dict[str, str] = {}
    keys = PLAIN
    if method == "_write_settings":  # that say something new in this epoch only: the gain, fixed after 4 batches
        keys = {"teacher": str(make_checkpoint(seed=1)), "calibrate_batches": 4, **FAST}

    def narrow(self, **given):
        if getattr(self, "epoch", None) != epoch:
            return getattr(DistillationTrainer, method)(self, **given)
        kept.update({path.name: sha256(path) for path in self.wdir.iterdir()})
        with files_end_at(limit):
            return getattr(DistillationTrainer, method)(self, **given)

    with pytest.raises(YoloKDError, match=f"no room left on the disk for {what};") as refusal:
        train(type("Full", (DistillationTrainer,), {method: narrow}), epochs=3, **keys)
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
