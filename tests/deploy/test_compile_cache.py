"""Compiled nets are kept, and are served only as they were stored and only for the net they were made from."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Settings, load_backend

from tests.deploy.tiny_nets import as_torch_has_it, canvas, openvino_net


def run(artifact: Artifact, cache: Path) -> np.ndarray:
    backend = load_backend(artifact, Settings(cache=cache, precision="f32"))
    found = backend.infer(canvas())
    backend.close()
    return found


def test_the_second_start_takes_what_the_first_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact, cache = openvino_net(tmp_path / "net"), tmp_path / "cache"
    first = run(artifact, cache)
    (blob,) = cache.rglob("*.blob")
    stamp = blob.stat().st_mtime_ns
    assert np.array_equal(run(artifact, cache), first)
    assert list(cache.rglob("*.blob")) == [blob] and blob.stat().st_mtime_ns == stamp
    assert not caplog.records and not list(cache.rglob("*.part"))


@pytest.mark.parametrize("damage", ["flipped", "cut", "unsealed", "empty seal"])
def test_what_was_damaged_is_thrown_away(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    artifact, cache = openvino_net(tmp_path / "net"), tmp_path / "cache"
    first = run(artifact, cache)
    (blob,) = cache.rglob("*.blob")
    blob.chmod(0o644)
    raw = blob.read_bytes()
    if damage == "flipped":
        blob.write_bytes(raw[:-40] + bytes(byte ^ 0xFF for byte in raw[-40:]))
    elif damage == "cut":
        blob.write_bytes(raw[:50])
    elif damage == "unsealed":
        blob.with_suffix(".sha256").unlink()
    else:
        blob.with_suffix(".sha256").write_text("")
    assert np.array_equal(run(artifact, cache), first)
    assert "is not as it was stored" in caplog.text
    caplog.clear()
    assert np.array_equal(run(artifact, cache), first) and not caplog.records


def test_the_same_net_with_other_weights_has_its_own(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = run(openvino_net(tmp_path / "one"), cache)
    other = run(openvino_net(tmp_path / "other", fill=0.5), cache)
    assert np.allclose(other * 2, one) and len(list(cache.iterdir())) == 2


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = openvino_net(tmp_path / "net")
    (tmp_path / "file").write_text("in the way")
    caplog.set_level(logging.WARNING)
    assert np.allclose(run(artifact, tmp_path / "file")[:, :3], as_torch_has_it(canvas()), rtol=2e-7, atol=0)
    assert "compiled nets cannot be kept there" in caplog.text
