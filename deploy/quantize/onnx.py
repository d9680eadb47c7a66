"""A float ONNX net into one that ONNX Runtime runs on integers (static QDQ).

The defaults were chosen by precision against the float net's own detections (COCO's YOLOv8n, 11n and 26n at 640 px, 96
calibration images, AP in %, 26n with the three weights already on an INT8 grid):

|                                              | v8n  | 11n  | 26n  |
|----------------------------------------------|------|------|------|
| smallest and largest value, all layers       | 88.8 | 92.4 | 87.7 |
| least squared error                          | 90.6 | 91.7 | 94.2 |
| ... of what comes after the activation       | 93.0 | 93.1 | 94.7 |
| ... and the head's last convolutions float   | 93.9 | 93.4 | 95.0 |
| ... and the first three convolutions float   | 94.6 | 95.2 | 95.2 |
| ... and mean-corrected biases                | 97.1 | 96.5 | 95.9 |

One scale per weight tensor instead of one per channel costs 5 to 13 of these points. Keeping the first layers in float costs
no speed: their maps are so large that quantizing them takes as long as it saves. int8 activations (`activations="s8"`) are as
good and far slower on x86, which has no instruction for them. The entropy calibrator of ONNX Runtime is not used: it keeps
every activation of every image.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from yolo_kd.deploy.quantize.bias import mean_shift
from yolo_kd.deploy.quantize.calibration import NetImages, Progress, check_size
from yolo_kd.deploy.quantize.equalize import equalize
from yolo_kd.deploy.quantize.onnx_graph import consumers, copy, input_hw, look_inside, producers, read_onnx, session
from yolo_kd.deploy.quantize.qdq import (
    SIGMOID_GRID,
    Weights,
    count,
    grid_tensors,
    insert,
    quantized_nodes,
    read_weights,
    room_for_bias,
    sharing,
)
from yolo_kd.deploy.quantize.ranges import (
    Function,
    Grid,
    Histogram,
    least_error,
    min_max,
    percentile,
    sigmoid,
    silu,
    weight_scales,
)
from yolo_kd.deploy.quantize.sensitivity import IMAGES, LayerError, rank
from yolo_kd.deploy.quantize.tail import Tail, decode_tail, of_onnx

from yolo_kd.errors import MisuseError, did_you_mean

if TYPE_CHECKING:
    from onnx import ModelProto

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "activations": ("u8", "s8"), "ranges": ("mse", "percentile", "minmax"), "weights": ("minmax", "mse"),
    "bias": ("fast", "none"), "head": ("float", "int8"),
}  # fmt: skip


@dataclass(frozen=True)
class ONNXSettings:
    """How to quantize.

    Args:
        activations: "u8" or "s8".
        per_channel: One weight scale per output channel instead of one per convolution.
        ranges: Of activations: "mse", "percentile" or "minmax".
        percent: What "percentile" keeps, in percent.
        weights: Range of weights: "minmax" or "mse".
        bias: "fast" corrects the mean that rounding the weights moves; "none".
        head: "float" keeps the last convolutions, whose outputs are the logits, in float; "int8".
        stem: Number of first convolutions that stay in float.
        float_layers: Names of more convolutions that stay in float.
        equalize: Equalize weights across layers first, where the activation allows it.
    """

    activations: str = "u8"
    per_channel: bool = True
    ranges: str = "mse"
    percent: float = 99.99
    weights: str = "mse"
    bias: str = "fast"
    head: str = "float"
    stem: int = 3
    float_layers: tuple[str, ...] = ()
    equalize: bool = False

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise MisuseError(f"{key}={getattr(self, key)}: expected one of {', '.join(known)}")
        if not 50 < self.percent <= 100:
            raise MisuseError(f"percent={self.percent}: expected more than 50 and at most 100, e.g. 99.99")
        if not (isinstance(self.stem, int) and self.stem >= 0):
            raise MisuseError(f"stem={self.stem}: expected a number of convolutions, 0 or more")


@dataclass(frozen=True)
class Seen:
    """What the calibration images showed.

    Args:
        histograms: By tensor.
        means: (C,) mean of each channel, of the tensors that convolutions read.
    """

    histograms: Mapping[str, Histogram]
    means: Mapping[str, np.ndarray]


class ONNXQuantizer:
    """One float net and its calibration images, which are looked at once for any number of INT8 nets.

    Args:
        path: The .onnx file.
        images: The calibration images, of the net's size.

    Raises:
        MisuseError: It is no detector, not static, or of another size.
    """

    settings = ONNXSettings

    def __init__(self, path: Path, images: NetImages) -> None:
        self._model, self._images = read_onnx(path), images
        check_size(input_hw(self._model, path), images.net_hw, path)
        decode_tail(*of_onnx(self._model))  # what is no float detector is refused before hours of calibration
        self._plain: _Looked | None = None
        self._equalized: _Looked | None = None

    def build(self, settings: ONNXSettings) -> ModelProto:
        """The INT8 net.

        Raises:
            MisuseError: A layer to keep in float that does not exist.
        """
        looked = self._looked(settings)
        return looked.build(settings, looked.chosen(settings))

    def sensitivity(
        self, settings: ONNXSettings, made: Path | None = None, progress: Progress | None = None
    ) -> list[LayerError]:
        """The convolutions that the settings quantize, with what each alone costs; the worst first.

        Args:
            settings: The recipe.
            made: The net that was saved, as OpenVINO needs it; a net with one layer on integers is soon made here.
            progress: Called with (step, done, total).
        """
        looked, few = self._looked(settings), list(islice(self._images, IMAGES))
        return rank(
            looked.chosen(settings),
            list(looked.heads(looked.model, few)),
            lambda layer: looked.heads(looked.build(settings, (layer,)), few),
            looked.tail.scores,
            progress,
        )

    def save(self, model: ModelProto, folder: Path, name: str) -> dict[str, int]:
        """Write a net that `build` made, with Ultralytics' metadata; returns how much of it runs on integers."""
        import onnx

        for entry in model.metadata_props:
            if entry.key == "args":
                entry.value = repr({**_literal(entry.value), "quantize": 8})
        onnx.save(model, folder / name)
        return count(model)

    def _looked(self, settings: ONNXSettings) -> _Looked:
        if not settings.equalize:
            self._plain = self._plain or _Looked(self._model, self._images)
            return self._plain
        if self._equalized is None:
            model = copy(self._model)
            if not equalize(model):
                raise MisuseError(
                    "equalize=true: no two convolutions of the net are joined by ReLU, LeakyReLU or nothing; SiLU, which "
                    "Ultralytics' models have, is not homogeneous; leave equalize= out"
                )
            self._equalized = _Looked(model, self._images)
        return self._equalized


class _Looked:
    """A float net with what its calibration images showed."""

    def __init__(self, model: ModelProto, images: NetImages) -> None:
        self.model = model
        self.tail: Tail = decode_tail(*of_onnx(model))
        self.convolutions = [
            node.output[0]
            for node in model.graph.node
            if node.op_type == "Conv" and node.output[0] not in self.tail.ops
        ]
        self.seen = _look(model, quantized_nodes(model, self.convolutions, self.tail.ops), images)
        self._made, self._read = producers(model), consumers(model)
        self._grids: dict[tuple[str, str, float], Grid] = {}

    def build(self, settings: ONNXSettings, chosen: Sequence[str]) -> ModelProto:
        """The net with these convolutions on integers."""
        nodes = quantized_nodes(self.model, chosen, self.tail.ops)
        grids = {name: self._grid(name, settings) for name in grid_tensors(nodes)}
        shared = sharing(nodes)
        weights: dict[str, Weights] = {}
        for name, (weight, bias) in read_weights(self.model, nodes).items():
            entry = nodes[name].input[0]
            weights[name] = _round(weight, bias, grids[shared.get(entry, entry)], self.seen.means[entry], settings)
        return insert(self.model, nodes, grids, weights, settings.activations == "s8")

    def chosen(self, settings: ONNXSettings) -> list[str]:
        """First outputs of the convolutions that the settings quantize."""
        names = {node.name: node.output[0] for node in self.model.graph.node if node.op_type == "Conv"}
        for layer in settings.float_layers:
            if layer not in names and layer not in self.convolutions:
                raise MisuseError(f"float_layers={layer}: the net has no such convolution{did_you_mean(layer, names)}")
        left = {names.get(layer, layer) for layer in settings.float_layers} | set(self.convolutions[: settings.stem])
        if settings.head == "float":
            left |= set(self.tail.entries)
        return [name for name in self.convolutions if name not in left]

    def heads(self, model: ModelProto, images: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """What the decode tail reads, for each image."""
        made = producers(model)
        read = [f"{name}/dq" if f"{name}/dq" in made else name for name in self.tail.entries]
        run, entry = session(model, read)
        for image in images:
            yield dict(zip(self.tail.entries, run.run(read, {entry: image}), strict=True))

    def _grid(self, tensor: str, settings: ONNXSettings) -> Grid:
        key = (tensor, settings.ranges, settings.percent)
        if key not in self._grids:
            self._grids[key] = self._make_grid(tensor, settings)
        return self._grids[key]

    def _make_grid(self, tensor: str, settings: ONNXSettings) -> Grid:
        if tensor in self._made and self._made[tensor].op_type == "Sigmoid":
            return SIGMOID_GRID
        seen = self.seen.histograms[tensor]
        if settings.ranges == "minmax":
            return min_max(seen)
        if settings.ranges == "percentile":
            return percentile(seen, settings.percent)
        return least_error(seen, self._reader(tensor))

    def _reader(self, tensor: str) -> Function | None:
        """The function that alone reads a tensor, if it is one that saturates."""
        if {node.op_type for node in self._read.get(tensor, ())} == {"Sigmoid", "Mul"}:
            return silu
        return sigmoid if tensor in self.tail.scores else None


def _round(
    weight: np.ndarray, bias: np.ndarray | None, entry: Grid, mean: np.ndarray, settings: ONNXSettings
) -> Weights:
    scales = weight_scales(weight, settings.per_channel, settings.weights == "mse")
    scales = room_for_bias(scales, bias, entry)
    column = scales.reshape(-1, 1, 1, 1)
    codes = np.clip(np.rint(weight / column), -127, 127).astype(np.int8)
    if settings.bias == "fast":
        shift = mean_shift(weight, codes * column, mean)
        bias = shift if bias is None else bias + shift
    return Weights(codes, scales, bias)


def _look(model: ModelProto, nodes: Mapping[str, Any], images: NetImages) -> Seen:
    made = producers(model)
    ranged = [n for n in grid_tensors(nodes) if not (n in made and made[n].op_type == "Sigmoid")]
    read = [node.input[0] for node in nodes.values() if node.op_type == "Conv"]
    histograms = {name: Histogram() for name in ranged}
    sums: dict[str, np.ndarray] = {}

    def see(name: str, values: np.ndarray) -> None:
        if name in histograms:
            histograms[name].add(values)
        if name in wanted:
            sums[name] = sums.get(name, 0) + values.mean((0, 2, 3), dtype=np.float64)

    wanted = set(read)
    look_inside(model, list(dict.fromkeys([*ranged, *read])), images, see)
    return Seen(histograms, {name: total / len(images) for name, total in sums.items()})


def _literal(text: str) -> dict[str, Any]:
    """The dict that a text spells; empty if it spells none."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    return found if isinstance(found, dict) else {}
