"""Distillation from Python: `distill(teacher=..., student=..., data=...)` trains and returns Ultralytics' metrics."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolo_kd.cfg.documents import read_mapping
from yolo_kd.cfg.settings import DistillSettings, default_keys, is_ours, resolve
from yolo_kd.cfg.values import read_value, shown
from yolo_kd.data import scenes
from yolo_kd.data.description import find_description, read_description
from yolo_kd.data.unlabeled import find_unlabeled
from yolo_kd.engine import ultra
from yolo_kd.engine.foreign_code import no_foreign_code
from yolo_kd.engine.pair_check import check_pair
from yolo_kd.engine.resume import LAST, PREVIOUS_SIDECAR, SIDECAR, usable_checkpoint
from yolo_kd.engine.run_settings import resumed_settings
from yolo_kd.engine.terms import check_arguments
from yolo_kd.engine.trainer import DistillationTrainer
from yolo_kd.engine.untouched import untouched_pictures
from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

DEFAULT_STUDENT = "yolov8n.yaml"
BARE = ("half", "int8", "end2end", "nms")  # that Ultralytics takes for true without a value, besides what is on or off
SCENES_SIZE = 320
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


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
    keys = {**_from_file(keys.pop("cfg", None)), **_given(keys)}
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
    keys = _present(mode, {**_from_file(keys.get("cfg")), **given, "mode": mode})
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
        raise MisuseError(f"model={model}: no such file{did_you_mean(model, ultra.GITHUB_ASSETS_STEMS)}")
    if mode == "predict":
        # Ultralytics saves by itself only where its own program was started; streamed, a video is not held in memory
        keys = {"save": True, **keys, "stream": True}
    with readable_errors(keys), no_foreign_code(trust), untouched_pictures():
        results = getattr(ultra.YOLO(model), mode)(**keys)
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
            raise MisuseError(f"{key}={value}: unknown key{did_you_mean(key, known)}; see yolo-kd {mode} --help")
    return present


@contextmanager
def readable_errors(keys: Mapping[str, Any]) -> Iterator[None]:
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
    except NotImplementedError as error:
        text = _line(error)
        if not text.lower().startswith("optimizer"):
            raise
        raise MisuseError(f"optimizer={keys.get('optimizer')}: {text.partition('. Request')[0]}") from error
    except FileNotFoundError as error:
        paths = {k: str(v) for k, v in keys.items() if isinstance(v, (str, Path)) and Path(str(v)).suffix}
        named = next((k for k, v in paths.items() if v in str(error)), None)
        if named is None:
            raise YoloKDError(f"{type(error).__name__}: {_line(error)}") from error
        raise MisuseError(f"{named}={keys[named]}: {_line(error)}") from error
    except OSError as error:
        key, folder = "save_dir" if keys.get("save_dir") else "project", _runs_folder(keys)
        if error.errno not in _UNWRITABLE or not _concerns(Path(str(error.filename or "")), folder):
            raise YoloKDError(f"{type(error).__name__}: {_line(error)}") from error
        raise MisuseError(
            f"{key}={keys.get(key) or ''}: cannot write the run folder in {folder} "
            f"({error.strerror}); choose a folder you may write to by its absolute path, e.g. project={Path.home() / 'runs'}"
        ) from error
    except RuntimeError as error:
        text = _line(error)
        if "Dataset '" in text and "error" in text:
            raise _data_error(keys, text.split("error", 1)[1].lstrip(" ❌"), error.__cause__) from error
        raise


def _runs_folder(keys: Mapping[str, Any]) -> Path:
    """Where the run folder of these keys lies; a `project` that is not absolute is below Ultralytics' own runs_dir."""
    names = dict.fromkeys(("save_dir", "project", "name"))
    chosen = {**names, **keys, "task": "detect", "mode": "train", "exist_ok": True}
    return ultra.training_loop.get_save_dir(SimpleNamespace(**chosen)).parent


def _concerns(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder, or is one of those that the folder is in."""
    return path.is_absolute() and (path.is_relative_to(folder) or folder.is_relative_to(path))


def _data_error(keys: Mapping[str, Any], text: str, cause: BaseException | None) -> YoloKDError:
    """What Ultralytics said of the data: wrong as it is written, or not to be had."""
    data = keys.get("data")
    if isinstance(cause, MisuseError):
        return cause
    if data is None and keys.get("resume"):
        wrong = "not there" if isinstance(cause, FileNotFoundError) else "not what they were"
        return MisuseError(
            f"resume={keys['resume']}: the data of that run are {wrong} ({text}); put them back, or name where they lie "
            "now: data=/new/place/data.yaml"
        )
    if isinstance(cause, SyntaxError | TypeError | ValueError | KeyError | FileNotFoundError):
        return MisuseError(
            f"data={data}: {text}; expected path:, train:, val: and names: of pictures that are there, yolo-kd data check "
            f"data={data} looks at them; or leave data= out for the scenes"
        )
    return YoloKDError(
        f"data={data}: not on this disk and it could not be downloaded ({text}); fetch it where there is a network and name "
        "its YAML, data=/path/to/data.yaml, or leave data= out for the scenes"
    )


def _from_file(path: Any) -> dict[str, Any]:
    """The keys of a `cfg=` file, Ultralytics' and ours mixed; keys of the command line beat them."""
    if path is None:
        return {}
    found = read_mapping("cfg", Path(str(path)))
    return _given({str(k): read_value(v) for k, v in found.items()})


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys without those that are None, that is left at their default; a recipe or a gain of none is a choice."""
    return {k: v for k, v in keys.items() if v is not None or k == "distill" or "." in k}


def _check_before_folder(keys: Mapping[str, Any], student: str, data: Any) -> DistillSettings:
    """Find what cannot work before a run folder is made for it."""
    settings = resolve({k: v for k, v in keys.items() if is_ours(k, v)})
    check_arguments(settings.recipe)
    find_unlabeled(settings.unlabeled or ())
    check_student(student, settings.trust)
    for key in ("pretrained", "distill_model"):
        if isinstance(keys.get(key), str | Path):
            ultra.load_detector(str(keys[key]), key, settings.trust, any_task=True)
    teacher = None
    if settings.recipe.methods or settings.pseudo_labels is not None:
        teacher = ultra.load_detector(str(settings.teacher), "teacher", settings.trust)
    names = dict(enumerate(scenes.CLASSES)) if data is None else _class_names(str(data))
    wanted = keys.get("classes")
    ids = wanted if isinstance(wanted, list | tuple) else [] if wanted is None else [wanted]
    if any(type(i) is not int for i in ids):
        raise MisuseError(f"classes={wanted}: expected class ids, e.g. classes=0,2")
    if teacher is not None and settings.recipe.methods and not keys.get("single_cls"):
        check_pair(settings, student, teacher, names, wanted)
    return settings


def _class_names(data: str) -> dict[int, str] | None:
    """The classes of a data set; None where Ultralytics has to fetch it, or knows it by name.

    Raises:
        MisuseError: No such YAML, or one that cannot be followed.
    """
    ultra.check_data_yaml(data)
    path = Path(data)
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
        raise MisuseError(f"resume={resume}: no such file; expected the last.pt of a run")
    if path.name in (SIDECAR, PREVIOUS_SIDECAR):
        raise MisuseError(f"resume={resume}: lies beside a checkpoint and is none; use resume={path.with_name(LAST)}")
    return str(usable_checkpoint(path))


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
