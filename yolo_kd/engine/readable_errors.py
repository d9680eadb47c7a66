"""What Ultralytics raises about keys, data and folders, as one line that names the key.

It says no more than what was wrong deep inside; whether the user can mend it, and by which key, is decided here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolo_kd.engine import ultra
from yolo_kd.errors import MisuseError, YoloKDError

_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
# what its check of a data set raises of one that is written or laid out wrongly; a failed download is none of these
_WRONG_DATA = (SyntaxError, TypeError, ValueError, KeyError, AssertionError, FileNotFoundError)


@contextmanager
def readable_errors(keys: Mapping[str, Any]) -> Iterator[None]:
    """Inside, Ultralytics' exceptions become ours.

    Raises:
        MisuseError: The exception is about one of these keys.
        YoloKDError: It is about a file or a network.
    """
    try:
        yield
    except YoloKDError:
        raise
    except (SyntaxError, TypeError, ValueError) as error:
        text = _line(error)
        if text.startswith("final batch="):  # it knows the last batch only once it has counted the pictures
            raise MisuseError(f"batch={keys.get('batch', ultra.DEFAULT_CFG_DICT['batch'])}: {text}") from error
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
        if "Error loading data from" in str(error):
            raise data_error(keys, error) from error
        paths = {k: str(v) for k, v in keys.items() if isinstance(v, (str, Path)) and Path(str(v)).suffix}
        named = next((k for k, v in paths.items() if v in str(error)), None)
        if named is None:
            raise YoloKDError(f"{type(error).__name__}: {_line(error)}") from error
        raise MisuseError(f"{named}={keys[named]}: {_line(error)}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise  # misuse wherever it happens, for which the command line has the words
        key, folder = "save_dir" if keys.get("save_dir") else "project", _run_parent(keys)
        if error.errno not in _UNWRITABLE or not _concerns(Path(str(error.filename or "")), folder):
            raise YoloKDError(f"{type(error).__name__}: {_line(error)}") from error
        raise MisuseError(
            f"{key}={keys.get(key) or ''}: cannot write the run folder in {folder} "
            f"({error.strerror}); choose a folder you may write to by its absolute path, e.g. project={Path.home() / 'runs'}"
        ) from error
    except RuntimeError as error:
        text = _line(error)
        if "Dataset '" in text and "error" in text and error.__cause__ is not None:
            raise data_error(keys, error.__cause__) from error
        named = next((k for k in keys if f"'{k}=" in text), None)
        if named is None:
            raise
        raise MisuseError(f"{named}={keys[named]}: {text}") from error


def data_error(keys: Mapping[str, Any], error: BaseException) -> YoloKDError:
    """What Ultralytics said of the data: wrong as it is written, or not to be had."""
    if isinstance(error, YoloKDError):
        return error
    data, text = keys.get("data"), _line(error).replace(" ❌", "").partition(" See https")[0].rstrip(".")
    if data is None and keys.get("resume"):
        wrong = "not there" if isinstance(error, FileNotFoundError) else "not what they were"
        return MisuseError(
            f"resume={keys['resume']}: the data of that run are {wrong} ({text}); put them back, or name where they lie "
            "now: data=/new/place/data.yaml"
        )
    scenes = "" if keys.get("mode") == "val" else ", or leave data= out for the scenes"  # which are to be trained on
    if isinstance(error, _WRONG_DATA):
        return MisuseError(
            f"data={data}: {text}; expected path:, train:, val: and names: of pictures that are there, yolo-kd data check "
            f"data={data} looks at them{scenes}"
        )
    return YoloKDError(
        f"data={data}: not on this disk and it could not be downloaded ({text}); fetch it where there is a network and name "
        f"its YAML, data=/path/to/data.yaml{scenes}"
    )


def _run_parent(keys: Mapping[str, Any]) -> Path:
    """Where the run folder of these keys lies; a `project` that is not absolute is below Ultralytics' own runs_dir."""
    names = dict.fromkeys(("save_dir", "project", "name"))
    chosen = {**names, **keys, "task": "detect", "mode": "train", "exist_ok": True}
    return ultra.training_loop.get_save_dir(SimpleNamespace(**chosen)).parent


def _concerns(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder, or is one of those that the folder is in."""
    return path.is_absolute() and (path.is_relative_to(folder) or folder.is_relative_to(path))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
