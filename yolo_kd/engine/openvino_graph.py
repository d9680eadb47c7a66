"""From a TeacherNet to an OpenVINO model: neck maps and raw head outputs, in float32 or with INT8 parts.

Plain NNCF INT8 is a noisy teacher. What made it less so, measured on COCO's YOLOv8-n, 64 mosaics of 384 px (relative
error of P3 / P4 / P5; plain .090 .159 .221, ours .036 .060 .084): neck and head stay in float, activation ranges are
means of quantiles of single images, biases are fully corrected, and the first two convolutions stay in float. More
images (256), the PERFORMANCE preset and SmoothQuant did not help.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolo_kd.engine import ultra
from yolo_kd.engine.heads import TeacherNet
from yolo_kd.errors import MisuseError

if TYPE_CHECKING:
    import openvino as ov

BACKBONE, ALL = "backbone", "all"
FLOAT_STEM = 2  # convolutions at full resolution that stay in float; skipping 4 was no better
OUTLIERS = 3e-5  # share of one image's activations cut off at either end; 1e-5 .105 and 1e-4 .089 at P5 against .084
EXAMPLE_HW = (64, 64)  # traced once at this size; the graph keeps batch, height and width open


def missing_packages(quantized: bool) -> list[str]:
    """Which of the packages that this needs are not installed."""
    wanted = ["openvino", "nncf"] if quantized else ["openvino"]
    return [name for name in wanted if importlib.util.find_spec(name) is None]


def require_packages(key: str, quantized: bool) -> None:
    """Stop with one line if a package is missing.

    Args:
        key: The user's key and value, for the message.
        quantized: Whether NNCF is needed too.

    Raises:
        MisuseError: It is.
    """
    if missing := missing_packages(quantized):
        raise MisuseError(f"{key}: {' and '.join(missing)} not installed; run: pip install yolo-kd[openvino]")


def convert(net: TeacherNet) -> ov.Model:
    """The net in float32 with open batch, height and width; inputs and outputs named, ops named by their part.

    The backbone is everything upstream of the maps that neck and head read: found in the graph, because friendly names
    lie (all activations are one shared module). Its ops are called `backbone/...`, all others `float/...`. The decoding
    of boxes hangs on no output and is gone.
    """
    with _quiet():
        import openvino as ov

    shape = (2, ultra.image_channels(net.model), *EXAMPLE_HW)
    tapped = _WithBackbone(net)
    with torch.no_grad(), _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.trace is deprecated; the frontend has nothing better for this yet
        example = torch.zeros(shape, device=next(net.parameters()).device)
        tapped(example)  # the head caches its anchors at the first call
        traced = torch.jit.trace(tapped, example, check_trace=False)
        model = ov.convert_model(traced, input=[ov.PartialShape([-1, shape[1], -1, -1])])
    names = net.output_names()
    taps = model.get_results()[len(names) :]
    backbone = _upstream([result.input_value(0).get_node() for result in taps])
    for result in taps:
        model.remove_result(result)
    for index, op in enumerate(model.get_ordered_ops()):
        part = "backbone" if op.get_name() in backbone else "float"
        op.set_friendly_name(f"{part}/{index}/{op.get_type_name()}")
    model.inputs[0].get_tensor().set_names({"images"})
    for output, name in zip(model.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    return model


def quantize(model: ov.Model, images: Tensor, part: str) -> ov.Model:
    """A copy with INT8 convolutions, weights and activations; the model given stays as it is.

    Args:
        model: What `convert` returned.
        images: (N, C, H, W) augmented training images in [0, 1].
        part: BACKBONE, or ALL for neck and head too.
    """
    with _quiet():
        import nncf
        from nncf.quantization import range_estimator as ranges

    convolutions = [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Convolution" and op.get_friendly_name().startswith("backbone/")
    ]

    def end() -> ranges.StatisticsCollectorParameters:
        kind, over_images = ranges.StatisticsType.QUANTILE, ranges.AggregatorType.MEAN
        return ranges.StatisticsCollectorParameters(kind, over_images, quantile_outlier_prob=OUTLIERS)

    samples = [
        image.numpy() for image in images.contiguous().split(1)
    ]  # one by one: every activation is kept meanwhile
    with _quiet():
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(
                names=convolutions[:FLOAT_STEM], patterns=["float/.*"] if part == BACKBONE else []
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParameters(min=end(), max=end())
            ),
        )


class _WithBackbone(nn.Module):
    """A net whose flat list goes on with the maps that its backbone hands to neck and head."""

    def __init__(self, net: TeacherNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, img: Tensor) -> list[Tensor]:
        taken: list[Tensor] = []
        handles = [
            layer.register_forward_hook(lambda _m, _inputs, output: taken.append(output))
            for layer in ultra.backbone_taps(self.net.model)
        ]
        try:
            return [*self.net(img), *taken]
        finally:
            for handle in handles:
                handle.remove()


def _upstream(nodes: Sequence[ov.Node]) -> set[str]:
    """Unique names of these nodes and of all that they are computed from."""
    seen: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return seen


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without NNCF's information lines and torch's remark that there is no CUDA."""
    loggers = [logging.getLogger("nncf"), logging.getLogger("torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
