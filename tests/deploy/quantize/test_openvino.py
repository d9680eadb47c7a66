"""INT8 for OpenVINO: everything but the tail, without a trace in the process, and layers taken apart again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.calibration import CalibrationSet, images
from yolo_kd.deploy.quantize.openvino import OpenVINOQuantizer, OpenVINOSettings, read_openvino
from yolo_kd.deploy.quantize.openvino_graph import alone, outputs_at, quantized_layers

from yolo_kd.errors import MisuseError

from .test_tail import FAMILIES, NAMES

pytest.importorskip("nncf")
ALL = {"stem": 0, "head": "int8"}
PLAIN = {**ALL, "bias": "none", "ranges": "mean"}


@pytest.fixture(scope="module")
def path(exported: Callable[..., Path], tiny: Path) -> Path:
    return next(exported(str(tiny), "openvino", 64).glob("*.xml"))


@pytest.fixture(scope="module")
def quantizer(path: Path, calibration: CalibrationSet) -> OpenVINOQuantizer:
    return OpenVINOQuantizer(path, images(calibration, (64, 64)))


@pytest.fixture(scope="module")
def ruined(exported: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A net, and its layer with a weight in each output channel so large that the others are rounded to nothing."""
    import openvino as ov
    from openvino import opset13 as opset

    folder = tmp_path_factory.mktemp("ruined")
    path = next(exported("yolov8n.yaml", "openvino", 64).glob("*.xml"))
    model = read_openvino(path)
    victim = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"][20]
    weights = victim.input_value(1).get_node().get_data().astype(np.float32)
    weights[:, 0, 0, 0] = 500 * np.abs(weights).max()
    victim.input(1).replace_source_output(opset.constant(weights).output(0))
    ov.save_model(model, folder / "ruined.xml", compress_to_fp16=False)
    shutil.copy(path.with_name("metadata.yaml"), folder)
    return folder / "ruined.xml", victim.get_friendly_name()


def outputs(model: Any, calibration: CalibrationSet) -> list[np.ndarray]:
    name = model.output(0).get_node().input_value(0).get_node().get_friendly_name()
    return [found[name] for found in outputs_at(model, [name], images(calibration, (64, 64)))]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "keys"), FAMILIES, ids=NAMES)
def test_every_family_is_quantized_but_for_its_tail(
    exported: Callable[..., Path], calibration: CalibrationSet, model: str, keys: dict[str, Any]
) -> None:
    xml = next(exported(model, "openvino", 64, **keys).glob("*.xml"))
    quantizer = OpenVINOQuantizer(xml, images(calibration, (64, 64)))
    made = quantizer.build(OpenVINOSettings(**PLAIN))
    assert set(quantized_layers(made)) == set(quantizer.convolutions)
    rounded = {
        op.input_value(0).get_node().get_friendly_name()
        for op in made.get_ordered_ops()
        if op.get_type_name() == "FakeQuantize"
    }
    assert len(rounded) > 20 and not rounded & quantizer.tail.ops, "something in the tail is rounded"


@pytest.fixture(scope="module")
def plain(quantizer: OpenVINOQuantizer) -> Any:
    """The net that every change is compared with."""
    return quantizer.build(OpenVINOSettings(**PLAIN))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"preset": "performance"}, {"bias": "fast"}, {"bias": "full"}, {"ranges": "quantile"}, {"ranges": "minmax"}],
)
def test_every_setting_changes_the_net_and_leaves_one_that_sees(
    quantizer: OpenVINOQuantizer, plain: Any, calibration: CalibrationSet, change: dict[str, Any]
) -> None:
    made = quantizer.build(OpenVINOSettings(**{**PLAIN, **change}))
    wanted, before, found = (outputs(model, calibration) for model in (quantizer.model, plain, made))
    assert 0 < np.mean([np.abs(a - b)[:, 4:].mean() for a, b in zip(wanted, found)]) < 0.05
    assert any((a != b).any() for a, b in zip(before, found)), f"{change} changes nothing"


@pytest.mark.slow
def test_bias_correction_puts_the_mean_back(ruined: tuple[Path, str], calibration: CalibrationSet) -> None:
    """A layer whose small weights are all rounded to nothing gives another mean, which either correction restores."""
    path, victim = ruined
    often = CalibrationSet(calibration.images * 5, calibration.hashes * 5)  # "full" takes the first fifth only
    quantizer = OpenVINOQuantizer(path, images(often, (64, 64)))
    layer = next(op for op in quantizer.model.get_ordered_ops() if op.get_friendly_name() == victim)
    biased = next(iter(layer.output(0).get_target_inputs())).get_node().get_friendly_name()

    def means(model: Any) -> np.ndarray:
        found = outputs_at(model, [biased], images(calibration, (64, 64)))
        return np.mean([image[biased].mean((0, 2, 3)) for image in found], 0)

    exact = means(quantizer.model)
    shift = {
        bias: np.abs(means(quantizer.build(OpenVINOSettings(**{**PLAIN, "bias": bias}))) - exact).mean()
        for bias in ("none", "fast", "full")
    }
    assert max(shift["fast"], shift["full"]) < 0.8 * shift["none"], shift  # the rest comes from the activations


def test_what_stays_in_float(quantizer: OpenVINOQuantizer) -> None:
    settings = OpenVINOSettings(
        bias="none", ranges="mean", stem=2, head="float", float_layers=(quantizer.convolutions[7],)
    )
    left = set(quantizer.convolutions) - set(quantized_layers(quantizer.build(settings)))
    assert left == {*quantizer.convolutions[:2], quantizer.convolutions[7], *quantizer.head}


def test_symmetric_activations_where_they_are_asked_for(quantizer: OpenVINOQuantizer) -> None:
    def lopsided(preset: str) -> int:
        made = quantizer.build(OpenVINOSettings(**PLAIN, preset=preset))
        found = 0
        for op in made.get_ordered_ops():
            if op.get_type_name() == "FakeQuantize":
                low, high = (float(op.input_value(i).get_node().get_data().ravel()[0]) for i in (1, 2))
                found += low < 0 and abs(low + high) > 0.02 * high
        return found

    assert lopsided("performance") == 0 < lopsided("mixed")


@pytest.mark.slow
def test_equal_settings_give_equal_nets_and_leave_random_states(path: Path, calibration: CalibrationSet) -> None:
    import torch

    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second = (
        outputs(OpenVINOQuantizer(path, images(calibration, (64, 64))).build(OpenVINOSettings(**ALL)), calibration)
        for _ in range(2)
    )
    assert all((a == b).all() for a, b in zip(first, second))
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_nothing_is_printed(quantizer: OpenVINOQuantizer, capfd: pytest.CaptureFixture[str]) -> None:
    quantizer.build(OpenVINOSettings(**PLAIN, outliers=1e-3))
    assert capfd.readouterr().out == ""


def test_settings_that_make_no_sense(quantizer: OpenVINOQuantizer, path: Path, calibration: CalibrationSet) -> None:
    for keys, said in [
        ({"preset": "fast"}, "mixed, performance"),
        ({"bias": "some"}, "fast, full, none"),
        ({"outliers": 1.0}, "3e-5"),
        ({"stem": True + 0.5}, "0 or more"),
    ]:
        with pytest.raises(MisuseError, match=said):
            OpenVINOSettings(**keys)
    with pytest.raises(MisuseError, match="the net has no such convolution"):
        quantizer.build(OpenVINOSettings(float_layers=("nothing",)))
    with pytest.raises(MisuseError, match="takes 64x64 pixels, the images are 32x64"):
        OpenVINOQuantizer(path, images(calibration, (32, 64)))


def test_files_that_are_no_net(path: Path, tmp_path: Path) -> None:
    (tmp_path / "words.xml").write_text("words")
    (tmp_path / "words.bin").write_bytes(b"")
    shutil.copy(path, tmp_path / "cut.xml")
    (tmp_path / "cut.bin").write_bytes(path.with_suffix(".bin").read_bytes()[:1000])
    for name in ("words.xml", "cut.xml", "gone.xml"):
        with pytest.raises(MisuseError, match="not a readable OpenVINO net") as caught:
            read_openvino(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_one_layer_alone(quantizer: OpenVINOQuantizer, calibration: CalibrationSet) -> None:
    """A net in which only the last class convolution is rounded has the float net's boxes to the bit, and other scores."""
    quantized = quantizer.build(OpenVINOSettings(**ALL, bias="full"))
    layer = next(h for h, e in zip(quantizer.head, quantizer.tail.entries) if e in quantizer.tail.scores)
    made = alone(quantized, quantizer.model, layer)
    assert quantized_layers(made) == [layer]
    assert len(quantized_layers(quantized)) == len(quantizer.convolutions), "the net given was changed"
    for wanted, found in zip(outputs(quantizer.model, calibration), outputs(made, calibration)):
        assert np.abs(found - wanted)[:, :4].max() < 1e-3 * np.abs(wanted).max()
        assert np.abs(found - wanted)[:, 4:].max() > 1e-4


@pytest.mark.slow
def test_a_layer_with_ruinous_weights_is_the_most_sensitive(
    ruined: tuple[Path, str], calibration: CalibrationSet, tmp_path: Path
) -> None:
    path, victim = ruined
    quantizer, settings = OpenVINOQuantizer(path, images(calibration, (64, 64))), OpenVINOSettings(**PLAIN)
    quantizer.save(quantizer.build(settings), tmp_path, "int8.xml")
    rows = quantizer.sensitivity(settings, tmp_path / "int8.xml")
    assert {row.layer for row in rows} == set(quantizer.convolutions) and len(rows) == 63
    assert victim in [row.layer for row in rows[:3]]
