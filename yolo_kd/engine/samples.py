"""Real augmented training batches, drawn apart from the training's own loader and random streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from yolo_kd.engine import ultra
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.unlabeled import all_pictures

SAMPLE_SEED = 20


def sample_batches(trainer: Any, count: int, labelled: bool = False) -> Iterator[dict[str, Tensor]]:
    """`count` batches as training would see them (mosaic, colour, flips), on the device, always the same ones.

    A data set of its own is built: the training's keeps a buffer of mosaic partners that must not move.

    Args:
        trainer: The trainer.
        count: Batches.
        labelled: Of labelled pictures only.
    """
    with ultra.override_configs(trainer.args, {"cache": False, "rect": False}), preserved_rng(SAMPLE_SEED):
        if labelled:
            dataset = trainer.build_dataset(trainer.data["train"], mode="train", batch=trainer.batch_size)
        else:
            dataset = all_pictures(trainer)
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(dataset))
    size = max(trainer.batch_size // max(trainer.world_size, 1), 1)
    for index in range(count):
        picks = [int(order[(index * size + i) % len(order)]) for i in range(size)]
        # one size for all, so that they can be compared and calibrated on; multi-scale comes on top of it in training
        with ultra.override_configs(trainer.args, {"multi_scale": 0.0}), preserved_rng(SAMPLE_SEED + index):
            batch = dataset.collate_fn([dataset[i] for i in picks])
            batch = ultra.DetectionTrainer.preprocess_batch(trainer, batch)
        yield batch
