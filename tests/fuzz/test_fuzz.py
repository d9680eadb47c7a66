"""Inputs made wrong on purpose end in a clear line or a clean run; those that once did not are kept in `corpus/`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.fuzz.guard import Reached, Sandbox
from tests.fuzz.kinds import SLOTS, from_corpus, make
from tests.fuzz.models import saved, tiny_model
from yolo_kd.engine.ultra import load_detector
from yolo_kd.errors import MisuseError

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
FRESH = 30  # of each kind


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_once_escaped(sandbox: Sandbox, path: Path) -> None:
    found = from_corpus(path).run(sandbox)
    assert found.word != "escape", found.what


@pytest.mark.parametrize("kind", SLOTS)
def test_fresh_inputs(sandbox: Sandbox, seeds: Path, kind: str) -> None:
    words: Counter[str] = Counter()
    for number in range(FRESH):
        found = make(kind, number, 1, seeds).run(sandbox)
        assert found.word != "escape", f"{kind}:{number}: {found.what}"
        words[found.word] += 1
    assert words["line"], f"none of {FRESH} inputs was refused: they are not wrong enough"


@pytest.mark.slow
def test_the_good_files_are_good(sandbox: Sandbox) -> None:
    """Else every input would be refused for the same reason, and nothing would be tried."""
    for kind, slots in SLOTS.items():
        for slot in slots:
            if slot.place:
                found = sandbox.trial(slot.act, resumable=slot.resumable, rewrites=slot.rewrites)
                assert found.word == "clean", f"{kind} {slot.name}: {found.what}"


def test_the_same_number_is_the_same_input(seeds: Path) -> None:
    for kind in SLOTS:
        if kind != "checkpoints":  # torch.save of the same model need not give the same bytes
            assert make(kind, 3, 5, seeds).content == make(kind, 3, 5, seeds).content != make(kind, 3, 6, seeds).content


@pytest.mark.parametrize(
    "spoil",
    [
        lambda net: net.__dict__.pop("yaml"),
        lambda net: net.__dict__.update(names=None),
        lambda net: net.__dict__.update(names={0: "car", 7: "bus", 8: "van"}),
        lambda net: net.model[-1]._modules.update(cv2=torch.nn.Identity()),
        lambda net: [p.__setattr__("data", p.data[:0]) for p in net.parameters()],
    ],
    ids=["no layout", "no names", "names with gaps", "half a head", "empty weights"],
)
def test_a_whole_checkpoint_of_nonsense(sandbox: Sandbox, spoil) -> None:
    net = tiny_model().half()
    spoil(net)
    found = sandbox.trial(lambda: load_detector("teacher.pt", "teacher"), "teacher.pt", saved({"model": net}))
    assert found.word == "line" and "teacher=teacher.pt: its model does not run" in found.what, found.what


def _raise(error: BaseException) -> None:
    raise error


def _leave(name: str, then: BaseException | None = None) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    if then is not None:
        raise then


def _traceback_of_a_thread() -> None:
    print("Traceback (most recent call last):\n  ...\nKeyError: 1", file=sys.stderr)


def _trusting() -> None:
    from ultralytics.nn import tasks

    tasks.SAFE_LOAD = not tasks.SAFE_LOAD


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: _raise(KeyError("x")), "KeyError"),
        (lambda: _raise(SystemExit(0)), "SystemExit"),
        (lambda: _raise(RecursionError()), "RecursionError"),
        (lambda: _raise(MisuseError("")), "no single printable line"),
        (lambda: os.system("true"), "tried to start os.system"),
        (lambda: subprocess.run(["true"]), "tried to start"),
        (lambda: _leave("executed"), "executed what the input holds"),
        (lambda: _leave("here.txt"), "outside of out/"),
        (lambda: _leave("out/a.json.part"), "half-written"),
        (lambda: _leave("out/a.json", MisuseError("no")), "left by a refused input"),
        (lambda: _leave("labels/train/000.txt"), "changed or removed labels/train/000.txt"),
        (lambda: Path("teacher.pt").unlink(), "changed or removed teacher.pt"),
        (lambda: tempfile.mkdtemp(), "left in the temporary folder"),
        (lambda: os.chdir("labels"), "the current folder was changed"),
        (_traceback_of_a_thread, "a traceback was printed: KeyError: 1"),
        (_trusting, "how checkpoints are loaded was changed"),
    ],
)
def test_the_guard_sees(sandbox: Sandbox, act, said: str) -> None:
    before = sorted(p.relative_to(sandbox.folder) for p in sandbox.folder.rglob("*"))
    found = sandbox.trial(act)
    if said.startswith("how checkpoints"):
        _trusting()
    assert found.word == "escape" and said in found.what
    assert sorted(p.relative_to(sandbox.folder) for p in sandbox.folder.rglob("*")) == before
    assert sandbox.trial(lambda: None).word == "clean", "what one trial did reached the next one"


def test_the_guard_lets_pass(sandbox: Sandbox) -> None:
    assert sandbox.trial(lambda: _raise(MisuseError("no"))).word == "line"
    assert sandbox.trial(lambda: _raise(Reached())).word == "clean"
    assert sandbox.trial(lambda: _leave("out/a.json")).word == "clean"
    assert sandbox.trial(lambda: _leave("out/a.json", MisuseError("no")), resumable=True).word == "line"


def test_a_trusted_pickle_is_seen(sandbox: Sandbox, seeds: Path) -> None:
    """The bombs are real: loaded as torch loads for those who trust, they go off, and the guard sees it."""
    import random

    from tests.fuzz.archives import with_bomb

    good, seen = (seeds / "teacher.pt").read_bytes(), Counter()
    for number in range(25):
        bad = with_bomb(good, random.Random(number))
        found = sandbox.trial(lambda: torch.load("teacher.pt", weights_only=False), "teacher.pt", bad)
        seen["went off"] += "tried to start" in found.what or "executed" in found.what
    assert seen["went off"] > 5
