"""Runs that end as if they had been killed, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yolo_kd import DistillationTrainer

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
