"""Converted and quantized teachers on disk: an .xml and a .bin, and a manifest that is written last.

An entry counts only if its manifest is there, is of the same key, and both files have the hashes that it states.
OpenVINO's own cache of compiled nets is left off: compiling YOLOv8-L from its IR takes 0.4 s, and each cached shape
would cost as much disk as the net.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.home import HOME
from yolo_kd.deploy.artifact import sha256
from yolo_kd.errors import YoloKDError

if TYPE_CHECKING:
    import openvino as ov

FOLDER = "teacher-engines"


def key_digest(key: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with any value of the key.

    >>> key_digest({"a": 1, "b": 2}) == key_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


class IRCache:
    """A folder of OpenVINO models.

    Args:
        root: Cache folder; the entries lie in `teacher-engines` below it.
        log: Receives one line when an entry is damaged or cannot be written.
    """

    def __init__(self, root: Path, log: Callable[[str], None]) -> None:
        self.folder = root / FOLDER
        self.log = log

    def get(self, name: str, key: Mapping[str, Any], build: Callable[[], ov.Model]) -> ov.Model:
        """The entry of this name and key, built and stored if it is not there or damaged."""
        stem = f"{name}-{key_digest(key)}"
        model = self._read(stem, key)
        if model is None:
            model = build()
            self._write(stem, key, model)
        return model

    def _path(self, stem: str, suffix: str) -> Path:
        return self.folder / f"{stem}{suffix}"

    def _read(self, stem: str, key: Mapping[str, Any]) -> ov.Model | None:
        import openvino as ov

        manifest = self._path(stem, ".json")
        if not manifest.exists():
            return None
        try:
            entry = json.loads(manifest.read_text())
            if entry["key"] != dict(key):
                raise ValueError("manifest of another key")
            for suffix in (".xml", ".bin"):
                if sha256(self._path(stem, suffix)) != entry["sha256"][suffix]:
                    raise ValueError(f"{suffix} does not have the hash it was stored with")
            return ov.Core().read_model(self._path(stem, ".xml"))
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            self.log(f"teacher engine cache: {manifest} is damaged ({reason}); building it again")
            return None

    def _write(self, stem: str, key: Mapping[str, Any], model: ov.Model) -> None:
        import openvino as ov

        temporary = f".{stem}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._path(stem, ".json").unlink(missing_ok=True)  # while the files change, there is no entry
            ov.save_model(model, self._path(temporary, ".xml"), compress_to_fp16=False)
            hashes = {suffix: sha256(self._path(temporary, suffix)) for suffix in (".bin", ".xml")}
            for suffix in hashes:
                self._path(temporary, suffix).replace(self._path(stem, suffix))
            manifest = json.dumps({"key": dict(key), "sha256": hashes}, indent=1)
            write_text(self._path(stem, ".json"), manifest, HOME, shared=True)
        except (OSError, RuntimeError, YoloKDError) as error:
            self.log(f"teacher engine cache: could not write to {self.folder} ({' '.join(str(error).split())[:120]})")
        finally:
            with contextlib.suppress(OSError):  # where nothing could be written, nothing is left
                for suffix in (".bin", ".xml"):
                    self._path(temporary, suffix).unlink(missing_ok=True)
