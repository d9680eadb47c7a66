"""Small fake heads, so that every distiller can be run without a model, and the stored values of the official codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yolo_kd.distillers import load
from yolo_kd.distillers.base import ONE2MANY, ONE2ONE, Branch, ClassMap, Distiller, HeadOutput, HeadSpec, Targets

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = ((8, 12), (4, 6), (2, 3))  # a picture of 64 x 96 pixels
BOTH = (ONE2MANY, ONE2ONE)


class Golden:
    """One stored case; `compare` holds a result against it."""

    def __init__(self, name: str) -> None:
        path = GOLDEN / f"{name}.npz"
        assert path.exists(), f"stored values {path} are missing"
        with np.load(path) as data:
            self.data = {key: data[key] for key in data.files}
        self.skip = str(self.data.get("info.skip", "")).split(",")

    def tensor(self, key: str, grad: bool = False) -> Tensor:
        return torch.from_numpy(self.data[key].copy()).requires_grad_(grad)

    def number(self, key: str) -> Any:
        return self.data[f"hp.{key}"].item()

    def inputs(self, prefix: str = "in.", grad: bool = True) -> dict[str, Tensor]:
        keys = [k for k in self.data if k.startswith(prefix)]
        return {k: self.tensor(k, grad and self.data[k].dtype == np.float32) for k in keys}

    def compare(self, key: str, got: Tensor) -> None:
        if key in self.skip:
            return
        want, have = self.data[key], got.detach().numpy().reshape(self.data[key].shape)
        worst = np.abs(np.nan_to_num(have - want)).max(initial=0.0)
        assert np.allclose(have, want, rtol=0, atol=self.data[f"atol.{key}"], equal_nan=True), f"{key}: off by {worst}"

    def compare_gradients(self, leaves: dict[str, Tensor], of: str = "loss") -> None:
        compared = 0
        for name, leaf in leaves.items():
            key = f"grad.{of}.{name.removeprefix('in.')}"
            if key in self.data:
                assert leaf.grad is not None, f"no gradient for {name}"
                self.compare(key, leaf.grad)
                compared += 1
        assert compared == sum(k.startswith(f"grad.{of}.") for k in self.data)


@dataclass
class Pair:
    """Student and teacher heads with their outputs on one batch."""

    student_spec: HeadSpec
    teacher_spec: HeadSpec
    classes: ClassMap
    student: HeadOutput
    teacher: HeadOutput
    targets: Targets

    def build(self, name: str, **args: Any) -> Distiller:
        distiller = load(name)(self.student_spec, self.teacher_spec, self.classes, **args)
        if distiller.needs_fit:
            usual = make_output(self.teacher_spec, 7), make_targets(self.student_spec.nc)
            distiller.fit([usual], steps=20)  # type: ignore[operator]
        return distiller

    def run(self, distiller: Distiller) -> dict[str, Tensor]:
        return distiller(self.student, self.teacher, self.targets)


def leaves(output: HeadOutput) -> dict[str, list[Tensor]]:
    """The tensors of an output under the names of `acts_on`."""
    branches = output.branches.values()
    return {
        "neck": list(output.feats),
        "towers": list(output.towers),
        "boxes": [b.boxes for b in branches],
        "scores": [b.scores for b in branches],
    }


def map_tensors(output: HeadOutput, change: Any, grad: bool = False) -> HeadOutput:
    """The output with every tensor changed and made a leaf."""

    def leaf(x: Tensor) -> Tensor:
        return change(x.detach()).clone(memory_format=torch.preserve_format).requires_grad_(grad)

    return replace(
        output,
        feats=tuple(leaf(x) for x in output.feats),
        towers=tuple(leaf(x) for x in output.towers),
        branches={k: Branch(leaf(b.boxes), leaf(b.scores)) for k, b in output.branches.items()},
    )


def make_spec(**changes: Any) -> HeadSpec:
    values = {"channels": (6, 8, 10), "strides": (8, 16, 32), "reg_max": 16, "nc": 3, "towers": (5, 5, 5)}
    return HeadSpec(**{**values, **changes})


def make_output(
    spec: HeadSpec, seed: int, images: int = 2, sizes: tuple = SIZES, grad: bool = False, scale: float = 1.0
) -> HeadOutput:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) * scale

    cells = sum(h * w for h, w in sizes)
    names = BOTH if spec.dual else (ONE2MANY,)
    branches = {
        n: Branch(normal(images, 4 * spec.reg_max, cells) * 2, normal(images, spec.nc, cells) * 2 - 2) for n in names
    }
    if spec.reg_max == 1:
        branches = {n: Branch(b.boxes.abs() + 0.5, b.scores) for n, b in branches.items()}
    output = HeadOutput(
        feats=tuple(normal(images, c, h, w) + 0.3 for c, (h, w) in zip(spec.channels, sizes)),
        branches=branches,
        towers=tuple(normal(images, c, h, w) + 0.5 for c, (h, w) in zip(spec.towers, sizes)),
        branch_weights={ONE2MANY: 0.3, ONE2ONE: 0.7} if spec.dual else {ONE2MANY: 1.0},
    )
    return map_tensors(output, lambda x: x, grad)


def make_targets(nc: int = 3, images: int = 2, objects: int = 7, seed: int = 5) -> Targets:
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(objects, 2, generator=random) * 0.6 + 0.2
    size = torch.rand(objects, 2, generator=random) * 0.3 + 0.1
    classes = torch.randint(0, nc, (objects,), generator=random)
    return Targets(torch.cat((centre, size), 1), classes, torch.arange(objects) % images)


def make_pair(
    student: HeadSpec | None = None,
    teacher: HeadSpec | None = None,
    classes: tuple[list[int], list[int]] | None = None,
    images: int = 2,
    sizes: tuple = SIZES,
    objects: int = 7,
    scale: float = 1.0,
) -> Pair:
    student, teacher = student or make_spec(), teacher or make_spec(channels=(9, 11, 13), towers=(7, 7, 7))
    both = list(range(min(student.nc, teacher.nc)))
    s, t = classes or (both, both)
    return Pair(
        student,
        teacher,
        ClassMap(torch.tensor(s, dtype=torch.long), torch.tensor(t, dtype=torch.long)),
        make_output(student, 1, images, sizes, grad=True, scale=scale),
        make_output(teacher, 2, images, sizes, scale=scale),
        make_targets(student.nc, images, objects),
    )


def equal_pair(noise: float = 0.0, **changes: Any) -> Pair:
    """A student with the teacher's widths and, but for noise, its outputs."""
    pair = make_pair(make_spec(**changes), make_spec(**changes))
    random = torch.Generator().manual_seed(3)
    pair.student = map_tensors(pair.teacher, lambda x: x + noise * torch.randn(x.shape, generator=random), grad=True)
    return pair


class Tools:
    """What the tests of this folder share (a fixture, as they are not importable from each other)."""

    Golden = Golden
    GOLDEN = GOLDEN
    SIZES = SIZES
    leaves = staticmethod(leaves)
    map_tensors = staticmethod(map_tensors)
    make_spec = staticmethod(make_spec)
    make_output = staticmethod(make_output)
    make_targets = staticmethod(make_targets)
    make_pair = staticmethod(make_pair)
    equal_pair = staticmethod(equal_pair)


@pytest.fixture(scope="session")
def fake() -> type[Tools]:
    """Builders of fake heads and stored cases."""
    return Tools
