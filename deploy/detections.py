"""What a detector says about one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_kd.errors import MisuseError


@dataclass(frozen=True, eq=False)
class Detections:
    """N boxes on one frame, highest confidence first.

    Args:
        xyxy: (N, 4) float32 corners in pixels of the original frame, inside it.
        confidence: (N,) float32 in [0, 1].
        class_id: (N,) int64.
        names: Class id to name, of all classes of the model.
        size_hw: Height and width of the original frame in pixels.
    """

    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    names: Mapping[int, str]
    size_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.xyxy)

    def __iter__(self) -> Iterator[tuple[np.ndarray, float, int, str]]:
        """(xyxy, confidence, class id, name) of each box."""
        for box, confidence, index in zip(self.xyxy, self.confidence, self.class_id, strict=True):
            yield box, float(confidence), int(index), self.names[int(index)]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`.

        Raises:
            MisuseError: That package is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise MisuseError("supervision is not installed; run: pip install supervision") from None

        names = np.array([self.names[int(i)] for i in self.class_id], dtype=object)
        return supervision.Detections(
            xyxy=self.xyxy, confidence=self.confidence, class_id=self.class_id, data={"class_name": names}
        )
