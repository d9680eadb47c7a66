"""Bias correction: what rounding the weights moves in the mean is put back into the bias.

The output of channel o moves in the mean by sum_k (w_ok - r_ok) E[x_k] with rounded weights r (Nagel et al. 2019,
arXiv:1906.04721, section 4.2, with the mean taken from calibration images instead of batch-norm). Only the weights' part is
corrected. Matching the measured means of the whole net layer by layer, which corrects the activations' part as well, made
YOLO worse: clipped outliers move the mean, SiLU then hides them, and the correction shifts everything else.
"""

from __future__ import annotations

import numpy as np


def mean_shift(weight: np.ndarray, rounded: np.ndarray, input_mean: np.ndarray) -> np.ndarray:
    """(O,) what has to be added to the bias.

    Args:
        weight: (O, I / groups, kh, kw) float weights.
        rounded: The same after rounding.
        input_mean: (I,) mean of each input channel over images and positions; the border's padding is neglected.
    """
    per_input = (weight - rounded).sum((2, 3))  # (O, I / groups)
    outputs, inputs = per_input.shape
    groups = len(input_mean) // inputs
    means = np.repeat(input_mean.reshape(groups, inputs), outputs // groups, axis=0)
    return (per_input * means).sum(1).astype(np.float32)
