"""What to do with an INT8 net that lost too much: find the layers that cost the most, and put as few back into float as will do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.quantize.produce import Producer, Settings
from yolo_kd.deploy.quantize.sensitivity import LayerError, Restored, accuracy_aware
from yolo_kd.evidence.search import average_precision


def recover(
    producer: Producer,
    settings: Settings,
    ranking: list[LayerError],
    tuning: Split,
    max_drop: float,
    folder: Path,
    tell: Any = print,
) -> Restored[Artifact]:
    """The net with 1, 2, 4, 8, ... of its most sensitive layers in float, up to the first that is good enough.

    Args:
        producer: Of the float parent.
        settings: The recipe that falls short.
        ranking: Its layers, the most sensitive first.
        tuning: Labelled pictures that are neither calibrated on nor judged on.
        max_drop: AP that may be lost on them, absolute.
        folder: Where the attempts go.
        tell: Called with a line for each attempt.
    """
    target = _precision(producer.parent, tuning)

    def make(layers: tuple[str, ...]) -> Artifact:
        left = (*settings.float_layers, *(layer for layer in layers if layer not in settings.float_layers))
        return producer.write(replace(settings, float_layers=left), folder / f"float_{len(layers)}", worst=ranking)

    def measure(artifact: Artifact) -> float:
        found = _precision(artifact, tuning)
        tell(f"{artifact.folder.name.removeprefix('float_')} layers back in float: AP {found:.4f}, float {target:.4f}")
        return found

    return accuracy_aware(ranking, make, measure, target, max_drop, least=1)


def _precision(artifact: Artifact, tuning: Split) -> float:
    precision, _ = average_precision(artifact, tuning, label=artifact.folder.name)
    return 0.0 if precision is None else precision.ap
