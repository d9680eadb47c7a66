"""Fingerprints: equal for the same picture in another size or packing, far apart for others; distances by hand."""

from __future__ import annotations

import numpy as np
import pytest

from yolo_kd.pictures.likeness import NEAR, chains, distances, fingerprint, nearest


def blotches(seed: int) -> np.ndarray:
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_the_same_picture_smaller_and_packed_is_near_and_others_are_not() -> None:
    import cv2

    picture = blotches(0)
    small = cv2.resize(picture, (200, 150), interpolation=cv2.INTER_AREA)
    packed = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    prints = np.array([fingerprint(p) for p in (picture, small, packed, picture // 2)], np.uint64)
    assert distances(prints[:1], prints).max() <= NEAR
    others = np.array([fingerprint(blotches(seed)) for seed in range(1, 30)], np.uint64)
    assert distances(prints[:1], others).min() > 2 * NEAR


@pytest.fixture(params=["NumPy 2", "NumPy 1"])
def numpy_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "NumPy 1":
        monkeypatch.delattr(np, "bitwise_count", raising=False)


@pytest.mark.usefixtures("numpy_of")
def test_distances_are_counted_bit_by_bit() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (20, 64)).astype(bool)
    prints = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    assert (distances(prints[:7], prints) == (bits[:7, None] != bits[None]).sum(2)).all()


def test_the_nearest_is_found_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_kd.pictures.likeness._BLOCK", 64)
    rng = np.random.default_rng(2)
    prints, others = (rng.integers(0, 2**63, n).astype(np.uint64) for n in (33, 20))
    others[5] = prints[30]
    index, bits = nearest(prints, others)
    assert (bits == distances(prints, others).min(1)).all() and (index == distances(prints, others).argmin(1)).all()
    assert index[30] == 5 and bits[30] == 0


def test_chains_join_what_hangs_together_by_short_steps() -> None:
    """0b0, 0b11, 0b1111 are a chain of steps of 2 although its ends differ in 4; the others stand alone."""
    prints = np.array([0b0, 0xFFFF << 20, 0b1111, 0b11, 0xFFFF << 40], np.uint64)
    assert chains(prints, 2).tolist() == [0, 1, 0, 0, 2]
    assert chains(prints, 1).tolist() == [0, 1, 2, 3, 4]
    assert chains(prints, 64).tolist() == [0] * 5
    assert chains(prints[:0], 2).tolist() == []
