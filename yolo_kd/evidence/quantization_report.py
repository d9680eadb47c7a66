"""What `yolo-kd quantize` made and tried, as the report that people look at."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.runtime import open_detector
from yolo_kd.errors import YoloKDError
from yolo_kd.evidence.candidates import Kind, Pair, Report, Row
from yolo_kd.evidence.evaluation import read_frame
from yolo_kd.evidence.outcome import ATTEMPTS, Outcome, Plan
from yolo_kd.evidence.search import NOTES, Trial, changed, size_mb
from yolo_kd.evidence.strip import pairs
from yolo_kd.evidence.verdict import Judged

LOOKED_AT = 64  # pictures among which those to show are chosen
SIZES = ("small", "medium", "large")


def report(outcomes: Sequence[Outcome], trials: Sequence[Trial], parents: Sequence[Artifact], plan: Plan) -> Report:
    """The report of one quantization.

    Args:
        outcomes: The artifacts in their places.
        trials: Every candidate of a search; empty where one recipe was asked for.
        parents: The float artifacts.
        plan: What the artifacts had to be good for.
    """
    best = chosen(outcomes)
    notes = [f"{o.judged.artifact.folder.name}: {line}" for o in outcomes for line in o.judged.verdict.remarks]
    if trials and plan.tuning:
        notes[:0] = [_compared(outcomes, plan), NOTES[plan.target]]
    shown = best or (outcomes[0] if outcomes else None)
    if shown:
        calibration = shown.judged.artifact.facts.get("calibration") or {}
        notes += [f"calibration: {line}" for line in calibration.get("warnings", ())]
    return Report(
        title=f"INT8 of {Path(parents[0].model).stem}",
        facts=_facts(shown, plan),
        rows=_of_search(trials, outcomes, best, plan) if trials else _of_gate(outcomes, parents, best),
        worst_layers=[(w["layer"], w["error"]) for w in shown.judged.artifact.facts.get("sensitivity", ())]
        if shown
        else (),
        pairs=_pairs(shown.judged, parents, plan.judged_on) if shown else (),
        notes=notes,
        max_drop=plan.limits.max_drop,
        throughput=plan.target == "throughput",
    )


def chosen(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The fastest artifact that passed; None if none did.

    By the times of the search where all that passed have one, else by those of the gate, which times single frames: layers
    that were put back into float came after the search, and a frame's share of a stream is no latency.
    """
    passed = [o for o in outcomes if o.judged.verdict.passed]
    searched = [o.trial.seconds if o.trial is not None else float("inf") for o in passed]
    if float("inf") in searched:
        searched = [o.judged.seen.ms or 0.0 for o in passed]
    return passed[searched.index(min(searched))] if passed else None


def _of_gate(outcomes: Sequence[Outcome], parents: Sequence[Artifact], best: Outcome | None) -> list[Row]:
    """Two rows for each back end, of the gate's numbers on the held-out pictures."""
    rows = []
    for outcome, parent in zip(outcomes, parents, strict=True):
        seen, artifact = outcome.judged.seen, outcome.judged.artifact
        for number, (one, name) in enumerate(
            ((artifact, f"{artifact.format} INT8"), (parent, f"{parent.format} float"))
        ):
            rows.append(
                Row(
                    name=name,
                    backend=one.format,
                    precision=outcome.judged.ran.get("parent" if number else "artifact", ""),
                    settings="" if number else _settings(one),
                    ap=None if seen.ap is None else seen.ap[number],
                    by_size={s: seen.by_part[f"{s} boxes"][number] for s in SIZES if f"{s} boxes" in seen.by_part},
                    p50_ms=seen.parent_ms if number else seen.ms,
                    p95_ms=None if seen.p95 is None else seen.p95[number],
                    size_mb=size_mb(one),
                    verdict="float" if number else _kind(outcome.judged),
                    reasons=() if number else outcome.judged.verdict.reasons,
                    chosen=not number and outcome is best,
                )
            )
    return rows


def _of_search(trials: Sequence[Trial], outcomes: Sequence[Outcome], best: Outcome | None, plan: Plan) -> list[Row]:
    """A row for each candidate, of its numbers on the tuning pictures; the gate's word where it spoke."""
    spoken = {id(o.trial): o for o in outcomes}
    parents = {t.backend: t.ap for t in reversed(trials) if t.settings is None and t.way.precision is None}
    rows = []
    for trial in trials:
        outcome = spoken.get(id(trial))
        lost = None if trial.ap is None else (parents.get(trial.backend) or 0.0) - trial.ap
        verdict: Kind
        reasons: tuple[str, ...] = ()
        if trial.settings is None:
            verdict = "float"
        elif trial.failure:
            verdict, reasons = "failed", (trial.failure,)
        elif trial.rejected:
            verdict, reasons = "rejected", trial.rejected
        elif outcome is not None:
            verdict = "passed"
        elif lost is not None and lost > plan.limits.max_drop:
            verdict, reasons = (
                "rejected",
                (f"AP drops by {lost:.4f} on the tuning pictures, allowed {plan.limits.max_drop:g}",),
            )
        else:
            verdict, reasons = "not judged", (_turn_never_came(trial, outcomes),)
        p50 = 1000 * trial.seconds if trial.seconds != float("inf") else None
        way = ", ".join(
            text for text in (trial.way.precision, trial.way.threads and f"{trial.way.threads} threads") if text
        )
        recipe = ", ".join(f"{k}={v}" for k, v in changed(trial.settings).items()) if trial.settings else ""
        name = f"{trial.backend} {trial.name}{f' ({way})' if way else ''}"
        shipped = outcome is not None and outcome is best
        seen = (trial.ap, trial.by_size, p50, trial.p95, trial.size_mb)
        held_out = None if outcome is None else outcome.judged.seen.ap
        rows.append(Row(name, trial.backend, trial.runs_in, recipe, *seen, verdict, reasons, shipped, held_out))
    return rows


def _turn_never_came(trial: Trial, outcomes: Sequence[Outcome]) -> str:
    """Why the gate did not see a candidate that lost little enough."""
    own = (o.trial for o in outcomes if o.trial is not None and o.judged.verdict.passed)
    before = next((t.name for t in own if t.backend == trial.backend), None)
    return f"{before} passed the gate first" if before else f"only {ATTEMPTS} of a back end may try the gate"


def _compared(outcomes: Sequence[Outcome], plan: Plan) -> str:
    count = len(plan.tuning.images) if plan.tuning else 0
    judged = [
        f"{o.judged.artifact.format} {o.judged.seen.ap[0]:.4f}, float {o.judged.seen.ap[1]:.4f}"
        for o in outcomes
        if o.judged.seen.ap is not None
    ]
    return (
        f"Candidates were compared on {count} training pictures that were not calibrated on. The gate then measured AP on "
        f"{len(plan.judged_on.images)} pictures of {plan.judged_on.name}: {'; '.join(judged) or 'no labels'}."
    )


def _kind(judged: Judged) -> Kind:
    return "passed" if judged.verdict.passed else "rejected"


def _settings(artifact: Artifact) -> str:
    recipe: dict[str, Any] = dict(artifact.facts.get("recipe") or {})
    return ", ".join(f"{k}={v}" for k, v in recipe.items() if k != "backend" and v not in ((), [], None))


def _facts(outcome: Outcome | None, plan: Plan) -> dict[str, str]:
    facts = {
        "machine": f"{machine.model_name()}, {machine.cores()} cores, {machine.describe()}",
        "target": plan.target,
        "judged on": f"{len(plan.judged_on.images)} pictures of {plan.judged_on.name}",
    }
    if outcome is not None:
        found = outcome.judged.artifact.facts
        calibration = found.get("calibration") or {}
        facts |= {
            "pictures and labels, SHA-256": str((found.get("evaluation") or {}).get("hash", "")),
            "calibration": f"{calibration.get('images')} pictures, {calibration.get('hash')}",
            "weights, SHA-256": str((found.get("parent") or {}).get("sha256", "")),
            "versions": ", ".join(f"{k} {v}" for k, v in (found.get("versions") or {}).items()),
        }
    return {**facts, "command": " ".join(["yolo-kd", *sys.argv[1:]])}


def _pairs(judged: Judged, parents: Sequence[Artifact], split: Split) -> list[Pair]:
    parent = next(p for p in parents if p.format == judged.artifact.format)
    some = replace(split, images=split.images[:: max(1, len(split.images) // LOOKED_AT)][:LOOKED_AT])
    found = []
    for artifact in (parent, judged.artifact):
        try:
            with open_detector(artifact, allow_rejected=True) as detector:
                found.append([detector(read_frame(path)) for path in some.images])
        except YoloKDError:  # it does not run; the verdict says so, and there are no boxes to show
            return []
    return pairs(some, found[0], found[1])
