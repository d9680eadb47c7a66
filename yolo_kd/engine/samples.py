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
JOINING = ("mosaic", "mixup", "cutmix", "copy_paste")  # what Ultralytics' close_mosaic= closes


def sample_pictures(trainer: Any, labelled: bool = False) -> Any:
    """A data set of its own: the training's keeps a buffer of mosaic partners that must not move.

    Args:
        trainer: The trainer.
        labelled: Of labelled pictures only.
    """
    closed = trainer.args.close_mosaic >= trainer.epochs  # then training shows none of it, not even at first
    keys = {"cache": False, "rect": False, **(dict.fromkeys(JOINING, 0.0) if closed else {})}
    with ultra.override_configs(trainer.args, keys), preserved_rng(SAMPLE_SEED):
        if labelled:
            return trainer.build_dataset(trainer.data["train"], mode="train", batch=trainer.batch_size)
        return all_pictures(trainer)


def sample_batches(trainer: Any, count: int, dataset: Any = None) -> Iterator[dict[str, Tensor]]:
    """`count` batches as the first epoch would see them (mosaic, colour, flips), on the device, always the same ones.

    Args:
        trainer: The trainer.
        count: Batches.
        dataset: A new one from `sample_pictures`; of all pictures if None.
    """
    dataset = sample_pictures(trainer) if dataset is None else dataset
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(dataset))
    size = max(trainer.batch_size // max(trainer.world_size, 1), 1)
    for index in range(count):
        picks = [int(order[(index * size + i) % len(order)]) for i in range(size)]
        # one size for all, so that they can be compared and calibrated on; multi-scale comes on top of it in training
        with ultra.override_configs(trainer.args, {"multi_scale": 0.0}), preserved_rng(SAMPLE_SEED + index):
            batch = dataset.collate_fn([dataset[i] for i in picks])
            batch = ultra.DetectionTrainer.preprocess_batch(trainer, batch)
        yield batch
