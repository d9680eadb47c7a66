"""`yolo-kd verify`: every hash of a bundle, and its signature, before anything in it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.deploy.bundle import verify
from yolo_kd.errors import MisuseError
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {"bundle": None, "require_signature": None, "debug": False}


def main(settings: dict[str, Any]) -> int:
    """Verify; a bundle that does not hold ends with exit code 3."""
    keys = settled(settings, DEFAULTS, "verify")
    if not keys["bundle"]:
        raise MisuseError("which bundle? yolo-kd verify student.zip")
    public_key = keys["require_signature"]
    found = verify(Path(str(keys["bundle"])), Path(str(public_key)) if public_key else None)
    signature = "signature fine" if found.signed else "signature not asked for (require_signature=key.pub.pem)"
    print(f"{found.path.name}: {len(found.files)} files, every hash fine, {signature}")
    return 0


def help_text() -> str:
    """The keys."""
    return """usage: yolo-kd verify student.zip [require_signature=key.pub.pem]

Compares every file with its hash, and the signature with a public key (PEM, elliptic curve). Exits 3 if one does not hold."""
