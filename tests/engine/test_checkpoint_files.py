"""A checkpoint as files: which pair is there wherever a kill falls, what steps in, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from yolo_kd.engine import resumable, resume
from yolo_kd.engine.resumable import ResumableTrainer
from yolo_kd.errors import MisuseError


class TestPair:
    """A last.pt and its sidecar, one generation older beside them; here the checkpoints are texts."""

    def save(self, folder: Path, text: str, copies: tuple[str, ...] = ()) -> None:
        with resume.staging(folder) as staged:
            for name in ("last.pt", *copies):
                (staged / name).write_text(text)
            resume.commit(staged, folder, {"text": text})

    def found(self, folder: Path) -> tuple[str, str]:
        path = resume.usable_checkpoint(folder / "last.pt")
        state = resume.state_of(path)
        assert state is not None
        return path.read_text(), state["text"]

    @pytest.fixture
    def left(self, monkeypatch) -> list[int]:
        """How many file operations are left until a kill."""
        left = [10**6]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return call(*args, **kwargs)

            return wrapper

        for name in ("replace", "hardlink_to", "write_bytes", "unlink"):
            monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
        for module in (resume, resumable):
            monkeypatch.setattr(module, "flush", counted(module.flush))
        return left

    def killed_later_each_time(self, tmp_path: Path, left: list[int]) -> Iterator[tuple[int, Path]]:
        """Folders with two saves, in which the next thing ends after so many calls."""
        for calls in range(100):
            folder = tmp_path / str(calls)
            folder.mkdir()
            self.save(folder, "one")
            self.save(folder, "two", ("best.pt",))
            left[0] = calls
            yield calls, folder

    def test_there_is_a_whole_pair_wherever_a_save_ends(self, tmp_path, left):
        found = []
        for calls, folder in self.killed_later_each_time(tmp_path, left):
            try:
                self.save(folder, "three", ("best.pt",))
                ended = True
            except KeyboardInterrupt:
                ended = False
            left[0] = 10**6
            checkpoint, state = self.found(folder)
            assert checkpoint == state and checkpoint in {"two", "three"}, calls
            resume.settle(folder / "last.pt", resume.state_of(folder / "last.pt"))
            assert (folder / "best.pt").read_text() == checkpoint
            found.append(checkpoint)
            if ended:
                break
        assert found == sorted(found, reverse=True) and set(found) == {"two", "three"} and len(found) > 10

    def test_nor_does_a_second_kill_while_it_goes_on(self, tmp_path, left):
        """A kill between the two names of a save leaves last.pt to the older sidecar, which the next save must not lose."""
        found = set()
        for calls, folder in self.killed_later_each_time(tmp_path, left):
            with suppress(KeyboardInterrupt):
                self.save(folder, "three")
            ended, left[0] = left[0] >= 0, 10**6
            for again in range(100):
                copy = Path(shutil.copytree(folder, folder / f"again{again}"))
                left[0] = again
                with suppress(KeyboardInterrupt):
                    path = resume.usable_checkpoint(copy / "last.pt")
                    resume.settle(path, resume.state_of(path))
                    self.save(copy, "four")
                over, left[0] = left[0] >= 0, 10**6
                checkpoint, state = self.found(copy)
                assert checkpoint == state and checkpoint in {"two", "three", "four"}, (calls, again)
                found.add(checkpoint)
                shutil.rmtree(copy)
                if over:
                    break
            if ended:
                break
        assert found == {"two", "three", "four"}

    @pytest.mark.parametrize("lost", ["last.pt", "last.kd.pt"])
    def test_nor_does_a_kill_while_it_goes_on_from_the_older_one(self, tmp_path, left, lost):
        for calls, folder in self.killed_later_each_time(tmp_path, left):
            left[0] = 10**6
            (folder / lost).write_bytes((folder / lost).read_bytes()[:2])
            left[0] = calls
            with suppress(KeyboardInterrupt):
                path = resume.usable_checkpoint(folder / "last.pt")
                resume.settle(path, resume.state_of(path))
                self.save(folder, "three")
            ended, left[0] = left[0] >= 0, 10**6
            assert self.found(folder)[0] in {"one", "three"}, calls
            if ended:
                break

    def test_a_run_is_over_or_can_be_resumed_wherever_its_end_is_killed(self, tmp_path, left):
        def place(folder: Path) -> None:
            parts = [(folder / f"{name}.part", folder / name) for name in ("last.pt", "best.pt")]
            for part, _ in parts:
                part.write_text("stripped")
            ResumableTrainer._place(SimpleNamespace(last=folder / "last.pt", wdir=folder), parts)

        found = []
        for calls, folder in self.killed_later_each_time(tmp_path, left):
            with suppress(KeyboardInterrupt):
                place(folder)
            ended, left[0] = left[0] >= 0, 10**6
            checkpoint, _ = self.found(folder)
            over = resume.is_stripped(folder / "last.pt", resume.state_of(folder / "last.pt"))
            assert checkpoint == ("stripped" if over else "two"), calls
            assert not over or (folder / "best.pt").read_text() == "stripped", calls
            assert not over or not list(folder.glob("previous*")), calls
            if not over:  # as it is resumed
                resume.settle(folder / "last.pt", resume.state_of(folder / "last.pt"))
                assert (folder / "best.pt").read_text() == "two"
                place(folder)
            assert self.found(folder)[0] == (folder / "best.pt").read_text() == "stripped"
            found.append(over)
            if ended:
                break
        assert found == sorted(found) and set(found) == {False, True} and len(found) > 5

    def test_what_gets_a_name_is_on_the_disk_before(self, tmp_path, monkeypatch):
        """Else a power loss leaves the new names with nothing behind them, in place of the older pair."""
        known: set[tuple[int, int, int]] = set()
        named: list[str] = []
        real_sync, real_rename = os.fsync, Path.replace

        def seen(facts: os.stat_result) -> tuple[int, int, int]:
            return facts.st_ino, facts.st_size, facts.st_mtime_ns

        def sync(handle: int) -> None:
            real_sync(handle)
            known.add(seen(os.fstat(handle)))
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                named.append("the folder")

        def rename(path: Path, target: Path) -> Path:
            assert seen(path.stat()) in known, f"{target.name} is named before it is written"
            named.extend([target.name] if target.parent == tmp_path else [])
            return real_rename(path, target)

        monkeypatch.setattr(os, "fsync", sync)
        monkeypatch.setattr(Path, "replace", rename)
        for text in ("one", "two"):
            self.save(tmp_path, text, ("best.pt",))
        pair = ["last.kd.pt", "last.pt", "best.pt", "the folder"]
        assert named == [*pair, "previous.kd.pt", "previous.pt", *pair]
        named.clear()
        (tmp_path / "best.pt").unlink()
        resume.settle(tmp_path / "last.pt", resume.state_of(tmp_path / "last.pt"))
        (tmp_path / "last.pt.part").write_text("stripped")
        end = SimpleNamespace(last=tmp_path / "last.pt", wdir=tmp_path)
        ResumableTrainer._place(end, [(tmp_path / "last.pt.part", tmp_path / "last.pt")])
        assert named == ["best.pt", "last.kd.pt", "last.pt"]

    @pytest.mark.parametrize("lost", ["last.pt", "last.kd.pt"])
    def test_the_older_one_steps_in_for_a_damaged_one(self, tmp_path, lost):
        self.save(tmp_path, "one")
        self.save(tmp_path, "two")
        (tmp_path / lost).write_bytes((tmp_path / lost).read_bytes()[:2])
        assert self.found(tmp_path) == ("one", "one")
        assert resume.usable_checkpoint(tmp_path / "last.pt").name == "previous.pt"

    def test_what_belongs_to_nothing_is_refused(self, tmp_path):
        self.save(tmp_path, "one")
        (tmp_path / "last.pt").write_text("of another program")
        with pytest.raises(MisuseError, match=r"last.kd.pt beside it belong to another checkpoint"):
            resume.usable_checkpoint(tmp_path / "last.pt")

    @pytest.mark.parametrize("damage", ["truncated", "one bit", "other format"])
    def test_sidecar_that_cannot_be_trusted_is_refused(self, tmp_path, damage):
        path = tmp_path / "last.kd.pt"
        weights = torch.arange(1000.0)
        resume.save_sidecar(path, {"weights": weights})
        assert torch.equal(resume.load_sidecar(path)["weights"], weights)
        data = bytearray(path.read_bytes())
        if damage == "truncated":
            path.write_bytes(data[:100])
        elif damage == "one bit":  # of a weight, which torch.load does not notice
            data[data.index(weights[1:9].numpy().tobytes())] ^= 1
            path.write_bytes(data)
            assert not torch.equal(torch.load(path)["weights"], weights)
        else:
            torch.save({"format": 99}, path)
        with pytest.raises(MisuseError, match="last.kd.pt"):
            resume.load_sidecar(path)

    def test_what_a_sidecar_lacks_is_named(self, tmp_path):
        resume.save_sidecar(tmp_path / "last.kd.pt", {"epoch": 3})
        state = resume.load_sidecar(tmp_path / "last.kd.pt")
        assert state["epoch"] == 3 and state.get("stripped") is None
        with pytest.raises(MisuseError, match=r"last\.kd\.pt: holds no 'optimizer', .* start anew"):
            state["optimizer"]

    def test_another_version_is_refused_also_where_an_older_pair_is_there(self, tmp_path):
        self.save(tmp_path, "one")
        self.save(tmp_path, "two")
        torch.save({**torch.load(tmp_path / "last.kd.pt", weights_only=True), "format": 99}, tmp_path / "last.kd.pt")
        with pytest.raises(
            MisuseError, match=f"format 99, expected {resume.FORMAT}; it was written by another version"
        ):
            resume.usable_checkpoint(tmp_path / "last.pt")


def test_settings_are_on_the_disk_before_they_have_their_name_and_written_when_they_change(tmp_path, monkeypatch):
    steps: list[str] = []
    rename = Path.replace
    monkeypatch.setattr(resume, "flush", lambda path: steps.append(f"flush {path.name}"))
    monkeypatch.setattr(Path, "replace", lambda path, to: steps.append(f"to {to.name}") or rename(path, to))
    for gain in (1.0, 1.0, 0.5):
        resume.write_yaml(tmp_path / "kd.yaml", {"teacher": tmp_path, "fixed_gains": {"pkd": gain}})
    assert steps == ["flush kd.yaml.part", "to kd.yaml"] * 2
    plain = yaml.safe_load((tmp_path / "kd.yaml").read_text())
    assert plain == {"teacher": str(tmp_path), "fixed_gains": {"pkd": 0.5}}


def test_optimizer_state_splits_and_joins():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=0.1, momentum=0.9)
    for p in parameters:
        p.grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    plain, own = resume.split_optimizer(state, 1)
    assert len(plain["param_groups"]) == 1 and set(plain["state"]) == {0, 1} and set(own["state"]) == {2}
    assert resume.join_optimizer(plain, own) == state
