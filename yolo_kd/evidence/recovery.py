"""What to do with an INT8 net that lost too much: find the layers that cost the most, and put as few back into float as will do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy.artifact import Artifact, write_manifest
from yolo_kd.deploy.quantize.gate import Limits, Measured, strain
from yolo_kd.deploy.quantize.produce import Producer, Settings
from yolo_kd.deploy.quantize.sensitivity import LayerError, accuracy_aware
from yolo_kd.evidence.verdict import compare


@dataclass(frozen=True)
class Recovered:
    """An artifact with layers back in float, that loses no more than allowed, or the best there was.

    Args:
        artifact: Its manifest names the most sensitive layers and every attempt.
        layers: Convolutions that went back.
        seen: What was measured of it on the tuning pictures.
    """

    artifact: Artifact
    layers: tuple[str, ...]
    seen: Measured


def recover(
    producer: Producer,
    settings: Settings,
    ranking: Sequence[LayerError],
    tuning: Split,
    limits: Limits,
    folder: Path,
    tell: Callable[[str], None] = print,
) -> Recovered:
    """The net with 1, 2, 4, 8, ... of its most sensitive layers in float, up to the first that is within the limits.

    Whatever the gate judges (boxes, confidences, AP in all and by part) counts, not AP alone: a net may keep its precision
    and say .3 where its parent says .9.

    Args:
        producer: Of the float parent.
        settings: The recipe that falls short.
        ranking: Its layers, the most sensitive first.
        tuning: Pictures that are neither calibrated on nor judged on.
        limits: The gate's.
        folder: Where the attempts go.
        tell: Called with a line for each attempt.
    """
    seen: dict[Path, Measured] = {}
    rows: list[dict[str, Any]] = []

    def make(layers: tuple[str, ...]) -> Artifact:
        left = (*settings.float_layers, *(layer for layer in layers if layer not in settings.float_layers))
        return producer.write(replace(settings, float_layers=left), folder / f"float_{len(layers)}", worst=ranking)

    def measure(artifact: Artifact) -> float:
        found, _ = compare(artifact, producer.parent, tuning, cache=False)
        count, share = int(artifact.folder.name.removeprefix("float_")), strain(found, limits)
        seen[artifact.folder] = found
        rows.append(
            {
                "float_layers": count,
                "AP": None if found.ap is None else found.ap[0],
                "strain": share if math.isfinite(share) else None,
            }
        )
        precision = "" if found.ap is None else f"AP {found.ap[0]:.4f}, float {found.ap[1]:.4f}; "
        tell(f"{count} layers back in float: {precision}F1 {found.f1:.3f}; {share:.0%} of what may be lost")
        return -share

    # good enough is a strain of at most 1: a metric of 0 - strain, of which 1 may be lost
    restored = accuracy_aware(ranking, make, measure, target=0.0, max_drop=1.0, least=1)
    best = restored.net
    named = write_manifest(replace(best, facts={**best.facts, "accuracy_aware": rows}))
    return Recovered(named, restored.layers, seen[best.folder])
