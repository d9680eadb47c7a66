"""The shift of the mean that rounding the weights causes."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.quantize.bias import mean_shift


def test_by_hand() -> None:
    """Weights (.5, 1) rounded to (.4, 1.2) with input means (10, 1): .1 * 10 - .2 * 1 = .8."""
    weight, rounded = (np.array(w, np.float32).reshape(1, 2, 1, 1) for w in ([0.5, 1.0], [0.4, 1.2]))
    assert mean_shift(weight, rounded, np.array([10.0, 1.0])).tolist() == pytest.approx([0.8])


def convolve(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(O, ...) 1x1 convolution of (I, P) with groups where the weight has fewer inputs."""
    outputs, inputs = weight.shape[:2]
    groups = len(x) // inputs
    split = x.reshape(groups, inputs, -1)
    own = weight.reshape(groups, outputs // groups, inputs)
    return np.einsum("goi,gip->gop", own, split).reshape(outputs, -1)


@pytest.mark.parametrize(("outputs", "inputs", "channels"), [(6, 4, 4), (8, 1, 8), (6, 2, 6), (8, 1, 4)])
def test_the_mean_of_the_output_is_restored(outputs: int, inputs: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(outputs, inputs, 1, 1)).astype(np.float32)
    rounded = np.round(weight * 3) / 3
    x = rng.random((channels, 500)) + np.arange(channels)[:, None]
    shift = mean_shift(weight, rounded, x.mean(1))
    error = convolve(weight, x).mean(1) - convolve(rounded, x).mean(1)
    assert shift == pytest.approx(error, abs=1e-5) and np.abs(error).max() > 0.05
