"""One file that carries an artifact to the device: student.zip with model card, reference detections and hashes.

Inside: `artifact/` as `deploy.artifact` describes it, `MODEL_CARD.md`, `references/` (pictures), `bundle.json` (what the
float parent sees on them, and the SHA-256 of every file), and, if it was signed, `bundle.sig`: a signature by OpenSSF
model-signing over the unpacked folder, which its own command line verifies too. Nothing in it is executed by loading it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from yolo_kd.cfg.atomic import refusal, refuse_unwritable
from yolo_kd.cfg.documents import parse_json
from yolo_kd.deploy import archive
from yolo_kd.deploy.artifact import MANIFEST as ARTIFACT_MANIFEST
from yolo_kd.deploy.artifact import Artifact, read_artifact, sha256
from yolo_kd.deploy.detections import Detections

from yolo_kd.errors import GateError, MisuseError, YoloKDError

MANIFEST = "bundle.json"
SIGNATURE = "bundle.sig"
CARD = "MODEL_CARD.md"
ARTIFACT = "artifact"
REFERENCES = "references"
VERSION = 1
MAX_MANIFEST = 8 << 20  # bytes
HARMLESS = frozenset({".bin", ".jpg", ".json", ".md", ".onnx", ".png", ".sig", ".txt", ".xml", ".yaml"})


@dataclass(frozen=True)
class Bundle:
    """A bundle whose hashes were compared.

    Args:
        path: The zip.
        files: Name to SHA-256 of every file in it but manifest and signature.
        references: Per reference picture its name, its size and the float parent's detections.
        signed: Whether it carries a signature that was verified.
    """

    path: Path
    files: Mapping[str, str]
    references: Sequence[Mapping[str, Any]]
    signed: bool


def create(
    artifact: Path,
    references: Sequence[tuple[np.ndarray, Detections]],
    card: str,
    out: Path,
    sign: Path | None = None,
    allow_rejected: bool = False,
) -> None:
    """Write a bundle.

    Args:
        artifact: Folder with an artifact.json.
        references: BGR frames with what the float parent detects on them, at the confidence that will be compared.
        card: Text of the model card, Markdown.
        out: The zip to write, replacing an older bundle, and nothing else, in one move.
        sign: Private key (PEM, elliptic curve).
        allow_rejected: Also bundle what the gate rejected or never judged.

    Raises:
        MisuseError: No manifest, a key that cannot be used, or a place that is taken or cannot be written.
        GateError: The artifact was changed after it was judged, rejected, or never judged.
        YoloKDError: The disk is full; nothing is left behind.
    """
    found = read_artifact(artifact)
    if not (found.folder / ARTIFACT_MANIFEST).is_file():
        raise MisuseError(f"{artifact}: no {ARTIFACT_MANIFEST} in it; make it with yolo-kd quantize or export")
    found.check_files()
    _require_passed(found, allow_rejected)
    refuse_taken(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            _fill(Path(temporary), found, references, card, out.name)
            if sign is not None:
                _sign(Path(temporary), sign)
            archive.pack(Path(temporary), out)
    except OSError as error:
        raise refusal(error, out) from error


def refuse_taken(out: Path) -> None:
    """Refuse a place where something lies that is no bundle, or that belongs to an artifact.

    Args:
        out: The zip to be.

    Raises:
        MisuseError: A folder, or another file, is there; or the place is in an artifact's folder, or cannot be written.
    """
    if out.is_dir():
        raise MisuseError(f"out={out}: is a folder, expected a file, e.g. out={out / 'student.zip'}")
    refuse_unwritable(out)
    if not out.exists():
        return
    try:
        with zipfile.ZipFile(out) as there:
            ours = MANIFEST in there.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        ours = False
    if not ours:
        raise MisuseError(f"out={out}: exists and is no bundle; choose another name with out=")


def verify(path: Path, require_signature: Path | None = None) -> Bundle:
    """Compare every file with its hash before anything is loaded.

    Args:
        path: The zip.
        require_signature: Public key (PEM) of which there must be a signature.

    Raises:
        MisuseError: No such file, or a key that cannot be used.
        GateError: Tampered, truncated, unsigned though a signature is required, or not a bundle.
    """
    with archive.opened(path) as opened:
        plain = _checked_list(path.name, opened)
        if require_signature is None:
            for name, wanted in plain["files"].items():
                _compare(path.name, name, archive.sha256_of(opened, name), wanted)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                archive.unpack(opened, Path(temporary) / "bundle")
                _check_folder(path.name, Path(temporary) / "bundle", plain, require_signature)
    return Bundle(path, plain["files"], plain["references"], require_signature is not None)


def unpack(path: Path, target: Path, require_signature: Path | None = None, key: str = "folder") -> Artifact:
    """Unpack a bundle into a new folder, verified there, and return the artifact in it.

    What is checked is what lies on the disk afterwards: the zip is opened once, and could be exchanged in between.

    Args:
        path: The zip.
        target: The folder to be.
        require_signature: Public key (PEM) of which there must be a signature.
        key: The user's key that named the folder, for messages.

    Raises:
        MisuseError, GateError: As `verify`; or the folder exists, or cannot be written.
        YoloKDError: The disk is full.
    """
    if target.exists():
        raise MisuseError(f"{target}: exists already; choose a folder that does not")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            folder = Path(temporary) / "bundle"
            with archive.opened(path) as opened:
                plain = _checked_list(path.name, opened)
                archive.unpack(opened, folder)
            _check_folder(path.name, folder, plain, require_signature)
            found = _artifact_in(path.name, folder)
            folder.rename(target)
    except OSError as error:
        raise refusal(error, target, key) from error
    return replace(found, folder=target / ARTIFACT)


def _artifact_in(where: str, folder: Path) -> Artifact:
    try:
        found = read_artifact(folder / ARTIFACT)
    except MisuseError as error:  # the bundle's fault, not the user's
        raise GateError(f"{where}: {str(error).replace(f'{folder}/', '')}") from None
    found.check_files()
    return found


def _fill(
    folder: Path, artifact: Artifact, references: Sequence[tuple[np.ndarray, Detections]], card: str, where: str
) -> None:
    """Everything that goes into the zip but a signature, in a new folder."""
    import cv2

    for name in (*artifact.files, ARTIFACT_MANIFEST):
        target = folder / ARTIFACT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(artifact.folder / name, target)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / REFERENCES).mkdir()
    described = []
    for index, (frame, seen) in enumerate(references):
        name = f"{REFERENCES}/{index:02}.png"
        done, raw = cv2.imencode(".png", frame)
        if not done:
            raise YoloKDError(f"reference picture {index} {frame.shape} could not be written as PNG")
        (folder / name).write_bytes(raw.tobytes())
        described.append({"image": name, "size_hw": list(seen.size_hw), "detections": _rows(seen)})
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    _refuse_code(where, files)
    plain = {
        "version": VERSION,
        "files": {name: sha256(folder / name) for name in files},
        "references": described,
    }
    (folder / MANIFEST).write_text(json.dumps(plain, indent=1, allow_nan=False), encoding="utf-8")


def _checked_list(where: str, opened: Any) -> dict[str, Any]:
    """The manifest of an opened bundle whose list of files is that of the zip."""
    present = archive.names(opened)
    plain = _manifest(where, archive.read(opened, MANIFEST, MAX_MANIFEST))
    listed = set(plain["files"]) | {MANIFEST}
    for name in sorted(listed - set(present)):
        raise GateError(f"{where}: {name} is missing; copy the bundle again")
    for name in sorted(set(present) - listed - {SIGNATURE}):
        raise GateError(f"{where}: {name} is not listed in {MANIFEST}; do not use this file")
    if f"{ARTIFACT}/{ARTIFACT_MANIFEST}" not in listed:
        raise GateError(f"{where}: holds no {ARTIFACT}/{ARTIFACT_MANIFEST}; it is no bundle of ours")
    _refuse_code(where, present)
    return plain


def _check_folder(where: str, folder: Path, plain: Mapping[str, Any], public_key: Path | None) -> None:
    """Hashes, and the signature if a key is given, of an unpacked bundle."""
    for name, wanted in plain["files"].items():
        _compare(where, name, sha256(folder / name), wanted)
    if public_key is not None:
        if not (folder / SIGNATURE).is_file():
            raise GateError(f"{where}: is not signed, and require_signature={public_key.name} was given")
        _check_signature(where, folder, public_key)


def _compare(where: str, name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise GateError(f"{where}: {name} has sha256 {found[:12]}, expected {wanted[:12]}; it was changed")


def read_references(folder: Path, names: Mapping[int, str]) -> list[tuple[np.ndarray, Detections]]:
    """The reference pictures of an unpacked bundle (BGR) with what the float parent detects on them.

    Raises:
        GateError: A picture that cannot be read.
    """
    import cv2

    plain = _manifest(folder.name, (folder / MANIFEST).read_bytes())
    found = []
    for one in plain["references"]:
        table = np.asarray(one["detections"], np.float32).reshape(-1, 6)
        size = int(one["size_hw"][0]), int(one["size_hw"][1])
        frame = cv2.imread(str(folder / one["image"]))
        if frame is None:
            raise GateError(f"{folder.name}: {one['image']} is no readable picture; bundle the artifact again")
        found.append((frame, Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), names, size)))
    return found


def _rows(seen: Detections) -> list[list[float]]:
    """x1, y1, x2, y2, confidence, class of each box."""
    table = np.column_stack((seen.xyxy, seen.confidence, seen.class_id)) if len(seen) else np.zeros((0, 6))
    return [[round(float(v), 5) for v in row] for row in table]


def _manifest(where: str, raw: bytes) -> dict[str, Any]:
    try:
        plain = parse_json(raw)
        version, files, references = plain["version"], plain["files"], plain["references"]
        sound = all(isinstance(v, str) for v in files.values()) and all(
            r["image"] in files and [type(v) for v in r["size_hw"]] == [int, int] and _is_table(r["detections"])
            for r in references
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise GateError(f"{where}: {MANIFEST} is not readable; copy the bundle again") from None
    if version == VERSION and not sound:
        raise GateError(f"{where}: {MANIFEST} lists references or hashes that make no sense; bundle the artifact again")
    if version != VERSION:
        raise GateError(
            f"{where}: {MANIFEST} is of version {version!r:.20}, expected {VERSION}; bundle the artifact again"
        )
    return plain


def _is_table(rows: Any) -> bool:
    """Whether this is a list of six finite numbers each."""
    table = np.asarray(rows, float)
    return bool(np.isfinite(table).all()) and (table.size == 0 or (table.ndim == 2 and table.shape[1] == 6))


def _require_passed(artifact: Artifact, allow_rejected: bool) -> None:
    verdict = artifact.verdict
    if allow_rejected or (verdict is not None and verdict.passed):
        return
    why = (
        "was never judged; run yolo-kd gate on it" if verdict is None else f"was rejected: {'; '.join(verdict.reasons)}"
    )
    raise GateError(f"{artifact.folder.name}: {why}, or use allow_rejected=true")


def _refuse_code(where: str, files: Sequence[str]) -> None:
    """Only kinds of file that no loader of ours or of the runtimes executes."""
    for name in files:
        if PurePosixPath(name).suffix.lower() not in HARMLESS:
            raise GateError(f"{where}: {name} is none of {', '.join(sorted(HARMLESS))}; it has no business in a bundle")


def _sign(folder: Path, key: Path) -> None:
    signing, hashing = _model_signing("signing"), _model_signing("hashing")
    if not key.is_file():
        raise MisuseError(f"sign={key}: no such file; expected a private key (PEM, elliptic curve)")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError) as error:
        raise MisuseError(f"sign={key}: no usable private key ({_line(error)}); expected PEM, elliptic curve") from None
    target = folder / SIGNATURE
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[target], ignore_git_paths=False))
    config.sign(folder, target)


def _check_signature(where: str, folder: Path, key: Path) -> None:
    verifying, hashing = _model_signing("verifying"), _model_signing("hashing")
    if not key.is_file():
        raise MisuseError(f"require_signature={key}: no such file; expected a public key (PEM, elliptic curve)")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError) as error:
        raise MisuseError(f"require_signature={key}: no usable public key ({_line(error)})") from None
    target = folder / SIGNATURE
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[target], ignore_git_paths=False))
    try:
        config.verify(folder, target)
    except Exception as error:  # cryptography, sigstore and model-signing raise many types; each means: not signed so
        raise GateError(f"{where}: the signature is not of {key.name} over these files ({_line(error)})") from None


def _model_signing(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{module}")
    except ImportError:
        raise MisuseError('signatures need OpenSSF model-signing: pip install "yolo-kd[sign]"') from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
