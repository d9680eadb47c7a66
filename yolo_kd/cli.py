"""The command line: `yolo-kd MODE key=value ...`, in Ultralytics' grammar.

Every failure becomes one line on stderr and an exit code: 0 done, 1 failed, 2 misuse, 3 refused by a gate. A traceback
is shown with `debug=true` only.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from yolo_kd import __version__
from yolo_kd.cfg.values import read_key
from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean, one_line

MODES = {
    "train": "train a student under a teacher (or plain, with distill=none)",
    "val": "validate a model; Ultralytics' own mode",
    "predict": "predict with a model; Ultralytics' own mode",
    "data": "check, split and convert data sets; a sheet of what augment=field does",
    "export": "a checkpoint as a float OpenVINO or ONNX artifact",
    "calibrate": "choose the pictures that INT8 ranges are measured on",
    "quantize": "INT8 artifacts from a checkpoint or a float artifact",
    "evaluate": "average precision of a checkpoint or an artifact, slices, corruptions",
    "gate": "whether an artifact has earned its place on this device",
    "bundle": "one file with artifact, model card, reference boxes, hashes and signature",
    "accept": "a bundle at installation: hashes, parity, load; needs no torch",
    "verify": "every hash of a bundle, and its signature",
    "doctor": "what this machine can run, and how an artifact fares on each device",
    "report": "a training as one page: verdict, curves, what was distilled, teacher, maps",
    "demo": "render traffic scenes, train a teacher, a plain and a distilled student, compare them, quantize the last",
    "version": "print the version",
}
FIRST_WORD = {
    "accept": "bundle",
    "verify": "bundle",
    "data": "action",
    "report": "run",
}  # the key of a first word without one: yolo-kd verify student.zip
TASK = "detect"  # the one there is, which Ultralytics' users write before or behind the mode
DESK = {"torch", "torchvision", "ultralytics"}  # packages of the extra [train]
HELP = (
    f"""yolo-kd {__version__}: teach a small YOLO from a large one

usage: yolo-kd MODE key=value ...

modes:
"""
    + "\n".join(f"  {mode:<9} {what}" for mode, what in MODES.items())
    + """

examples:
  yolo-kd train distill=none student=yolov8l.pt data=visdrone.yaml epochs=100 name=teacher    (first the teacher learns)
  yolo-kd train teacher=runs/detect/teacher/weights/best.pt student=yolov8n.yaml data=visdrone.yaml epochs=100 imgsz=640
  yolo-kd train teacher=best_l.pt student=yolov8n.pt distill=pkd pkd.pkd=auto:0.3
  yolo-kd train resume=runs/detect/train/weights/last.pt
  yolo-kd demo

yolo-kd train --help lists every key. Exit codes: 0 done, 1 failed, 2 misuse, 3 refused by a check."""
)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: Arguments without the program's name; those of the process if None.
    """
    args = sys.argv[1:] if argv is None else argv
    debug = any(word.replace(" ", "").lower() in {"debug", "debug=true", "debug=1"} for word in joined(args))
    try:
        return run(args)
    except KeyboardInterrupt:
        print("yolo-kd: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, YoloKDError):
            print(f"yolo-kd: {error}", file=sys.stderr)
            return error.exit_code
        first = one_line(" ".join(str(error).split())[:300]) or "no message"
        hint = "" if debug else "; debug=true shows where"
        print(f"yolo-kd: {type(error).__name__}: {first}{hint}", file=sys.stderr)
        return 1


def run(args: list[str]) -> int:
    """Run one command; what fails is raised.

    Raises:
        YoloKDError: See `yolo_kd.errors`. Anything else is a fault of ours.
    """
    if not args or args[0] in {"-h", "--help", "help"}:
        print(HELP)
        return 0
    if {"train", "val", "predict"} & set(args[:2]):
        args = [*(word for word in args[:2] if word != TASK), *args[2:]]
    mode, rest = args[0], joined(args[1:])
    if mode in {"version", "--version", "-v"}:
        print(f"yolo-kd {__version__}")
        return 0
    if mode not in MODES:
        raise MisuseError(f"{mode}: no such mode{did_you_mean(mode, MODES)}; use one of {', '.join(MODES)}")
    try:
        module = import_module(f"yolo_kd.modes.{mode}")
        if {"-h", "--help", "help"} & set(rest):
            print(module.help_text())
            return 0
        if rest and mode in FIRST_WORD and "=" not in rest[0]:
            rest[0] = f"{FIRST_WORD[mode]}={rest[0]}"
        known = module.defaults() if hasattr(module, "defaults") else getattr(module, "DEFAULTS", {})
        return module.main(parse(rest, known))
    except ModuleNotFoundError as error:  # on a device; what else may be missing is said where it is needed
        package = (error.name or "").partition(".")[0]
        if package not in DESK:
            raise
        raise MisuseError(
            f'{mode}: needs {package}, which is not installed; run: pip install "yolo-kd[train]"'
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise MisuseError(f"{error.filename}: no such file; the name is longer than a disk can hold") from error


def parse(args: list[str], known: Mapping[str, Any] = MappingProxyType({})) -> dict[str, object]:
    """`key=value` words as a dict, in Ultralytics' grammar; later beats earlier.

    Args:
        args: The words; blanks around '=' and within a list, '--' before a key and ',' behind a value are overlooked.
        known: Keys with their defaults; one that is True or False may stand alone, for true.

    Raises:
        MisuseError: Another word without '=', one without a value, or a list without its end.

    >>> parse(["epochs=3", "lr0=1e-3", "csgr.tau=.2", "name=7"])
    {'epochs': 3, 'lr0': 0.001, 'csgr.tau': 0.2, 'name': '7'}
    >>> parse(["--epochs", "=", "3,", "classes=[0,", "2]", "plots"], {"plots": False})
    {'epochs': 3, 'classes': [0, 2], 'plots': True}
    """
    found: dict[str, object] = {}
    for word in joined(args):
        key, equals, text = word.partition("=")
        key, text = key.strip(), text.strip()
        if not equals and isinstance(known.get(key), bool):
            found[key] = True
        elif not equals or not key or not text:
            hint = "" if equals or key in known else did_you_mean(key, known)
            raise MisuseError(f"{word}: expected key=value, e.g. epochs=100{hint}")
        elif _is_open(word):
            raise MisuseError(f"{word}: a list without its ']'; expected one such as classes=[0,2]")
        else:
            found[key] = read_key(key, text)
    return found


def joined(args: list[str]) -> list[str]:
    """The words with what a shell took apart put together again: 'epochs = 3', 'epochs= 3', 'classes=[0, 2]'.

    >>> joined(["--epochs", "=", "3", "classes=[0,", "2],", "plots"])
    ['epochs=3', 'classes=[0,2]', 'plots']
    """
    words: list[str] = []
    waits = False  # for what comes after a '=' that stood alone
    for arg in args:
        begun = words[-1] if words else ""
        sign = begun and arg.startswith("=") and "=" not in begun
        if sign or waits or _is_open(begun) or (begun.endswith("=") and "=" not in arg):
            words[-1] += arg
        else:
            words.append(arg.removeprefix("--"))
        waits = bool(sign) and arg == "="
    return [word.removesuffix(",") for word in words]


def _is_open(word: str) -> bool:
    """Whether a list begins and does not end in a word."""
    value = word.partition("=")[2].lstrip()
    return value.startswith("[") and value.count("[") > value.count("]")


if __name__ == "__main__":
    sys.exit(main())
