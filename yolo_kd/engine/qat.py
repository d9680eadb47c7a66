"""Quantization-aware training: the student learns on the integer grid that it will run on.

In front of each convolution that `yolo-kd quantize` puts on integers, value = (code - zero) * scale with codes 0..255, and
weights are code * scale_o with codes -127..127 and a scale per output channel (Jacob et al. 2018, arXiv:1712.05877). Rounding
has no gradient, so the straight-through estimator takes 1 inside the range and 0 outside (Bengio et al. 2013,
arXiv:1308.3432). Which convolutions, and ranges from the mean of the extremes, are the defaults of the OpenVINO recipe. Not
imitated: sums of residual blocks, whose two inputs the runtime rounds as well, the products of attention, bias correction,
and the grids in front of activations, which only ONNX Runtime has.

**Batch norm stays as it is.** On the device it is folded into the weights, which multiplies output channel o by c_o = gamma_o
/ sigma_o. A symmetric grid with a scale per output channel goes along: the scale max|c w| / 127 is |c| times the old one, so
round(c w) = c round(w), and rounding the unfolded weights is rounding the folded ones. The running statistics are those of
the rounded net. (RepConv of v9, whose two branches become one convolution, is rounded in each branch: near it, not equal.)

Of torch only the two fake-quantize operators are used. NNCF 3.4 inserts modules: 548 further keys in the state of a YOLOv8n,
a model that cannot be pickled, and ranges that a plain checkpoint could not carry. torch.ao is being removed, torchao's pt2e
trains an exported graph instead of the model, and Ultralytics' own quantize=8 (NVIDIA ModelOpt) ends in ONNX for TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.distillers.base import ClassMap
from yolo_kd.engine import ultra
from yolo_kd.engine.evaluation import evaluate
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.samples import sample_batches
from yolo_kd.errors import MisuseError

RECIPE = OpenVINOSettings()
MOMENTUM = 0.03  # of the ranges; that of Ultralytics' batch norm, as they follow the same activations
START_BATCHES = 8  # that give the ranges of the first step
SMALLEST_SCALE = 2.0**-20  # of a tensor that is always 0, as in deploy.quantize.ranges


def round_weights(weight: Tensor) -> Tensor:
    """(O, ...) weights on a symmetric grid with a scale per output channel; the gradient goes straight through."""
    largest = weight.detach().abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest / 127, SMALLEST_SCALE)
    zero = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def round_activations(values: Tensor, low_high: Tensor) -> Tensor:
    """Values on 256 levels from low to high, widened to hold 0; the gradient is 1 inside the range and 0 outside."""
    low, high = low_high.clamp(max=0)[0], low_high.clamp(min=0)[1]
    scale = ((high - low) / 255).clamp(min=SMALLEST_SCALE)
    zero = (-low / scale).round().clamp(0, 255).int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)


def extremes(values: Tensor) -> Tensor:
    """(2,) mean over a batch of each image's smallest and largest value, as the recipe estimates ranges."""
    low, high = values.flatten(1).aminmax(dim=1)
    return torch.stack((low.mean(), high.mean()))


class FakeQuantization:
    """Ranges of a model's activations, and the hooks that round by them.

    The hooks are there while an epoch trains and while the EMA is validated, never while something is saved. Weights are
    not replaced: for the length of a convolution's forward pass its rounded weight hides the parameter.

    Args:
        layers: Names of the convolutions to round, in any copy of the model.
        device: Where the ranges live.
    """

    def __init__(self, layers: Iterable[str], device: torch.device | None = None) -> None:
        self.layers = tuple(layers)
        self.ranges = torch.zeros(len(self.layers), 2, device=device)
        self.seen = [0] * len(self.layers)
        self._handles: list[Any] = []

    def attach(self, model: nn.Module, observe: bool, rounds: bool = True) -> None:
        """Hook a model, and unhook the one before.

        Args:
            model: One with these layers.
            observe: Follow the activations with the ranges.
            rounds: Round; without it nothing but the ranges changes.
        """
        self.detach()
        for index, name in enumerate(self.layers):
            layer = model.get_submodule(name)
            enter = partial(self._enter, index, observe, rounds)
            self._handles.append(layer.register_forward_pre_hook(enter))
            self._handles.append(layer.register_forward_hook(_leave, always_call=True))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def on(self, model: nn.Module, observe: bool = False, rounds: bool = True) -> Iterator[None]:
        """Hook a model for a while; arguments as for `attach`."""
        self.attach(model, observe, rounds)
        try:
            yield
        finally:
            self.detach()

    def average(self) -> None:
        """Take the mean of all ranks' ranges, which see unlike pictures."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.ranges)
            self.ranges /= dist.get_world_size()

    def state(self) -> dict[str, Any]:
        """What the sidecar holds."""
        return {"layers": list(self.layers), "ranges": self.ranges.cpu().clone(), "seen": list(self.seen)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a sidecar's state.

        Raises:
            MisuseError: It is of another model.
        """
        if tuple(state["layers"]) != self.layers:
            raise MisuseError("the ranges beside the checkpoint are of another model; resume the last.pt of a run")
        self.ranges, self.seen = state["ranges"].to(self.ranges.device), list(state["seen"])

    def start(self, trainer: Any) -> None:
        """First ranges, unless they were restored, and what rounding costs the student as it is; random states stay."""
        student = trainer.ema.ema
        trainer.log(f"qat: {len(self.layers)} of {len(ultra.convolutions(student))} convolutions on 8 bits")
        if any(self.seen):
            return
        with preserved_rng(trainer.args.seed):
            with self.on(student, observe=True, rounds=False), torch.inference_mode():
                for batch in sample_batches(trainer, START_BATCHES):
                    student(batch["img"])
            self.average()
            exact = _precision(trainer, student, "student in float")
            with self.on(student):
                rounded = _precision(trainer, student, "student on 8 bits")
        if exact and rounded:
            trainer.log(
                f"qat: mAP50-95 on {trainer.args.split} before training {exact['mAP50-95']:.4f} in float, "
                f"{rounded['mAP50-95']:.4f} on 8 bits; validation of the epochs is on 8 bits"
            )

    def _enter(self, index: int, observe: bool, rounds: bool, layer: nn.Module, inputs: tuple[Tensor]) -> Any:
        values = inputs[0].float()  # under autocast they come in half precision, which is as coarse as the grid
        if observe or not self.seen[index]:
            self._observe(index, values.detach())
        if not rounds:
            return None
        layer.__dict__["weight"] = round_weights(layer.get_parameter("weight").float())
        return (round_activations(values, self.ranges[index]),)

    def _observe(self, index: int, values: Tensor) -> None:
        """Move the range towards this batch's: their mean at first, as post-training calibration has it."""
        self.seen[index] += 1
        found = extremes(values)
        share = max(1 / self.seen[index], MOMENTUM)
        moved = torch.lerp(self.ranges[index], found, share)
        self.ranges[index] = torch.where(moved.isfinite(), moved, self.ranges[index])


def _leave(layer: nn.Module, _inputs: Any, _output: Any) -> None:
    layer.__dict__.pop("weight", None)


def quantized_layers(model: nn.Module) -> list[str]:
    """Names of the convolutions of a student that `yolo-kd quantize` puts on integers by default."""
    return ultra.convolutions(model)[RECIPE.stem :]


def check_keys(keys: Mapping[str, Any]) -> None:
    """Refuse what fake quantization does not go with.

    Args:
        keys: Ultralytics' train keys.

    Raises:
        MisuseError: A student without training, or another quantization or distillation of Ultralytics' own.
    """
    for key in ("quantize", "distill_model"):
        if keys.get(key):
            raise MisuseError(f"qat=true and {key}={keys[key]}: Ultralytics' own and ours exclude each other; use one")
    model, pretrained = str(keys.get("model")), keys.get("pretrained", True)
    if not (isinstance(pretrained, str) or (model.endswith(".pt") and pretrained is not False)):
        raise MisuseError(
            f"qat=true: it fine-tunes, and student={model} would start from random weights; train it first, then name its "
            "best.pt as student= and train a few epochs at a small learning rate, e.g. optimizer=AdamW lr0=1e-4"
        )


def _precision(trainer: Any, student: nn.Module, label: str) -> dict[str, float] | None:
    every = torch.arange(len(trainer.data["names"]))
    predict = lambda img: ultra.read_outputs(student(img))  # noqa: E731
    return evaluate(trainer, predict, ultra.head_spec(student), ClassMap(every, every), label)
