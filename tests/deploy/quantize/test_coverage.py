"""What pictures look like, which are the same, and a choice that leaves no kind out."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.quantize.coverage import look_at, near_duplicates, scenes, spread


def texture(seed: int, size: tuple[int, int] = (96, 128), light: float = 1.0) -> np.ndarray:
    """Blotches that differ from seed to seed."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return (cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) * light).astype(np.uint8)


def test_a_picture_scaled_and_packed_again_is_a_near_duplicate() -> None:
    import cv2

    base = texture(0, (240, 320))
    smaller = cv2.resize(base, (200, 150), interpolation=cv2.INTER_AREA)
    packed = cv2.imdecode(cv2.imencode(".jpg", base, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    looks = [look_at(p, str(i)) for i, p in enumerate([base, smaller, packed, texture(1)])]
    assert near_duplicates(looks, 6) == [1, 2]
    assert len({look.pixel_sha256 for look in looks}) == 4


def test_pixels_are_hashed_with_their_shape() -> None:
    flat = np.zeros((4, 8, 3), np.uint8)
    assert look_at(flat, "").pixel_sha256 == look_at(flat.copy(), "").pixel_sha256
    assert look_at(flat, "").pixel_sha256 != look_at(flat.reshape(8, 4, 3), "").pixel_sha256


def test_a_flat_picture_has_a_finite_look() -> None:
    for level in (0, 128, 255):
        look = look_at(np.full((40, 60, 3), level, np.uint8), "")
        assert np.isfinite(look.tone).all() and look.tone[0] == pytest.approx(level / 255)
    looks = [look_at(np.zeros((40, 60, 3), np.uint8), "")] * 3
    assert spread(looks, 2) in ([0, 1], [0, 2]), "equal pictures must not divide by zero"


def test_frames_of_one_camera_are_one_scene() -> None:
    frames = []
    for i in range(12):
        frame = texture(2, (240, 320))
        frame[100:120, 20 * i : 20 * i + 24] = 255
        frames.append(look_at(frame, str(i)))
    others = [look_at(texture(seed), str(seed)) for seed in range(3, 8)]
    assert scenes(frames) == 1
    assert scenes(frames + others) == 6 and scenes([]) == 0


def test_the_choice_takes_the_rare_kinds() -> None:
    """96 like pictures, 2 dark ones and 2 flat ones: 5 picks show all three kinds."""
    many = [look_at(texture(0) // 2 + texture(s) // 8 + 60, str(s)) for s in range(96)]
    dark = [look_at(texture(s, light=0.1), f"d{s}") for s in (200, 201)]
    flat = [look_at(np.full((96, 128, 3), 200, np.uint8), f"f{s}") for s in range(2)]
    order = spread(many + dark + flat, 5)
    assert len(set(order)) == 5
    assert {96, 97} & set(order) and {98, 99} & set(order)


def test_every_class_is_taken_the_rarest_first() -> None:
    looks = []
    for i in range(60):
        kinds = np.array([0] if i % 20 else [0, 1 + i // 20])
        looks.append(look_at(texture(i), str(i), kinds, np.tile([0.5, 0.5, 0.2, 0.2], (len(kinds), 1))))
    order = spread(looks, 8)
    assert set().union(*(looks[i].classes for i in order)) == {0, 1, 2, 3}


def test_the_beginning_of_the_choice_is_a_choice() -> None:
    looks = [look_at(texture(s), str(s)) for s in range(40)]
    assert spread(looks, 20)[:7] == spread(looks, 7) == spread(looks, 7)
    assert sorted(spread(looks, 99)) == list(range(40))


def test_object_sizes_are_counted_at_the_size_of_the_net() -> None:
    """A box of .1 x .1 of 1280 x 720 is 128 x 72, at 640 px 64 x 36, side 48: medium; .01 small; .5 large."""
    boxes = np.array([[0.5, 0.5, s, s] for s in (0.1, 0.01, 0.5, 0.5)])
    look = look_at(np.zeros((720, 1280, 3), np.uint8), "", np.zeros(4, int), boxes)
    assert look.sizes.tolist() == pytest.approx([0.25, 0.25, 0.5, 4 / 20])
