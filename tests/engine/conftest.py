"""What the tests of the trainer have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from yolo_kd import DistillationTrainer
from yolo_kd.distillers.lqe import LQE


@pytest.fixture(scope="module", autouse=True)
def short_fits() -> Iterator[None]:
    """The predictor of lqe is fitted for a tenth of its steps; how well it is fitted is tested with the distillers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LQE.fit.__kwdefaults__, "steps", 60)
        yield


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    said: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: said.append(line))
    return said


@pytest.fixture(scope="session")
def killed() -> Iterator[Callable[[dict[str, Any]], list[dict[str, Any]]]]:
    """Answers a request with the runs that killing.py made of it."""
    words, folder = [sys.executable, "-m", "tests.engine.killing"], Path(__file__).parents[2]
    started: list[subprocess.Popen[str]] = []

    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        if not started or started[-1].poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(words, cwd=folder, **pipes))
        process = started[-1]
        timer = Timer(280, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            found = process.stdout.readline()
        except BaseException:
            process.kill()  # or the next request would be given this one's answer
            raise
        finally:
            timer.cancel()
        assert found, f"the process whose forks train ended with {process.wait()}; why is on stderr"
        return json.loads(found)

    yield answer
    for process in started:
        process.kill()
        process.communicate()
