"""`yolo-kd bundle`: one file that carries an artifact to the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.data.split import read_split
from yolo_kd.deploy import bundle
from yolo_kd.deploy.artifact import Artifact, read_artifact, sha256
from yolo_kd.deploy.model_card import LICENCE, card, read_run
from yolo_kd.deploy.runtime import open_detector
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.evaluation import read_frame
from yolo_kd.evidence.verdict import find_parent, require_parent
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {
    "artifact": None,
    "parent": None,
    "data": None,
    "split": "val",
    "references": 16,
    "run": None,
    "licence": LICENCE,
    "sign": None,
    "allow_rejected": False,
    "out": "student.zip",
    "debug": False,
}


def main(settings: dict[str, Any]) -> int:
    """Write the bundle; an artifact that the gate did not pass ends with exit code 3."""
    keys = settled(settings, DEFAULTS, "bundle", {"references": 1})
    for key in ("artifact", "data"):
        if not keys[key]:
            raise MisuseError(f"{key}= is missing: yolo-kd bundle artifact=<folder> data=<data.yaml>")
    count, out = keys["references"], Path(str(keys["out"]))
    artifact = read_artifact(str(keys["artifact"]))
    bundle.refuse_taken(out)  # before the parent runs
    made_from = read_artifact(str(keys["parent"])) if keys["parent"] else find_parent(artifact)
    require_parent(artifact, made_from)  # another net's boxes, or the artifact's own, would prove nothing on the device
    run = _run_of(artifact, Path(str(keys["run"]))) if keys["run"] else None
    images = read_split(str(keys["data"]), str(keys["split"])).images
    chosen = images[:: max(len(images) // count, 1)][:count]
    frames = [read_frame(path) for path in chosen]
    with open_detector(made_from, precision="f32", allow_rejected=True) as parent:
        references = [(frame, parent(frame)) for frame in frames]
    sign = Path(str(keys["sign"])) if keys["sign"] else None
    bundle.create(
        artifact.folder, references, card(artifact, run, str(keys["licence"])), out, sign, bool(keys["allow_rejected"])
    )
    found = bundle.verify(out)
    boxes = sum(len(seen) for _, seen in references)
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(found.files)} files, {len(references)} reference pictures with "
        f"{boxes} boxes of the float parent, {'signed' if sign else 'not signed'}"
    )
    if len(references) < count:
        print(
            f"WARNING references={count}: {keys['split']} holds only {len(references)} pictures, and the bundle these"
        )
    if boxes == 0:
        print("WARNING the float parent sees nothing on the reference pictures: they prove nothing on the device")
    return 0


def _run_of(artifact: Artifact, folder: Path) -> dict[str, Any]:
    """What the training that an artifact came out of says for the model card.

    Raises:
        MisuseError: It is no run folder, or that of another training.
    """
    run, parent = read_run(folder), artifact.facts.get("parent") or {}
    wanted, there = parent.get("sha256"), sorted((folder / "weights").glob("*.pt"))
    if wanted and there and wanted not in map(sha256, there):
        raise MisuseError(
            f"run={folder}: none of its weights is {parent.get('file')}, sha256 {wanted[:12]}, that the artifact was made "
            "from; name the run that it came from, or leave run= out"
        )
    return run


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd bundle artifact=<folder> data=<data.yaml> [key=value ...]

  artifact=          folder that the gate passed
  parent=            the float model that it was made from, whose boxes the device is compared with; if left out, looked for
                     beside the artifact, by the hashes of all files of its net
  data=              data set YAML from which reference pictures are taken; they go into the bundle
  split=val          part of it
  references=16      number of pictures
  run=               folder of the training that it came out of, for the model card
  licence=           one line for the model card ({LICENCE})
  sign=              private key (PEM, elliptic curve), by OpenSSF model-signing
  allow_rejected=    true bundles what the gate rejected or never judged
  out=student.zip    the bundle; replaces an older one, and no other file"""
