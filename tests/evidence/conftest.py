"""A data set with enough pictures to calibrate on some and choose on others, and a float artifact to quantize."""

from __future__ import annotations

from pathlib import Path

import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy.quantize.calibration import Candidate, choose
from yolo_kd.deploy.quantize.produce import Producer

from tests.conftest import write_pictures
from yolo_kd.engine.export import export


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of 8 training and 12 validation pictures like those that `learnt` knows."""
    return write_pictures(tmp_path_factory.mktemp("labelled"), val=12)


@pytest.fixture(scope="session")
def onnx_producer(learnt: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Producer:
    """Makes INT8 artifacts of the checkpoint that knows the training pictures, on them."""
    parent = export(str(learnt), "onnx", (64, 64), out=tmp_path_factory.mktemp("parent"))
    split = read_split(labelled, "train")
    return Producer(parent, choose([Candidate(p) for p in split.images], 8))
