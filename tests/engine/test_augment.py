"""augment=field reaches the pictures of a training, leaves every box where it was, and travels as plain values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from yolo_kd.data.corruptions import STRENGTHS, corruptions, training_recipe, transform_of

from yolo_kd import DistillationTrainer
from yolo_kd.cli import main

STILL = {"mosaic": 0, "scale": 0, "translate": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "fliplr": 0, "erasing": 0}


def loaded(trainer: Any) -> list[dict[str, Any]]:
    """Every training picture once, as the student would get it."""
    dataset = trainer.train_loader.dataset
    return [dataset[i] for i in range(len(dataset))]


def test_every_corruption_at_every_strength_is_among_the_ways() -> None:
    import albumentations

    recipe = training_recipe("field", 640, 0.3)
    assert json.loads(json.dumps(recipe)) and "yolo_kd" not in json.dumps(recipe), "stock Ultralytics can read it"
    one_of = albumentations.from_dict(recipe[0])
    assert one_of.p == 0.3 and len(one_of.transforms) == len(corruptions()) * len(STRENGTHS)
    evaluated = {str(transform_of(name, strength, (640, 640))) for name in corruptions() for strength in STRENGTHS}
    assert len(evaluated) == len(one_of.transforms) and {str(way) for way in one_of.transforms} == evaluated
    assert np.allclose(one_of.transforms_ps, 1 / len(one_of.transforms))


@pytest.mark.slow
def test_the_training_sees_it_and_no_box_moves(train: Callable[..., Any]) -> None:
    clean = loaded(train(distill="none", augmentations=[], **STILL))
    spoilt = loaded(train(distill="none", augment="field", augment_share=1.0, **STILL))
    half = loaded(train(distill="none", augment="field", augment_share=0.5, **STILL))
    for one, other in zip(clean, spoilt, strict=True):
        assert torch.equal(one["bboxes"], other["bboxes"]) and torch.equal(one["cls"], other["cls"]) and len(one["cls"])
        assert not torch.equal(one["img"], other["img"])
    changed = [not torch.equal(one["img"], other["img"]) for one, other in zip(clean, half, strict=True)]
    assert 0 < sum(changed) < len(changed)


@pytest.mark.slow
def test_a_checkpoint_and_a_worker_carry_plain_values(train: Callable[..., Any], tmp_path: Path) -> None:
    trainer = train(distill="none", augment="field", epochs=2, save_period=1)
    first = Path(trainer.wdir) / "epoch0.pt"  # last.pt is stripped at the end, as Ultralytics does it
    kept = torch.load(first, weights_only=False)["train_args"]
    saved = kept["augmentations"]
    assert (
        saved == training_recipe("field", 64, 0.5)
        and not {"kd", "augment_share"} & kept.keys()
        and kept["augment"] is False
    )
    worker = DistillationTrainer(overrides={**vars(trainer.args), "kd": trainer.kd.to_dict(), "name": "worker"})
    assert worker.args.augmentations == saved and worker.kd.augment == "field"
    resumed = DistillationTrainer(overrides={"resume": str(first), "model": str(first)})
    assert resumed.args.augmentations == saved and resumed.kd.augment == "field"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["augment=feild"], "augment=feild: expected field, true or false (Ultralytics' test-time"),
        (["augment=feild"], "or leave it out (did you mean 'field'?)"),
        (["augment=1"], "augment=1: expected field"),
        (["augment=[1]"], "expected field"),
        (["augment=field", "augment_share=0"], "augment_share=0: expected a share above 0"),
        (["augment=field", "augment_share=1.5"], "augment_share=1.5: expected a share above 0"),
        (["augment=field", "augment_share=often"], "augment_share=often: expected a number"),
    ],
)
def test_misuse_is_one_line(pictures: Path, tmp_path: Path, capsys, words: list[str], said: str) -> None:
    args = ["train", "distill=none", f"data={pictures}", f"project={tmp_path}", "imgsz=64", *words]
    assert main(args) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("yolo-kd")]
    assert len(lines) == 1 and said in lines[0]
    assert not list(tmp_path.iterdir())


def test_both_keys_at_once_and_grey_data_are_refused(train: Callable[..., Any], pictures: Path, tmp_path: Path) -> None:
    import shutil

    import yaml

    from yolo_kd.errors import MisuseError

    with pytest.raises(MisuseError, match="together with augmentations="):
        train(distill="none", augment="field", augmentations=training_recipe("field", 64, 0.5))
    root = Path(shutil.copytree(pictures.parent, tmp_path / "grey"))
    (root / "data.yaml").write_text(yaml.safe_dump({**yaml.safe_load(pictures.read_text()), "channels": 1}))
    with pytest.raises(MisuseError, match="is for pictures of 3 channels, the data has 1"):
        train(distill="none", augment="field", data=str(root / "data.yaml"))
