"""The pictures of a distilled run, drawn where Ultralytics draws results.png: after the last epoch, if `plots` is on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from yolo_kd import distillers
from yolo_kd.cfg.settings import Recipe
from yolo_kd.engine import maps_picture, terms_picture, ultra
from yolo_kd.engine.heads import TeacherNet
from yolo_kd.engine.history import events, read_history, wanted_shares
from yolo_kd.engine.maps import Maps, look

PICTURES = 4  # validation pictures in distill_maps.jpg


def draw_pictures(trainer: Any) -> None:
    """Draw both into the run folder; what cannot be drawn is said, and does not spoil a training that is done."""
    if trainer.distillation is None:
        return
    for name, draw in ((terms_picture.NAME, draw_terms), (maps_picture.NAME, draw_maps)):
        path = trainer.save_dir / name
        try:
            draw(trainer, path)
        except Exception as error:
            trainer.log(f"WARNING {name} was not drawn: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            trainer.on_plot(path)


def draw_terms(trainer: Any, path: Path) -> None:
    """distill_terms.png."""
    recipe: Recipe = trainer.kd.recipe
    marks = events(trainer.epochs, trainer.args.close_mosaic, recipe.schedule, recipe.until)
    terms_picture.draw_terms(read_history(trainer.csv), wanted_shares(recipe.methods), marks, path)


def draw_maps(trainer: Any, path: Path) -> None:
    """distill_maps.jpg, of the best student and the float32 teacher."""
    checkpoint = trainer.best if trainer.best.exists() else trainer.last
    student = TeacherNet(ultra.load_detector(str(checkpoint), "student", trainer.kd.trust)).to(trainer.device)
    maps_picture.draw_maps(seen(trainer, student), path)


def seen(trainer: Any, student: TeacherNet) -> list[Maps]:
    """What student and teacher see in some pictures of the val split, evenly spaced among those with labels."""
    teacher, shared = trainer.distillation.teacher, trainer.distillation.shared
    names = {int(k): str(v) for k, v in trainer.data["names"].items()}
    columns = torch.full((len(names),), -1, dtype=torch.long)
    columns[shared.student.cpu()] = shared.teacher.cpu()
    dataset = trainer.test_loader.dataset
    labelled = [i for i, label in enumerate(dataset.labels) if len(label["cls"])] or list(range(len(dataset)))
    picks = [labelled[round(i * (len(labelled) - 1) / max(PICTURES - 1, 1))] for i in range(PICTURES)]
    view = partial(
        look, student, teacher.net, names=names, columns=columns, strides=teacher.strides,
        attention=attention_of(trainer.kd.recipe),
    )  # fmt: skip
    return [view(dataset[i]) for i in dict.fromkeys(picks)]


def attention_of(recipe: Recipe) -> tuple[float, float]:
    """Power and presence of csgr's attention in this recipe; its defaults where it does not take part."""
    settings = {**distillers.arguments("csgr"), **recipe.methods.get("csgr", {})}
    return float(settings["power"]), float(settings["presence"])
