"""What the methods declare of their arguments, against what they do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pytest
import torch

from yolo_kd.distillers import DISTILLERS, arguments, load
from yolo_kd.distillers.base import Distiller
from yolo_kd.distillers.readers import Not, Reader, unread

# Far enough from the default that it shows on the small heads of conftest.py, and every value on which others hang; no
# mar.regions=ring, which is the mask of form=paper.
OTHER: dict[str, dict[str, list[Any]]] = {
    "csgr": {
        "form": ["paper"], "attention": ["gt_boxes"], "norm": ["instance"], "power": [1.0], "presence": [0.9], "width": [4],
        "pool": [1], "tau": [0.5], "passes": [2, 0], "gamma": [0.5, 0.0], "residual": [False], "released_weights": [False],
        "seed": [1],
    },
    "pcd": {"form": ["paper"], "top": [5], "temperature": [2.0]},
    "lqe": {"form": ["paper"], "kind": ["hard"], "student_predictor": ["own"], "top": [5], "seed": [1]},
    "mar": {
        "form": ["paper"], "regions": ["iou"], "rho": [0.2], "near": [2.0], "far": [1.0], "norm": ["instance"],
        "cells": [48], "similarity": ["kl"], "tau": [0.5], "seed": [1],
    },
    "pkd": {"eps": [0.1], "reduce": ["sum"], "seed": [1]},
    "native": {"eps": [5.0], "seed": [1]},
}  # fmt: skip
# Than the 126 cells there are, as otherwise all count.
FEWER = {"pcd": {"top": 20}, "lqe": {"top": 20}, "mar": {"cells": 32}}

every = pytest.mark.parametrize("method", DISTILLERS)


@every
def test_every_argument_says_what_reads_it_and_names_nothing_that_is_not_there(method):
    kind, known = load(method), arguments(method)
    assert kind.readers.keys() == known.keys() == OTHER[method].keys()
    for name, reader in kind.readers.items():
        assert reader.terms and set(reader.terms) <= set(kind.terms), name
        assert set(reader.values) <= known.keys() - {name}, name
        for argument, value in reader.values.items():
            wanted = value.value if isinstance(value, Not) else value
            assert wanted in (known[argument], *OTHER[method][argument]), (name, argument)


def settings_of(method: str) -> Iterator[dict[str, Any]]:
    """Every mixture of the values on which the reading of another argument hangs."""
    usual = {**arguments(method), **FEWER.get(method, {})}
    deciding = sorted({argument for reader in load(method).readers.values() for argument in reader.values})
    for values in product(*([usual[name], *OTHER[method][name]] for name in deciding)):
        yield {**usual, **dict(zip(deciding, values))}


def results(pair, method: str, active: tuple[str, ...], settings: dict[str, Any]) -> list[torch.Tensor | None]:
    """Each term's value, and the gradients of student and of what learns beside it."""
    distiller: Distiller = pair.build(method, **settings)
    distiller.select(active)
    values = list(pair.run(distiller).values())
    student = pair.student
    into = [*student.feats, *student.towers, *(x for b in student.branches.values() for x in (b.boxes, b.scores))]
    into += [p for p in distiller.parameters() if p.requires_grad]
    return [*values, *torch.autograd.grad(sum(values), into, allow_unused=True)]


def same(a: list[torch.Tensor | None], b: list[torch.Tensor | None]) -> bool:
    return len(a) == len(b) and all(
        x is y is None or (x is not None and y is not None and torch.equal(x, y)) for x, y in zip(a, b)
    )


@every
def test_what_is_declared_unread_changes_nothing_and_what_is_read_does(method, fake):
    pair, kind, tried = fake.make_pair(), load(method), 0
    for size in range(1, len(kind.terms) + 1):
        for active in combinations(kind.terms, size):
            for settings in settings_of(method):
                before = results(pair, method, active, settings)
                idle = unread(method, {**settings, **dict.fromkeys(active, 1.0)})
                for name, reader in kind.readers.items():
                    other = next(v for v in (arguments(method)[name], *OTHER[method][name]) if v != settings[name])
                    after = results(pair, method, active, {**settings, name: other})
                    assert same(before, after) == (name in idle), (active, name, other, settings, reader)
                    tried += 1
    assert tried >= len(kind.terms) * len(kind.readers)


@pytest.mark.parametrize(
    ("method", "settings", "line"),
    [
        (
            "csgr",
            {"cs": "auto:0.25", "tau": 0.2},
            "csgr.tau=0.2 changes nothing: only the term gr reads it, which this run leaves out; "
            "set csgr.gr=auto:0.5 or leave csgr.tau out",
        ),
        (
            "pcd",
            {"cls": 1, "form": "paper", "top": 10},
            "pcd.top=10 changes nothing: it is read with pcd.form=yolo only, not with paper; "
            "set pcd.form=yolo or leave pcd.top out",
        ),
        (
            "csgr",
            {"cs": 1, "gr": None, "form": "paper", "tau": 0.2},
            "csgr.tau=0.2 changes nothing: only the term gr reads it, which this run leaves out, and it is read with "
            "csgr.form=yolo only, not with paper; set csgr.gr=auto:0.5 and csgr.form=yolo or leave csgr.tau out",
        ),
        (
            "csgr",
            {"gr": 1, "passes": 0, "tau": 0.2},
            "csgr.tau=0.2 changes nothing: with csgr.passes=0 nothing reads it; "
            "set another csgr.passes or leave csgr.tau out",
        ),
        (
            "mar",
            {"mask": None, "regions": "ring"},
            "mar.regions=ring changes nothing: only the terms mask and relation read it, which this run leaves out; "
            "set mar.mask=auto:0.5 or leave mar.regions out",
        ),
    ],
)
def test_the_line_names_what_reads_it_and_what_to_do(method, settings, line):
    told = unread(method, settings)
    assert line in told.values() and list(told) == [name for name in settings if told.get(name)]


def test_a_term_that_is_only_watched_reads_its_arguments():
    assert unread("csgr", {"gr": 0, "tau": 0.2}) == {}


def test_a_reader_without_conditions_reads_always():
    assert Reader(("a",)).missing("m", {"a"}, {"form": "paper"}) == ([], [])


@pytest.mark.parametrize(
    ("method", "args", "bins", "idle"),
    [
        ("pcd", {}, (16, 16), set()),
        ("pcd", {}, (16, 1), {"temperature"}),
        ("pcd", {}, (8, 16), {"temperature"}),
        ("lqe", {}, (16, 16), set()),
        ("lqe", {}, (1, 16), {"kind", "student_predictor", "seed"}),
        ("lqe", {"form": "paper"}, (1, 16), {"kind", "student_predictor", "seed"}),
        ("csgr", {}, (1, 1), set()),
        ("native", {}, (1, 16), set()),
    ],
)
def test_what_a_pair_of_heads_leaves_unread_changes_nothing(method, args, bins, idle, fake):
    student, teacher = fake.make_spec(reg_max=bins[0]), fake.make_spec(reg_max=bins[1], channels=(9, 11, 13))
    pair = fake.make_pair(student, teacher)
    distiller = pair.build(method, **args)
    assert distiller.unread().keys() == idle
    settings = {**arguments(method), **FEWER.get(method, {}), **args}
    before = results(pair, method, distiller.terms, settings)
    for name in idle:
        assert same(before, results(pair, method, distiller.terms, {**settings, name: OTHER[method][name][0]})), name


@pytest.mark.parametrize(
    ("method", "active"), [("pkd", ("pkd",)), ("csgr", ("cs",)), ("csgr", ("cs", "gr")), ("mar", ("mask",))]
)
@pytest.mark.parametrize("equal", [True, False])
def test_a_seed_without_anything_to_draw_is_known(method, active, equal, fake):
    pair = fake.make_pair(teacher=fake.make_spec(channels=(6, 8, 10) if equal else (9, 11, 13)))
    width = {"width": 4} if method == "csgr" else {}
    distiller = pair.build(method, **width)
    distiller.select(active)
    settings = {**arguments(method), **width}
    silent = same(results(pair, method, active, settings), results(pair, method, active, {**settings, "seed": 1}))
    assert ("seed" in distiller.unread()) == silent == (equal and "gr" not in active)
