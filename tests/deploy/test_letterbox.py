"""The letterbox: cases by hand, and Ultralytics' own over many sizes, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.letterbox import PAD_VALUE, Letterbox, Placement, as_bgr, place

from yolo_kd.errors import MisuseError

NETS = [(640, 640), (384, 640), (320, 192), (96, 160), (32, 32)]
SIZES = [
    (1080, 1920),
    (720, 1280),
    (480, 640),
    (333, 517),
    (517, 333),
    (640, 640),
    (384, 640),
    (1, 1),
    (1, 900),
    (900, 1),
]
SIZES += [(7, 3), (127, 129), (641, 639), (2000, 300), (97, 1000)]


def random_sizes(count: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(11)
    return [tuple(map(int, np.exp(rng.uniform(0, np.log(2500), 2)).round())) for _ in range(count)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("net_hw", NETS)
def test_the_pixels_are_those_of_ultralytics(net_hw: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    reference, box = LetterBox(net_hw, auto=False), Letterbox(net_hw)
    for size in [*SIZES, *random_sizes(12)]:
        frame = picture(*size)
        canvas, placement = box(frame)
        assert np.array_equal(canvas, reference(image=frame)), size
        assert placement.frame_hw == size


@pytest.mark.parametrize("net_hw", NETS)
def test_boxes_go_back_as_by_ultralytics(net_hw: tuple[int, int]) -> None:
    import torch
    from ultralytics.utils.ops import scale_boxes

    rng = np.random.default_rng(2)
    for size in [*SIZES, *random_sizes(60)]:
        boxes = rng.uniform(-20, max(net_hw) + 20, (50, 4)).astype(np.float32)
        wanted = scale_boxes(net_hw, torch.from_numpy(boxes.copy()), size).numpy()
        before = boxes.copy()
        assert np.array_equal(place(size, net_hw).to_frame(boxes), wanted), size
        assert np.array_equal(boxes, before)


def test_placements_by_hand() -> None:
    assert place((1080, 1920), (384, 640)) == Placement((1080, 1920), (360, 640), top=12, left=0)
    assert place((480, 640), (640, 640)) == Placement((480, 640), (480, 640), top=80, left=0)
    assert place((333, 100), (64, 64)) == Placement((333, 100), (64, 19), top=0, left=22)  # an odd line goes right
    assert place((1, 900), (64, 64)) == Placement((1, 900), (1, 64), top=31, left=0)  # never thinner than one pixel


def test_a_box_goes_there_and_back() -> None:
    """(100, 200) to (300, 400) in a 1080p frame lies at 1/3 of it, 140 pixels down, in a 640 x 640 net."""
    placed = np.array([[100 / 3, 200 / 3 + 140, 100, 400 / 3 + 140]], np.float32)
    assert place((1080, 1920), (640, 640)).to_frame(placed) == pytest.approx(np.array([[100, 200, 300, 400]]), abs=1e-3)


def test_boxes_are_clipped_to_the_frame() -> None:
    found = place((100, 200), (64, 64)).to_frame(np.array([[-50, -50, 500, 500]], np.float32))
    assert found.tolist() == [[0, 0, 200, 100]]


@pytest.mark.parametrize(
    ("size", "net_hw", "step"),
    [((1080, 1920), (384, 640), 3), ((480, 800), (96, 160), 5), ((3, 3), (1, 1), 3), ((300, 300), (100, 160), 3)],
)
def test_an_odd_number_of_pixels_to_one_is_picked_as_interpolated(monkeypatch, size, net_hw, step) -> None:
    import cv2

    frame, inner = picture(*size), place(size, net_hw).inner_hw
    wanted = cv2.resize(frame, inner[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(wanted, frame[step // 2 :: step, step // 2 :: step])
    box, wide = Letterbox(net_hw), np.repeat(frame, 2, axis=1)[:, ::2]  # the same picture, but not in one piece
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "resize", None)  # the short way is taken
        canvas, placed = box(frame)
        seen = canvas[placed.top : placed.top + inner[0], placed.left : placed.left + inner[1]].copy()
    again = box(wide)[0][placed.top : placed.top + inner[0], placed.left : placed.left + inner[1]]
    assert not wide.flags.c_contiguous and np.array_equal(seen, wanted) and np.array_equal(again, wanted)


def test_a_frame_of_the_nets_shape_is_taken_as_it_is() -> None:
    frame = picture(96, 160)
    assert np.array_equal(Letterbox((96, 160))(frame)[0], frame)


def test_the_padding_is_grey_after_a_frame_of_another_shape() -> None:
    box = Letterbox((64, 64))
    box(np.full((64, 64, 3), 255, np.uint8))
    canvas, placement = box(np.full((32, 64, 3), 255, np.uint8))
    assert (placement.top, placement.left) == (16, 0)
    assert (canvas[:16] == PAD_VALUE).all() and (canvas[48:] == PAD_VALUE).all() and (canvas[16:48] == 255).all()


def test_the_buffer_is_one_and_may_be_given() -> None:
    batch = np.zeros((2, 64, 64, 3), np.uint8)
    box = Letterbox((64, 64), batch[1])
    canvas, _ = box(picture(30, 50))
    assert np.shares_memory(canvas, batch[1]) and not batch[0].any() and batch[1].any()
    assert box(picture(50, 30))[0] is canvas


@pytest.mark.parametrize("change", ["view", "mirrored", "readonly"])
def test_memory_of_any_order_will_do(change: str) -> None:
    frame = picture(90, 120)
    other = {"view": picture(180, 240)[::2, ::2], "mirrored": frame[:, ::-1], "readonly": frame.copy()}[change]
    other.flags.writeable = change != "readonly"
    for net_hw in ((64, 64), other.shape[:2]):
        assert np.array_equal(Letterbox(net_hw)(other)[0], Letterbox(net_hw)(np.ascontiguousarray(other))[0])


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1)])
def test_grey_becomes_three_equal_channels(shape: tuple[int, ...]) -> None:
    grey = picture(40, 60)[..., 0].reshape(shape)
    assert np.array_equal(as_bgr(grey), np.repeat(grey.reshape(40, 60, 1), 3, axis=2))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), "got uint16; scale 16-bit pictures to 0..255 first"),
        (np.zeros((4, 4, 3), np.float32), "expected uint8 pixels, got float32"),
        (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\); convert BGRA with cv2.cvtColor, CMYK with Pillow"),
        (np.zeros((4, 4, 2), np.uint8), r"expected \(H, W, 3\) in BGR or \(H, W\) in grey, got \(4, 4, 2\)"),
        (np.zeros((3, 20001), np.uint8), "at most 16384 pixels a side, got .*cut it into tiles"),
        (np.zeros((20000, 2, 3), np.uint8), "at most 16384 pixels a side"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\)"),
        (np.zeros(7, np.uint8), r"got \(7,\)"),
        (np.uint8(7), "got uint8$"),
        (None, "expected a numpy array .* got NoneType"),  # what cv2.imread gives for a file that it cannot read
        ([[1, 2], [3, 4]], "got list"),
    ],
)
def test_no_picture_is_one_line(frame: object, message: str) -> None:
    with pytest.raises(MisuseError, match=message) as caught:
        Letterbox((64, 64))(frame)
    assert "\n" not in str(caught.value)


def test_a_refused_frame_leaves_the_letterbox_usable() -> None:
    box, frame = Letterbox((64, 64)), picture(50, 80)
    wanted = box(frame)[0].copy()
    with pytest.raises(MisuseError):
        box(np.zeros((4, 4, 4), np.uint8))
    assert np.array_equal(box(frame)[0], wanted)
