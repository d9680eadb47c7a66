"""The folder that goes to the device: a model file, Ultralytics' metadata.yaml, and our artifact.json.

artifact.json is the manifest: what the net takes and gives, where it comes from, what it was measured to do, and the
SHA-256 of every file beside it. A folder or file that Ultralytics exported and nobody judged yet is read too; it then has
no verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import ARTIFACT_MANIFEST, write_text
from yolo_kd.cfg.documents import misfit, parse_json, parse_yaml
from yolo_kd.cfg.runs_folder import elsewhere

from yolo_kd.errors import GateError, MisuseError

MANIFEST = ARTIFACT_MANIFEST
METADATA = "metadata.yaml"
VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")
SUFFIXES = {".xml": "openvino", ".onnx": "onnx"}
_REQUIRED = {
    "version": int,
    "format": str,
    "precision": str,
    "model": str,
    "input_hw": list,
    "names": dict,
    "files": dict,
}
_PAIR = [float]  # of the artifact and of its float parent
_FACTS = {
    "parent": {"sha256": str}, "float_model": {"file": str, "sha256": str, "files": {"*": str}}, "recipe": dict,
    "versions": dict, "runtime": dict, "layers": {"*": float},
    "calibration": {"pictures": [str]}, "device": {"runs in": dict}, "sensitivity": [{"layer": str, "error": float}],
    "metrics": {
        "ap": _PAIR, "by_part": {"*": _PAIR}, "slices": {"*": _PAIR}, "p95": _PAIR, "boxes": float, "parent_boxes": float,
        "ms": float, "parent_ms": float,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Args:
        passed: Whether the artifact may be used.
        reasons: Why not, one line each.
        remarks: What is worth a look though it does not forbid anything.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """One exported detector.

    Args:
        folder: Where it lies.
        model: Name of the model file in it.
        format: "openvino" or "onnx".
        precision: "fp32", "fp16" or "int8".
        input_hw: Height and width of the net's input in pixels; the batch is 1.
        names: Class id to name.
        end2end: Whether the net has its own suppression: output (1, N, 6) instead of (1, 4 + classes, cells).
        verdict: The gate's decision; None before there was one.
        facts: The rest of the manifest: parent, calibration, recipe, versions, device, metrics.
        files: Name to SHA-256 of every file in the folder but the manifest; empty without one.
    """

    folder: Path
    model: str
    format: str
    precision: str
    input_hw: tuple[int, int]
    names: Mapping[int, str]
    end2end: bool = False
    verdict: Verdict | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_path(self) -> Path:
        """The model file."""
        return self.folder / self.model

    def check_files(self) -> None:
        """Compare every file with its hash.

        Raises:
            GateError: One is missing or differs.
        """
        for name, wanted in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise GateError(f"{self.folder.name}: {name} is missing; copy the whole folder again")
            found = sha256(path)
            if found != wanted:
                raise GateError(
                    f"{self.folder.name}: {name} has sha256 {found[:12]}, {MANIFEST} says {wanted[:12]}; it was changed "
                    "or damaged after it was judged, copy the folder again"
                )


def read_artifact(source: str | Path) -> Artifact:
    """The artifact of a folder, or of a model file with Ultralytics' metadata beside or inside it.

    Raises:
        MisuseError: Nothing there that could be one, or a manifest that cannot be read.
    """
    path = Path(source)
    if not path.exists():
        raise MisuseError(
            f"{path}: no such file or folder{elsewhere(path)}; expected an artifact folder, a .xml or an .onnx file"
        )
    folder = path if path.is_dir() else path.parent
    manifest = folder / MANIFEST
    if manifest.is_file():
        found = _from_manifest(folder, manifest)
        if path.is_file() and path.name != found.model:
            raise MisuseError(f"{path}: {MANIFEST} beside it is about {found.model}; name the folder or that file")
        return found
    model = path if path.is_file() else _only_model(folder)
    if model.suffix not in SUFFIXES:
        hint = {
            ".pt": f"; make one with yolo-kd export model={path.name}",
            ".zip": f"; unpack a bundle with yolo-kd verify {path.name} out=<new folder>",
        }.get(model.suffix, "")
        raise MisuseError(f"{path}: expected an artifact folder, a .xml or an .onnx file, got '{model.suffix}'{hint}")
    return _from_metadata(model)


def write_manifest(artifact: Artifact) -> Artifact:
    """Write artifact.json with the hashes of all files in the folder, in one move; returns it with these hashes.

    Raises:
        MisuseError: The folder cannot be written.
        YoloKDError: The disk is full.
    """
    names = sorted(p.relative_to(artifact.folder).as_posix() for p in artifact.folder.rglob("*") if p.is_file())
    files = {n: sha256(artifact.folder / n) for n in names if n != MANIFEST and not n.endswith(".part")}
    plain = {
        "version": VERSION,
        "format": artifact.format,
        "precision": artifact.precision,
        "model": artifact.model,
        "input_hw": list(artifact.input_hw),
        "names": {str(k): v for k, v in artifact.names.items()},
        "end2end": artifact.end2end,
        "preprocessing": {"resize": "letterbox", "pad": 114, "channels": "RGB", "scale": "1/255", "layout": "NCHW"},
        "verdict": None if artifact.verdict is None else vars(artifact.verdict),
        **artifact.facts,
        "files": files,
    }
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(artifact.folder / MANIFEST, text, "artifact")
    return _from_manifest(artifact.folder, artifact.folder / MANIFEST)


def net_files(artifact: Artifact) -> dict[str, str]:
    """SHA-256 by name of the files that hold the net and its weights, as they are on the disk."""
    names = [artifact.model]
    if artifact.format == "openvino":
        names.append(Path(artifact.model).with_suffix(".bin").name)  # the .xml is the same for every student of a kind
    return {name: sha256(artifact.folder / name) for name in names}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _from_manifest(folder: Path, manifest: Path) -> Artifact:
    try:
        raw = parse_json(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MisuseError(f"{manifest}: not readable ({type(error).__name__}); copy the folder again") from None
    wrong = [k for k, kind in _REQUIRED.items() if not isinstance(raw, dict) or not isinstance(raw.get(k), kind)]
    if wrong:
        raise MisuseError(f"{manifest}: {', '.join(wrong)} missing or of the wrong type; it is no manifest of ours")
    if raw["version"] != VERSION:
        raise MisuseError(f"{manifest}: version {raw['version']}, expected {VERSION}; quantize the model again")
    size = raw["input_hw"]
    names = {int(k): str(v) for k, v in raw["names"].items() if str(k).isdecimal()}
    plain = all(
        Path(n).name and not Path(n).is_absolute() and ".." not in Path(n).parts for n in [raw["model"], *raw["files"]]
    )
    sound = len(size) == 2 and all(isinstance(s, int) and 0 < s <= 1 << 14 for s in size)
    weights = [Path(raw["model"]).with_suffix(".bin").as_posix()] if plain and raw["format"] == "openvino" else []
    hashed = {raw["model"], *weights} <= raw["files"].keys() and all(isinstance(h, str) for h in raw["files"].values())
    known_kind = raw["format"] in SUFFIXES.values() and raw["precision"] in PRECISIONS
    if not (plain and sound and hashed and known_kind and _dense(names) and len(names) == len(raw["names"])):
        raise MisuseError(
            f"{manifest}: model, files, input_hw, names, format or precision make no sense; copy the folder again"
        )
    wrong_fact = misfit(raw, _FACTS)
    rows = raw.get("sensitivity") or []
    if wrong_fact or any(row is None or None in (row.get("layer"), row.get("error")) for row in rows):
        raise MisuseError(f"{manifest}: {wrong_fact or 'sensitivity'} makes no sense; copy the folder again")
    judged = _verdict(raw.get("verdict"), manifest)
    known = {*_REQUIRED, "end2end", "verdict", "preprocessing"}
    facts = {k: v for k, v in raw.items() if k not in known}
    return Artifact(
        folder, raw["model"], raw["format"], raw["precision"], (size[0], size[1]), names, raw.get("end2end") is True,
        judged, facts, dict(raw["files"]),
    )  # fmt: skip


def _verdict(raw: Any, manifest: Path) -> Verdict | None:
    if raw is None:
        return None
    try:
        passed, reasons, remarks = raw["passed"], raw["reasons"], raw["remarks"]
        if isinstance(passed, bool) and isinstance(reasons, list) and isinstance(remarks, list):
            return Verdict(passed, tuple(map(str, reasons)), tuple(map(str, remarks)))
    except (TypeError, KeyError):
        pass
    raise MisuseError(f"{manifest}: its verdict is not readable; run yolo-kd gate on it again")


def _dense(names: Mapping[int, str]) -> bool:
    """Whether the class ids are 0, 1, 2 ... without a gap: the net's rows of scores have no names of their own."""
    return bool(names) and sorted(names) == list(range(len(names)))


def _only_model(folder: Path) -> Path:
    models = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(models) != 1:
        found = ", ".join(m.name for m in models) or "none"
        inside = folder / "artifact"  # of an unpacked bundle
        named = inside if (inside / MANIFEST).is_file() else "the file"
        raise MisuseError(f"{folder}: expected one .xml or .onnx file in it, found {found}; name {named}")
    return models[0]


def _from_metadata(model: Path) -> Artifact:
    raw = _metadata(model)
    try:
        names, size = raw["names"], raw["imgsz"]
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        names = {int(k): str(v) for k, v in names.items()}
        task, channels, args = raw.get("task", "detect"), raw.get("channels", 3), dict(raw.get("args") or {})
        if not _dense(names):
            raise ValueError("class ids with a gap")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        raise MisuseError(
            f"{model}: no usable metadata of Ultralytics (names, imgsz); export it with yolo-kd export"
        ) from None
    if task != "detect" or channels != 3:
        raise MisuseError(f"{model}: is a '{task}' model of {channels} channels, expected a detector of 3")
    bits = args.get("quantize") or (8 if args.get("int8") else 16 if args.get("half") else 32)
    precision = {8: "int8", 16: "fp16"}.get(bits, "fp32")
    own_nms = raw.get("end2end") is True or args.get("nms") is True  # both give rows of six
    return Artifact(model.parent, model.name, SUFFIXES[model.suffix], precision, (height, width), names, own_nms)


def _metadata(model: Path) -> dict[str, Any]:
    """Ultralytics' metadata: inside an ONNX file, beside an OpenVINO net."""
    if model.suffix == ".onnx":
        from yolo_kd.deploy.backends.ort import metadata

        return metadata(model)
    beside = model.with_name(METADATA)
    if not beside.is_file():
        raise MisuseError(f"{model}: no {METADATA} beside it; expected a folder that Ultralytics or yolo-kd exported")
    try:
        found = parse_yaml(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MisuseError(f"{beside}: not readable ({type(error).__name__}); export the model again") from None
    return found if isinstance(found, dict) else {}
