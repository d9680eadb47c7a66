"""From recipes to artifacts that were judged: one recipe as it is, or the fastest of many that loses no more than allowed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import MANIFEST, Artifact, Verdict, read_artifact, write_manifest
from yolo_kd.deploy.doctor import npu_faults
from yolo_kd.deploy.quantize.gate import Limits, strain
from yolo_kd.deploy.quantize.produce import Producer, Settings, named
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
        tuning: Pictures for choosing between candidates; None if there are too few.
        target: "latency", "throughput" or "npu".
        threads: Of the CPU while it is judged; the runtime's choice if None.
        overwrite: Replace folders that we did not write.
        accuracy_aware: Put layers of a net that lost too much back into float.
        sensitivity: Name the layers with the largest error of every artifact; otherwise of a rejected one only.
        tell: Called with a line for each step.
    """

    limits: Limits
    judged_on: Split
    tuning: Split | None
    target: str = "latency"
    threads: int | None = None
    overwrite: bool = False
    accuracy_aware: bool = True
    sensitivity: bool = True
    tell: Callable[[str], None] = print

    def judge(self, artifact: Artifact, parent: Artifact) -> Judged:
        """The gate; for an NPU nothing is timed on the CPU, and what an NPU would stumble over is a reason to reject."""
        timed = 0 if self.target == "npu" else TIMED
        judged = judge(artifact, parent, self.judged_on, self.limits, "CPU", self.threads, timed)
        faults = tuple(f"on an NPU: {fault}" for fault in npu_faults(artifact)) if self.target == "npu" else ()
        if not faults:
            return judged
        verdict = Verdict(False, (*judged.verdict.reasons, *faults), judged.verdict.remarks)
        return replace(judged, artifact=write_manifest(replace(judged.artifact, verdict=verdict)))


@dataclass(frozen=True)
class Outcome:
    """An INT8 artifact in its place, judged.

    Args:
        judged: With its verdict.
        trial: The candidate that it was; None where one recipe was asked for.
    """

    judged: Judged
    trial: Trial | None = None


def one_recipe(producer: Producer, settings: Settings, plan: Plan, target: Path, work: Path) -> Outcome:
    """Make one recipe's artifact and judge it; if it lost too much, put layers back into float and judge it again.

    Args:
        producer: Of the float parent.
        settings: The recipe.
        plan: What it has to be good for.
        target: The artifact's folder.
        work: A folder for attempts.
    """
    made = producer.write(settings, target, plan.overwrite)
    judged = plan.judge(made, producer.parent)
    if not judged.passed and _worth_mending(judged, plan):
        plan.tell(f"{target.name}: lost too much, so its most sensitive layers go back into float")
        assert plan.tuning is not None
        ranking = producer.sensitivity(settings, made)
        better = recover(producer, settings, ranking, plan.tuning, plan.limits, work, plan.tell)
        return Outcome(plan.judge(place(better.artifact, target, plan.overwrite, {}), producer.parent))
    return Outcome(_with_layers(judged, producer, settings, plan))


def fastest(
    producers: Mapping[str, Producer], plan: Plan, where: Callable[[Artifact], Path], work: Path, timed: int = TIMED
) -> tuple[list[Outcome], list[Trial]]:
    """Search, and put the first artifact of each back end that passes the gate in its place, the fastest tried first.

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
        outcome = None
        for option in ranked(trials, backend, plan.limits.max_drop)[:ATTEMPTS]:
            outcome = _attempt(option, producer, trials, plan, where)
            if outcome.judged.passed:
                break
        if outcome is None:
            plan.tell(f"{backend}: every recipe loses more than {plan.limits.max_drop:g} AP, or does not run")
        if (outcome is None and plan.accuracy_aware) or (
            outcome is not None and not outcome.judged.passed and _worth_mending(outcome.judged, plan)
        ):
            rescued = _rescue(producer, trials, plan, work / f"{backend}_rescue")
            trials += rescued
            outcome = next((_attempt(trial, producer, trials, plan, where) for trial in rescued), outcome)
        if outcome is not None:
            trial = outcome.trial
            assert trial is not None and trial.settings is not None
            outcomes.append(replace(outcome, judged=_with_layers(outcome.judged, producer, trial.settings, plan)))
    return outcomes, trials


def place(artifact: Artifact, target: Path, overwrite: bool, facts: Mapping[str, Any]) -> Artifact:
    """A copy of an artifact in another folder, with more facts in its manifest."""
    with staged(target, overwrite) as folder:
        for path in artifact.folder.iterdir():
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)
        write_manifest(replace(artifact, folder=folder, verdict=None, facts={**artifact.facts, **facts}))
    return read_artifact(target)


def _worth_mending(judged: Judged, plan: Plan) -> bool:
    """Whether more of a rejected net in float may help, by the gate's numbers; if not, why is told."""
    seen, why = judged.seen, ""
    if seen.failure or not seen.finite:
        why = "it does not run on every picture, which float layers do not mend"
    elif strain(seen, plan.limits) <= 1:
        why = "boxes, confidences and AP are within the limits, and float layers mend nothing else"
    elif not plan.accuracy_aware:
        why = "accuracy_aware=false"
    elif plan.tuning is None:
        why = "too few pictures are neither calibrated on nor judged on"
    if why:
        plan.tell(f"{judged.artifact.folder.name}: no layer goes back into float: {why}")
    return not why


def _attempt(
    option: Trial, producer: Producer, trials: list[Trial], plan: Plan, where: Callable[[Artifact], Path]
) -> Outcome:
    """Put a candidate in its place and let the gate judge it; what the gate said goes into the list of trials."""
    assert option.artifact is not None
    found = place(option.artifact, where(producer.parent), plan.overwrite, _chosen(option, trials, plan))
    judged = plan.judge(found, producer.parent)
    tried = replace(option, rejected=judged.verdict.reasons)
    trials[trials.index(option)] = tried
    if not judged.passed:
        plan.tell(f"{option.backend} {option.name}: rejected by the gate ({'; '.join(judged.verdict.reasons)})")
    return Outcome(judged, tried)


def _rescue(producer: Producer, trials: Sequence[Trial], plan: Plan, work: Path) -> list[Trial]:
    """The candidate with the least loss, with layers back in float; empty if none ran at all."""
    assert plan.tuning is not None
    backend = producer.parent.format
    ran = [t for t in trials if t.backend == backend and t.settings is not None and t.artifact and not t.failure]
    if not ran:
        return []
    best = max(ran, key=lambda t: t.ap or 0.0)
    assert best.settings is not None and best.artifact is not None
    plan.tell(f"{backend}: layers of {best.name} go back into float")
    ranking = producer.sensitivity(best.settings, best.artifact)
    better = recover(producer, best.settings, ranking, plan.tuning, plan.limits, work, plan.tell)
    name = f"{best.name}, {len(better.layers)} layers in float"
    ap = None if better.seen.ap is None else better.seen.ap[0]
    unknown: dict[str, Any] = {"p50": None, "p95": None, "fps": None, "by_size": {}, "rejected": ()}
    return [replace(best, name=name, artifact=better.artifact, ap=ap, **unknown)]


def _chosen(option: Trial, trials: Sequence[Trial], plan: Plan) -> dict[str, Any]:
    """What the manifest keeps of a search: the way it ran fastest, and every candidate."""
    way = {"precision": option.way.precision, "threads": option.way.threads, "cpu": machine.model_name()}
    rows = [{k: v for k, v in t.row().items() if v is not None} for t in trials]
    return {"runtime": {"target": plan.target, **way}, "search": rows}


def _with_layers(judged: Judged, producer: Producer, settings: Settings, plan: Plan) -> Judged:
    """The same with the layers of the largest error in the manifest, where the plan or a rejection asks for them."""
    artifact = judged.artifact
    if "sensitivity" in artifact.facts or (judged.passed and not plan.sensitivity):
        return judged
    worst = named(producer.sensitivity(settings, artifact))
    return replace(judged, artifact=write_manifest(replace(artifact, facts={**artifact.facts, "sensitivity": worst})))
