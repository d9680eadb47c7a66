"""Gains: numbers, calibrated shares, and terms that cannot apply."""

from __future__ import annotations

import pytest
import torch
from yolo_kd.cfg.settings import Recipe, resolve

from yolo_kd.distillers import DISTILLERS, arguments, load
from yolo_kd.distillers.base import ClassMap, HeadSpec
from yolo_kd.distillers.pkd import PKD
from yolo_kd.engine.terms import Term, build_methods, check_arguments, make_term, refuse_idle
from yolo_kd.errors import GateError, MisuseError

SPEC = HeadSpec((8, 8), (8, 16), 16, 2, (8, 8))
ONE = ClassMap(torch.tensor([0]), torch.tensor([0]))


def test_auto_gain_makes_the_gradient_the_wanted_share():
    term = make_term(PKD, "pkd", "pkd", "auto:0.5")
    for term_norm, detection_norm in [(2.0, 8.0), (1.0, 6.0), (1.0, 5.0)]:
        term.observe(term_norm, detection_norm)
    assert term.gain == pytest.approx(0.5 * 5.0)  # the median ratio
    assert term.share_at(1.0) == pytest.approx(0.5) and term.share_at(0.5) == pytest.approx(0.25)
    term.fixed = True
    term.observe(1.0, 100.0)
    assert term.gain == pytest.approx(2.5)


@pytest.mark.parametrize(
    "norms", [(0.0, 3.0), (2.0, 0.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, float("nan"))]
)
def test_a_batch_without_usable_gradients_says_nothing(norms):
    term = Term("m", "t", "t_loss", "neck", share=0.5, fixed=False)
    term.observe(1.0, 4.0)
    term.observe(*norms)
    assert term.gain == 2.0 and term.ratios == [4.0]
    assert term.share_at(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("gain", [-1, float("inf"), float("nan"), "auto:0", "auto:inf", "auto:x", "much", True, [1]])
def test_gains_that_are_none(gain):
    with pytest.raises(MisuseError, match="expected a gain of 0 or more, or auto:SHARE"):
        make_term(PKD, "pkd", "pkd", gain)


def test_fixed_gains_of_a_resumed_run_count():
    methods = build_methods(Recipe("r", {"pkd": {"pkd": "auto:0.5"}}), SPEC, SPEC, ONE, print, {"pkd.pkd": 3.0})
    assert methods[0].terms[0].gain == 3.0 and methods[0].terms[0].fixed


def test_term_that_cannot_apply_is_off_with_a_line():
    said: list[str] = []
    flat = HeadSpec((8, 8), (8, 16), 8, 2, (8, 8))
    recipe = Recipe("r", {"lqe": {"lqe": 1}, "pkd": {"pkd": 1}})
    assert [m.name for m in build_methods(recipe, flat, SPEC, ONE, said.append)] == ["pkd"]
    assert len(said) == 1 and said[0].startswith("lqe.lqe is off: ")


def test_the_released_formulas_come_with_a_warning():
    said: list[str] = []
    for form in ("yolo", "paper"):
        build_methods(Recipe("r", {"csgr": {"cs": 1, "gr": 1, "form": form}}), SPEC, SPEC, ONE, said.append)
    assert len(said) == 1 and said[0].startswith("WARNING csgr.form=paper: the released formulas")


def test_a_quality_without_distributions_is_said_and_calibrated_where_it_acts():
    flat, said = HeadSpec((8, 8), (8, 16), 1, 2, (8, 8)), []
    recipe = Recipe("r", {"lqe": {"lqe": 1}})
    acts = [build_methods(recipe, spec, SPEC, ONE, said.append)[0].terms[0].acts_on for spec in (SPEC, flat)]
    assert acts == ["boxes", "scores"]
    assert len(said) == 1 and said[0].startswith("lqe.lqe: no box distributions with reg_max=1, so the highest class")


def test_boxes_without_equal_distributions_are_said_only_where_they_are_compared():
    flat, said = HeadSpec((8, 8), (8, 16), 1, 2, (8, 8)), []
    both, only_scores = Recipe("r", {"pcd": {"cls": 1, "loc": 1}}), Recipe("r", {"pcd": {"cls": 1}})
    build_methods(both, SPEC, SPEC, ONE, said.append)
    build_methods(only_scores, SPEC, flat, ONE, said.append)
    assert said == []
    build_methods(both, SPEC, flat, ONE, said.append)
    assert said == [
        "pcd.loc: no equal box distributions with reg_max 16 (student) and 1 (teacher), so boxes are compared by their "
        "overlap (GIoU)"
    ]


def test_a_quality_without_a_predictor_needs_no_labels():
    flat, said = HeadSpec((8, 8), (8, 16), 1, 2, (8, 8)), []
    recipe = Recipe("r", {"lqe": {"lqe": 1}, "pkd": {"pkd": 1}})
    assert len(build_methods(recipe, flat, SPEC, ONE, said.append, labels=False)) == 2
    assert len(build_methods(recipe, SPEC, SPEC, ONE, said.append, labels=False)) == 1
    assert said[-1].startswith("lqe.lqe is off: it is fitted on labels")


def test_recipe_of_which_nothing_is_left_is_refused():
    flat = HeadSpec((8, 8), (8, 16), 8, 2, (8, 8))
    with pytest.raises(MisuseError, match="none of its terms can apply"):
        build_methods(Recipe("r", {"lqe": {"lqe": 1}}), flat, SPEC, ONE, print)


def test_gain_zero_is_said_and_nothing_but_zeros_is_refused():
    said: list[str] = []
    some = build_methods(Recipe("r", {"pkd": {"pkd": 0}, "native": {"native": 1}}), SPEC, SPEC, ONE, said.append)
    refuse_idle(some, False, said.append)
    assert said == ["pkd.pkd is only watched: its gain is 0, so it is measured and teaches nothing"]
    none = build_methods(Recipe("r", {"pkd": {"pkd": 0}, "native": {"native": 0}}), SPEC, SPEC, ONE, said.append)
    with pytest.raises(GateError, match="pkd.pkd, native.native: every gain is 0.*distill=none or force=true"):
        refuse_idle(none, False, said.append)
    refuse_idle(none, True, said.append)
    assert said[-1].startswith("WARNING forced: pkd.pkd, native.native: every gain is 0")
    auto = build_methods(Recipe("r", {"pkd": {"pkd": "auto:0.5"}}), SPEC, SPEC, ONE, said.append)
    refuse_idle(auto, False, said.append)  # its gain is 0 only until the first batch


@pytest.mark.parametrize("arguments", [{}, {"rho": 0.3}])
def test_a_method_without_a_gain_is_refused(arguments):
    """Beside another method it would be left out without a word."""
    recipe = Recipe("mine", {"pkd": {"pkd": 1}, "mar": arguments})
    with pytest.raises(
        MisuseError, match="distill=mine: mar has no gain, so it would not run; expected one of mask, rel"
    ):
        check_arguments(recipe)
    check_arguments(Recipe("mine", {"pkd": {"pkd": 1}, "mar": {"mask": None}}))  # off on purpose


def test_the_seed_of_the_run_is_that_of_the_adapters_unless_the_recipe_has_one():
    wide = HeadSpec((16, 16), (8, 16), 16, 2, (8, 8))

    def weight(run: int, **own: int) -> torch.Tensor:
        recipe = Recipe("r", {"pcd": {"cls": 1}, "pkd": {"pkd": 1, **own}})
        return next(build_methods(recipe, SPEC, wide, ONE, print, seed=run)[1].distiller.parameters())

    assert torch.equal(weight(1), weight(1)) and not torch.equal(weight(1), weight(2))
    assert torch.equal(weight(1, seed=7), weight(2, seed=7))


def test_building_adapters_leaves_the_global_random_state():
    before = torch.get_rng_state()
    wide = HeadSpec((16, 16), (8, 16), 16, 2, (8, 8))
    build_methods(Recipe("r", {"pkd": {"pkd": 1}, "native": {"native": 1}}), SPEC, wide, ONE, print)
    assert torch.equal(before, torch.get_rng_state())


WRONG = {
    bool: ["maybe", 2, None],
    int: ["two", 1.5, True, None],
    float: ["x", True, None, float("nan"), float("inf")],
    str: [5, None],
}


@pytest.mark.parametrize("method", DISTILLERS)
def test_an_argument_of_another_type_than_its_default_is_refused(method):
    gain = {load(method).terms[0]: 1}
    for name, default in arguments(method).items():
        check_arguments(Recipe("r", {method: {name: default, **gain}}))
        for value in WRONG[type(default)]:
            with pytest.raises(MisuseError) as refusal:
                check_arguments(Recipe("r", {method: {name: value}}))
            assert str(refusal.value).startswith(f"{method}.{name}={value}: expected "), (name, value)


def test_a_whole_number_will_do_for_any_number():
    check_arguments(Recipe("r", {"csgr": {"cs": 1, "tau": 1, "residual": 0}}))


IDLE = [
    {"csgr.tau": 0.2},
    {"csgr.width": 32},
    {"csgr.form": "paper", "csgr.attention": "gt_boxes"},
    {"pcd.form": "paper", "pcd.top": 10},
    {"lqe.form": "paper", "lqe.top": 10},
    {"lqe.form": "paper", "lqe.student_predictor": "shared"},
    {"distill": "mar", "mar.form": "paper", "mar.regions": "gauss"},
    {"distill": "mar", "mar.form": "paper", "mar.rho": 0.25},
    {"distill": "mar", "mar.tau": 0.5},
    {"distill": "mar", "mar.relation": None, "mar.cells": 64},
    {"pcd.loc": None, "pcd.temperature": 4},
]


@pytest.mark.parametrize("keys", IDLE, ids=lambda keys: "-".join(map(str, keys.values())))
def test_an_argument_that_nothing_reads_is_a_line(keys):
    """Whoever sweeps it would compare equal runs. No refusal: with a term switched on again it counts."""
    key, value = list(keys.items())[-1]
    lines: list[list[str]] = []
    for given in (keys, {k: v for k, v in keys.items() if k != key}):
        said: list[str] = []
        build_methods(resolve({"teacher": "a.pt", **given}).recipe, SPEC, SPEC, ONE, said.append)
        lines.append([line for line in said if line.startswith(f"WARNING {key}={value} changes nothing: ")])
    assert len(lines[0]) == 1 and lines[0][0].endswith(f"or leave {key} out")
    assert not lines[1]


def test_an_argument_that_the_pair_leaves_unread_is_a_line():
    """The recipe cannot know; the same recipe reads it with another teacher."""
    flat, said = HeadSpec((8, 8), (8, 16), 1, 2, (8, 8)), []
    recipe = resolve({"teacher": "a.pt", "pcd.temperature": 4, "lqe.kind": "hard", "csgr.seed": 3}).recipe
    build_methods(recipe, SPEC, HeadSpec((16, 16), (8, 16), 16, 2, (8, 8)), ONE, said.append)
    assert said == []
    build_methods(recipe, SPEC, flat, ONE, said.append)
    assert [line for line in said if "changes nothing" in line] == [
        "WARNING csgr.seed=3 changes nothing: student and teacher have maps of equal width, so no adapter is drawn",
        "WARNING pcd.temperature=4 changes nothing: without equal box distributions pcd.loc compares boxes",
        "WARNING lqe.kind=hard changes nothing: there is no predictor with reg_max=1",
    ]
