"""Kinds of input: which file is made wrong, how, and which commands then read it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.deploy import bundle
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.model_card import card
from yolo_kd.deploy.quantize.calibration import images, read_calibration
from yolo_kd.deploy.runtime import open_detector

from tests.fuzz import resumed
from tests.fuzz.archives import mutate_checkpoint, mutate_zip
from tests.fuzz.guard import Outcome, Sandbox
from tests.fuzz.models import nonsense
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_text, mutate_words, mutate_yaml
from yolo_kd import cli
from yolo_kd.engine import ultra
from yolo_kd.engine.resume import load_sidecar
from yolo_kd.engine.torch_backend import open_checkpoint

Mutation = Callable[[bytes, random.Random], bytes]
FRAME = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
COMMANDS = "commands"
RESUMED = ("run/args.yaml", "run/kd.yaml")  # a training that goes on writes its settings anew


@dataclass(frozen=True)
class Slot:
    """One way in.

    Args:
        name: Unique within its kind.
        place: The file that is made wrong, below the sandbox; empty for a command line, whose words are the input.
        mutate: How.
        act: What reads it; for a command line it is given the words.
        resumable: See `Sandbox.trial`.
        rewrites: See `Sandbox.trial`.
    """

    name: str
    place: str
    mutate: Mutation
    act: Callable[..., Any]
    resumable: bool = False
    rewrites: tuple[str, ...] = ()


def command(*words: str) -> Callable[[], Any]:
    """The act of a command line."""
    return lambda: cli.run(list(words))


def _train(*words: str) -> Callable[[], Any]:
    return command("train", *words, "device=cpu", "cpu_threads=1")


def _detect(source: str) -> Callable[[], Any]:
    def act() -> None:
        with open_detector(source, cache=False, threads=1) as detector:
            detector(FRAME)
        card(read_artifact(source))

    return act


def _load(source: str) -> None:
    model = ultra.load_detector(source, "teacher")
    ultra.head_spec(model), ultra.class_names(model), ultra.image_channels(model), ultra.convolutions(model)
    with open_checkpoint(source, 64) as detector:
        detector(FRAME)


def _calibrate() -> None:
    for image in images(read_calibration("calibration.json"), (32, 32)):
        assert image.shape == (1, 3, 32, 32)


def _unpack() -> None:
    found = bundle.unpack(Path("student.zip"), Path("out/bundle"))
    for picture, seen in bundle.read_references(Path("out/bundle"), found.names):
        assert picture.ndim == 3 and seen.xyxy.shape[1:] == (4,)
    card(found)


def _picture_slots() -> list[Slot]:
    slots = []
    for place in ("0.jpg", "1.png", "2.bmp", "3.tif", "4.webp", "deep.png"):
        name, where = place.replace(".", "-"), f"pictures/{place}"
        slots += [
            Slot(f"{name}-check", where, mutate_bytes, command("data", "check", "data=pictures.yaml", "jobs=1")),
            Slot(
                f"{name}-quick",
                where,
                mutate_bytes,
                command("data", "check", "data=pictures.yaml", "quick=true", "jobs=1"),
            ),
            Slot(
                f"{name}-choose",
                where,
                mutate_bytes,
                command("calibrate", "source=pictures", "count=3", "out=out/c.json"),
            ),
        ]
    convert = command("data", "convert", "from=kitti", "source=kitti", "out=out/kitti")
    place = "kitti/training/image_2/000000.png"
    return [
        *slots,
        Slot("sheet", "pictures/0.jpg", mutate_bytes, command("data", "sheet", "source=pictures/0.jpg", "out=out/s.jpg")),
        Slot("convert", place, mutate_bytes, convert, True),
    ]  # fmt: skip


def _label_slots() -> list[Slot]:
    native = {
        "visdrone": ("visdrone/VisDrone2019-DET-train/annotations/0000001_02999_d_0000005.txt", mutate_text),
        "coco": ("coco/annotations/instances_train2017.json", mutate_json),
        "voc": ("voc/VOC2007/Annotations/2007_000005_train.xml", mutate_text),
        "kitti": ("kitti/training/label_2/000000.txt", mutate_text),
        "bdd": ("bdd/labels/det_20/det_train.json", mutate_json),
    }
    label = "labels/train/000.txt"
    model = "model=float_openvino_model"
    return [
        Slot("check", label, mutate_text, command("data", "check", "data=data.yaml", "jobs=1", "out=out/c.json"), rewrites=("out/c.json",)),
        Slot("choose", label, mutate_text, command("calibrate", "source=data.yaml", "count=2", "out=out/c.json")),
        Slot("split", label, mutate_text, command("data", "split", "data=data.yaml", "out=out/s.yaml", "val=.4", "jobs=1")),
        Slot("evaluate", "labels/val/000.txt", mutate_text,
             command("evaluate", model, "data=data.yaml", "ultralytics=false", "out=out/e.json")),
        Slot("list", "train.txt", mutate_text, command("data", "check", "data=listed.yaml", "jobs=1")),
        Slot("list-choose", "train.txt", mutate_text, command("calibrate", "source=listed.yaml", "count=2", "out=out/c.json")),
        Slot("groups", "groups.csv", mutate_text,
             command("data", "split", "data=data.yaml", "out=out/s.yaml", "groups=groups.csv", "val=.4", "jobs=1"), True),
        Slot("voc-list", "voc/VOC2007/ImageSets/Main/train.txt", mutate_text,
             command("data", "convert", "from=voc", "source=voc", "out=out/voc"), True),
        *(Slot(name, place, mutate, command("data", "convert", f"from={name}", f"source={name}", f"out=out/{name}"), True)
          for name, (place, mutate) in native.items()),
    ]  # fmt: skip


# A training whose settings were taken makes its run folder before it reads its data, as Ultralytics does: hence `resumable`.
SLOTS: dict[str, list[Slot]] = {
    "settings": [
        Slot("recipe", "recipe.yaml", mutate_yaml, _train("teacher=teacher.pt", "distill=recipe.yaml", "data=data.yaml"), True),
        Slot("keys", "keys.yaml", mutate_yaml, _train("cfg=keys.yaml"), True),
        Slot("student", "student.yaml", mutate_yaml, _train("student=student.yaml", "distill=none", "data=data.yaml"), True),
        Slot("resumed", "run/kd.yaml", mutate_yaml, _train("resume=run/weights/last.pt"), rewrites=RESUMED),
        Slot("run-kd", "run/kd.yaml", mutate_yaml, command("report", "run=run", "out=out/r.html")),
        Slot("run-args", "run/args.yaml", mutate_yaml, command("report", "run=run", "out=out/r.html")),
        Slot("run-preflight", "run/preflight.json", mutate_json, command("report", "run=run", "out=out/r.html")),
        Slot("run-results", "run/results.csv", mutate_text, command("report", "run=run", "out=out/r.html")),
    ],
    "runs": [
        Slot("preflight", "run/preflight.json", mutate_json, resumed.read_preflight, rewrites=("run/preflight.json",)),
        Slot("unlabeled", "run/unlabeled.json", mutate_json, resumed.read_unlabeled),
        Slot("pseudo-labels", "run/pseudo_labels.json", mutate_json, resumed.read_pseudo_labels),
        Slot("results", "run/results.csv", mutate_text, resumed.read_results, rewrites=("run/results.csv",)),
    ],
    "data.yaml": [
        Slot("check", "data.yaml", mutate_yaml, command("data", "check", "data=data.yaml", "jobs=1", "out=out/c.json"), rewrites=("out/c.json",)),
        Slot("quick", "data.yaml", mutate_yaml, command("data", "check", "data=data.yaml", "quick=true", "jobs=1")),
        Slot("split", "data.yaml", mutate_yaml,
             command("data", "split", "data=data.yaml", "out=out/s.yaml", "val=.4", "jobs=1")),
        Slot("choose", "data.yaml", mutate_yaml, command("calibrate", "source=data.yaml", "count=2", "out=out/c.json")),
        Slot("evaluate", "data.yaml", mutate_yaml,
             command("evaluate", "model=float_openvino_model", "data=data.yaml", "ultralytics=false", "out=out/e.json")),
        Slot("train", "data.yaml", mutate_yaml, _train("distill=none", "data=data.yaml", "epochs=1"), True),
        Slot("names", "data.yaml", mutate_yaml,
             command("data", "convert", "from=kitti", "source=kitti", "out=out/kitti", "names=data.yaml"), True),
    ],
    "labels": _label_slots(),
    "pictures": _picture_slots(),
    "checkpoints": [
        Slot("load", "teacher.pt", mutate_checkpoint, lambda: _load("teacher.pt")),
        Slot("nonsense", "teacher.pt", lambda _, rng: nonsense(rng), lambda: _load("teacher.pt")),
        Slot("student", "teacher.pt", mutate_checkpoint, _train("student=teacher.pt", "distill=none", "data=data.yaml"), True),
        Slot("export", "teacher.pt", mutate_checkpoint, command("export", "model=teacher.pt", "imgsz=64", "out=out")),
        Slot("val", "teacher.pt", mutate_checkpoint, command("val", "model=teacher.pt", "data=data.yaml")),
        Slot("last", "run/weights/last.pt", mutate_checkpoint, _train("resume=run/weights/last.pt"), rewrites=RESUMED),
        Slot("sidecar", "run/weights/last.kd.pt", mutate_checkpoint, lambda: load_sidecar(Path("run/weights/last.kd.pt"))),
    ],
    "artifacts": [
        Slot("manifest", "int8_openvino_model/artifact.json", mutate_json, _detect("int8_openvino_model")),
        Slot("metadata", "exported_openvino_model/metadata.yaml", mutate_yaml, _detect("exported_openvino_model")),
        Slot("gate", "int8_openvino_model/artifact.json", mutate_json,
             command("gate", "artifact=int8_openvino_model", "parent=float_openvino_model", "data=data.yaml"),
             rewrites=("int8_openvino_model/artifact.json",)),
        Slot("report", "run/weights/best_int8_openvino_model/artifact.json", mutate_json,
             command("report", "run=run", "out=out/r.html")),
        Slot("bundle", "int8_openvino_model/artifact.json", mutate_json,
             command("bundle", "artifact=int8_openvino_model", "parent=float_openvino_model", "data=data.yaml", "references=1",
                     "allow_rejected=true", "out=out/b.zip")),
        Slot("card", "run/kd.yaml", mutate_yaml,
             command("bundle", "artifact=int8_openvino_model", "parent=float_openvino_model", "data=data.yaml", "references=1",
                     "run=run", "out=out/b.zip")),
        Slot("doctor", "float_openvino_model/artifact.json", mutate_json, command("doctor", "model=float_openvino_model")),
    ],
    "calibration": [
        Slot("list", "calibration.json", mutate_json, _calibrate),
        Slot("quantize", "calibration.json", mutate_json,
             command("quantize", "model=float_openvino_model", "calibration=calibration.json", "gate=false")),
    ],
    "bundles": [
        Slot("unpack", "student.zip", mutate_zip, _unpack, True),
        Slot("verify", "student.zip", mutate_zip, command("verify", "student.zip")),
        Slot("accept", "student.zip", mutate_zip, command("accept", "student.zip", "out=a.json", "threads=1"), rewrites=("a.json",)),
    ],
    COMMANDS: [],
}  # fmt: skip
OUTS = {
    "calibrate": "calibration.json",
    "bundle": "student.zip",
}  # of those that without out= replace an older one of theirs
LINES: Sequence[Sequence[str]] = (
    ("train", "teacher=teacher.pt", "student=yolov8n.yaml", "data=data.yaml", "epochs=3", "imgsz=64", "csgr.tau=.2", "batch=4"),
    ("train", "student=teacher.pt", "distill=none", "data=data.yaml", "optimizer=SGD", "lr0=1e-3", "augment=field"),
    ("train", "resume=run/weights/last.pt", "teacher=teacher.pt", "cpu_threads=1"),
    ("train", "cfg=keys.yaml", "schedule=mosaic", "until=.5", "teacher_engine=torch"),
    ("val", "model=teacher.pt", "data=data.yaml", "imgsz=64"),
    ("predict", "model=teacher.pt", "source=images/val", "conf=.1"),
    ("data", "check", "data=data.yaml", "near=6", "leak=.05", "quick=true", "shown=5", "jobs=1", "out=out/check.json"),
    ("data", "split", "data=data.yaml", "by=scene", "out=out/s.yaml", "val=.3", "test=.2", "seed=1", "near=4", "names=false"),
    ("data", "convert", "from=voc", "source=voc", "out=out/voc", "images=copy", "difficult=true", "names=dog,person"),
    ("data", "sheet", "source=pictures/0.jpg", "out=out/sheet.jpg", "seed=1"),
    ("export", "model=teacher.pt", "format=openvino", "imgsz=64", "precision=fp16", "end2end=false", "out=out"),
    ("calibrate", "source=data.yaml", "count=2", "evaluation=data.yaml", "out=out/c.json", "seed=1", "near=6"),
    ("quantize", "model=float_openvino_model", "data=data.yaml", "backend=openvino", "calibration=calibration.json", "count=3",
     "max_drop=.01", "openvino.preset=mixed", "threads=1"),
    ("quantize", "model=teacher.pt", "data=data.yaml", "imgsz=64", "recipe=auto", "target=throughput", "out=out"),
    ("evaluate", "model=float_openvino_model", "data=data.yaml", "split=val", "ultralytics=false", "beside=int8_openvino_model",
     "out=out/e.json"),
    ("evaluate", "model=teacher.pt", "data=data.yaml", "imgsz=64", "ultralytics=false", "corruptions=fog"),
    ("gate", "artifact=int8_openvino_model", "parent=int8_openvino_model", "data=data.yaml", "split=val", "max_drop=.01"),
    ("bundle", "artifact=int8_openvino_model", "parent=float_openvino_model", "data=data.yaml", "references=2", "run=run",
     "licence=MIT", "allow_rejected=true", "out=out/b.zip"),
    ("accept", "student.zip", "minutes=.001", "device=CPU", "threads=1", "out=a.json", "min_f1=.5"),
    ("verify", "student.zip", "require_signature=key.pem"),
    ("doctor", "model=float_openvino_model", "device=CPU", "data=data.yaml", "out=d.json"),
    ("report", "run", "out=out/r.html"),
    ("demo", "out=out/demo", "images=3", "imgsz=64", "epochs=1", "seed=1", "force=true"),
)  # fmt: skip


def _words(_: bytes, rng: random.Random) -> bytes:
    return json.dumps(mutate_words(rng.choice(LINES), rng)).encode()


SLOTS[COMMANDS].append(Slot("line", "", _words, lambda words: cli.run(words), True))


@dataclass(frozen=True)
class Input:
    """One input: its way in and what it is; the same for the same kind, number and seed."""

    kind: str
    slot: Slot
    content: bytes

    def run(self, sandbox: Sandbox) -> Outcome:
        """Try it."""
        slot = self.slot
        if slot.place:
            return sandbox.trial(slot.act, slot.place, self.content, slot.resumable, slot.rewrites)
        words = json.loads(self.content)
        return sandbox.trial(
            lambda: slot.act(words), resumable=slot.resumable, rewrites=_asked_for(words), anywhere=True
        )


def make(kind: str, number: int, seed: int, seeds: Path) -> Input:
    """An input of a kind by its number."""
    rng = random.Random(f"{seed} {kind} {number}")
    slot = SLOTS[kind][number % len(SLOTS[kind])]
    before = (seeds / slot.place).read_bytes() if slot.place else b""
    return Input(kind, slot, slot.mutate(before, rng))


def from_corpus(path: Path) -> Input:
    """An input kept as `KIND~SLOT~what-it-was`, with any suffix."""
    kind, name, _ = path.name.split("~")
    return Input(kind, next(slot for slot in SLOTS[kind] if slot.name == name), path.read_bytes())


def _asked_for(words: Sequence[str]) -> tuple[str, ...]:
    """The files that a command line asks to write: what `out=` names, a manifest for the verdict, settings of a resumed run."""
    given = dict(word.partition("=")[::2] for word in words if isinstance(word, str))
    out = given.get("out", next((name for mode, name in OUTS.items() if words[:1] == [mode]), "")).strip()
    return *RESUMED, out, f"{given.get('artifact', '').strip().rstrip('/')}/artifact.json"
