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


def test_another_driver_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for an NPU: a CPU that names a driver. What one driver compiled is never handed to another."""
    import openvino as ov

    artifact, cache, version = openvino_net(tmp_path / "net"), tmp_path / "cache", ["1.13"]
    get_property = ov.Core.get_property
    told = {"NPU_DRIVER_VERSION": lambda: version[0], "NPU_COMPILER_VERSION": lambda: 458757}

    def with_driver(core: ov.Core, device: str, name: str) -> object:
        if name in told:
            return told[name]()
        found = get_property(core, device, name)
        return {**found, **dict.fromkeys(told, "RO")} if name == "SUPPORTED_PROPERTIES" else found

    plain = run(artifact, cache)
    monkeypatch.setattr(ov.Core, "get_property", with_driver)
    kept: dict[str, list[Path]] = {}
    for version[0] in ("1.13", "1.14", "1.13"):
        before = set(cache.rglob("*.blob"))
        assert np.array_equal(run(artifact, cache), plain)
        fresh = sorted(set(cache.rglob("*.blob")) - before)
        assert bool(fresh) == (version[0] not in kept), "an old driver's net was taken, or one that fits was not"
        kept.setdefault(version[0], fresh)
    assert len(list(cache.iterdir())) == 3 and len({path.parent for paths in kept.values() for path in paths}) == 2


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    artifact = openvino_net(tmp_path / "net")
    (tmp_path / "file").write_text("in the way")
    caplog.set_level(logging.WARNING)
    assert np.allclose(run(artifact, tmp_path / "file")[:, :3], as_torch_has_it(canvas()), rtol=2e-7, atol=0)
    assert "compiled nets cannot be kept there" in caplog.text
