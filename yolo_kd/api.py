"""Distillation from Python: `distill(teacher=..., student=..., data=...)` trains and returns Ultralytics' metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yolo_kd.cfg.documents import read_mapping
from yolo_kd.cfg.runs_folder import elsewhere
from yolo_kd.cfg.settings import DistillSettings, default_keys, is_ours, resolve
from yolo_kd.cfg.values import NAMES, NUMBERED, PATHS, read_key, shown
from yolo_kd.data import scenes
from yolo_kd.data.description import find_description, read_description
from yolo_kd.data.unlabeled import find_unlabeled
from yolo_kd.distillers import DISTILLERS, load
from yolo_kd.engine import ultra
from yolo_kd.engine.classes import check_ids
from yolo_kd.engine.foreign_code import no_foreign_code
from yolo_kd.engine.input_check import check_input
from yolo_kd.engine.pair_check import check_pair
from yolo_kd.engine.readable_errors import data_error, readable_errors
from yolo_kd.engine.resume import LAST, PREVIOUS_SIDECAR, SIDECAR, usable_checkpoint
from yolo_kd.engine.run_settings import resumed_settings
from yolo_kd.engine.terms import check_arguments
from yolo_kd.engine.trainer import DistillationTrainer
from yolo_kd.engine.untouched import untouched_pictures
from yolo_kd.errors import MisuseError, did_you_mean

DEFAULT_STUDENT = "yolov8n.yaml"
BARE = ("half", "int8", "end2end", "nms")  # that Ultralytics takes for true without a value, besides what is on or off
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
        data: Data set YAML; the embedded traffic scenes if None, then at imgsz=320 unless that is given.
        **keys: Every Ultralytics train key and ours (cfg/default.yaml); dotted ones as `**{"csgr.tau": 0.2}`.

    Returns:
        Ultralytics' metrics object of the final validation, as `YOLO.train` returns it.

    Raises:
        MisuseError: A key, value or file cannot work.
        GateError: The pre-flight refuses.
        YoloKDError: Anything else that failed, with Ultralytics' exception as its cause.
    """
    keys = {**_from_file("train", keys.pop("cfg", None)), **_given("train", keys)}
    student = keys.pop("student", None) if student is None else student
    data = keys.pop("data", None) if data is None else data
    teacher = keys.pop("teacher", None) if teacher is None else teacher
    keys = _present("train", keys)
    if "model" in keys:
        if student is not None:
            raise MisuseError(f"student={student} and model={keys['model']}: both name the student; use one")
        student = keys.pop("model")
    for key, named in (("teacher", teacher), ("student", student)):
        if not isinstance(named, str | Path | int | float | None):
            raise MisuseError(f"{key}={shown(named)}: expected the path of its file, e.g. {key}=best.pt")
    if teacher is not None:
        keys["teacher"] = str(teacher)
    if data is not None:
        if not isinstance(data, str | Path):
            raise MisuseError(f"data={data}: expected one data set YAML; for several call it once for each")
        data = find_description(str(data)) or data  # the name of a descriptor that comes along
    if (task := keys.pop("task", "detect")) != "detect":
        raise MisuseError(
            f"task={task}: only detectors are distilled; leave it out, and name a detection model with student="
        )
    resume = keys.get("resume")
    if resume is True and student is not None:  # Ultralytics' own way to name it: resume=True model=last.pt
        resume, student = student, None
    if resume:
        if student is not None:
            raise MisuseError(
                f"student={student} and resume={resume}: a resumed run has its student; leave student= out"
            )
        student = keys["resume"] = _checkpoint_of(resume)
        run = Path(student).parent.parent
        trust = resumed_settings(run, {"trust": keys.get("trust", False)}).trust
        ultra.load_detector(student, "resume", trust)
        if data is not None:
            keys["data"] = str(data)
    else:
        student = str(ultra.check_model_file_from_stem(str(student or DEFAULT_STUDENT)))
        settings = _check_before_folder(keys, student, data)
        trust = settings.trust
        keys["data"] = str(data) if data is not None else _scenes()
        if data is None and "imgsz" not in keys:
            ultra.LOGGER.info(f"yolo-kd: imgsz={SCENES_SIZE}, the size of the scenes")
            keys["imgsz"] = SCENES_SIZE
    with readable_errors(keys), ultra.restricted_loading(trust):
        return ultra.YOLO(student, task="detect").train(trainer=DistillationTrainer, **keys)


def hand_over(mode: str, keys: Mapping[str, Any]) -> int:
    """Run a mode of Ultralytics with its own keys; returns the exit code."""
    given = {k: v for k, v in keys.items() if k != "cfg"}
    keys = _present(mode, {**_from_file(mode, keys.get("cfg")), **given, "mode": mode})
    trust = keys.pop("trust", False)
    if not isinstance(trust, bool):
        raise MisuseError(f"trust={trust}: expected true or false")
    keys.pop("debug", None)
    if keys.get("data"):
        keys["data"] = str(find_description(str(keys["data"])) or keys["data"])
    model = str(keys.pop("model", "") or "")
    if not model:
        raise MisuseError(
            f"model= is missing: name the model, e.g. yolo-kd {mode} model=runs/detect/train/weights/best.pt"
        )
    model = str(ultra.check_model_file_from_stem(model))  # yolov8n is yolov8n.pt
    if model.endswith(".pt"):
        ultra.load_detector(model, "model", trust, any_task=True)
    elif not Path(model).exists():
        near = did_you_mean(model, ultra.GITHUB_ASSETS_STEMS)
        raise MisuseError(f"model={model}: no such file{elsewhere(model)}{near}")
    if mode == "predict":
        # Ultralytics saves by itself only where its own program was started; streamed, a video is not held in memory
        keys = {"save": True, **keys, "stream": True}
    with readable_errors(keys), no_foreign_code(trust), untouched_pictures():
        opened = ultra.YOLO(model)
        check_input(mode, keys, opened)
        results = getattr(opened, mode)(**keys)
        if mode == "predict":
            for _ in results:
                pass
    return 0


def known_keys(mode: str) -> dict[str, Any]:
    """Every key of a mode of Ultralytics' with its default, false where the key alone means true."""
    ours = {**default_keys(), "student": None} if mode == "train" else {"trust": False, "debug": False}
    return {**ours, **ultra.train_keys(), "augmentations": None, "save_dir": None, **dict.fromkeys(BARE, False)}


def _present(mode: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys, those that Ultralytics renamed under their present names.

    Raises:
        MisuseError: A key that neither Ultralytics nor we have.
    """
    with readable_errors(keys):
        present = ultra.current_keys(dict(keys))
    known = known_keys(mode)
    for key, value in present.items():
        if key not in known and not (mode == "train" and is_ours(key, value)):
            raise MisuseError(f"{key}={value}: unknown key{_nearest(mode, key, known)}; see yolo-kd {mode} --help")
    return present


def _nearest(mode: str, key: str, known: Mapping[str, Any]) -> str:
    """The hint of an unknown key; a method's or a term's name alone is told as the key that it is a part of."""
    terms = {f"{method}.{term}": (method, term) for method in DISTILLERS for term in load(method).terms}
    whole = " or ".join(f"'{name}'" for name, parts in terms.items() if key in parts and mode == "train")
    return f" (did you mean {whole}?)" if whole else did_you_mean(key, known)


def _from_file(mode: str, path: Any) -> dict[str, Any]:
    """The keys of a `cfg=` file, Ultralytics' and ours mixed; keys of the command line beat them."""
    if path is None:
        return {}
    found = read_mapping("cfg", Path(str(path)))
    for key, value in found.items():
        kept = isinstance(value, str | bool | list | None) or key in NUMBERED | NAMES
        if key in PATHS and not kept:  # a number or a date to YAML, whose text is lost
            raise MisuseError(f"cfg={path}: YAML takes {key}: for {value}, no text; put the path in quotes")
    return _given(mode, {str(k): read_key(str(k), v) for k, v in found.items()})


def _given(mode: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys without those that are None, that is left at their default; a recipe or a gain of none is a choice.

    Raises:
        MisuseError: One of those left out is none that there is.
    """
    unset = {k: v for k, v in keys.items() if v is None and k != "distill" and "." not in k}
    _present(mode, unset)
    return {k: v for k, v in keys.items() if k not in unset}


def _check_before_folder(keys: Mapping[str, Any], student: str, data: Any) -> DistillSettings:
    """Find what cannot work before a run folder is made for it."""
    settings = resolve({k: v for k, v in keys.items() if is_ours(k, v)})
    check_arguments(settings.recipe)
    find_unlabeled(settings.unlabeled or ())
    check_student(student, settings.trust)
    for key in ("pretrained", "distill_model"):
        if isinstance(keys.get(key), str | Path):
            # weights are taken where they fit, while a teacher of Ultralytics' own distillation needs the head
            ultra.load_detector(str(keys[key]), key, settings.trust, any_task=key == "pretrained")
    teacher = None
    if settings.recipe.methods or settings.pseudo_labels is not None:
        teacher = ultra.load_detector(str(settings.teacher), "teacher", settings.trust)
    names = dict(enumerate(scenes.CLASSES)) if data is None else _class_names(str(data))
    wanted = keys.get("classes")
    check_ids(wanted, names)
    if teacher is not None and settings.recipe.methods and not keys.get("single_cls"):
        check_pair(settings, student, teacher, names, wanted)
    return settings


def _class_names(data: str) -> dict[int, str] | None:
    """The classes of a data set; None where Ultralytics has to fetch it, or knows it by name.

    Raises:
        MisuseError: No such YAML, one that cannot be followed, or a folder without one.
    """
    ultra.check_data_yaml(data)
    path = Path(data)
    if path.is_dir():
        try:
            path = ultra.data_scan.find_dataset_yaml(path)
        except AssertionError as error:
            raise data_error({"data": data}, error) from error
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        return None
    return dict(read_description(path).names)


def check_student(student: str, trust: bool = False) -> None:
    """Refuse what is no model that learns.

    Raises:
        MisuseError: No YAML and no checkpoint of a detector, or not to be found.
    """
    path = Path(student)
    if path.suffix == ".pt":
        ultra.load_detector(student, "student", trust)
    elif path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            read_mapping("student", path)
        ultra.check_model_yaml(student)
    else:
        raise MisuseError(
            f"student={student}: expected a .yaml (from scratch) or a .pt (pretrained), e.g. student=yolov8n.yaml"
        )


def _checkpoint_of(resume: Any) -> str:
    path = Path(str(resume)).resolve()
    if resume is True or path.suffix != ".pt":
        raise MisuseError(
            f"resume={resume}: expected the last.pt of a run, e.g. resume=runs/detect/train/weights/last.pt"
        )
    if not path.exists():
        raise MisuseError(f"resume={resume}: no such file{elsewhere(str(resume))}; expected the last.pt of a run")
    if path.name in (SIDECAR, PREVIOUS_SIDECAR):
        raise MisuseError(f"resume={resume}: lies beside a checkpoint and is none; use resume={path.with_name(LAST)}")
    return str(usable_checkpoint(path))


def _scenes() -> str:
    root = scenes.default_root()
    ultra.LOGGER.info(f"yolo-kd: no data= given, so the embedded traffic scenes are used ({root})")
    bar = ultra.TQDM(total=None, desc="rendering scenes")
    try:
        return str(
            scenes.write_dataset(
                root, size=SCENES_SIZE, progress=lambda done, total: _advance(bar, done, total), key="YOLO_KD_HOME"
            )
        )
    finally:
        bar.close()


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
