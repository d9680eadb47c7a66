"""The batches that a teacher is judged, calibrated and fitted on look like those that training shows it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tests.engine.stopping import PLAIN
from yolo_kd import DistillationTrainer
from yolo_kd.engine.samples import sample_batches, sample_pictures

STILL = {**dict.fromkeys(("scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0), "augmentations": []}


@pytest.mark.parametrize(("close", "whole"), [(0, False), (1, False), (3, True), (10, True)])
def test_pictures_come_together_with_others_if_those_of_the_first_epoch_do(train, pictures, close, whole):
    """Of 3 epochs, the last 3 or 10 of which Ultralytics shows without mosaic: then it closes before the first."""
    files = sorted((pictures.parent / "images" / "train").glob("*.png"))
    known = [torch.from_numpy(cv2.imread(str(Path(f)))[..., ::-1].copy()).permute(2, 0, 1) / 255 for f in files]
    found: dict[str, list[bool]] = {}

    def are_known(batch):
        return [any(torch.equal(img, picture) for picture in known) for img in batch["img"]]

    class First(DistillationTrainer):
        def preprocess_batch(self, batch):
            batch = super().preprocess_batch(batch)
            before = vars(self.args).copy()
            found["first epoch"] = are_known(batch)
            found["all"] = are_known(next(sample_batches(self, 1)))
            found["labelled"] = are_known(next(sample_batches(self, 1, sample_pictures(self, labelled=True))))
            assert vars(self.args) == before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(First, epochs=3, close_mosaic=close, mixup=0.5, cutmix=0.5, copy_paste=0.5, **STILL, **PLAIN)
    assert found == dict.fromkeys(("first epoch", "all", "labelled"), [whole] * 4)
