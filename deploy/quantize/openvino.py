"""A float OpenVINO net into an INT8 one, by NNCF, with the decode tail in float.

NNCF puts FakeQuantize in front of convolutions and leaves activations between in float, so less is lost than with ONNX
Runtime, and the range that the next convolution reads is all that has to be chosen.

The defaults were chosen on coco128's training pictures, calibrated on one half and measured on the other, both ways (COCO's
YOLOv8n at 640 px, AP of the 128 together; the student of a thermal drone data set at 320 px on its val part):

|                                                     | coco128 | drone |
|-----------------------------------------------------|---------|-------|
| float                                               | .4697   | .1062 |
| mean of the extremes, all layers (the default)      | .4703   | .1054 |
| mean of the extremes, first three convolutions float| .4658   | .1055 |
| ... and the head's last convolutions float          | .4688   | .1053 |
| quantiles without 3e-5, first three float           | .4652   | .1053 |
| quantiles without 1e-5, first three float           | .4671   | .1061 |
| extremes, first three float                         | .4711   | .1058 |

Differences of some thousandths are noise on so few pictures; what the table shows is that nothing beats the plain choice.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from yolo_kd.deploy.artifact import METADATA
from yolo_kd.deploy.quantize.calibration import NetImages, Progress, check_size
from yolo_kd.deploy.quantize.openvino_graph import CONVOLUTIONS, alone, outputs_at, quantized_layers
from yolo_kd.deploy.quantize.sensitivity import IMAGES, LayerError, rank
from yolo_kd.deploy.quantize.staging import require_room
from yolo_kd.deploy.quantize.tail import Tail, decode_tail, of_openvino

from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

if TYPE_CHECKING:
    import openvino as ov

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "preset": ("mixed", "performance"), "bias": ("fast", "full", "none"), "ranges": ("quantile", "mean", "minmax"),
    "head": ("float", "int8"),
}  # fmt: skip


@dataclass(frozen=True)
class OpenVINOSettings:
    """How to quantize.

    Args:
        preset: "mixed" has asymmetric activations, "performance" symmetric ones.
        bias: "full" corrects each bias with the net before it as it is then, on the first fifth of the pictures, "fast" each
            on its own, on all of them, "none".
        ranges: Of activations: "quantile" is the mean over images of the quantiles that leave `outliers` outside at either
            end, "mean" the mean of the extremes, "minmax" the extremes.
        outliers: Share of values, for "quantile".
        head: "float" keeps the last convolutions, whose outputs are the logits, in float; "int8".
        stem: Number of first convolutions that stay in float.
        float_layers: Names of more convolutions that stay in float.
        seed: Of Python's and NumPy's generators while NNCF runs.
    """

    preset: str = "mixed"
    bias: str = "full"
    ranges: str = "mean"
    outliers: float = 3e-5
    head: str = "int8"
    stem: int = 0
    float_layers: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise MisuseError(f"{key}={getattr(self, key)}: expected one of {', '.join(known)}")
        if not 0 < self.outliers < 0.5:
            raise MisuseError(f"outliers={self.outliers}: expected a share above 0 and below .5, e.g. 3e-5")
        if not (isinstance(self.stem, int) and self.stem >= 0):
            raise MisuseError(f"stem={self.stem}: expected a number of convolutions, 0 or more")


def read_openvino(path: Path) -> ov.Model:
    """A net with a friendly name of its own for every operation.

    Raises:
        MisuseError: A package is missing, or the file is damaged.
    """
    with _quiet():
        try:
            import nncf  # noqa: F401  # needed soon after; better said now
            import openvino as ov
        except ImportError as error:
            raise MisuseError(f'{error.name} is not installed; run: pip install "yolo-kd[openvino]"') from None
        try:
            model = ov.Core().read_model(path)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-120:]
            raise MisuseError(
                f"{path}: not a readable OpenVINO net ({reason}); export it with yolo-kd export format=openvino"
            ) from None
    seen: set[str] = set()
    for op in model.get_ordered_ops():
        name = op.get_friendly_name()
        if name in seen:
            op.set_friendly_name(name := f"{name}/{len(seen)}")
        seen.add(name)
    return model


def input_hw(model: ov.Model, path: Path) -> tuple[int, int]:
    """Height and width of the net's input.

    Raises:
        MisuseError: It is not a static (1, 3, H, W).
    """
    shape = model.inputs[0].partial_shape
    if shape.is_dynamic or len(shape) != 4 or tuple(shape.to_shape())[:2] != (1, 3):
        raise MisuseError(f"{path}: expected one static input (1, 3, height, width), found {shape}")
    _, _, height, width = shape.to_shape()
    return height, width


class OpenVINOQuantizer:
    """One float net and its calibration images, for any number of INT8 nets.

    NNCF goes through the images several times and has progress bars of its own, which show if the images' progress does.

    Args:
        path: The .xml file.
        images: The calibration images, of the net's size.

    Raises:
        MisuseError: It is no detector, not static, or of another size.
    """

    settings = OpenVINOSettings

    def __init__(self, path: Path, images: NetImages) -> None:
        self.model = read_openvino(path)
        check_size(input_hw(self.model, path), images.net_hw, path)
        self._images, self._show = replace(images, progress=None), images.progress is not None
        self._metadata = path.with_name(METADATA)
        ops, outputs = of_openvino(self.model)
        self.tail: Tail = decode_tail(ops, outputs)
        by_name = {op.name: op for op in ops}
        entries = {e: e if by_name[e].type in CONVOLUTIONS else by_name[e].inputs[0] for e in self.tail.entries}
        self.head = tuple(entries.values())
        self.convolutions = [op.name for op in ops if op.type in CONVOLUTIONS and op.name not in self.tail.ops]

    def build(self, settings: OpenVINOSettings) -> ov.Model:
        """The INT8 net.

        Raises:
            MisuseError: A layer to keep in float that does not exist.
            YoloKDError: NNCF failed.
        """
        with _quiet(not self._show):
            import nncf

        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=settings.bias == "none")
        if settings.ranges != "mean":
            advanced.activations_range_estimator_params = _ranges(settings)
        presets = {"mixed": nncf.QuantizationPreset.MIXED, "performance": nncf.QuantizationPreset.PERFORMANCE}
        with _quiet(not self._show), _own_random_state(settings.seed):
            try:
                return nncf.quantize(
                    self.model.clone(),
                    nncf.Dataset(self._images),
                    preset=presets[settings.preset],
                    subset_size=len(self._images),
                    fast_bias_correction=settings.bias != "full",
                    ignored_scope=nncf.IgnoredScope(names=sorted(self.tail.ops) + self._left(settings)),
                    advanced_parameters=advanced,
                )
            except (RuntimeError, nncf.ValidationError) as error:
                reason = " ".join(str(error).split())[:200]
                raise YoloKDError(f"NNCF could not quantize the net: {reason}") from error

    def sensitivity(self, settings: OpenVINOSettings, made: Path, progress: Progress | None = None) -> list[LayerError]:
        """The convolutions that an INT8 net has on integers, with what each alone costs; the worst first.

        Args:
            settings: The recipe; what it came to is read from the net, because NNCF takes minutes to make one.
            made: The net that was saved.
            progress: Called with (step, done, total).
        """
        quantized, few = read_openvino(made), list(islice(self._images, IMAGES))
        return rank(
            quantized_layers(quantized),
            list(outputs_at(self.model, self.tail.entries, few)),
            lambda layer: outputs_at(alone(quantized, self.model, layer), self.tail.entries, few),
            self.tail.scores,
            progress,
        )

    def save(self, model: ov.Model, folder: Path, name: str) -> dict[str, int]:
        """Write a net that `build` made, with Ultralytics' metadata; returns how much of it runs on integers."""
        _write(model, folder / name)
        found = yaml.safe_load(self._metadata.read_text(encoding="utf-8"))
        found["args"] = {**(found.get("args") or {}), "quantize": 8}
        text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True)
        (folder / METADATA).write_text(text, encoding="utf-8")
        kinds = [op.get_type_name() for op in model.get_ordered_ops()]
        integers = len(quantized_layers(model))
        return {
            "int8_convolutions": integers,
            "float_convolutions": sum(kind in CONVOLUTIONS for kind in kinds) - integers,
            "fake_quantize_nodes": kinds.count("FakeQuantize"),
        }

    def _left(self, settings: OpenVINOSettings) -> list[str]:
        """Convolutions that stay in float."""
        for layer in settings.float_layers:
            if layer not in self.convolutions:
                near = did_you_mean(layer, self.convolutions)
                raise MisuseError(f"float_layers={layer}: the net has no such convolution{near}")
        left = {*settings.float_layers, *self.convolutions[: settings.stem]}
        if settings.head == "float":
            left |= set(self.head)
        return sorted(left)


def _write(model: ov.Model, path: Path) -> None:
    """Save a net, and make sure that it was.

    Raises:
        OSError: As the disk has it: OpenVINO's own words say neither what is wrong nor where.
        YoloKDError: The disk is not the reason.
    """
    import openvino as ov

    try:
        ov.save_model(model, path, compress_to_fp16=False)
        read_openvino(path)  # some faults of a disk go unnoticed until somebody reads the file
    except (RuntimeError, MisuseError) as error:
        require_room(path.parent)
        reason = " ".join(str(error).split())[:200]
        raise YoloKDError(f"{path.name}: OpenVINO could not write the net: {reason}") from error


def _ranges(settings: OpenVINOSettings) -> Any:
    from nncf.quantization import range_estimator as estimator

    if settings.ranges == "minmax":
        return estimator.RangeEstimatorParametersSet.MINMAX

    def end() -> Any:
        return estimator.StatisticsCollectorParameters(
            estimator.StatisticsType.QUANTILE, estimator.AggregatorType.MEAN, quantile_outlier_prob=settings.outliers
        )

    return estimator.RangeEstimatorParameters(min=end(), max=end())


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Python's and NumPy's generators seeded inside, and afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _quiet(bars: bool = True) -> Iterator[None]:
    """Without NNCF's information lines, torch's remark that there is no CUDA, and, if `bars`, without progress bars."""
    loggers = [logging.getLogger("nncf"), logging.getLogger("torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()) if bars else contextlib.nullcontext():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
