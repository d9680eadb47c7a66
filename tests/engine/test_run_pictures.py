"""The pictures of a distilled run: drawn when Ultralytics draws its own, of the run's own data, and never at its cost."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import pytest
import torch
from yolo_kd.cfg.settings import Recipe

from yolo_kd.cli import main
from yolo_kd.engine import run_pictures
from yolo_kd.engine.run_pictures import attention_of, draw_pictures, seen

KEYS = {"distill": "pcd", "force": True, "teacher_engine": "torch", "check_data": False, "imgsz": 64}


@pytest.mark.slow
def test_a_distilled_run_with_plots_leaves_both_pictures(train, make_checkpoint):
    told = []
    trainer = train(teacher=str(make_checkpoint(seed=3)), plots=True, val=True, **KEYS)
    folder = trainer.save_dir
    terms, maps = cv2.imread(str(folder / "distill_terms.png")), cv2.imread(str(folder / "distill_maps.jpg"))
    assert terms.shape == (1200, 1200, 3)
    assert maps.shape[1] == 4 * 304 and maps.shape[0] > 4 * 3 * 300, "four pictures of three rows and three levels"
    assert {folder / "distill_terms.png", folder / "distill_maps.jpg"} <= set(trainer.plots), "loggers are told of both"
    assert (folder / "results.png").exists() and not list(folder.glob("*.part"))

    assert main(["report", f"run={folder}"]) == 0
    page = (folder / "report.html").read_text()
    found = json.loads((folder / "preflight.json").read_text())
    for words in (
        "at epoch 1 of 1", "for 1 epoch<", f"mAP50-95 {found['maps']['teacher']['mAP50-95']:.4f}", "Distillation terms", "pcd.cls", "pcd.loc",
        "Gradient shares", f"ran on {found['engine']}", "pictures0/data.yaml",
    ):  # fmt: skip
        assert words in page, words
    assert "as good as its teacher" not in page, "neither sees anything"
    assert page.count("data:image/jpeg") == 1, "the maps"

    trainer.log = told.append
    for name in ("distill_terms.png", "distill_maps.jpg"):
        (folder / name).unlink()
    trainer.csv.unlink()
    draw_pictures(trainer)
    assert (folder / "distill_maps.jpg").exists() and not (folder / "distill_terms.png").exists()
    assert len(told) == 1 and told[0].startswith("WARNING distill_terms.png was not drawn: MisuseError: ")


@pytest.mark.slow
@pytest.mark.parametrize("plots", [True, False])
def test_no_pictures_without_plots_or_without_a_teacher(train, make_checkpoint, plots):
    teacher = {"distill": "none"} if plots else {**KEYS, "teacher": str(make_checkpoint(seed=3))}
    trainer = train(plots=plots, **teacher)
    assert not list(trainer.save_dir.glob("distill_*")) and (trainer.save_dir / "results.csv").exists()


class DataSet(list):
    """Items whose labels tell how many objects each has."""

    @property
    def labels(self) -> list[dict]:
        return [{"cls": torch.zeros(count, 1)} for count in self]


def picks(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> list[int]:
    """Indices of the pictures that are looked at; an item is its number of objects, told apart by its index."""
    looked: list[int] = []

    class Indexed(DataSet):
        def __getitem__(self, index):
            looked.append(index)
            return index

    monkeypatch.setattr(run_pictures, "look", lambda *given, **keys: [*given[:2], *keys["columns"].tolist()])
    shared = SimpleNamespace(student=torch.tensor([0, 2]), teacher=torch.tensor([5, 1]))
    trainer = SimpleNamespace(
        distillation=SimpleNamespace(teacher=SimpleNamespace(net="teacher", strides=(8,)), shared=shared),
        data={"names": {0: "a", 1: "b", 2: "c"}}, test_loader=SimpleNamespace(dataset=Indexed(counts)),
        kd=SimpleNamespace(recipe=Recipe("x", {})),
    )  # fmt: skip
    assert seen(trainer, "student") == [["student", "teacher", 5, -1, 1]] * len(looked)  # type: ignore[arg-type]
    return looked


def test_pictures_are_spread_over_those_with_labels(monkeypatch):
    assert picks(monkeypatch, [0, 3, 1, 0, 1, 1, 2, 1, 1]) == [1, 4, 6, 8]
    assert picks(monkeypatch, [1, 1]) == [0, 1], "a picture is shown once"
    assert picks(monkeypatch, [0, 0, 0]) == [0, 1, 2], "none has labels"


def test_the_attention_is_the_recipes_or_csgrs_own():
    assert attention_of(Recipe("x", {"csgr": {"power": 1.0, "cs": 1}})) == (1.0, 0.05)
    assert attention_of(Recipe("x", {"pkd": {}})) == (2.0, 0.05)
