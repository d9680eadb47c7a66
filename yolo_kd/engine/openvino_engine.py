"""The teacher as an OpenVINO net with static shapes on the CPU.

The batch size is fixed: shorter batches are padded and cut, longer ones run in pieces. Another height or width
(multi-scale, rect) is compiled when it first comes, and the last few stay compiled.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yolo_kd.deploy.machine import has_bf16
from yolo_kd.engine import openvino_graph as graph
from yolo_kd.engine.heads import TeacherNet
from yolo_kd.engine.ir_cache import IRCache
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.errors import YoloKDError

if TYPE_CHECKING:
    import openvino as ov

COMPILED_SHAPES = 4  # each holds its own packed weights: 90 to 175 MB for YOLOv8-L
GRAPH_VERSION = 1  # part of every cache key; raise it when convert or quantize give another graph


@dataclass(frozen=True)
class Variant:
    """How a teacher runs in OpenVINO.

    Args:
        precision: Of everything that is not INT8: "bf16", "f32", or "half" (bf16 where the CPU has it).
        int8: The part in INT8: `openvino_graph.BACKBONE`, `ALL` or None.
    """

    precision: str
    int8: str | None = None

    @property
    def inference_precision(self) -> str:
        """OpenVINO's precision hint on this CPU."""
        if self.precision == "half":
            return "bf16" if has_bf16() else "f32"
        return self.precision


VARIANTS: Mapping[str, Variant] = {
    "openvino-fp32": Variant("f32"),
    "openvino-bf16": Variant("bf16"),
    "openvino-int8": Variant("half", graph.BACKBONE),
    "openvino-int8-all": Variant("half", graph.ALL),
}


class OpenVINOEngine:
    """Runs an OpenVINO model of a teacher; call it with images (B, C, H, W) in [0, 1].

    Args:
        model: From `openvino_graph.convert` or `quantize`; batch, height and width open.
        precision: "bf16" or "f32", of everything that is not INT8.
        shape: (B, C, H, W) to compile now; B stays.
        log: Receives one line for each further shape.

    Raises:
        YoloKDError: OpenVINO would run another precision than asked.
    """

    def __init__(
        self, model: ov.Model, precision: str, shape: tuple[int, int, int, int], log: Callable[[str], None]
    ) -> None:
        self.model, self.precision, self.log = model, precision, log
        self.batch = shape[0]
        self.outputs = len(model.outputs)
        self._requests: OrderedDict[tuple[int, int], ov.InferRequest] = OrderedDict()
        self._requests[shape[2:]] = self._compile(shape)

    def __call__(self, img: Tensor) -> list[Tensor]:
        """The flat list of raw outputs in float32; the memory is the caller's."""
        request = self._request(tuple(img.shape))
        img = img.detach().to("cpu", torch.float32).contiguous(memory_format=torch.channels_last)
        parts = [self._infer(request, piece) for piece in img.split(self.batch)]
        return parts[0] if len(parts) == 1 else [torch.cat(pieces) for pieces in zip(*parts, strict=True)]

    def _infer(self, request: ov.InferRequest, img: Tensor) -> list[Tensor]:
        count = len(img)
        if count < self.batch:
            img = torch.cat((img, img.new_zeros(self.batch - count, *img.shape[1:])))
        # The input is read in place. Outputs are copied: the request overwrites its own at the next call (43 MB of
        # YOLOv8-L at 320 px, batch 16: 10 ms of 1.5 s).
        found = request.infer([img.permute(0, 2, 3, 1).numpy()], share_inputs=True, share_outputs=False)
        flat = (torch.from_numpy(found[i])[:count] for i in range(self.outputs))
        return [t.permute(0, 3, 1, 2) if t.ndim == 4 else t for t in flat]

    def _request(self, shape: tuple[int, ...]) -> ov.InferRequest:
        size = (shape[2], shape[3])
        if size not in self._requests:
            self._requests[size] = self._compile((self.batch, shape[1], *size))
            self.log(f"teacher engine: compiled for {size[0]}x{size[1]} px, batch {self.batch}")
            if len(self._requests) > COMPILED_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(size)
        return self._requests[size]

    def _compile(self, shape: tuple[int, int, int, int]) -> ov.InferRequest:
        import openvino as ov

        model = self.model.clone()
        model.reshape(list(shape))
        model = channels_last(model)
        # One request over the threads that torch uses, waited for: running it in the background beside the student's
        # forward pass made a step 1.17 times slower (1.305 s for 1.117 s; OpenMP's threads spin while they wait, and with
        # OMP_WAIT_POLICY=PASSIVE it was a tie, 1.193 s for 1.205 s). Pinning is off: two runs on one machine would share a core while
        # others idle (seen: 1.4 times the wall time of a run beside others).
        compiled = ov.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": self.precision,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,
            },
        )
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != self.precision:
            raise YoloKDError(f"OpenVINO runs {found} on this CPU, asked for {self.precision}; use teacher_engine=auto")
        return compiled.create_infer_request()


def channels_last(model: ov.Model) -> ov.Model:
    """The model with its images and maps laid out as B, H, W, C, as the student has them: no side converts for the other.

    The outputs (B, C, A) of the head stay.
    """
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    for index, output in enumerate(model.outputs):
        if len(output.partial_shape) == 4:
            steps.output(index).tensor().set_layout(Layout("NHWC"))
            steps.output(index).model().set_layout(Layout("NCHW"))
    return steps.build()


@dataclass(frozen=True)
class Builder:
    """Builds engines of one teacher, converting and quantizing once.

    Args:
        net: The teacher's net in float32.
        sha256: Hash of its checkpoint.
        shape: (B, C, H, W) of a training batch.
        calibration: (N, C, H, W) augmented training images for INT8, in [0, 1].
        cache: Folder to keep converted models in.
        log: Receives single lines.
    """

    net: TeacherNet
    sha256: str
    shape: tuple[int, int, int, int]
    calibration: Tensor
    cache: Path
    log: Callable[[str], None]

    def build(self, name: str) -> OpenVINOEngine:
        """The engine of that name in VARIANTS; random states and torch's threads stay as they are.

        Raises:
            MisuseError: A package is missing.
            YoloKDError: OpenVINO or NNCF failed.
        """
        variant = VARIANTS[name]
        graph.require_packages(f"teacher_engine={name}", variant.int8 is not None)
        threads = torch.get_num_threads()
        try:
            with preserved_rng():
                return OpenVINOEngine(self._model(variant.int8), variant.inference_precision, self.shape, self.log)
        except YoloKDError:
            raise
        except Exception as error:  # OpenVINO and NNCF raise RuntimeError and many of their own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise YoloKDError(f"teacher_engine={name}: {type(error).__name__}: {reason}") from error
        finally:
            torch.set_num_threads(threads)

    def _model(self, int8: str | None) -> ov.Model:
        cache = IRCache(self.cache, self.log)
        key: dict[str, Any] = {
            "teacher": self.sha256,
            "graph": GRAPH_VERSION,
            "outputs": self.net.output_names(),
            "openvino": version("openvino"),
            "torch": torch.__version__,
        }
        start = self.sha256[:16]
        if int8 is None:
            return cache.get(f"{start}-float", key, lambda: graph.convert(self.net))
        key |= {"int8": int8, "nncf": version("nncf"), "calibration": images_digest(self.calibration)}
        return cache.get(f"{start}-int8-{int8}", key, lambda: self._quantized(int8))

    def _quantized(self, int8: str) -> ov.Model:
        self.log(
            f"teacher engine: quantizing ({int8}) on {len(self.calibration)} images, a few minutes for a large net"
        )
        return graph.quantize(self._model(None), self.calibration, int8)


def images_digest(images: Tensor) -> str:
    """SHA-256 of the pixels of (N, C, H, W) images and their shape, in hexadecimal."""
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().tobytes())
    return digest.hexdigest()
