"""`yolo-kd verify`: every hash of a bundle, and its signature, before anything in it is loaded; and the way out of the zip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.deploy.bundle import unpack, verify
from yolo_kd.errors import MisuseError
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {"bundle": None, "require_signature": None, "out": None, "debug": False}


def main(settings: dict[str, Any]) -> int:
    """Verify; a bundle that does not hold ends with exit code 3."""
    keys = settled(settings, DEFAULTS, "verify")
    if not keys["bundle"]:
        raise MisuseError("which bundle? yolo-kd verify student.zip")
    path = Path(str(keys["bundle"]))
    public_key = Path(str(keys["require_signature"])) if keys["require_signature"] else None
    found = verify(path, public_key)
    signature = "signature fine" if found.signed else "signature not asked for (require_signature=key.pub.pem)"
    print(f"{found.path.name}: {len(found.files)} files, every hash fine, {signature}")
    if keys["out"]:
        artifact = unpack(path, Path(str(keys["out"])), public_key, "out")
        print(f"unpacked: open_detector('{artifact.folder}')")
    return 0


def help_text() -> str:
    """The keys."""
    return """usage: yolo-kd verify student.zip [key=value ...]

Compares every file with its hash, and the signature with a public key. Exits 3 if one does not hold.

  bundle=             the .zip that yolo-kd bundle made
  require_signature=  public key (PEM, elliptic curve) that the bundle must be signed for
  out=                new folder to unpack into, checked once more there; its artifact/ is what open_detector takes"""
