"""Quantization-aware training: the grid that is deployed, a checkpoint without a trace of it, and that it helps."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from yolo_kd.data.split import read_split
from yolo_kd.deploy.quantize.calibration import Candidate, choose, images
from yolo_kd.deploy.quantize.openvino import OpenVINOQuantizer, OpenVINOSettings
from yolo_kd.deploy.quantize.openvino_graph import quantized_layers as deployed_layers
from yolo_kd.deploy.quantize.ranges import grid, weight_scales

from yolo_kd import DistillationTrainer, distill
from yolo_kd.cli import main
from yolo_kd.engine import preflight, qat, ultra
from yolo_kd.engine.qat import FakeQuantization, extremes, round_activations, round_weights
from yolo_kd.engine.resume import load_sidecar, sidecar_path
from yolo_kd.errors import GateError, MisuseError

CONVOLUTIONS = 27
LAYERS = CONVOLUTIONS - qat.RECIPE.stem  # those of `tiny` outside its decode tail, without those in float


def hooked(model: torch.nn.Module) -> int:
    """Layers of a model with a hook, or with a weight that hides the parameter."""
    return sum(bool(m._forward_hooks or m._forward_pre_hooks or "weight" in m.__dict__) for m in model.modules())


class TestGrid:
    def test_activations_by_hand(self):
        """Levels of .01 from -.55 to 2: outside there is neither a value nor a gradient."""
        values = torch.tensor([-1.0, -0.55, -0.004, 0.006, 1.0, 2.0, 3.0], requires_grad=True)
        rounded = round_activations(values, torch.tensor([-0.55, 2.0]))
        assert torch.allclose(rounded, torch.tensor([-0.55, -0.55, 0.0, 0.01, 1.0, 2.0, 2.0]))
        (rounded * torch.arange(1.0, 8.0)).sum().backward()
        assert values.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]

    def test_weights_by_hand(self):
        """Channel 0 has steps of .01, channel 1 of 1; the gradient goes straight through."""
        weight = torch.tensor([[1.27, 0.004, -0.006], [-127.0, 0.4, 0.6]]).reshape(2, 3, 1, 1).requires_grad_()
        rounded = round_weights(weight)
        assert torch.allclose(rounded.flatten(1), torch.tensor([[1.27, 0.0, -0.01], [-127.0, 0.0, 1.0]]))
        (rounded.flatten() * torch.arange(6.0)).sum().backward()
        assert weight.grad.flatten().tolist() == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize(("low", "high"), [(-0.28, 7.6), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
    def test_is_that_of_deploy(self, low, high):
        values = torch.linspace(-4, 9, 1001)
        wanted = grid(low, high)
        found = round_activations(values, torch.tensor([low, high])).numpy()
        # a value on the border of two levels may fall either way: torch multiplies by 1 / scale
        assert np.abs(found - wanted.round(values.numpy())).max() <= wanted.scale * 1.001
        assert (np.abs(found - wanted.round(values.numpy())) > wanted.scale / 2).mean() < 0.005
        weight = (
            torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(8.0)[:, None, None, None]
        )
        scales = weight_scales(weight.numpy(), True, False).reshape(-1, 1, 1, 1)
        codes = np.clip(np.rint(weight.numpy() / scales), -127, 127)
        assert np.allclose(round_weights(weight).numpy(), codes * scales, atol=1e-6)

    def test_range_is_the_mean_of_the_extremes_of_each_image(self):
        values = torch.tensor([[-1.0, 0.5, 3.0], [-2.0, 0.0, 5.0]]).reshape(2, 1, 1, 3)
        assert extremes(values).tolist() == [-1.5, 4.0]

    def test_goes_along_with_folded_batch_norm(self):
        """round(c w) = c round(w), also for a negative gamma: so weights are rounded unfolded."""
        generator = torch.Generator().manual_seed(0)
        weight, factor = torch.randn(16, 8, 3, 3, generator=generator), torch.randn(16, 1, 1, 1, generator=generator)
        assert torch.allclose(round_weights(weight * factor), factor * round_weights(weight), atol=1e-6)


@pytest.fixture(scope="module")
def few(pictures: Path) -> Any:
    """The training pictures as calibration images of 64 px."""
    split = read_split(str(pictures), "train")
    return images(choose([Candidate(p) for p in split.images], len(split.images)), (64, 64))


class TestRanges:
    def test_and_layers_are_those_of_the_deployed_net(self, learnt, float_export, few):
        """NNCF over the same pictures puts the same convolutions on integers, in the same ranges."""
        quantizer = OpenVINOQuantizer(next(float_export.glob("*.xml")), few)
        deployed = quantizer.build(OpenVINOSettings(bias="none"))
        names = [name.split("/")[0].removeprefix("__module.") for name in deployed_layers(deployed)]
        model = ultra.load_detector(str(learnt), "student")
        layers = qat.quantized_layers(model)
        assert sorted(names) == sorted(layers) and len(layers) == LAYERS
        fake = FakeQuantization(layers)
        with fake.on(model, observe=True, rounds=False), torch.inference_mode():
            for picture in few:
                model(torch.from_numpy(picture))
        assert fake.seen == [len(few)] * len(layers)
        near = total = 0
        for op in deployed.get_ordered_ops():
            name = op.get_friendly_name().split("/")[0].removeprefix("__module.")
            if op.get_type_name() != "Convolution" or name not in layers:
                continue
            source = op.input_value(0).get_node()
            if source.get_type_name() != "FakeQuantize":  # in front of the concatenation or split that is read
                continue
            low, high = (float(source.input_value(i).get_node().get_data().ravel()[0]) for i in (1, 2))
            ours = fake.ranges[layers.index(name)]
            made = grid(float(ours[0]), float(ours[1]))
            total += 1
            near += abs(made.scale / ((high - low) / 255) - 1) < 0.02
        # sums of residual blocks differ: the runtime rounds what is added as well
        assert total > 20 and near >= 0.9 * total, (near, total)

    def test_follow_the_activations_and_skip_what_is_not_finite(self):
        layer = torch.nn.Conv2d(1, 1, 1)
        fake = FakeQuantization([""])
        with fake.on(layer, observe=True, rounds=False):
            for high in (1.0, 3.0, float("nan")):
                layer(torch.tensor([-1.0, high]).reshape(1, 1, 1, 2))
        assert fake.ranges[0].tolist() == pytest.approx([-1, 2], abs=1e-3)
        with fake.on(layer):
            layer(torch.full((1, 1, 2, 2), 9.0))
        assert fake.ranges[0, 1] == pytest.approx(2, abs=1e-3)
        fake.seen = [1000]
        with fake.on(layer, observe=True):
            layer(torch.tensor([-1.0, 3.0]).reshape(1, 1, 1, 2))
        assert fake.ranges[0, 1] == pytest.approx(2 + qat.MOMENTUM, abs=1e-3)


class TestHooks:
    def test_round_what_the_convolution_reads_and_leave_nothing(self):
        torch.manual_seed(0)
        layer, values = torch.nn.Conv2d(2, 3, 3), torch.rand(1, 2, 5, 5)
        fake = FakeQuantization([""])
        with fake.on(layer, observe=True):
            found = layer(values)
        by_hand = torch.nn.functional.conv2d(
            round_activations(values, fake.ranges[0]), round_weights(layer.weight), layer.bias
        )
        assert torch.equal(found, by_hand) and not torch.equal(found, layer(values))
        assert hooked(layer) == 0 and list(layer.state_dict()) == ["weight", "bias"]
        found.sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0

    def test_a_failing_forward_leaves_the_parameter(self):
        layer = torch.nn.Conv2d(2, 3, 3)
        with pytest.raises(RuntimeError), FakeQuantization([""]).on(layer):
            layer(torch.rand(1, 5, 5, 5))
        assert hooked(layer) == 0


def test_training_on_the_grid_recovers_what_rounding_costs():
    """y = x0 + x1 through a hidden map of which channel 0 is a hundred times larger: one scale for both loses x1."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1, bias=False), torch.nn.Conv2d(2, 1, 1, bias=False))
    net[0].weight.data = torch.tensor([[100.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1)
    net[1].weight.data = torch.tensor([[0.01, 1.0]]).reshape(1, 2, 1, 1)
    values = torch.randn(8, 2, 16, 16)
    wanted = values.sum(1, keepdim=True)
    fake = FakeQuantization(["0", "1"])

    def loss() -> torch.Tensor:
        return (net(values) - wanted).square().mean()

    assert loss() < 1e-9
    with fake.on(net, observe=True, rounds=False):
        net(values)
    with fake.on(net), torch.no_grad():
        before = float(loss())
    assert before > 0.1, "rounding costs nothing, so this shows nothing"
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with fake.on(net, observe=True):
        for _ in range(300):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    with fake.on(net), torch.no_grad():
        assert float(loss()) < before / 4


class Stopped(DistillationTrainer):
    """Ends after two of its epochs as if it had been killed: without the final evaluation that strips checkpoints."""

    def _setup_train(self):
        super()._setup_train()
        self.add_callback("on_model_save", lambda t: setattr(t, "stop", t.epoch == 1))

    def final_eval(self):
        pass


FINE = {"optimizer": "AdamW", "lr0": 0.0005}


class TestTrainer:
    @pytest.fixture
    def tuned(self, train, learnt) -> Any:
        return train(model=str(learnt), qat=True, distill="none", val=True, **FINE)

    def test_checkpoint_is_plain(self, tuned, tiny, tmp_path):
        assert hooked(tuned.model) == hooked(tuned.ema.ema) == 0
        for path in (tuned.best, tuned.last):
            assert not any(word in path.read_bytes() for word in (b"yolo_kd", b"nncf", b"FakeQuant"))
            assert load(path)["modelopt"] is None
        code = f"""
import sys
class Block:
    def find_spec(self, name, *a):
        if name.split('.')[0] == 'yolo_kd':
            raise ImportError('yolo_kd is blocked')
sys.meta_path.insert(0, Block())
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
loaded = YOLO({str(tuned.best)!r}).model.float().eval()
stock = DetectionModel({str(tiny)!r}, nc=3, verbose=False).eval()
stock.load_state_dict(loaded.state_dict())
picture = torch.rand(1, 3, 64, 64)
assert torch.equal(loaded(picture)[0], stock(picture)[0])
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]

    def test_trains_and_validates_on_the_grid_and_saves_off_it(self, train, learnt, monkeypatch):
        seen: dict[str, list[Any]] = {"train": [], "val": [], "saved": [], "lines": []}
        monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: seen["lines"].append(line))

        class Spy(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                self.add_callback("on_train_batch_end", lambda t: seen["train"].append(hooked(t.model)))
                self.add_callback("on_val_batch_start", lambda v: seen["val"].append(hooked(self.ema.ema)))

            def save_model(self):
                seen["saved"].append((hooked(self.model), hooked(self.ema.ema)))
                return super().save_model()

        trainer = train(Spy, model=str(learnt), qat=True, distill="none", val=True, epochs=2, **FINE)
        assert seen["train"] == [LAYERS] * 4 and seen["saved"] == [(0, 0)] * 2
        assert seen["val"][:2] == [LAYERS] * 2 and seen["val"][-1] == 0, "the last is of the fused best.pt in float"
        with Path(trainer.csv).open() as file:
            rows = list(csv.DictReader(file))
        assert [row["qat"] for row in rows] == ["1", "1"]
        assert f"qat: {LAYERS} of {CONVOLUTIONS} convolutions on 8 bits" in seen["lines"]
        assert any("in float" in line and "on 8 bits" in line for line in seen["lines"])

    def test_hooks_end_with_the_epoch_also_without_validation(self, train, learnt):
        left: list[int] = []

        class Spy(DistillationTrainer):
            def save_model(self):
                left.append(hooked(self.model))
                return super().save_model()

        train(Spy, model=str(learnt), qat=True, distill="none", epochs=2, **FINE)
        assert left == [0, 0]

    def test_rounding_reaches_the_weights(self, train, learnt):
        states = [
            train(model=str(learnt), qat=on, distill="none", name=str(on), **FINE).model.state_dict()
            for on in (True, False)
        ]
        assert states[0].keys() == states[1].keys()
        assert any(not torch.equal(states[0][k], states[1][k]) for k in states[0])

    def test_under_a_teacher(self, train, learnt, make_checkpoint):
        teacher = str(make_checkpoint(seed=1))
        trainer = train(
            model=str(learnt), qat=True, teacher=teacher, distill="pkd", force=True, teacher_engine="torch", **FINE
        )
        assert trainer.criterion.terms[0].gain > 0 and float(trainer.loss_items["pkd_loss"]) > 0
        state = load_sidecar(sidecar_path(trainer.last))
        assert {"distillers", "quantization"} <= set(state) and len(state["quantization"]["layers"]) == LAYERS

    def test_may_learn_from_its_own_float_weights(self, train, learnt, monkeypatch):
        """Without qat that is refused unseen; with it the pre-flight measures the teacher against the rounded student."""
        seen: list[int] = []
        measure = preflight.measure
        monkeypatch.setattr(
            preflight, "measure", lambda t, *args: (seen.append(hooked(t.ema.ema)), measure(t, *args))[1]
        )
        keys = {"teacher": str(learnt), "distill": "pkd", "teacher_engine": "torch", "teacher_floor": 0.0, **FINE}
        try:
            train(model=str(learnt), qat=True, **keys)
        except GateError as refusal:  # where rounding costs these few pictures nothing
            assert "the pretrained student starts at" in str(refusal)
        assert seen == [LAYERS]

    def test_both_branches_of_a_dual_head(self, train, make_checkpoint):
        path = str(make_checkpoint("yolo26n.yaml"))
        trainer = train(model=path, qat=True, distill="none", val=True, **FINE)
        names = trainer.quantization.layers
        assert any("one2one" in name for name in names) and all(trainer.quantization.seen)
        assert not any("dfl" in name for name in names) and hooked(trainer.model) == 0

    def test_resume_keeps_the_ranges(self, train, learnt):
        first = train(Stopped, model=str(learnt), qat=True, distill="none", epochs=4, **FINE)
        assert first.epoch == 1
        start: dict[str, Any] = {}

        class Resumed(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                start["ranges"], start["seen"] = self.quantization.ranges.clone(), list(self.quantization.seen)

        with pytest.raises(MisuseError, match="may not change on resume"):
            train(model=str(first.last), resume=True, qat=False)
        again = train(Resumed, model=str(first.last), resume=True)
        assert again.epoch == 3 and again.kd.qat
        assert torch.equal(start["ranges"], first.quantization.ranges) and start["seen"] == first.quantization.seen
        assert again.quantization.seen[0] == start["seen"][0] + 4

    def test_is_seen_in_float_and_on_integers(self, tuned, few, tmp_path):
        """The checkpoint goes through export and quantize like any other."""
        folder = Path(YOLO(str(tuned.best)).export(format="openvino", imgsz=64, verbose=False))
        net = OpenVINOQuantizer(next(folder.glob("*.xml")), few).build(OpenVINOSettings(bias="none"))
        assert len(deployed_layers(net)) == LAYERS


class TestMisuse:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["student=yolov8n.yaml"], "student=yolov8n.yaml would start from random weights"),
            (["student=CHECKPOINT", "pretrained=false"], "would start from random weights"),
            (["student=CHECKPOINT", "quantize=8"], "qat=true and quantize=8"),
            (["student=CHECKPOINT", "distill_model=CHECKPOINT"], "qat=true and distill_model="),
        ],
    )
    def test_what_cannot_be_fine_tuned(self, words, said, tmp_path, pictures, make_checkpoint, capsys):
        checkpoint = str(make_checkpoint())
        words = [word.replace("CHECKPOINT", checkpoint) for word in words]
        keys = [
            "qat=true",
            "distill=none",
            f"data={pictures}",
            f"project={tmp_path}",
            "name=run",
            "epochs=1",
            "imgsz=64",
        ]
        assert main(["train", *keys, *words]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_weights_by_another_key_will_do(self, train, learnt):
        assert train(pretrained=str(learnt), qat=True, distill="none", **FINE).quantization.seen[0] > 0

    def test_wrong_type(self, pictures):
        with pytest.raises(MisuseError, match="qat=3: expected true or false"):
            distill(student="yolov8n.yaml", distill="none", data=pictures, qat=3)

    def test_compile_is_off(self, train, learnt, monkeypatch):
        lines: list[str] = []
        monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
        trainer = train(model=str(learnt), qat=True, distill="none", compile=True, **FINE)
        assert trainer.args.compile is False and any(line.startswith("compile is off") for line in lines)


def test_ranks_agree(monkeypatch: pytest.MonkeyPatch):
    """Two ranks of which the other has ranges of 3: the mean."""
    fake = FakeQuantization(["a"])
    fake.ranges += 1
    reduce: Callable[[torch.Tensor], Any] = lambda tensor: tensor.add_(3)  # noqa: E731
    for name, stand_in in {"is_initialized": lambda: True, "all_reduce": reduce, "get_world_size": lambda: 2}.items():
        monkeypatch.setattr(qat.dist, name, stand_in)
    fake.average()
    assert fake.ranges.tolist() == [[2, 2]]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)


def test_convolutions_are_listed_without_the_average_of_bins():
    names = ultra.convolutions(DetectionModel("yolov8n.yaml", verbose=False))
    assert names[:3] == ["model.0.conv", "model.1.conv", "model.2.cv1.conv"] and len(names) == 63
    assert "model.22.dfl.conv" not in names
