"""Keep random streams apart: what distillation draws must not move what the student's training draws."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Restore the global random states of Python, NumPy and torch (all devices) afterwards.

    Args:
        seed: Seed all three for the block.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        try:
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def random_states() -> dict[str, Any]:
    """The global random states of Python, NumPy and torch (CPU), as plain values and tensors."""
    kind, words, *rest = np.random.get_state()
    return {
        "python": packed(random),
        "numpy": [kind, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`."""
    random.setstate(unpacked(states["python"]))
    kind, words, *rest = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])


def packed(source: Any) -> list[Any]:
    """The state of Python's random module or of a `random.Random`, its 625 words as one tensor."""
    version, words, gauss = source.getstate()
    return [version, torch.tensor(words, dtype=torch.int64), gauss]


def unpacked(state: list[Any]) -> tuple[Any, ...]:
    """What `setstate` takes, from `packed`."""
    version, words, gauss = state
    return version, tuple(words.tolist()), gauss
