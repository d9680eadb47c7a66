"""From recipes to artifacts that were judged: one recipe as it is, or the fastest of many that loses no more than allowed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import MANIFEST, Artifact, read_artifact, write_manifest
from yolo_kd.deploy.quantize.gate import Limits
from yolo_kd.deploy.quantize.produce import WORST, Producer, Settings
from yolo_kd.deploy.quantize.sensitivity import LayerError
from yolo_kd.deploy.quantize.staging import staged
from yolo_kd.evidence.judge import TIMED
from yolo_kd.evidence.recovery import recover
from yolo_kd.evidence.search import Trial, ranked, search
from yolo_kd.evidence.verdict import Judged, judge

ATTEMPTS = 3  # candidates of a back end that may try the gate; more would be tuning on what is reported


@dataclass(frozen=True)
class Plan:
    """What an artifact has to be good for.

    Args:
        limits: The gate's.
        judged_on: Held-out pictures for the gate.
        tuning: Labelled pictures for choosing between candidates; None if there are too few.
        target: "latency", "throughput" or "npu".
        threads: Of the CPU while it is judged; the runtime's choice if None.
        overwrite: Replace folders that we did not write.
        sensitivity: Name the most sensitive layers even of an artifact that passes.
        tell: Called with a line for each step.
    """

    limits: Limits
    judged_on: Split
    tuning: Split | None
    target: str = "latency"
    threads: int | None = None
    overwrite: bool = False
    sensitivity: bool = False
    tell: Callable[[str], None] = print

    def judge(self, artifact: Artifact, parent: Artifact) -> Judged:
        """The gate; an artifact for an NPU is not timed on the CPU."""
        timed = 0 if self.target == "npu" else TIMED
        return judge(artifact, parent, self.judged_on, self.limits, "CPU", self.threads, timed)


@dataclass(frozen=True)
class Outcome:
    """An INT8 artifact in its place, judged.

    Args:
        judged: With its verdict.
        trial: The candidate that it was; None where one recipe was asked for.
    """

    judged: Judged
    trial: Trial | None = None


def one_recipe(
    producer: Producer, settings: Settings, plan: Plan, target: Path, work: Path, accuracy_aware: bool = True
) -> Outcome:
    """Make one recipe's artifact and judge it; if it lost too much, put layers back into float and judge it again.

    Args:
        producer: Of the float parent.
        settings: The recipe.
        plan: What it has to be good for.
        target: The artifact's folder.
        work: A folder for attempts.
        accuracy_aware: Whether layers may go back into float.
    """
    parent = producer.parent
    judged = plan.judge(producer.write(settings, target, plan.overwrite), parent)
    if judged.verdict.passed and not plan.sensitivity:
        return Outcome(judged)
    ranking = producer.sensitivity(settings)
    if lost_too_much(judged, plan.limits) and accuracy_aware:
        if plan.tuning is None:
            plan.tell("accuracy-aware quantization: left out, too few pictures are neither calibrated on nor judged on")
        else:
            plan.tell(f"{target.name}: lost too much, so its most sensitive layers go back into float")
            restored = recover(producer, settings, ranking, plan.tuning, plan.limits.max_drop, work, plan.tell)
            tried = [{"float_layers": count, "AP": metric} for count, metric in restored.tried]
            again = place(restored.net, target, plan.overwrite, {"accuracy_aware": tried})
            return Outcome(plan.judge(again, parent))
    return Outcome(replace(judged, artifact=write_manifest(_with_worst(judged.artifact, ranking))))


def fastest(
    producers: Mapping[str, Producer], plan: Plan, where: Callable[[Artifact], Path], work: Path, timed: int = TIMED
) -> tuple[list[Outcome], list[Trial]]:
    """Search, and put the fastest artifact of each back end that passes the gate in its place.

    Args:
        producers: One for each back end.
        plan: What the artifacts have to be good for; it has tuning pictures.
        where: Float parent to the folder of its INT8 artifact.
        work: A folder for the candidates.
        timed: Runs of each candidate.

    Returns:
        An outcome for each back end that has a candidate within the loss allowed, and every candidate.
    """
    assert plan.tuning is not None
    trials = search(producers, plan.tuning, plan.target, work, timed, plan.tell)
    outcomes = []
    for backend, producer in producers.items():
        options = ranked(trials, backend, plan.limits.max_drop)[:ATTEMPTS]
        if not options:
            rescued = _rescue(producer, trials, plan, work / f"{backend}_rescue")
            trials += rescued
            options = rescued
        for option in options:
            assert option.artifact is not None
            found = place(option.artifact, where(producer.parent), plan.overwrite, _chosen(option, trials, plan))
            judged = plan.judge(found, producer.parent)
            tried = replace(option, rejected=judged.verdict.reasons)
            trials[trials.index(option)] = tried
            outcome = Outcome(judged, tried)
            if judged.verdict.passed:
                break
            plan.tell(f"{backend} {option.name}: rejected by the gate ({'; '.join(judged.verdict.reasons)})")
        if options:
            outcomes.append(outcome)
    return outcomes, trials


def place(artifact: Artifact, target: Path, overwrite: bool, facts: Mapping[str, Any]) -> Artifact:
    """A copy of an artifact in another folder, with more facts in its manifest."""
    with staged(target, overwrite) as folder:
        for path in artifact.folder.iterdir():
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)
        write_manifest(replace(artifact, folder=folder, verdict=None, facts={**artifact.facts, **facts}))
    return read_artifact(target)


def lost_too_much(judged: Judged, limits: Limits) -> bool:
    """Whether the net itself is the fault, so that more of it in float may help: it runs, and its boxes are worse."""
    seen = judged.seen
    if judged.verdict.passed or seen.failure or not seen.finite:
        return False
    dropped = seen.ap is not None and not seen.ap[1] - seen.ap[0] <= limits.max_drop
    return dropped or any("AP of" in reason or "boxes" in reason for reason in judged.verdict.reasons)


def _rescue(producer: Producer, trials: Sequence[Trial], plan: Plan, work: Path) -> list[Trial]:
    """The candidate with the least loss, with layers back in float; empty if none ran at all."""
    assert plan.tuning is not None
    backend = producer.parent.format
    ran = [t for t in trials if t.backend == backend and t.settings is not None and t.ap is not None and not t.failure]
    if not ran:
        return []
    best = max(ran, key=lambda t: t.ap or 0.0)
    assert best.settings is not None
    plan.tell(f"{backend}: every recipe loses more than {plan.limits.max_drop:g}; layers go back into float")
    ranking = producer.sensitivity(best.settings)
    restored = recover(producer, best.settings, ranking, plan.tuning, plan.limits.max_drop, work, plan.tell)
    name = f"{best.name}, {len(restored.layers)} layers in float"
    return [replace(best, name=name, artifact=restored.net, ap=restored.metric, p50=None, p95=None, fps=None)]


def _chosen(option: Trial, trials: Sequence[Trial], plan: Plan) -> dict[str, Any]:
    """What the manifest keeps of a search: the way it ran fastest, and every candidate."""
    way = {"precision": option.way.precision, "threads": option.way.threads, "cpu": machine.model_name()}
    rows = [{k: v for k, v in t.row().items() if v is not None} for t in trials]
    return {"runtime": {"target": plan.target, **way}, "search": rows}


def _with_worst(artifact: Artifact, ranking: Sequence[LayerError]) -> Artifact:
    worst = [{"layer": row.layer, "error": round(row.error, 5)} for row in ranking[:WORST]]
    return replace(artifact, facts={**artifact.facts, "sensitivity": worst})
