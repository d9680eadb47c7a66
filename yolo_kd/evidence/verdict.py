"""The gate on real artifacts: measured beside the float parent on this device, decided, and written into the manifest."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact, Verdict, read_artifact, sha256, write_manifest
from yolo_kd.deploy.quantize.gate import Limits, Measured, decide
from yolo_kd.deploy.runtime import Detector, open_detector
from yolo_kd.errors import GateError, MisuseError, YoloKDError
from yolo_kd.evidence.average_precision import RESAMPLES
from yolo_kd.evidence.evaluation import LOW_CONFIDENCE
from yolo_kd.evidence.identity import identify, overlap
from yolo_kd.evidence.judge import TIMED, broken, measure
from yolo_kd.evidence.table import number

SHOWN = 5  # layers, and neighbours that are not the parent


@dataclass(frozen=True)
class Judged:
    """An artifact with its new verdict, and what that rests on.

    Args:
        artifact: As its manifest says now.
        seen: The numbers.
        ran: The precision that really ran, of "artifact" and "parent".
    """

    artifact: Artifact
    seen: Measured
    ran: Mapping[str, str]

    @property
    def verdict(self) -> Verdict:
        """The gate's word."""
        assert self.artifact.verdict is not None
        return self.artifact.verdict

    @property
    def passed(self) -> bool:
        """Whether the artifact may be used."""
        return self.verdict.passed


def judge(
    artifact: Artifact,
    parent: Artifact,
    split: Split,
    limits: Limits,
    device: str = "CPU",
    threads: int | None = None,
    timed: int = TIMED,
) -> Judged:
    """Measure an artifact beside its float parent on this device, decide, and write the verdict into its manifest.

    Args:
        artifact: What is to be judged; it has a manifest.
        parent: The float artifact that it was made from.
        split: Held-out images.
        limits: What is tolerated.
        device: Where both run.
        threads: Of the CPU; the runtime chooses if None.
        timed: Pairs of timed runs; 0 to leave the time out.

    Raises:
        MisuseError: The parent cannot be its parent, or a value or picture is unusable.
        GateError: A file is not the one that the manifest speaks of.
    """
    require_parent(artifact, parent)
    identity = identify(split)
    seen, ran = compare(artifact, parent, split, timed, RESAMPLES, device=device, threads=threads)
    seen = replace(seen, overlap=overlap(identity, artifact.facts))
    metrics = {k: v for k, v in asdict(seen).items() if k != "labelled"}
    artifact.check_files()  # what is written below speaks of the files that were measured
    facts = {
        **artifact.facts,
        "metrics": metrics,
        "limits": asdict(limits),
        "evaluation": {"split": split.name, "images": len(split.images), "hash": identity.hash},
        "device": {"name": device, "cpu": machine.model_name(), "isa": machine.describe(), "runs in": ran},
    }
    return Judged(write_manifest(replace(artifact, verdict=decide(seen, limits), facts=facts)), seen, ran)


def compare(
    artifact: Artifact, parent: Artifact, split: Split, timed: int = 0, resamples: int = 0, **options: Any
) -> tuple[Measured, dict[str, str]]:
    """What is seen of an artifact beside its float parent, and in what precision "artifact" and "parent" really ran.

    Args:
        artifact: What is looked at.
        parent: The float artifact that it was made from.
        split: Images that neither was made from.
        timed: Pairs of timed runs.
        resamples: For the interval of the drop in AP, which takes longer than the detections; 0 to leave it out.
        **options: Of `open_detector`, for both.

    Raises:
        MisuseError: A value or picture is unusable.
        GateError: A file is not the one that the manifest speaks of.
    """
    with _open(parent, **options) as reference:
        ran = {"parent": reference.backend.precision}
        try:
            with _open(artifact, **options) as candidate:
                ran["artifact"] = candidate.backend.precision
                return measure(candidate, reference, split, timed, artifact.folder.name, resamples), ran
        except (MisuseError, GateError):
            raise
        except YoloKDError as error:  # it does not even open: that is a verdict, not an accident
            return broken(len(split.images), 0, str(error)), ran


def find_parent(artifact: Artifact) -> Artifact:
    """The float artifact that an INT8 one was made from, by the hashes of its net files, in the folder around the artifact.

    Raises:
        MisuseError: It is not there; the message says what else is.
    """
    wanted = _float_files(artifact.facts.get("float_model"))
    here, own = artifact.folder.absolute(), _weights(artifact)
    others: list[str] = []
    for path in _named_like(next(iter(wanted)), here) if wanted else ():
        try:
            odd = [n for n, h in wanted.items() if sha256(path.with_name(n)) != h]
            found = read_artifact(path)
        except (OSError, MisuseError) as error:
            others.append(f"{path.parent.name}: {error if isinstance(error, MisuseError) else error.strerror}")
            continue
        if not odd and (own is None or _weights(found) in (None, own)):
            return found
        others.append(f"{path.parent.name} has another {odd[0] if odd else 'checkpoint'}")
    if artifact.precision != "int8" and not wanted:
        raise MisuseError(
            f"artifact={artifact.folder}: is {artifact.precision} itself, and its manifest names no float model that it was "
            "made from; give an INT8 artifact, or name what to compare it with by parent="
        )
    said = f" ({'; '.join(others[:SHOWN])})" if others else ""
    raise MisuseError(
        f"artifact={artifact.folder}: the float model it was made from does not lie beside it{said}; name it with "
        "parent=<float folder>"
    )


def _float_files(made_from: Any) -> dict[str, str]:
    """Names and hashes of the net files of a float parent, the net first; empty where the manifest does not say."""
    if not isinstance(made_from, Mapping):
        return {}
    name = made_from.get("file")
    files = made_from.get("files") or {name: made_from.get("sha256")}  # older manifests name the net alone
    plain = all(isinstance(n, str) and n and Path(n).name == n for n in files)
    return {name: files[name], **files} if isinstance(name, str) and name in files and plain else {}


def _named_like(name: str, folder: Path) -> list[Path]:
    """Files of this name in the folders beside one, and beside it."""
    around = folder.parent
    found = [*sorted(around.glob(f"*/{glob.escape(name)}")), around / name]
    return [path for path in found if path.is_file() and path.parent != folder]


def _weights(artifact: Artifact) -> str | None:
    """SHA-256 of the checkpoint behind an artifact, if its manifest names it."""
    return (artifact.facts.get("parent") or {}).get("sha256")


def text(judged: Judged) -> str:
    """The verdict and the numbers behind it, for a terminal."""
    seen, ran, verdict = judged.seen, judged.ran, judged.verdict
    lines = [f"{judged.artifact.folder.name}: {'PASSED' if verdict.passed else 'REJECTED'}"]
    lines += [f"  because {reason}" for reason in verdict.reasons]
    lines += [f"  note: {remark}" for remark in verdict.remarks]
    lines.append(
        f"  {seen.images} images; {seen.boxes} boxes, the float parent {seen.parent_boxes}; F1 {seen.f1:.3f}, IoU {seen.iou:.3f}"
    )
    if seen.ap is not None:
        low, high = seen.drop_interval or (0.0, 0.0)
        drop = seen.ap[1] - seen.ap[0]
        lines.append(
            f"  AP {seen.ap[0]:.4f}, parent {seen.ap[1]:.4f}: drop {drop:.4f} (95 % of resamples {low:.4f} to {high:.4f})"
        )
    if seen.ms and seen.parent_ms:
        lines.append(
            f"  {number(seen.ms)} ms per image in {ran.get('artifact')}, parent {number(seen.parent_ms)} ms in {ran['parent']} "
            f"on {machine.model_name()} ({machine.describe()}): {seen.parent_ms / seen.ms:.2f} x its speed"
        )
    for layer in list(judged.artifact.facts.get("sensitivity") or ())[:SHOWN]:
        lines.append(f"  largest error of one layer alone: {layer['error']:.4f} {layer['layer']}")
    return "\n".join(lines)


def require_parent(artifact: Artifact, parent: Artifact) -> None:
    """Refuse what cannot be the float net that the artifact was made from.

    Raises:
        MisuseError: It is INT8, of another runtime, size or classes, or made from other weights.
    """
    where = f"parent={parent.folder.name}"
    if parent.precision == "int8":
        raise MisuseError(f"{where}: is INT8 itself; expected the float model that the artifact was made from")
    for what, own, other in (
        ("format", artifact.format, parent.format),
        ("input size", artifact.input_hw, parent.input_hw),
        ("class names", dict(artifact.names), dict(parent.names)),
        ("weights", _weights(artifact), _weights(parent)),
    ):
        if own != other and own is not None and other is not None:
            raise MisuseError(f"{where}: {what} {_short(other)}, the artifact's {_short(own)}; it is not its parent")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _open(artifact: Artifact, **options: Any) -> Detector:
    """For a precision; a rejected one too, because it is to be judged again."""
    return open_detector(artifact, confidence=LOW_CONFIDENCE, multi_label=True, allow_rejected=True, **options)
