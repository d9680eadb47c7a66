"""The detector: cases by hand on the fake back end, refusals, many frames, and a process without torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy import Detections, Detector, open_detector
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Settings
from yolo_kd.deploy.backends.fake import FakeBackend

from yolo_kd.errors import MisuseError, YoloKDError

Made = Callable[..., Any]


@pytest.fixture
def detector(made_up: Made, cells: Made) -> Detector:
    """A net of 64 x 64 px that sees three things: two of one kind in one place, one that leaves the picture."""
    boxes = [(32, 32, 16, 8), (33, 32, 16, 8), (60, 32, 20, 20)]
    raw = cells(boxes, [[0.5, 0.1, 0.0], [0.7, 0.2, 0.0], [0.0, 0.1, 0.6]])
    return Detector(made_up(), FakeBackend(made_up(), Settings(), raw))


def marked(value: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def reading(canvas: np.ndarray) -> np.ndarray:
    """One box per picture, whose confidence is the brightness of the picture's middle."""
    raw = np.zeros((len(canvas), 7, 1), np.float32)
    raw[:, :4, 0] = (32, 32, 10, 10)
    raw[:, 4, 0] = canvas[:, 32, 32, 0] / np.float32(255)
    return raw


def values(found: Iterator[Detections]) -> list[int]:
    return [round(float(one.confidence[0]) * 255) for one in found]


def same(one: Detections, other: Detections) -> bool:
    parts = ("xyxy", "confidence", "class_id")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def test_a_case_by_hand(detector: Detector) -> None:
    """A frame of 128 x 96 is halved and lies 8 rows down."""
    found = detector(np.zeros((96, 128, 3), np.uint8))
    assert found.xyxy.tolist() == [[50, 40, 82, 56], [100, 28, 128, 68]]
    assert found.confidence.tolist() == pytest.approx([0.7, 0.6])
    assert [name for *_, name in found] == ["kind0", "kind2"]
    assert found.size_hw == (96, 128)
    assert (found.xyxy.dtype, found.confidence.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize(
    ("keys", "scores"),
    [
        ({}, [0.7, 0.6]),
        ({"confidence": 0.65}, [0.7]),
        ({"confidence": 1.0}, []),
        ({"iou": 0.95}, [0.7, 0.6, 0.5]),
        ({"max_detections": 1}, [0.7]),
        ({"classes": [2]}, [0.6]),
        ({"classes": "kind2"}, [0.6]),
        ({"classes": 0}, [0.7]),
        ({"classes": ["kind0", 2]}, [0.7, 0.6]),
        ({"classes": np.array([1])}, []),
    ],
)
def test_what_is_kept(detector: Detector, keys: dict[str, Any], scores: list[float]) -> None:
    other = Detector(detector.artifact, detector.backend, **keys)
    assert other(marked(0)).confidence.tolist() == pytest.approx(scores)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"confidence": 1.2}, "confidence=1.2: expected a number from 0 to 1"),
        ({"iou": "0.5"}, "iou=0.5: expected a number from 0 to 1"),
        ({"iou": float("nan")}, "iou=nan"),
        ({"confidence": True}, "confidence=True"),
        ({"max_detections": 0}, "max_detections=0: expected a whole number"),
        ({"classes": ["kint2"]}, r"the net has no class kint2 \(did you mean 'kind2'\?\)"),
        ({"classes": [3]}, "the net has no class 3, its ids are 0 to 2"),
        ({"classes": 1.0}, "the net has no class 1.0, its ids are 0 to 2"),
        ({"classes": []}, "expected at least one class, found none"),
        ({"classes": [-1]}, "no class -1"),
    ],
)
def test_values_out_of_range(detector: Detector, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        Detector(detector.artifact, detector.backend, **keys)


def test_rows_of_an_end_to_end_net_are_sorted_cut_and_not_suppressed(made_up: Made) -> None:
    box = [10, 10, 20, 20]
    raw = np.array([[[*box, 0.3, 1], [*box, 0.9, 1], [*box, 0.5, 0], [*box, 0.1, 0]]], np.float32)
    artifact = made_up(end2end=True)
    found = Detector(artifact, FakeBackend(artifact, Settings(), raw), max_detections=2)(marked(0))
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5]) and found.class_id.tolist() == [1, 0]


def test_a_net_of_other_classes_is_refused_before_the_first_frame(made_up: Made) -> None:
    with pytest.raises(MisuseError, match=r"the net gives \(1, 7, 5\), expected \(1, 84, cells\) for 80 classes"):
        Detector(made_up(names=80), FakeBackend(made_up(), Settings(), np.zeros((1, 7, 5), np.float32)))


def test_a_net_that_gives_nan_never_gives_no_boxes(made_up: Made) -> None:
    with pytest.raises(YoloKDError, match="NaN or infinite"):
        Detector(made_up(), FakeBackend(made_up(), Settings(), np.full((1, 7, 5), np.nan, np.float32)))(marked(0))


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_many_keep_their_order(made_up: Made, mode: str, batch: int, count: int) -> None:
    """The fake looks at its canvas only when waited for, so a canvas used too early shows."""
    backend = FakeBackend(made_up(), Settings(mode=mode, batch=batch), reading)
    wanted = [100 + 20 * i for i in range(count)]
    sizes = [(64, 64), (32, 64), (64, 48)]
    frames = (marked(value, sizes[i % 3]) for i, value in enumerate(wanted))
    found = list(Detector(made_up(), backend).many(frames))
    assert values(iter(found)) == wanted
    assert [one.size_hw for one in found] == [sizes[i % 3] for i in range(count)]


def test_in_latency_mode_an_answer_comes_before_the_next_frame_is_asked_for(made_up: Made) -> None:
    asked = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal asked
        while True:
            asked += 1
            yield marked(200)

    found = Detector(made_up(), FakeBackend(made_up(), Settings(), reading)).many(camera())
    for count in (1, 2, 3):
        next(found)
        assert asked == count


def test_many_refuses_a_bad_frame_and_the_detector_goes_on(made_up: Made) -> None:
    detector = Detector(made_up(), FakeBackend(made_up(), Settings(mode="throughput"), reading))
    with pytest.raises(MisuseError, match="got uint16"):
        list(detector.many([marked(99), marked(99).astype(np.uint16), marked(99)]))
    assert values(detector.many([marked(120), marked(130)])) == [120, 130]
    assert values(iter([detector(marked(140))])) == [140]


def test_an_error_of_the_source_passes_through(made_up: Made) -> None:
    def camera() -> Iterator[np.ndarray]:
        yield marked(99)
        raise OSError("unplugged")

    detector = Detector(made_up(), FakeBackend(made_up(), Settings(mode="throughput"), reading))
    with pytest.raises(OSError, match="unplugged"):
        list(detector.many(camera()))
    assert values(detector.many([marked(120)])) == [120]


def test_a_run_that_fails_reaches_the_caller(made_up: Made) -> None:
    def failing(canvas: np.ndarray) -> np.ndarray:
        if canvas[0, 32, 32, 0] == 13:
            raise YoloKDError("out of memory")
        return reading(canvas)

    detector = Detector(made_up(), FakeBackend(made_up(), Settings(mode="throughput"), failing))
    found = detector.many([marked(100), marked(13), marked(100), marked(100)])
    assert values(iter([next(found)])) == [100]
    with pytest.raises(YoloKDError, match="out of memory"):
        list(found)
    assert values(detector.many([marked(120)] * 3)) == [120] * 3


def test_it_serves_one_user_at_a_time(made_up: Made) -> None:
    detector = Detector(made_up(), FakeBackend(made_up(), Settings(mode="throughput"), reading))
    found = detector.many([marked(99)] * 5)
    next(found)
    for use in (lambda: detector(marked(0)), lambda: next(detector.many([marked(0)]))):
        with pytest.raises(MisuseError, match="in use"):
            use()
    found.close()
    assert values(iter([detector(marked(120))])) == [120]


def test_a_second_thread_is_refused_not_served_wrong_boxes(made_up: Made) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(canvas: np.ndarray) -> np.ndarray:
        entered.set()
        assert leave.wait(20)
        return reading(canvas)

    detector = Detector(made_up(), FakeBackend(made_up(), Settings(), slow))
    found: list[Detections] = []
    thread = threading.Thread(target=lambda: found.append(detector(marked(150))))
    thread.start()
    assert entered.wait(20)
    with pytest.raises(MisuseError, match="by another thread"):
        detector(marked(0))
    leave.set()
    thread.join(20)
    assert values(iter(found)) == [150]


def test_a_batch_needs_many(made_up: Made) -> None:
    detector = Detector(made_up(), FakeBackend(made_up(), Settings(batch=2), reading))
    with pytest.raises(MisuseError, match=r"batch=2: use many\(\)"):
        detector(marked(0))


def test_a_closed_detector_says_so(detector: Detector) -> None:
    with detector as same_one:
        assert same_one is detector
    detector.close()
    for use in (lambda: detector(marked(0)), lambda: next(detector.many([marked(0)]))):
        with pytest.raises(MisuseError, match="closed; open it again"):
            use()


@pytest.mark.parametrize("form", ["openvino", "onnx"])
def test_closing_in_the_middle_of_many_is_orderly(exported: Made, frames: list[np.ndarray], form: str) -> None:
    with open_detector(exported(form=form), mode="throughput", cache=False) as detector:
        found = detector.many(frames)
        next(found)
    with pytest.raises(MisuseError, match="closed"):
        list(found)


@pytest.mark.parametrize("form", ["openvino", "onnx"])
@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_many_equals_one_after_the_other(exported: Made, frames: list[np.ndarray], form: str, mode: str) -> None:
    with open_detector(exported(form=form), cache=False) as single:
        wanted = [single(frame) for frame in frames]
    with open_detector(exported(form=form), mode=mode, threads=2, cache=False) as detector:
        found = list(detector.many(iter(frames * 2)))
        assert detector.backend.slots == 1 or mode == "throughput"
    assert len(found) == 2 * len(frames) and sum(len(one) for one in found) > 0
    assert all(same(one, other) for one, other in zip(found, wanted * 2, strict=True))


@pytest.mark.parametrize("form", ["openvino", "onnx"])
def test_what_was_under_way_when_one_stopped_is_not_given_to_the_next(
    exported: Made, frames: list[np.ndarray], form: str
) -> None:
    with open_detector(exported(form=form), mode="throughput", threads=2, cache=False) as detector:
        wanted = [detector(frame) for frame in frames]
        for stop in range(1, len(frames)):
            for _, _ in zip(detector.many(frames), range(stop), strict=False):
                pass
            assert all(same(*two) for two in zip(detector.many(frames[::-1]), wanted[::-1], strict=True))


def test_a_batch_in_openvino_equals_one_after_the_other(exported: Made, frames: list[np.ndarray]) -> None:
    with open_detector(exported(), cache=False, precision="f32") as single:
        wanted = [single(frame) for frame in frames]
    with open_detector(exported(), mode="throughput", batch=3, cache=False, precision="f32") as detector:
        found = list(detector.many(frames))
    for one, other in zip(found, wanted, strict=True):
        assert np.allclose(one.xyxy, other.xyxy, atol=0.05) and np.allclose(one.confidence, other.confidence, atol=1e-4)


def test_the_public_names() -> None:
    import yolo_kd.deploy as deploy

    assert deploy.__all__ == ["Detections", "Detector", "open_detector"]
    assert all(getattr(deploy, name) for name in deploy.__all__)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = deploy.nothing


def test_an_artifact_is_what_the_detector_shows(detector: Detector) -> None:
    assert isinstance(detector.artifact, Artifact) and detector.artifact.names[2] == "kind2"
