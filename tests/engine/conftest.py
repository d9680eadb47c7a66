"""What the tests of the trainer have in common."""

from __future__ import annotations

from collections.abc import Iterator

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
