"""The only file that reaches into Ultralytics' internals.

Tested with 8.4.190. What we rely on, and what would break if it changed: `preds["feats"]` carries the neck maps;
`model.loss` calls `model.criterion(preds, batch)`; `_setup_train` calls `setup_model`, `build_optimizer` and makes the
EMA copy before it returns; multi-GPU workers are rebuilt from `vars(trainer.args)`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.cfg import DEFAULT_CFG_DICT, _handle_deprecation
from ultralytics.data import base as picture_files
from ultralytics.data import dataset as data_sets
from ultralytics.data import utils as data_scan
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.engine import trainer as training_loop
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn import tasks
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.head import Detect, v10Detect
from ultralytics.nn.tasks import DetectionModel, guess_model_task, load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK, LOGGER, RANK, ROOT, TQDM, YAML, colorstr
from ultralytics.utils.checks import check_model_file_from_stem
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, GITHUB_ASSETS_STEMS
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.patches import override_configs
from ultralytics.utils.plotting import colors
from ultralytics.utils.tal import dist2bbox, make_anchors
from ultralytics.utils.torch_utils import get_flops, strip_optimizer, torch_distributed_zero_first, unwrap_model

from yolo_kd.cfg.runs_folder import elsewhere
from yolo_kd.distillers.base import Branch, HeadOutput, HeadSpec
from yolo_kd.engine.without_model import without_model
from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

__all__ = [
    "DEFAULT_CFG", "DEFAULT_CFG_DICT", "GITHUB_ASSETS_STEMS", "LOGGER", "RANK", "TQDM", "YAML", "YOLO", "DetectionModel",
    "DetectionTrainer", "InfiniteDataLoader", "YOLODataset", "check_model_file_from_stem", "colors", "colorstr", "data_scan",
    "data_sets", "non_max_suppression", "override_configs", "picture_files", "strip_optimizer", "training_loop", "unwrap_model",
]  # fmt: skip

TESTED = "8.4.190"
HEADS = (Detect, v10Detect)


@contextmanager
def restricted_loading(trust: bool) -> Iterator[None]:
    """Inside, this process and its children load checkpoints without running code from the pickle, unless `trust`."""
    variable, before = os.environ.get("ULTRALYTICS_SAFE_LOAD"), tasks.SAFE_LOAD
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "0" if trust else "1"
    tasks.SAFE_LOAD = not trust
    try:
        yield
    finally:
        tasks.SAFE_LOAD = before
        if variable is None:
            del os.environ["ULTRALYTICS_SAFE_LOAD"]
        else:
            os.environ["ULTRALYTICS_SAFE_LOAD"] = variable


@contextmanager
def renamed(module: Any, **names: Any) -> Iterator[None]:
    """Inside, these names mean something else in a module of Ultralytics that this one exports."""
    known = vars(module)
    before = {name: known[name] for name in names if name in known}
    known.update(names)
    try:
        yield
    finally:
        for name in names:
            del known[name]
        known.update(before)


def first_rank_first() -> Any:
    """A context that the first rank of a node leaves before the others enter it: files are fetched once."""
    return torch_distributed_zero_first(LOCAL_RANK)


def train_keys() -> dict[str, Any]:
    """Ultralytics' keys with their defaults."""
    return dict(DEFAULT_CFG_DICT)


def current_keys(keys: dict[str, Any]) -> dict[str, Any]:
    """The keys with those that Ultralytics renamed or dropped under their present names; it says which."""
    return _handle_deprecation(dict(keys))


def version() -> str:
    """Version of the installed Ultralytics."""
    return ultralytics.__version__


def in_tested_range() -> bool:
    """Whether the installed Ultralytics is of the release line that this file was written against."""
    return version().split(".")[:2] == TESTED.split(".")[:2]


def check_data_yaml(source: str) -> None:
    """Refuse a data set YAML that does not exist; archives and addresses are left to Ultralytics.

    Raises:
        MisuseError: No such YAML, neither here nor among those that come with Ultralytics.
    """
    if Path(source).suffix not in {".yaml", ".yml"} or "://" in source:
        return
    known = {p.name for p in (ROOT / "cfg" / "datasets").rglob("*.yaml")}
    lower = {k.lower(): k for k in known}
    if not Path(source).exists() and source not in known:
        near = did_you_mean(source, [*known, *(str(p) for p in Path(source).parent.glob("*.yaml"))])
        near = near or (f" (did you mean '{lower[source.lower()]}'?)" if source.lower() in lower else "")
        raise MisuseError(
            f"data={source}: no such file{near}; expected a data set YAML, or leave data= out for the scenes"
        )


def check_model_yaml(source: str) -> None:
    """Refuse a model YAML that Ultralytics does not find or that is not of a detection model.

    Raises:
        MisuseError: No such YAML, or one of another task.
    """
    try:
        found = tasks.yaml_model_load(source)
        task, head = guess_model_task(found), str(found["head"][-1][2])
    except Exception as error:  # FileNotFoundError, YAML errors, KeyError: all mean that it cannot be used
        nano = ("yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")
        known = [*nano, *(p.name for p in (ROOT / "cfg" / "models").rglob("*.yaml"))]
        reason = " ".join(str(error).split())[:120]
        raise MisuseError(f"student={source}: no usable model YAML ({reason}){did_you_mean(source, known)}") from None
    if task != "detect" or head not in {kind.__name__ for kind in HEADS}:
        raise MisuseError(f"student={source}: {_other_head(task, head)}, e.g. student=yolov8n.yaml")


def load_detector(source: str, key: str, trust: bool = False, any_task: bool = False) -> DetectionModel:
    """A detection model from a checkpoint, in float32 and eval mode, its pickle not executed unless `trust`.

    Args:
        source: Path of a .pt file, or an official name that Ultralytics may download.
        key: The user's key, for messages ("teacher" or "student").
        trust: Fall back to a load that runs the checkpoint's own code when the safe one refuses it.
        any_task: Take models of other tasks too.

    Raises:
        MisuseError: Missing or damaged file, one that needs `trust=true`, or no detection model.
        YoloKDError: An official name that could not be downloaded.
    """
    path = Path(source)
    official = path.name in GITHUB_ASSETS_NAMES and str(path) == path.name
    if path.suffix != ".pt":
        raise MisuseError(f"{key}={source}: expected a .pt detection checkpoint, e.g. {key}=yolov8l.pt")
    if not path.exists() and not official:
        official_names = GITHUB_ASSETS_NAMES if len(path.parts) == 1 else ()  # of which none lies in a folder
        near = did_you_mean(path.name, [*official_names, *(p.name for p in path.parent.glob("*.pt"))])
        raise MisuseError(f"{key}={source}: no such file{elsewhere(path)}{near}; expected a .pt detection checkpoint")
    try:
        try:
            model = _load(source, trust=False)
        except _UnsafeError:
            if held := without_model(path):
                raise MisuseError(f"{key}={source}: {held}; name the best.pt or last.pt of a training") from None
            if not trust:
                raise MisuseError(
                    f"{key}={source}: holds objects outside Ultralytics' model classes, so loading would run its own code; "
                    "expected a checkpoint of Ultralytics. If you know where it comes from, add trust=true"
                ) from None
            model = _load(source, trust=True)
    except _DamagedError as error:
        raise MisuseError(
            f"{key}={source}: not a readable checkpoint ({error}); expected a .pt that Ultralytics saved"
        ) from None
    except _OfflineError as error:
        raise YoloKDError(
            f"{key}={source}: not on this disk and it could not be downloaded ({error}); "
            f"copy the file here, or give its path: {key}=/path/to/{path.name}"
        ) from None
    if any_task:
        return model
    task = guess_model_task(model)
    net = getattr(model, "model", model)
    head = net[-1] if isinstance(net, nn.Sequential) and len(net) else net
    if not isinstance(model, DetectionModel) or task != "detect" or type(head) not in HEADS:
        task = guess_model_task(getattr(model, "yaml", None)) or task  # which is "detect" of what was never trained
        raise MisuseError(f"{key}={source}: {_other_head(task, type(head).__name__)}")
    try:
        _run_once(model)
    except Exception as error:  # a checkpoint can be whole and hold nonsense, which shows anywhere in the model
        raise MisuseError(
            f"{key}={source}: its model does not run ({type(error).__name__}: {' '.join(str(error).split())[:120]}); "
            "expected a checkpoint that Ultralytics saved"
        ) from None
    return model


def _other_head(task: str | None, head: str) -> str:
    kind = f"a '{task}' model" if task else "a model"
    return f"is {kind} with the head {head}, expected a detection model (v8, v9, v10, 11, 12 or 26)"


def _run_once(model: DetectionModel) -> None:
    spec, names = head_spec(model), class_names(model)
    if sorted(names) != list(range(spec.nc)) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{spec.nc} classes, named {names!s:.60}")
    side = 2 * max(spec.strides)
    with torch.no_grad():
        read_outputs(model(torch.zeros(1, image_channels(model), side, side)))


class _UnsafeError(Exception):
    pass


class _DamagedError(Exception):
    pass


class _OfflineError(Exception):
    pass


def _load(source: str, trust: bool) -> nn.Module:
    before = tasks.SAFE_LOAD
    tasks.SAFE_LOAD = not trust
    existed = Path(source).exists()
    try:
        return load_checkpoint(source)[0]
    except Exception as error:  # Ultralytics raises many types for the same three conditions
        text = " ".join(str(error).split())
        if not trust and "outside the supported Ultralytics checkpoint format" in text and _is_pickle(Path(source)):
            raise _UnsafeError(text) from error
        if not existed and not Path(source).exists():
            raise _OfflineError(text[:120] or type(error).__name__) from error
        raise _DamagedError(f"{type(error).__name__}: {text[:120]}") from error
    finally:
        tasks.SAFE_LOAD = before


def _is_pickle(path: Path) -> bool:
    """Whether a file could be a checkpoint at all: a zip archive of torch.save, or a bare pickle of old."""
    with path.open("rb") as file:
        head = file.read(2)
    return head == b"PK" or head[:1] == b"\x80"


def fuse_for_teaching(model: DetectionModel) -> DetectionModel:
    """Fold BN into the convolutions in place but keep both head branches, which Ultralytics' own fuse would drop."""
    head = model.model[-1]
    head.fuse = lambda: None  # shadows Detect.fuse on this one instance
    model.fuse(verbose=False)
    del head.fuse
    return model


def head_spec(model: nn.Module) -> HeadSpec:
    """The static facts of a model's detection head."""
    head = unwrap_model(model).model[-1]
    return HeadSpec(
        channels=tuple(_in_channels(tower[0]) for tower in head.cv2),
        strides=tuple(int(s) for s in head.stride),
        reg_max=head.reg_max,
        nc=head.nc,
        towers=tuple(tower[-1].in_channels for tower in head.cv3),
        dual=getattr(head, "one2one_cv2", None) is not None,
    )


def convolutions(model: nn.Module) -> list[str]:
    """Names of a model's convolutions in its order, without the one that averages DFL bins."""
    net = unwrap_model(model)
    averaging = {id(module.conv) for module in net.modules() if isinstance(module, DFL)}
    return [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and id(m) not in averaging]


def class_names(model: nn.Module) -> dict[int, str]:
    """Class id to name of a model."""
    names = unwrap_model(model).names
    return dict(names) if isinstance(names, dict) else dict(enumerate(names))


def image_channels(model: nn.Module) -> int:
    """Number of channels of the images that a model takes."""
    return int(unwrap_model(model).yaml.get("channels", 3))


def read_outputs(preds: Any) -> HeadOutput:
    """One view on the raw outputs of every family, from training mode (dict) or eval mode ((decoded, dict))."""
    raw = preds[1] if isinstance(preds, tuple) else preds
    by_branch = raw if "one2many" in raw else {"one2many": raw}
    branches = {name: Branch(out["boxes"], out["scores"]) for name, out in by_branch.items()}
    return HeadOutput(feats=tuple(by_branch["one2many"]["feats"]), branches=branches)


def replace_outputs(preds: Any, convert: Any) -> Any:
    """The same nested training outputs with `convert` applied to every tensor."""
    if isinstance(preds, Tensor):
        return convert(preds)
    if isinstance(preds, dict):
        return {k: replace_outputs(v, convert) for k, v in preds.items()}
    if isinstance(preds, (list, tuple)):
        return type(preds)(replace_outputs(v, convert) for v in preds)
    return preds


class TowerTap:
    """Collects the classification tower maps (input of the last 1x1 convolution) of one forward pass.

    The hooks exist only between `arm` and `take`, so that they reach no EMA copy and no checkpoint.
    """

    def __init__(self, model: nn.Module) -> None:
        self._towers = unwrap_model(model).model[-1].cv3
        self._handles: list[Any] = []
        self._taken: list[Tensor] = []

    def arm(self) -> None:
        """Hook the next forward; what an earlier one left is dropped."""
        self.take()
        for tower in self._towers:
            self._handles.append(tower[-1].register_forward_pre_hook(lambda _m, inputs: self._taken.append(inputs[0])))

    def take(self) -> list[Tensor]:
        """Remove the hooks and hand out the maps (B, C, H_l, W_l), finest level first."""
        for handle in self._handles:
            handle.remove()
        taken, self._taken, self._handles = self._taken, [], []
        return taken


def backbone_taps(model: nn.Module) -> list[nn.Module]:
    """The backbone layers whose outputs neck or head read, in order."""
    net = unwrap_model(model)
    size = len(net.yaml["backbone"])
    read = set()
    for layer in net.model[size:]:
        sources = [layer.f] if isinstance(layer.f, int) else layer.f
        read |= {source if source >= 0 else layer.i + source for source in sources}
    return [net.model[i] for i in sorted(read) if i < size]


def distils_natively(model: nn.Module) -> bool:
    """Whether Ultralytics' own distill_model= wraps this model; its loss is then not ours to replace."""
    return isinstance(unwrap_model(model), DistillationModel)


def branch_weights(criterion: Any) -> dict[str, float]:
    """Share of each head branch in the detection loss of a criterion; dual heads shift it over the epochs."""
    if not hasattr(criterion, "one2one"):
        return {"one2many": 1.0}
    many, one = getattr(criterion, "o2m", 0.5), getattr(criterion, "o2o", 0.5)
    return {"one2many": many / (many + one), "one2one": one / (many + one)}


def decode(output: HeadOutput, spec: HeadSpec, columns: Tensor) -> Tensor:
    """Predictions as Ultralytics' NMS wants them.

    Args:
        output: Raw outputs of any engine.
        spec: The head they come from.
        columns: (nc,) the output's class for each wanted class, -1 for none.

    Returns:
        (B, 4 + nc, A): centre x, centre y, width, height in network pixels, then class probabilities.
    """
    branch = output.branch("one2many")
    boxes, scores = branch.boxes.float(), branch.scores.float().sigmoid()
    wanted = scores.new_zeros(scores.shape[0], len(columns), scores.shape[2])
    wanted[:, columns >= 0] = scores[:, columns[columns >= 0]]
    if spec.reg_max > 1:
        bins = torch.arange(spec.reg_max, dtype=boxes.dtype, device=boxes.device)
        b, _, a = boxes.shape
        boxes = torch.einsum("bska,k->bsa", boxes.view(b, 4, spec.reg_max, a).softmax(2), bins)
    strides = torch.tensor(spec.strides, dtype=boxes.dtype, device=boxes.device)
    anchors, per_cell = (t.transpose(0, 1) for t in make_anchors(list(output.feats), strides, 0.5))
    return torch.cat((dist2bbox(boxes, anchors.unsqueeze(0), xywh=True, dim=1) * per_cell, wanted), 1)


def _in_channels(module: nn.Module) -> int:
    return next(m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d))


def size_of(model: nn.Module, imgsz: int) -> tuple[int, float]:
    """Parameters and GFLOPs of a model at an image size."""
    return sum(p.numel() for p in model.parameters()), float(get_flops(model, imgsz))
