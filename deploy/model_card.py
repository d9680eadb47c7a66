"""The model card of a bundle, filled from what was measured; what was not measured is said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_kd.cfg.documents import misfit, parse_yaml
from yolo_kd.deploy.artifact import Artifact

from yolo_kd.errors import MisuseError

_KD = {"recipe": {"methods": dict}, "fixed_gains": {"*": float}}
UNKNOWN = "not recorded"
LICENCE = "AGPL-3.0, as Ultralytics' code and weights, unless you hold another licence from Ultralytics"


def read_run(folder: Path) -> dict[str, Any]:
    """What a training run folder says: Ultralytics' arguments under `args`, ours under `kd`.

    Raises:
        MisuseError: It is no run folder.
    """
    found = {}
    for key, name in (("args", "args.yaml"), ("kd", "kd.yaml")):
        path = folder / name
        if not path.is_file():
            if key == "args":
                raise MisuseError(f"run={folder}: no args.yaml there; expected a training run, e.g. runs/detect/train")
            continue
        try:
            found[key] = parse_yaml(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError) as error:
            raise MisuseError(f"run={folder}: {name} is not readable ({type(error).__name__})") from None
        wrong = misfit(found[key], _KD if key == "kd" else {}, name)
        if wrong:
            raise MisuseError(
                f"run={folder}: {wrong} is not of the kind that a training writes; it was changed by hand"
            )
    return found


def card(artifact: Artifact, run: Mapping[str, Any] | None = None, licence: str = LICENCE) -> str:
    """The card as Markdown.

    Args:
        artifact: With the gate's verdict and metrics in its facts, if there was one.
        run: From `read_run`; None if the training is not known.
        licence: One line.
    """
    facts, verdict = artifact.facts, artifact.verdict
    height, width = artifact.input_hw
    parent = facts.get("parent") or {}
    parts = [
        f"# {artifact.folder.name}",
        f"Object detector with {len(artifact.names)} classes ({', '.join(artifact.names.values())}), "
        f"{artifact.format}, {artifact.precision}, input {height}x{width} pixels.",
        "## Verdict",
        _verdict(artifact),
        "## Measured",
        _measured(facts.get("metrics"), facts.get("device"), facts.get("evaluation")),
        "## Quantization",
        _quantization(artifact),
        "## Training",
        _training(run, parent),
        "## Files",
        "\n".join(f"- `{name}` sha256 `{digest}`" for name, digest in artifact.files.items()),
        "## Use",
        "Boxes come from `yolo_kd.deploy.open_detector`, or from any runtime that follows `artifact.json`. "
        + ("" if verdict is not None and verdict.passed else "**It did not pass the gate.** ")
        + "Figures hold for the named device and data only; measure again on yours with `yolo-kd gate` and `yolo-kd accept`.",
        "## Licence",
        licence,
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(artifact: Artifact) -> str:
    verdict = artifact.verdict
    if verdict is None:
        return "Never judged."
    lines = ["Passed the gate." if verdict.passed else "Rejected by the gate:"]
    return "\n".join([*lines, *(f"- {r}" for r in verdict.reasons), *(f"- note: {r}" for r in verdict.remarks)])


def _measured(metrics: Any, device: Any, evaluation: Any) -> str:
    if not isinstance(metrics, dict):
        return "Nothing."
    rows = ["| | this artifact | its float parent |", "|---|---|---|"]
    if metrics.get("ap"):
        rows.append(_row("AP (IoU .5 to .95)", metrics["ap"], 4))
    for part, pair in (metrics.get("by_part") or {}).items():
        rows.append(_row(f"AP of {part}", pair, 4))
    for part, pair in (metrics.get("slices") or {}).items():
        rows.append(_row(f"AP of the {part} third of the images", pair, 4))
    rows.append(_row("boxes above a confidence of .25", (metrics.get("boxes"), metrics.get("parent_boxes")), 0))
    if metrics.get("ms"):
        rows.append(_row("milliseconds per image, median", (metrics["ms"], metrics.get("parent_ms")), 2))
    if metrics.get("p95"):
        rows.append(_row("milliseconds per image, 95 of 100 are faster", metrics["p95"], 2))
    where = "an unrecorded device"
    if isinstance(device, dict):
        runs = device.get("runs in") or {}
        where = f"{device.get('cpu')} ({device.get('isa')}), {device.get('name')}, in {runs.get('artifact')} and {runs.get('parent')}"
    on = f"{metrics.get('images')} held-out images"
    if isinstance(evaluation, dict):
        on += f" (split {evaluation.get('split')}, sha256 of pictures and labels `{evaluation.get('hash')}`)"
    return "\n".join([*rows, "", f"On {on}, {where}."])


def _quantization(artifact: Artifact) -> str:
    """What the ranges were measured on, and the recipe; of a float artifact that there is none."""
    if artifact.precision != "int8":
        return f"None, the net is in {artifact.precision}."
    facts = artifact.facts
    calibration, recipe, layers = (facts.get(key) for key in ("calibration", "recipe", "layers"))
    lines = [f"- calibrated on: {UNKNOWN}", f"- recipe: {UNKNOWN}"]
    if isinstance(calibration, dict):
        lines[0] = (
            f"- calibrated on: {calibration.get('images')} pictures, sha256 of the list `{calibration.get('hash')}`"
        )
        warnings = calibration.get("warnings")
        lines[1:1] = [
            f"- WARNING of the calibration: {text}" for text in (warnings if isinstance(warnings, list) else [])
        ]
    if isinstance(recipe, dict):
        lines[-1] = "- recipe: " + ", ".join(f"{key} {_spell(value)}" for key, value in recipe.items())
    if isinstance(layers, dict) and {"int8_convolutions", "float_convolutions"} <= layers.keys():
        lines.append(
            f"- layers: {layers['int8_convolutions']} convolutions on integers, {layers['float_convolutions']} in float"
        )
    return "\n".join(lines)


def _spell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _row(label: str, pair: Any, digits: int) -> str:
    cells = ["-" if value is None else f"{value:.{digits}f}" for value in pair]
    return f"| {label} | {' | '.join(cells)} |"


def _training(run: Mapping[str, Any] | None, parent: Mapping[str, Any]) -> str:
    lines = [f"- weights: {Path(str(parent.get('file', UNKNOWN))).name}, sha256 {parent.get('sha256', UNKNOWN)}"]
    if run is None:
        return "\n".join([*lines, f"- run: {UNKNOWN}"])
    args, kd = run.get("args") or {}, run.get("kd") or {}
    lines += [f"- {key}: {args.get(key, UNKNOWN)}" for key in ("epochs", "imgsz", "batch", "seed")]
    lines.insert(1, f"- data: {Path(str(args.get('data', UNKNOWN))).name}")
    recipe = kd.get("recipe") or {}
    if recipe.get("methods"):
        gains = ", ".join(f"{k} {v:.4g}" for k, v in (kd.get("fixed_gains") or {}).items())
        lines.append(
            f"- teacher: {Path(str(kd.get('teacher'))).name}; recipe {recipe.get('name')} ({gains or 'gains ' + UNKNOWN})"
        )
    elif args.get("distill_model"):
        lines.append(f"- teacher: {Path(str(args['distill_model'])).name}, by Ultralytics' own distill_model=")
    else:
        lines.append("- trained without a teacher")
    return "\n".join(lines)
