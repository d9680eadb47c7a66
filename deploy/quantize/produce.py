"""From a float artifact and a calibration set to INT8 artifacts: one look at the images, any number of recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from yolo_kd.deploy.artifact import Artifact, net_files, read_artifact, write_manifest
from yolo_kd.deploy.quantize.calibration import CalibrationSet, Progress, images
from yolo_kd.deploy.quantize.onnx import ONNXQuantizer, ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOQuantizer, OpenVINOSettings
from yolo_kd.deploy.quantize.origin import now, versions
from yolo_kd.deploy.quantize.sensitivity import LayerError
from yolo_kd.deploy.quantize.staging import staged

from yolo_kd.errors import MisuseError

Settings = OpenVINOSettings | ONNXSettings
QUANTIZERS: Mapping[str, type[OpenVINOQuantizer] | type[ONNXQuantizer]] = {
    "openvino": OpenVINOQuantizer,
    "onnx": ONNXQuantizer,
}
PACKAGES = {"openvino": ("openvino", "nncf"), "onnx": ("onnx", "onnxruntime")}
WORST = 10  # layers that the manifest names


class Producer:
    """Makes INT8 artifacts from one float artifact.

    Args:
        parent: The float artifact, in fp32.
        calibration: The pictures.
        progress: Called with (step, done, total).

    Raises:
        MisuseError: The parent is no float detector, or a package is missing.
    """

    def __init__(self, parent: Artifact, calibration: CalibrationSet, progress: Progress | None = None) -> None:
        require_fp32(parent)
        self.parent, self.calibration, self.progress = parent, calibration, progress
        self._quantizer: Any = QUANTIZERS[parent.format](
            parent.model_path, images(calibration, parent.input_hw, progress)
        )

    def write(
        self, settings: Settings, target: Path, overwrite: bool = False, worst: Sequence[LayerError] = ()
    ) -> Artifact:
        """Make an INT8 artifact.

        Args:
            settings: The recipe, of the parent's format.
            target: The folder; Ultralytics knows an OpenVINO net by the end `_openvino_model` of its name.
            overwrite: Replace a folder that we did not write.
            worst: Layers to name in the manifest, from `sensitivity`.

        Raises:
            MisuseError: The recipe is of the other format, or the place is taken.
            YoloKDError: It failed.
        """
        self._check(settings)
        model = self._quantizer.build(settings)
        with staged(target, overwrite) as folder:
            facts: dict[str, Any] = {
                "parent": dict(self.parent.facts.get("parent", {})),
                "float_model": {"file": self.parent.model, "files": net_files(self.parent)},
                "calibration": {
                    "hash": self.calibration.hash,
                    "images": len(self.calibration),
                    "pictures": [digest[:16] for digest in self.calibration.hashes],
                    "warnings": list(self.calibration.report.get("warnings", ())),
                },
                "recipe": {"backend": self.parent.format, **asdict(settings)},
                "layers": self._quantizer.save(model, folder, self.parent.model),
                "versions": versions(*PACKAGES[self.parent.format]),
                "created": now(),
            }
            if worst:
                facts["sensitivity"] = named(worst)
            write_manifest(replace(self.parent, folder=folder, precision="int8", verdict=None, facts=facts, files={}))
        return read_artifact(target)

    def sensitivity(self, settings: Settings, made: Artifact) -> list[LayerError]:
        """The layers that the recipe quantizes and what each costs alone, the worst first.

        Args:
            settings: The recipe.
            made: What `write` made of it.
        """
        self._check(settings)
        return self._quantizer.sensitivity(settings, made.model_path, self.progress)

    def _check(self, settings: Settings) -> None:
        if type(settings) is not self._quantizer.settings:
            raise MisuseError(f"a {type(settings).__name__} cannot be used on a net in {self.parent.format}")


def require_fp32(parent: Artifact) -> None:
    """Refuse what INT8 cannot be made from.

    Raises:
        MisuseError: It is in half precision, or INT8 already.
    """
    if parent.precision != "fp32":
        raise MisuseError(f"{parent.folder}: is {parent.precision}, and INT8 is made from fp32; export it with that")


def named(worst: Sequence[LayerError]) -> list[dict[str, Any]]:
    """The first of a ranking, as a manifest has them."""
    return [{"layer": w.layer, "error": round(w.error, 5)} for w in worst[:WORST]]
