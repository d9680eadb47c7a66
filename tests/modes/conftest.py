"""What the tests of the commands have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from yolo_kd.evidence import verdict


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """The interval of the gate, which takes longest of all it does, from fewer resamples; what it is worth is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict, "RESAMPLES", 20)
        yield
