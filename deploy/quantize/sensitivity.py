"""Which layers cost precision when they are quantized, and how many of them have to go back to float.

A layer's error is that of the head's outputs when it alone is quantized. Class logits are compared as probabilities, boxes
where there is an object, so errors of the background do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from yolo_kd.deploy.quantize.calibration import Progress
from yolo_kd.deploy.quantize.ranges import sigmoid

Entries = Mapping[str, np.ndarray]
Net = TypeVar("Net")
IMAGES = 8  # two sets of 8 agree about the first places; more only makes it slower


@dataclass(frozen=True)
class LayerError:
    """What quantizing one layer alone does.

    Args:
        layer: Its name.
        error: Relative error of the head's outputs, as `head_error` has it.
    """

    layer: str
    error: float


@dataclass(frozen=True)
class Restored(Generic[Net]):
    """A net that loses no more than allowed, or the best there was.

    Args:
        net: The net.
        layers: Convolutions that went back to float.
        metric: What was measured of it.
        tried: (layers in float, metric) of each attempt, in order.
        enough: Whether the metric is within the limit.
    """

    net: Net
    layers: tuple[str, ...]
    metric: float
    tried: tuple[tuple[int, float], ...]
    enough: bool


def head_error(wanted: Entries, found: Entries, scores: Collection[str]) -> float:
    """Mean over the head's outputs of their relative L2 error.

    Args:
        wanted: (1, C, H, W) by name, of the float net.
        found: The same of another.
        scores: Names of those that are class logits; boxes of equal H and W are weighted by their highest probability.
    """
    weights = {wanted[name].shape[2:]: sigmoid(wanted[name]).max(1, keepdims=True) for name in scores}
    errors = []
    for name, values in wanted.items():
        if name in scores:
            true, other = sigmoid(values), sigmoid(found[name])
        else:
            weight = weights.get(values.shape[2:], 1.0)
            true, other = values * weight, found[name] * weight
        errors.append(float(np.linalg.norm(other - true) / max(float(np.linalg.norm(true)), 1e-9)))
    return float(np.mean(errors))


def rank(
    layers: Sequence[str],
    wanted: Sequence[Entries],
    alone: Callable[[str], Iterable[Entries]],
    scores: Collection[str],
    progress: Progress | None = None,
) -> list[LayerError]:
    """The layers with their errors, largest first.

    Args:
        layers: Names.
        wanted: Head outputs of the float net, by image.
        alone: Head outputs by image of the net in which one layer alone is quantized.
        scores: Names of the outputs that are class logits.
        progress: Called with ("sensitivity of layers", done, total).
    """
    rows = []
    for i, layer in enumerate(layers):
        errors = [head_error(a, b, scores) for a, b in zip(wanted, alone(layer), strict=True)]
        rows.append(LayerError(layer, float(np.mean(errors))))
        if progress is not None:
            progress("sensitivity of layers", i + 1, len(layers))
    return sorted(rows, key=lambda row: (-row.error, row.layer))


def accuracy_aware(
    ranking: Sequence[LayerError],
    make: Callable[[tuple[str, ...]], Net],
    measure: Callable[[Net], float],
    target: float,
    max_drop: float,
    least: int = 0,
) -> Restored[Net]:
    """Put the most sensitive layers back into float, 0, 1, 2, 4, 8, ... of them, until the metric is good enough.

    With `least` at 0, a plain net that is good enough is returned and nothing else is made.

    Args:
        ranking: Most sensitive first.
        make: The net with these layers in float.
        measure: Its metric, higher is better, on held-out images.
        target: Metric of the float net.
        max_drop: How much may be lost, absolute.
        least: Layers that go back in any case: 1 where the plain net is known to fall short elsewhere.
    """
    counts = [0, *(2**i for i in range(len(ranking).bit_length()) if 2**i < len(ranking)), len(ranking)]
    counts = [count for count in counts if count >= min(least, len(ranking))]
    best: Restored[Net] | None = None
    tried: list[tuple[int, float]] = []
    for count in dict.fromkeys(counts):
        layers = tuple(row.layer for row in ranking[:count])
        net = make(layers)
        metric = measure(net)
        tried.append((count, metric))
        if best is None or metric > best.metric:
            best = Restored(net, layers, metric, tuple(tried), target - metric <= max_drop)
        if target - metric <= max_drop:
            return Restored(net, layers, metric, tuple(tried), True)
    assert best is not None  # all layers are always among the counts
    return Restored(best.net, best.layers, best.metric, tuple(tried), False)
