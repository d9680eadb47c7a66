"""A camera frame resized and padded to a net's input: one preprocessor for calibration, evaluation and the device.

The geometry is Ultralytics' (`LetterBox` with `auto=False`, `scale_boxes`): each side is rounded, the picture lies in the
middle, an odd line of padding goes to the right or to the bottom, and the padding is grey 114.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolo_kd.errors import MisuseError

PAD_VALUE = 114
LONGEST = 1 << 14  # pixels a side; an object of a larger picture is below one pixel of any net's input


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the net's input.

    Args:
        frame_hw: Height and width of the frame in pixels.
        inner_hw: Height and width of the resized frame in the net's input.
        top: First row of the resized frame.
        left: First column of the resized frame.
    """

    frame_hw: tuple[int, int]
    inner_hw: tuple[int, int]
    top: int
    left: int

    def to_frame(self, boxes_net: np.ndarray) -> np.ndarray:
        """(N, 4) xyxy in pixels of the net's input as float32 xyxy in pixels of the frame, clipped to it."""
        (height, width), (inner_h, inner_w) = self.frame_hw, self.inner_hw
        boxes = boxes_net.astype(np.float32)
        boxes[:, [0, 2]] = ((boxes[:, [0, 2]] - self.left) / (inner_w / width)).clip(0, width)
        boxes[:, [1, 3]] = ((boxes[:, [1, 3]] - self.top) / (inner_h / height)).clip(0, height)
        return boxes


def place(frame_hw: tuple[int, int], net_hw: tuple[int, int]) -> Placement:
    """Where a frame of one size lies in a net's input of another.

    >>> place((1080, 1920), (640, 640))
    Placement(frame_hw=(1080, 1920), inner_hw=(360, 640), top=140, left=0)
    """
    gain = min(net_hw[0] / frame_hw[0], net_hw[1] / frame_hw[1])
    inner = max(round(frame_hw[0] * gain), 1), max(round(frame_hw[1] * gain), 1)
    top, left = (round((net - own) / 2 - 0.1) for net, own in zip(net_hw, inner, strict=True))
    return Placement(frame_hw, inner, top, left)


class Letterbox:
    """Resizes frames into one buffer that is reused: each call overwrites what the last one returned.

    Args:
        net_hw: Height and width of the net's input in pixels.
        buffer: (H, W, 3) uint8 to write into, e.g. a part of a batch; its own if None.
    """

    def __init__(self, net_hw: tuple[int, int], buffer: np.ndarray | None = None) -> None:
        self.net_hw = net_hw
        self.buffer = np.empty((*net_hw, 3), np.uint8) if buffer is None else buffer
        self._words = np.empty((0, 0), np.uint32)
        self._lines = np.empty((0, 0), np.uint8)
        self._placement: Placement | None = None

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, Placement]:
        """The net's input (H, W, 3) uint8 in the frame's channel order, and where the frame lies in it.

        Args:
            frame: (H, W, 3) BGR or (H, W) or (H, W, 1) grey, uint8.

        Raises:
            MisuseError: Another shape or type.
        """
        import cv2

        frame = as_bgr(frame)
        placement = self._placement
        if placement is None or placement.frame_hw != frame.shape[:2]:
            placement = self._placement = place((frame.shape[0], frame.shape[1]), self.net_hw)
            self.buffer[:] = PAD_VALUE
        (height, width), top, left = placement.inner_hw, placement.top, placement.left
        inner = self.buffer[top : top + height, left : left + width]
        if frame.shape[:2] == placement.inner_hw:
            inner[:] = frame
        elif step := _odd_step(frame, placement.inner_hw):
            self._take_every(step, frame, inner)
        else:
            cv2.resize(frame, (width, height), dst=inner, interpolation=cv2.INTER_LINEAR)
        return self.buffer, placement

    def _take_every(self, step: int, frame: np.ndarray, inner: np.ndarray) -> None:
        """What INTER_LINEAR gives where each of its samples falls on a pixel's centre, in half of its time."""
        import cv2

        hw, row = inner.shape[:2], 3 * frame.shape[1]
        if self._lines.shape != (hw[0], row):
            self._words, self._lines = np.empty(hw, np.uint32), np.empty((hw[0], row), np.uint8)
        # whole lines first, as memory likes to be read; picking pixels out of the frame itself takes half as long again
        np.copyto(self._lines, frame.reshape(-1, row)[step // 2 :: step])
        # a pixel and one byte of its right neighbour: words are gathered several times faster than triples of bytes
        self._words[:] = np.ndarray(hw, np.uint32, self._lines.data, step // 2 * 3, (row, step * 3))
        cv2.cvtColor(self._words.view(np.uint8).reshape(*hw, 4), cv2.COLOR_BGRA2BGR, dst=inner)


def _odd_step(frame: np.ndarray, inner_hw: tuple[int, int]) -> int:
    """How many pixels of a contiguous frame one of the net's input spans, if that is 3, 5, 7, ... both ways; else 0.

    >>> _odd_step(np.empty((1080, 1920, 3), np.uint8), (360, 640))
    3
    """
    step, rest = divmod(frame.shape[0], inner_hw[0])
    exact = not rest and step % 2 == 1 and step > 1 and frame.shape[1] == step * inner_hw[1]
    return step if exact and frame.flags.c_contiguous else 0


def as_bgr(frame: np.ndarray) -> np.ndarray:
    """A frame as (H, W, 3) uint8.

    Raises:
        MisuseError: It is no such picture.
    """
    import cv2

    if not isinstance(frame, np.ndarray):
        raise MisuseError(f"frame: expected a numpy array (H, W, 3) of uint8, got {type(frame).__name__}")
    if frame.dtype != np.uint8:
        hint = "; scale 16-bit pictures to 0..255 first" if frame.dtype == np.uint16 else ""
        raise MisuseError(f"frame: expected uint8 pixels, got {frame.dtype}{hint}")
    channels = {2: 1, 3: frame.shape[-1]}.get(frame.ndim, 0)
    if channels not in (1, 3) or frame.size == 0:
        hint = "; convert BGRA with cv2.cvtColor, CMYK with Pillow" if channels == 4 else ""
        raise MisuseError(f"frame: expected (H, W, 3) in BGR or (H, W) in grey, got {frame.shape}{hint}")
    if max(frame.shape[:2]) > LONGEST:
        raise MisuseError(f"frame: expected at most {LONGEST} pixels a side, got {frame.shape}; cut it into tiles")
    return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if channels == 1 else frame
