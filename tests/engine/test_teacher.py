"""The teacher in torch: fused, channels_last, in the device's half precision, and compiled where that was asked for."""

from __future__ import annotations

import pytest
import torch
from yolo_kd.cfg.settings import DistillSettings, Recipe

from yolo_kd.engine import selection
from yolo_kd.engine import teacher as module
from yolo_kd.engine.agreement import relative_error
from yolo_kd.engine.teacher import Teacher, TorchEngine, half_precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(make_checkpoint) -> Teacher:
    return Teacher(str(make_checkpoint(seed=1)), CPU)


def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_in_its_precision_and_channels_last_and_leaves_the_original(teacher, dtype):
    engine = TorchEngine(teacher.net, CPU, dtype)
    seen: list[tuple[torch.dtype, bool]] = []

    def look(layer, inputs) -> None:
        tensors = (inputs[0], layer.weight)
        seen.extend((t.dtype, t.is_contiguous(memory_format=torch.channels_last)) for t in tensors)

    engine.net.model.model[0].conv.register_forward_pre_hook(look)
    with torch.no_grad():
        found, wanted = engine(images()), teacher.net(images())
    assert seen == [(dtype, True)] * 2
    assert relative_error(wanted, [t.float() for t in found]) < (0.1 if dtype == torch.bfloat16 else 1e-4)
    assert {p.dtype for p in teacher.net.parameters()} == {torch.float32}
    assert not teacher.net.model.model[0].conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kind", "capable", "dtype"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
        ("mps", True, torch.float32),
    ],
)
def test_half_precision_is_what_the_device_computes_in(monkeypatch, kind, capable, dtype):
    """A GPU without bf16 emulates it, slowly: that does not count."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capable
    )
    monkeypatch.setattr(module, "has_bf16", lambda: capable)
    assert half_precision(torch.device(kind)) == dtype


@pytest.mark.parametrize("wanted", [True, False])
def test_is_compiled_where_that_was_asked_for(monkeypatch, teacher, tmp_path, wanted):
    """Also where float32 itself is chosen, which was measured against uncompiled."""
    compiled: list[torch.nn.Module] = []
    ran: list[torch.nn.Module] = []

    def compile_(net):
        compiled.append(net)
        return lambda img: (ran.append(net), net(img))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(selection, "half_precision", lambda device: torch.float32)
    settings = DistillSettings(Recipe("x", {}), teacher="t.pt", teacher_engine="torch", teacher_compile=wanted)
    batches = [images(), images()]
    choice = selection.choose(teacher, settings, batches, tmp_path, lambda line: None)
    built = selection.build("torch-fp32", teacher, settings, batches, tmp_path, lambda line: None)
    for engine in (choice.engine, built):
        ran.clear()
        engine(images())
        assert ran == ([engine.net] if wanted else [])
    assert len(compiled) == 2 * wanted
