"""A report with one candidate of each kind, for the tests of the page."""

from __future__ import annotations

import numpy as np

from yolo_kd.evidence.report import Pair, Report, Row

FLOAT = Row(
    "float", "openvino", "bf16", "as the runtime picks it", 0.3752, {"small": 0.181, "medium": 0.412, "large": 0.533},
    31.0, 33.5, 12.3, "float",
)  # fmt: skip
FLOAT32 = Row(
    "float32", "openvino", "f32", "precision=f32", 0.3760, {"small": 0.182, "medium": 0.412, "large": None}, 52.0, 55.0,
    12.3, "float",
)  # fmt: skip
INT8 = Row(
    "mixed", "openvino", "int8+bf16", "stem=1", 0.3731, {"small": 0.178, "medium": 0.410, "large": 0.531}, 20.0, 22.0, 3.4,
    "passed", (), True,
)  # fmt: skip
REJECTED = Row(
    "too coarse", "openvino", "int8+bf16", "stem=0", 0.35, {"small": 0.15, "medium": 0.40, "large": 0.51}, 19.6, 21.0, 3.3,
    "rejected", ("AP drops by 0.0252 (0.3752 to 0.3500), allowed 0.01",),
)  # fmt: skip
BROKEN = Row("entropy", "onnx", "int8", "", None, {}, None, None, 0.0, "failed", ("out of memory after 24 GiB",))

WAITED = Row(
    "float head",
    "openvino",
    "int8+bf16",
    "",
    0.3740,
    {},
    24.0,
    25.0,
    4.1,
    "not judged",
    ("mixed passed the gate first",),
)


def jpeg(colour: int) -> bytes:
    """A picture of 320 x 200 pixels."""
    import cv2

    return cv2.imencode(".jpg", np.full((200, 320, 3), colour, np.uint8))[1].tobytes()


def sample() -> Report:
    """Two floats, three candidates, layers, pictures, notes, facts."""
    shown = [
        Pair("000139.jpg", jpeg(80), jpeg(160), "disagree most", "2 boxes by both; only float: 1 × vase"),
        Pair("a name that is so long that it has to be broken " + "x" * 80 + ".jpg", jpeg(60), jpeg(200), "typical"),
    ]
    return Report(
        "yolov8n to INT8",
        {"machine": "some CPU", "instruction set": "avx512_vnni", "sha256": "0123456789abcdef" * 8},
        [FLOAT32, BROKEN, FLOAT, INT8, REJECTED],
        [("model.0.conv", 0.1212), ("model.22.cv2.0.2" + "/very/long" * 12, 0.04)],
        shown,
        ["times were taken under load"],
        0.01,
    )
