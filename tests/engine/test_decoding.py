"""Pictures that are decoded ahead: the same batches from the same random numbers, and off where it is no use."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data import base
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset

from tests.conftest import write_pictures
from yolo_kd.engine import resumable
from yolo_kd.engine.decoding import DecodedAhead, decode_ahead


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Any]:
    """Builds Ultralytics' data set of 24 pictures; a buffer of 16 lets go of the first ones."""
    data = check_det_dataset(str(write_pictures(tmp_path / "data", train=24)))

    def build(**keys: Any) -> Any:
        cfg = get_cfg(overrides={"imgsz": 64, "task": "detect", "mixup": 0.5, "cutmix": 0.3, **keys})
        return build_yolo_dataset(cfg, data["train"], 2, data)

    return build


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """File name to the threads that read it."""
    found: dict[str, list[str]] = {}
    real = base.imread

    def imread(file: Any, flags: int) -> Any:
        found.setdefault(Path(file).name, []).append(threading.current_thread().name.split("_")[0])
        return real(file, flags=flags)

    monkeypatch.setattr(base, "imread", imread)
    return found


def batches(fetch: Callable[[list[int]], list[dict[str, Any]]]) -> tuple[list[Any], list[Any]]:
    """Three passes in an order of their own, and where the random streams stand at the end."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    order = np.random.default_rng(0)
    found = [s for _ in range(3) for i in order.permutation(24).reshape(-1, 4).tolist() for s in fetch(i)]
    return found, [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


def test_batches_and_random_streams_are_those_of_one_thread(dataset, read_by) -> None:
    alone, ahead = dataset(), dataset()
    wanted, streams = batches(lambda indices: [alone[i] for i in indices])
    read_by.clear()
    fetch = DecodedAhead(ahead, 3)
    found, ended = batches(fetch)
    assert ended == streams and ahead.buffer == alone.buffer and len(found) == 72
    for one, other in zip(wanted, found, strict=True):
        assert one["im_file"] == other["im_file"]
        assert all(torch.equal(one[key], other[key]) for key in ("img", "cls", "bboxes"))
    readers = [name for names in read_by.values() for name in names]
    assert readers.count("decode") > len(readers) / 2, "partners of mixup and cutmix alone are not known ahead"


def test_the_order_in_which_files_are_ready_does_not_matter(dataset, monkeypatch) -> None:
    data, real, second = dataset(mixup=0, cutmix=0), base.imread, threading.Event()

    def imread(file: Any, flags: int) -> Any:
        if file == data.im_files[0]:
            assert second.wait(20), "one after the other"
        second.set()
        return real(file, flags=flags)

    monkeypatch.setattr(base, "imread", imread)
    assert [s["im_file"] for s in DecodedAhead(data, 2)([0, 1])] == data.im_files[:2]
    assert base.imread is imread, "put back"


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_what_is_cached_is_not_decoded(dataset, read_by, cache) -> None:
    data = dataset(cache=cache)
    read_by.clear()
    assert len(DecodedAhead(data, 2)(list(range(24)))) == 24 and read_by == {}


def test_several_data_sets_counted_through(dataset, read_by) -> None:
    first, second = dataset(mixup=0, cutmix=0), dataset(mixup=0, cutmix=0)
    mixture = SimpleNamespace(parts=[first, second])
    fetch = DecodedAhead(mixture, 2)
    assert [flag for _, flag in fetch._files([23, 24])] == [first.cv2_flag] * 2
    assert [Path(file).name for file, _ in fetch._files([23, 24, 47])] == ["023.png", "000.png", "023.png"]


def test_a_file_that_is_gone_is_said_as_ultralytics_says_it(dataset) -> None:
    data = dataset()
    Path(data.im_files[5]).unlink()
    with pytest.raises(FileNotFoundError, match=r"Image Not Found .*005.png"):
        DecodedAhead(data, 2)([4, 5])


def test_workers_and_a_single_thread_stay_as_they_are(dataset, monkeypatch) -> None:
    for workers, threads, there in ((0, 2, True), (2, 2, False), (0, 1, False)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        loader = SimpleNamespace(num_workers=workers, dataset=dataset())
        decode_ahead(loader)
        assert isinstance(getattr(loader.dataset, "__getitems__", None), DecodedAhead) == there


@pytest.mark.slow
def test_a_training_ends_with_the_same_weights(train, read_by, monkeypatch) -> None:
    keys = {"distill": "none", "epochs": 2, "cpu_threads": 2, "close_mosaic": 1, "check_data": False}
    ahead = train(**keys)
    assert any("decode" in names for names in read_by.values()), "it is in use"
    monkeypatch.setattr(resumable, "decode_ahead", lambda loader: None)
    read_by.clear()
    alone = train(**keys)
    assert read_by and not any("decode" in names for names in read_by.values())
    for name, tensor in ahead.model.state_dict().items():
        assert torch.equal(tensor, alone.model.state_dict()[name]), name
