"""Recipes, keys and values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from yolo_kd.cfg.settings import DistillSettings, changed_on_resume, default_keys, load_recipe, recipe_names, resolve
from yolo_kd.cfg.values import read_value

from yolo_kd.errors import MisuseError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("8", 8), (".2", 0.2), ("on", "on"), ("true", True), ("none", None), ("[1, 2]", [1, 2]), (3, 3)],
)
def test_numbers_first(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


def test_every_key_has_a_default_of_the_dataclass():
    """default.yaml documents what DistillSettings holds; a value that differs would be a lie in the help."""
    plain = resolve({"teacher": "a.pt"}).to_dict()
    for key, default in default_keys().items():
        if key in plain and key != "teacher":
            assert plain[key] == default, key
        else:
            assert key in {"teacher", "distill", "schedule", "until"}, key
    assert {k: getattr(DistillSettings(load_recipe("none")), k) for k in plain if k in default_keys()} == {
        **{k: v for k, v in default_keys().items() if k in plain}
    }


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_their_arguments_exist(name):
    from yolo_kd.engine.terms import check_arguments

    recipe = load_recipe(name)
    assert recipe.methods and recipe.name == name
    check_arguments(recipe)


def test_the_default_is_csgr_with_pcd_and_lqe():
    assert set(resolve({"teacher": "a.pt"}).recipe.methods) == {"csgr", "pcd", "lqe"}


def test_a_teacher_may_be_a_path():
    settings = resolve({"teacher": Path("runs") / "a.pt"})
    assert settings.teacher == str(Path("runs") / "a.pt")
    assert changed_on_resume(settings, {"teacher": Path("b.pt")}).teacher == "b.pt"
    with pytest.raises(MisuseError, match="^teacher=an object of type object: expected the path of a checkpoint$"):
        resolve({"teacher": object()})


def test_settings_travel_as_plain_values():
    settings = resolve({"teacher": "a.pt", "csgr.tau": "1e-1", "until": ".5", "force": "true"})
    plain = yaml.safe_load(yaml.safe_dump(settings.to_dict()))
    assert DistillSettings.from_dict(plain) == settings
    assert plain["recipe"]["methods"]["csgr"]["tau"] == 0.1
    with pytest.raises(MisuseError, match="unknown key 'forse'"):
        DistillSettings.from_dict({**plain, "forse": 1})


def test_recipe_from_file_and_its_mistakes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("schedule: cosine\nmethods:\n  pkd:\n    pkd: 1e-1\n")
    recipe = resolve({"teacher": "a.pt", "distill": str(path)}).recipe
    assert (recipe.schedule, recipe.methods["pkd"]["pkd"]) == ("cosine", 0.1)
    for text, said in [
        ("methods: 3", "expected a YAML with 'methods:'"),
        ("methods: {}", "it has no method, so nothing would be distilled; for that use distill=none"),
        ("methods: {pkd: 3}", "expected 'key: value' lines"),
        ("shedule: cosine\nmethods: {pkd: {pkd: 1}}", "did you mean 'schedule'"),
        ("{", "not a readable recipe"),
    ]:
        path.write_text(text)
        with pytest.raises(MisuseError, match=said):
            load_recipe(str(path))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cpu_threads", "0", "cpu_threads=0: expected 1 or more"),
        ("cpu_threads", "true", "cpu_threads=True: expected 1 or more"),  # which is 1 to Python, and no number to torch
        ("cpu_threads", "two", "cpu_threads=two: expected 1 or more"),
        ("calibrate_batches", "0", "calibrate_batches=0: expected 1 or more"),
        ("save_steps", "-1", "save_steps=-1: expected 0"),
    ],
)
def test_numbers_that_make_no_sense(key, value, said):
    with pytest.raises(MisuseError, match=f"^{said}"):
        resolve({"teacher": "a.pt", key: value})


def test_later_beats_earlier_and_dotted_keys_reach_into_the_recipe():
    recipe = resolve({"teacher": "a.pt", "distill": "pkd", "pkd.pkd": 2, "schedule": "linear", "until": 1}).recipe
    assert recipe.methods == {"pkd": {"pkd": 2}} and (recipe.schedule, recipe.until) == ("linear", 1.0)
