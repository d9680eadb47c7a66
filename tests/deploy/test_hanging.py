"""Runs that fail reach the caller; runs that never end do so after a bound, and the process can still end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.backends import Settings, load_backend

from tests.deploy.tiny_nets import as_torch_has_it, canvas, onnx_net, openvino_net
from yolo_kd.errors import YoloKDError


class Broken:
    """A session whose runs fail, or never end."""

    def __init__(self, wait: Any = None) -> None:
        self.wait = wait

    def run(self, *_: object) -> list[np.ndarray]:
        if self.wait:
            self.wait.wait()
        raise RuntimeError("ran\nout of memory")


def test_a_failing_run_reaches_the_caller(tmp_path: Path) -> None:
    backend = load_backend(onnx_net(tmp_path), Settings())
    working, backend._session = backend._session, Broken()
    backend.start(0, canvas())
    with pytest.raises(YoloKDError, match="ONNX Runtime failed on CPU: ran out of memory"):
        backend.wait(0)
    with pytest.raises(YoloKDError, match="ran out of memory"):
        backend.infer(canvas())
    backend._session = working
    backend.start(0, canvas())
    assert np.array_equal(backend.wait(0)[:, :3], as_torch_has_it(canvas()))


def test_a_run_that_hangs_ends_with_a_line(tmp_path: Path) -> None:
    from threading import Event

    backend, release = load_backend(onnx_net(tmp_path), Settings(timeout_s=0.2)), Event()
    backend._session = Broken(release)
    backend.start(0, canvas())
    for use in (lambda: backend.wait(0), lambda: backend.wait(0), lambda: backend.infer(canvas())):
        with pytest.raises(YoloKDError, match=r"no answer on CPU within 0\.2 s and counts as hung"):
            use()
    backend.close()
    release.set()


HANGING = """
import sys, threading
import numpy as np, openvino
from openvino import opset13 as ops
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.backends import Settings, load_backend
from yolo_kd.errors import YoloKDError

class Never(openvino.Op):
    def __init__(self, inputs=None):
        super().__init__(self)
        if inputs is not None:
            self.set_arguments(inputs)
            self.constructor_validate_and_infer_types()
    def validate_and_infer_types(self):
        self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))
    def clone_with_new_inputs(self, inputs):
        return Never(inputs)
    def has_evaluate(self):
        return True
    def evaluate(self, outputs, inputs):
        threading.Event().wait()

backend = load_backend(read_artifact(sys.argv[1]), Settings(mode="throughput", timeout_s=0.3))
given = ops.parameter([1, 4], np.float32)
hanging = openvino.Core().compile_model(openvino.Model([ops.result(Never([given]))], [given], "never"), "CPU")
backend._requests = [hanging.create_infer_request() for _ in backend._requests]
backend._compiled = hanging
del hanging
backend.start(0, np.zeros((1, 16, 32, 3), np.uint8))
for _ in range(2):
    try:
        backend.wait(0)
    except YoloKDError as error:
        print(error)
backend.close()
del backend
print("closed", flush=True)
"""


def test_a_request_that_hangs_ends_with_a_line_and_the_process_can_end(tmp_path: Path) -> None:
    """A net with an operation that never ends. Taking such a request apart blocks for ever, so it must be left behind."""
    openvino_net(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    lines = answer.stdout.splitlines()
    assert lines[0] == lines[1] and "no answer on CPU within 0.3 s and counts as hung" in lines[0]
    assert lines[2] == "closed"
