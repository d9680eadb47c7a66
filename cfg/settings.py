"""From recipe name, YAML and `key=value` to one frozen object: what the run distils, from whom, and how.

`DistillSettings` is resolved once, saved with the run as kd.yaml, and is a nested plain dict wherever it has to travel
(multi-GPU workers, resume); Ultralytics' own keys never pass through here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from yolo_kd.cfg.documents import parse_yaml
from yolo_kd.cfg.values import like_default, read_key, read_paths, read_value, shown

from yolo_kd.errors import MisuseError, did_you_mean

SCHEDULES = ("constant", "linear", "cosine", "mosaic")
ENGINES = ("auto", "torch", "openvino-bf16", "openvino-int8")
NO_RECIPE = "none"
CHANGEABLE = (
    "teacher",
    "teacher_engine",
    "teacher_compile",
    "cpu_threads",
    "check_data",
    "save_steps",
    "force",
    "trust",
    "debug",
)


@dataclass(frozen=True)
class Recipe:
    """Which methods with which gains and arguments, and how they fade.

    Args:
        name: What the user called it.
        methods: Per method its term gains (a number or "auto:SHARE") and constructor arguments, mixed by key.
        schedule: One of SCHEDULES.
        until: Share of the run in (0, 1] after which every term is off and the teacher does not run.
    """

    name: str
    methods: Mapping[str, Mapping[str, Any]]
    schedule: str = "constant"
    until: float = 1.0


@dataclass(frozen=True)
class DistillSettings:
    """Everything yolo-kd adds to a training run; the meaning of each key stands in cfg/default.yaml."""

    recipe: Recipe
    teacher: str | None = None
    teacher_engine: str = "auto"
    teacher_every: int = 1
    teacher_compile: bool = False
    teacher_floor: float = 0.05
    max_feature_error: float = 0.06
    max_score_error: float = 0.15
    calibration_images: int = 64
    calibrate_batches: int = 8
    augment: str | None = None
    augment_share: float = 0.5
    unlabeled: Sequence[str] | None = None
    unlabeled_ratio: float = 0.5
    unlabeled_frames: int = 300
    pseudo_labels: float | None = None
    check_data: bool = True
    save_steps: int = 0
    cpu_threads: int | None = None
    qat: bool = False
    force: bool = False
    trust: bool = False
    debug: bool = False
    fixed_gains: Mapping[str, float] = field(default_factory=dict)
    run: str = ""  # drawn when it starts: tells it from others in the same folder

    def to_dict(self) -> dict[str, Any]:
        """A nested dict of plain values."""
        plain = asdict(self)
        plain["recipe"]["methods"] = {k: dict(v) for k, v in self.recipe.methods.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DistillSettings:
        """The inverse of `to_dict`.

        Raises:
            MisuseError: A key is unknown or a value makes no sense (a file of another version, or edited by hand).
        """
        known = {f.name for f in fields(cls)}
        for key in plain:
            if key not in known:
                raise MisuseError(f"kd settings: unknown key '{key}'{did_you_mean(key, known)}")
        recipe, gains, defaults = plain.get("recipe"), plain.get("fixed_gains") or {}, default_keys()
        if (
            not isinstance(recipe, Mapping)
            or not isinstance(gains, Mapping)
            or not all(map(_is_number, gains.values()))
        ):
            raise MisuseError(
                "kd settings: expected recipe: and fixed_gains: with names and values; kd.yaml was changed by hand"
            )
        methods = _parse_recipe(str(recipe.get("name")), {k: v for k, v in recipe.items() if k != "name"})
        rest = {k: _typed(k, v, defaults[k]) for k, v in plain.items() if k in defaults}
        settings = cls(
            recipe=_with_overrides(methods, {}, None, None),
            fixed_gains=dict(gains),
            run=str(plain.get("run", "")),
            **rest,
        )
        _check(settings)
        return settings


@cache
def default_keys() -> Mapping[str, Any]:
    """Our train keys with their defaults, as in cfg/default.yaml."""
    return MappingProxyType(yaml.safe_load(files("yolo_kd.cfg").joinpath("default.yaml").read_text()))


def recipe_names() -> list[str]:
    """The recipes that ship, sorted."""
    return sorted(
        Path(f.name).stem for f in files("yolo_kd.cfg").joinpath("distill").iterdir() if f.name[-5:] == ".yaml"
    )


def augment_names() -> list[str]:
    """The ways to spoil training pictures that ship, sorted."""
    return sorted(
        Path(f.name).stem for f in files("yolo_kd.cfg").joinpath("augment").iterdir() if f.name[-5:] == ".yaml"
    )


def is_ours(key: str, value: Any) -> bool:
    """Whether a train key belongs to yolo-kd: one of default.yaml, or dotted like `csgr.tau`.

    `augment` is a key of Ultralytics', too: true and false are about its test-time augmentation.
    """
    return (key in default_keys() or "." in key) and not (key == "augment" and isinstance(value, bool))


def load_recipe(source: str | Mapping[str, Any]) -> Recipe:
    """A recipe by name, by path or as a dict of the same form.

    Raises:
        MisuseError: No such recipe, unreadable YAML, or keys it does not have.
    """
    if isinstance(source, Mapping):
        return _parse_recipe("custom", source)
    if not isinstance(source, (str, Path)):
        raise MisuseError(f"distill={source}: expected a recipe's name, e.g. distill=csgr_lqe, or the path of a YAML")
    source = str(source)
    if source == NO_RECIPE:
        return Recipe(NO_RECIPE, {})
    if source in recipe_names():
        text = files("yolo_kd.cfg").joinpath("distill", f"{source}.yaml").read_text()
        return _parse_recipe(source, yaml.safe_load(text))
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"}:
        known = [*recipe_names(), NO_RECIPE]
        raise MisuseError(
            f"distill={source}: no such recipe{did_you_mean(source, known)}; use one of {', '.join(known)} or a .yaml file"
        )
    try:
        return _parse_recipe(path.stem, parse_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MisuseError(f"distill={source}: no such file; expected a recipe YAML") from None
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise MisuseError(f"distill={source}: not a readable recipe YAML ({line})") from None


def resolve(keys: Mapping[str, Any]) -> DistillSettings:
    """Settings from user keys: those of default.yaml, and dotted ones that reach into the recipe (`csgr.tau`).

    Raises:
        MisuseError: Unknown key, wrong type or value, method that the recipe does not have, or no teacher.
    """
    defaults = default_keys()
    chosen: dict[str, Any] = dict(defaults)
    dotted: dict[str, Any] = {}
    for key, value in keys.items():
        if "." in key:
            dotted[key] = read_value(value)
        elif key not in defaults:
            raise MisuseError(f"{key}={value}: unknown key{did_you_mean(key, defaults)}")
        else:
            chosen[key] = _typed(key, read_key(key, value), defaults[key])
    recipe = load_recipe(NO_RECIPE if chosen["distill"] in (None, False) else chosen.pop("distill"))
    chosen.pop("distill", None)
    recipe = _with_overrides(recipe, dotted, chosen.pop("schedule"), chosen.pop("until"))
    settings = DistillSettings(recipe=recipe, **chosen)
    _check(settings)
    return settings


def changed_on_resume(settings: DistillSettings, keys: Mapping[str, Any]) -> DistillSettings:
    """The settings of an earlier run with those keys changed that may change.

    Raises:
        MisuseError: Another key, or a value that it cannot have.
    """
    defaults = default_keys()
    for key, value in keys.items():
        if key not in CHANGEABLE:
            raise MisuseError(f"{key}={value}: may not change on resume; {', '.join(CHANGEABLE)} may")
    typed = {k: _typed(k, read_key(k, v), defaults[k]) for k, v in keys.items()}
    changed = replace(settings, **typed)
    _check(changed)
    return changed


def _parse_recipe(name: str, raw: Any) -> Recipe:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("methods"), Mapping):
        raise MisuseError(f"distill={name}: expected a YAML with 'methods:' (a method per line), see cfg/distill")
    known = {"methods", "schedule", "until"}
    for key in raw:
        if key not in known:
            raise MisuseError(f"distill={name}: unknown key '{key}'{did_you_mean(key, known)}")
    if not raw["methods"] and name != NO_RECIPE:
        raise MisuseError(
            f"distill={name}: it has no method, so nothing would be distilled; for that use distill={NO_RECIPE}"
        )
    methods: dict[str, dict[str, Any]] = {}
    for method, args in raw["methods"].items():
        if args is not None and not isinstance(args, Mapping):
            raise MisuseError(f"distill={name}: '{method}' is {args!r}, expected 'key: value' lines below it")
        methods[method] = {str(k): read_value(v) for k, v in (args or {}).items()}
    return Recipe(name, methods, raw.get("schedule", "constant"), raw.get("until", 1.0))


def _with_overrides(recipe: Recipe, dotted: Mapping[str, Any], schedule: Any, until: Any) -> Recipe:
    methods = {name: dict(args) for name, args in recipe.methods.items()}
    for key, value in dotted.items():
        method, _, argument = key.partition(".")
        if method not in methods:
            have = ", ".join(methods) or "no method"
            hint = did_you_mean(method, methods)
            if method in recipe_names():  # pkd is no misspelt pcd
                hint = f"; take distill={method}, or a YAML of your own with it, in the form of those in cfg/distill"
            raise MisuseError(f"{key}={value}: recipe '{recipe.name}' has {have}{hint}")
        methods[method][argument] = value
    schedule = recipe.schedule if schedule is None else schedule
    until = recipe.until if until is None else until
    if schedule not in SCHEDULES:
        raise MisuseError(
            f"schedule={schedule}: expected one of {', '.join(SCHEDULES)}{did_you_mean(schedule, SCHEDULES)}"
        )
    if isinstance(until, bool) or not isinstance(until, (int, float)) or not 0 < until <= 1:
        raise MisuseError(f"until={until}: expected a share of the run above 0 and up to 1, e.g. until=.5")
    return Recipe(recipe.name, methods, schedule, float(until))


def _typed(key: str, value: Any, default: Any) -> Any:
    """The value as the type of its default, or a line that says what was expected."""
    if key == "until" and isinstance(value, (int, float)):
        return value
    if key == "teacher" and isinstance(value, Path):
        return str(value)
    if key == "unlabeled" and value is not None:
        return read_paths(key, value)
    if default is None or key == "distill":
        return value
    return like_default(key, value, default)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(settings: DistillSettings) -> None:
    if not isinstance(settings.teacher, str | None):
        raise MisuseError(f"teacher={shown(settings.teacher)}: expected the path of a checkpoint")
    if settings.teacher_engine not in ENGINES:
        hint = did_you_mean(settings.teacher_engine, ENGINES)
        raise MisuseError(f"teacher_engine={settings.teacher_engine}: expected one of {', '.join(ENGINES)}{hint}")
    for key in ("teacher_every", "calibrate_batches", "calibration_images", "unlabeled_frames"):
        if getattr(settings, key) < 1:
            raise MisuseError(f"{key}={getattr(settings, key)}: expected 1 or more")
    for key in ("max_feature_error", "max_score_error"):  # below 0 every engine would be refused, torch's own too
        if not getattr(settings, key) >= 0:
            raise MisuseError(f"{key}={getattr(settings, key):g}: expected 0 or more, e.g. {default_keys()[key]:g}")
    if settings.save_steps < 0:
        raise MisuseError(f"save_steps={settings.save_steps}: expected 0 (none within an epoch) or a number of batches")
    if settings.augment not in (None, *augment_names()):
        names, hint = ", ".join(augment_names()), did_you_mean(str(settings.augment), augment_names())
        raise MisuseError(
            f"augment={settings.augment}: expected {names}, true or false (Ultralytics' test-time augmentation), "
            f"or leave it out{hint}"
        )
    if not 0 < settings.augment_share <= 1:
        raise MisuseError(f"augment_share={settings.augment_share:g}: expected a share above 0 and up to 1, e.g. .5")
    if settings.cpu_threads is not None and (type(settings.cpu_threads) is not int or settings.cpu_threads < 1):
        raise MisuseError(f"cpu_threads={settings.cpu_threads}: expected 1 or more")
    _check_unlabeled(settings)
    if (settings.recipe.methods or settings.pseudo_labels is not None) and not settings.teacher:
        instead = "set distill=none" if settings.recipe.methods else "leave pseudo_labels= out"
        raise MisuseError(f"teacher= is missing: name a detection checkpoint, e.g. teacher=yolov8l.pt, or {instead}")


def _check_unlabeled(settings: DistillSettings) -> None:
    ratio, sure = settings.unlabeled_ratio, settings.pseudo_labels
    if not 0 < ratio <= 1:
        raise MisuseError(f"unlabeled_ratio={ratio:g}: expected a share above 0 and up to 1, e.g. .5")
    if sure is not None and not (_is_number(sure) and 0 < sure < 1):
        raise MisuseError(f"pseudo_labels={sure}: expected a confidence between 0 and 1, e.g. .6, or leave it out")
    if sure is not None and not settings.unlabeled:
        raise MisuseError(f"pseudo_labels={sure:g}: there is nothing to label; name the pictures with unlabeled=")
    if settings.unlabeled and sure is None and not settings.recipe.methods:
        raise MisuseError(
            f"unlabeled={','.join(settings.unlabeled)}: with distill=none these pictures would teach nothing; choose a recipe, "
            "or take the teacher's boxes for labels, e.g. pseudo_labels=.6"
        )
