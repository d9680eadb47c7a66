"""Recipes and forms beside the default one, trained end to end."""

from __future__ import annotations

import math

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"distill": "mar"},
        {"distill": "native"},
        {"distill": "csgr", "csgr.form": "paper"},
        {"distill": "pcd", "pcd.form": "paper"},
    ],
    ids=lambda keys: "-".join(keys.values()),
)
def test_every_term_is_real_and_logged(train, make_checkpoint, keys):
    teacher = str(make_checkpoint(seed=1))
    trainer = train(teacher=teacher, force=True, teacher_engine="torch", **keys)
    (method,) = trainer.distillation.methods
    assert method.name == keys["distill"] and {t.name for t in method.terms} == set(method.distiller.terms)
    given = {key.partition(".")[2]: value for key, value in keys.items() if "." in key}
    assert trainer.kd.recipe.methods[method.name].items() >= given.items()
    header = trainer.csv.read_text().splitlines()[0].split(",")
    for term in method.terms:
        assert 0 < float(trainer.loss_items[term.column]) < math.inf, term.key
        assert term.gain > 0 and 0 < term.share_at(1.0) < math.inf, term.key
        assert f"train/{term.column}" in header
