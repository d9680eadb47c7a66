"""Distillation from Python: `distill(teacher=..., student=..., data=...)` trains and returns Ultralytics' metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolo_kd.cfg.settings import default_keys, is_ours, resolve
from yolo_kd.data import scenes
from yolo_kd.engine import ultra
from yolo_kd.engine.terms import check_arguments
from yolo_kd.engine.trainer import DistillationTrainer
from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

DEFAULT_STUDENT = "yolov8n.yaml"
SCENES_SIZE = 320


def distill(
    teacher: str | Path | None = None,
    student: str | Path | None = None,
    data: str | Path | None = None,
    **keys: Any,
) -> Any:
    """Train `student` under `teacher` on `data`.

    Args:
        teacher: Detection checkpoint; may be left out with distill="none" or with resume.
        student: A .yaml (from scratch) or .pt (pretrained); yolov8n.yaml if None.
        data: Data set YAML; the embedded traffic scenes if None.
        **keys: Every Ultralytics train key and ours (cfg/default.yaml); dotted ones as `**{"csgr.tau": 0.2}`.

    Returns:
        Ultralytics' metrics object of the final validation, as `YOLO.train` returns it.

    Raises:
        MisuseError: A key, value or file cannot work.
        GateError: The pre-flight refuses.
        YoloKDError: Anything else that failed, with Ultralytics' exception as its cause.
    """
    keys = {k: v for k, v in keys.items() if v is not None or k == "distill"}
    check_keys(keys)
    if "model" in keys:
        if student is not None:
            raise MisuseError(f"student={student} and model={keys['model']}: both name the student; use one")
        student = keys.pop("model")
    if teacher is not None:
        keys["teacher"] = str(teacher)
    resume = keys.get("resume")
    if resume:
        student = _checkpoint_of(resume)
        keys["resume"] = student
    else:
        student = _check_before_folder(keys, str(student or DEFAULT_STUDENT), data)
        keys["data"] = str(data) if data is not None else _scenes()
    ultra.restrict_loading(bool(keys.get("trust")))
    with readable_errors(keys, student):
        return ultra.YOLO(student, task="detect").train(trainer=DistillationTrainer, **keys)


def hand_over(mode: str, keys: Mapping[str, Any]) -> int:
    """Run a mode of Ultralytics with its own keys; returns the exit code."""
    keys = dict(keys)
    ultra.restrict_loading(bool(keys.pop("trust", False)))
    keys.pop("debug", None)
    known = ultra.train_keys()
    for key, value in keys.items():
        if key not in known:
            raise MisuseError(f"{key}={value}: unknown key{did_you_mean(key, known)}")
    model = str(keys.pop("model", "") or "")
    if not model:
        raise MisuseError(
            f"model= is missing: name the model, e.g. yolo-kd {mode} model=runs/detect/train/weights/best.pt"
        )
    if model.endswith(".pt"):
        ultra.load_detector(model, "model", any_task=True)
    elif not Path(model).exists():
        raise MisuseError(f"model={model}: no such file")
    with readable_errors(keys, model):
        results = getattr(ultra.YOLO(model), mode)(**keys)
        if keys.get("stream"):
            for _ in results:
                pass
    return 0


def check_keys(keys: Mapping[str, Any]) -> None:
    """Refuse keys that neither Ultralytics nor we have, naming the nearest.

    Raises:
        MisuseError: An unknown key.
    """
    known = {*ultra.train_keys(), *default_keys(), "student", "augmentations", "save_dir"}
    for key, value in keys.items():
        if key not in known and not is_ours(key):
            raise MisuseError(f"{key}={value}: unknown key{did_you_mean(key, known)}; yolo-kd train --help lists ours")


@contextmanager
def readable_errors(keys: Mapping[str, Any], student: str) -> Iterator[None]:
    """Ultralytics' exceptions about keys, data and folders as one line that names the key."""
    try:
        yield
    except YoloKDError:
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        text = _line(error)
        named = next((k for k in keys if f"'{k}=" in text or f"'{k}'" in text), None)
        if named is None:
            raise
        raise MisuseError(f"{named}={keys[named]}: {text}") from error
    except FileNotFoundError as error:
        named = next((k for k, v in keys.items() if str(v) in str(error)), None)
        raise MisuseError(f"{named}={keys[named]}: {_line(error)}" if named else _line(error)) from error
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise MisuseError(
            f"project={keys.get('project', 'runs')}: cannot write the run folder ({_line(error)}); "
            "choose a folder you may write to, e.g. project=runs"
        ) from error
    except OSError as error:
        raise YoloKDError(f"{type(error).__name__}: {_line(error)}") from error
    except RuntimeError as error:
        text = _line(error)
        if "Dataset '" in text and "error" in text:
            raise MisuseError(f"data={keys.get('data')}: {text.split('error', 1)[1].lstrip(' ❌')}") from error
        raise


def _check_before_folder(keys: Mapping[str, Any], student: str, data: Any) -> str:
    """Find what cannot work before a run folder is made for it; returns the student."""
    settings = resolve({k: v for k, v in keys.items() if is_ours(k)})
    check_arguments(settings.recipe)
    _check_student(student, settings.trust)
    if settings.recipe.methods:
        ultra.load_detector(str(settings.teacher), "teacher", settings.trust)
    if data is not None:
        ultra.check_data_yaml(str(data))
    return student


def _check_student(student: str, trust: bool) -> None:
    path = Path(student)
    if path.suffix == ".pt":
        ultra.load_detector(student, "student", trust)
    elif path.suffix in {".yaml", ".yml"}:
        ultra.check_model_yaml(student)
    else:
        raise MisuseError(
            f"student={student}: expected a .yaml (from scratch) or a .pt (pretrained), e.g. student=yolov8n.yaml"
        )


def _checkpoint_of(resume: Any) -> str:
    path = Path(str(resume))
    if resume is True or path.suffix != ".pt":
        raise MisuseError(
            f"resume={resume}: expected the last.pt of a run, e.g. resume=runs/detect/train/weights/last.pt"
        )
    if not path.exists():
        raise MisuseError(f"resume={resume}: no such file; expected the last.pt of a run")
    return str(path)


def _scenes() -> str:
    root = scenes.default_root()
    ultra.LOGGER.info(f"yolo-kd: no data= given, so the embedded traffic scenes are used ({root})")
    bar = ultra.TQDM(total=None, desc="rendering scenes")
    try:
        return str(
            scenes.write_dataset(root, size=SCENES_SIZE, progress=lambda done, total: _advance(bar, done, total))
        )
    finally:
        bar.close()


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
