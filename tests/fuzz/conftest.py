"""The good files, made once, and a sandbox of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fuzz.guard import Sandbox
from tests.fuzz.seeds import make_seeds
from tests.fuzz.stand_ins import stand_ins


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good files."""
    return make_seeds(tmp_path_factory.mktemp("fuzz") / "seeds")


@pytest.fixture(scope="module")
def sandbox(seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A place to try inputs in, where nothing trains."""
    threads = torch.get_num_threads()
    with stand_ins(tmp_path_factory.mktemp("home")):
        yield Sandbox(seeds, tmp_path_factory.mktemp("fuzz") / "sandbox")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
