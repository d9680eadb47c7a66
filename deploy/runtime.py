"""A frame in, detections out: the whole of what a device runs, without torch.

The numbers are those of Ultralytics' `predict` on the same artifact: the same letterbox, threshold, suppression and
scaling back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
from yolo_kd.cfg.home import cache_home
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact, read_artifact
from yolo_kd.deploy.backends import Backend, Settings, load_backend
from yolo_kd.deploy.decode import check_shape, decode
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.letterbox import Letterbox, Placement
from yolo_kd.deploy.nms import nms
from yolo_kd.deploy.pipeline import in_order

from yolo_kd.errors import GateError, MisuseError, YoloKDError, did_you_mean

LOG = logging.getLogger("yolo_kd.deploy")
CACHE = "compiled"  # below the cache home


class Detector:
    """An open detector. One thread uses it at a time; a second one is refused, not served wrong boxes.

    Args:
        artifact: What the net takes, gives and is called.
        backend: The loaded net; closed with the detector.
        confidence: Boxes must score above it, in [0, 1].
        iou: Overlap above which the lower of two boxes of one class goes, in [0, 1]; no matter to an end-to-end net.
        max_detections: At most so many boxes a frame.
        classes: Ids or names to keep; all if None.
        multi_label: A cell may speak for several classes; for average precision, not for the field.

    Raises:
        MisuseError: A value out of range, or a net that is no detector of these classes.
    """

    def __init__(
        self,
        artifact: Artifact,
        backend: Backend,
        confidence: float = 0.25,
        iou: float = 0.7,
        max_detections: int = 300,
        classes: Iterable[int | str] | int | str | None = None,
        multi_label: bool = False,
    ) -> None:
        for key, share in (("confidence", confidence), ("iou", iou)):
            if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= float(share) <= 1:
                raise MisuseError(f"{key}={share}: expected a number from 0 to 1")
        if isinstance(max_detections, bool) or not isinstance(max_detections, int) or max_detections < 1:
            raise MisuseError(f"max_detections={max_detections}: expected a whole number of at least 1")
        self.artifact, self.backend = artifact, backend
        self.confidence, self.iou, self.max_detections = confidence, iou, max_detections
        self.multi_label = multi_label
        self._wanted = None if classes is None else _mask(artifact.names, classes)
        if backend.output_shape is not None:
            check_shape((1, *backend.output_shape[1:]), len(artifact.names), artifact.end2end)
        shape = (backend.batch, *artifact.input_hw, 3)
        self._canvases = [np.empty(shape, np.uint8) for _ in range(backend.slots)]
        self._letterboxes = [[Letterbox(artifact.input_hw, part) for part in canvas] for canvas in self._canvases]
        self._use = threading.Lock()
        self._closed = False

    def __call__(self, frame: np.ndarray) -> Detections:
        """What is on one frame.

        Args:
            frame: (H, W, 3) uint8 in BGR as OpenCV gives it, or (H, W) grey; any size.

        Raises:
            MisuseError: It is no such picture, or the detector was opened with batch above 1.
            YoloKDError: The net failed, or gave numbers that are not finite.
        """
        if self.backend.batch > 1:
            raise MisuseError(f"the detector was opened with batch={self.backend.batch}: use many(), or open it with 1")
        self._acquire()
        try:
            _, placement = self._letterboxes[0][0](frame)
            return self._detections(self.backend.run(self._canvases[0]), placement)
        finally:
            self._use.release()

    def many(self, frames: Iterable[np.ndarray]) -> Iterator[Detections]:
        """What is on each of many frames, in their order; several are under way at once in throughput mode.

        A frame must not change until its detections came. An error ends the iteration; frames under way then are lost.

        Raises:
            MisuseError: A frame is no picture.
            YoloKDError: The net failed, or gave no answer within `timeout_s`.
        """
        self._acquire()
        try:
            yield from in_order(frames, self.backend, self._start, self._detections)
        finally:
            self._use.release()

    def close(self) -> None:
        """Let go of the net; the detector cannot be used any more."""
        if not self._closed:
            self._closed = True
            self.backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_once(self) -> None:
        """Run noise: the runtime allocates what it needs, and a broken net shows before the first real frame."""
        batch, net_hw = self.backend.batch, self.artifact.input_hw
        noise = np.random.default_rng(0).integers(0, 256, (1, *net_hw, 3), np.uint8)
        raw = self.backend.run(np.repeat(noise, batch, axis=0))
        decode(raw[:1], len(self.artifact.names), self.confidence, self.artifact.end2end)
        if len(raw) != batch or not np.allclose(raw, raw[:1], rtol=0.05, atol=0.01):
            raise YoloKDError(
                f"batch={batch}: the same picture gives another result in each place of the batch; use batch=1, with "
                "mode=throughput where several frames are to be under way"
            )

    def _acquire(self) -> None:
        if self._closed:
            raise MisuseError("the detector is closed; open it again with open_detector")
        if not self._use.acquire(blocking=False):
            raise MisuseError("the detector is in use, by another thread or a many() that goes on; open one for each")

    def _start(self, slot: int, frames: Sequence[np.ndarray]) -> list[Placement]:
        """Letterbox up to a batch of frames into a slot's canvas and begin it."""
        placements = [box(frame)[1] for box, frame in zip(self._letterboxes[slot], frames)]
        self.backend.start(slot, self._canvases[slot])
        return placements

    def _detections(self, raw: np.ndarray, placement: Placement) -> Detections:
        names, most = self.artifact.names, self.max_detections
        boxes, scores, class_id = decode(raw, len(names), self.confidence, self.artifact.end2end, self.multi_label)
        if self._wanted is not None:
            kept = self._wanted[class_id]
            boxes, scores, class_id = boxes[kept], scores[kept], class_id[kept]
        if self.artifact.end2end:
            order = np.argsort(-scores, kind="stable")[:most]
        else:
            order = nms(boxes, scores, class_id, self.iou, most)
        return Detections(placement.to_frame(boxes[order]), scores[order], class_id[order], names, placement.frame_hw)


def open_detector(
    source: str | Path | Artifact,
    device: str = "CPU",
    confidence: float = 0.25,
    iou: float = 0.7,
    max_detections: int = 300,
    mode: str = "latency",
    threads: int | None = None,
    precision: str | None = None,
    classes: Iterable[int | str] | int | str | None = None,
    allow_rejected: bool = False,
    cache: str | Path | bool = True,
    timeout_s: float = 10.0,
    batch: int = 1,
    multi_label: bool = False,
) -> Detector:
    """Check an artifact, load it, run it once.

    Args:
        source: An artifact's folder, a folder or .onnx file that Ultralytics exported, or an artifact already read.
        device: "CPU", "GPU", "GPU.1", "NPU" or "AUTO" with OpenVINO; with ONNX Runtime "CPU" or a provider's name.
        confidence: Boxes must score above it.
        iou: Overlap above which the lower of two boxes of one class goes.
        max_detections: At most so many boxes a frame.
        mode: "latency", or "throughput" for `many` with several frames under way.
        threads: CPU threads in all; None takes what was fastest where the artifact was chosen, on a CPU of that name in that
            mode and precision, and lets the runtime choose elsewhere.
        precision: "f32", "bf16" or "f16" for what is not INT8; None likewise, but in either mode and with any threads.
        classes: Ids or names to keep; all if None.
        allow_rejected: Load an artifact that the gate rejected.
        cache: Folder for nets compiled by OpenVINO; true is `compiled` in the cache home, false none.
        timeout_s: How long `many` waits for one request before it counts as hung.
        batch: Frames per request in `many`.
        multi_label: A cell may speak for several classes; for average precision, not for the field.

    Raises:
        GateError: A file is not the one that was judged, or the gate rejected the artifact.
        MisuseError: The source, a value, a device or a package is not there or not usable.
        YoloKDError: The device cannot run the net as asked, or the net gives numbers that are not finite.
    """
    artifact = source if isinstance(source, Artifact) else read_artifact(source)
    _check_verdict(artifact, allow_rejected)
    artifact.check_files()
    folder = cache_home() / CACHE if cache is True else Path(cache) if cache else None
    if precision is None:
        fastest, precision = _chosen_here(artifact, device, mode)
        threads = fastest if threads is None else threads
    backend = load_backend(artifact, Settings(device, mode, threads, precision, batch, folder, timeout_s))
    try:
        detector = Detector(artifact, backend, confidence, iou, max_detections, classes, multi_label)
        detector._try_once()
    except BaseException:
        backend.close()
        raise
    LOG.info("%s runs on %s in %s", artifact.folder.name, backend.device, backend.precision)
    return detector


def _check_verdict(artifact: Artifact, allow_rejected: bool) -> None:
    verdict = artifact.verdict
    if verdict is None or verdict.passed:
        return
    why = "; ".join(verdict.reasons) or "no reason given"
    if not allow_rejected:
        raise GateError(
            f"{artifact.folder.name}: rejected by the gate ({why}); allow_rejected=true loads it all the same"
        )
    LOG.warning("%s: was rejected by the gate (%s) and is used all the same", artifact.folder.name, why)


def _chosen_here(artifact: Artifact, device: str, mode: str) -> tuple[int | None, str | None]:
    """Threads and precision that were the fastest when the artifact was chosen, if that was on a CPU like this one.

    Threads are those of one mode: what serves one frame soonest is not what serves most frames. The precision decides what
    the net says too, and the gate judged it with this one, so it stays in either mode, and whatever threads are asked for.
    """
    found = artifact.facts.get("runtime")
    if not isinstance(found, Mapping) or device.upper() != "CPU" or found.get("cpu") != machine.model_name():
        return None, None
    threads, precision = found.get("threads") if found.get("target") == mode else None, found.get("precision")
    threads = min(threads, machine.cores()) if isinstance(threads, int) else None
    return threads, precision if isinstance(precision, str) else None


def _mask(names: Mapping[int, str], classes: Iterable[int | str] | int | str) -> np.ndarray:
    """(classes of the net,) bool: which are wanted."""
    by_name = {name: index for index, name in names.items()}
    mask = np.zeros(len(names), bool)
    for one in [classes] if isinstance(classes, str) or not isinstance(classes, Iterable) else classes:
        index = by_name.get(one, -1) if isinstance(one, str) else one
        if isinstance(index, bool | float) or index not in names:
            hint = did_you_mean(one, by_name) if isinstance(one, str) else f", its ids are 0 to {len(names) - 1}"
            raise MisuseError(f"classes: the net has no class {one}{hint}")
        mask[index] = True
    if not mask.any():
        raise MisuseError(
            "classes: expected at least one class, found none, which would never detect anything; None takes all"
        )
    return mask
