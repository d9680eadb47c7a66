"""Everything that the coming steps of a training depend on, taken from a trainer and put into another one.

In two parts, because the second must come last: what a trainer is built with (weights, averages, optimizer, adapters,
counters), and what its loop consumes (random states, the loader's place, gradients that wait for their step). The second
is put in place right before the first batch; whatever set-up draws in between is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from yolo_kd.deploy.machine import describe, model_name
from yolo_kd.engine import ultra
from yolo_kd.engine.loader import loader_state, pictures, set_loader
from yolo_kd.engine.rng import random_states, set_random_states
from yolo_kd.errors import MisuseError

# besides torch: what decodes, resizes and changes pictures, and what may run the teacher
PACKAGES = ("numpy", "opencv-python", "opencv-python-headless", "albumentations", "openvino", "nncf")


def capture(trainer: Any, within_epoch: bool) -> dict[str, Any]:
    """The state of a training.

    Args:
        trainer: After a step, or after an epoch's validation.
        within_epoch: Whether further batches of the epoch follow.
    """
    loader = trainer.train_loader
    state: dict[str, Any] = {
        "epoch": trainer.epoch - within_epoch,  # the last that is done; -1 in the first
        "position": trainer.batches_done if within_epoch else 0,
        "batches": len(loader),
        "batch_size": trainer.batch_size,
        "pictures": pictures(loader),
        "epochs": trainer.epochs,
        "done": bool(trainer.stop) and not within_epoch,
        "seconds": trainer.seconds(),
        "model": dict(ultra.unwrap_model(trainer.model).state_dict()),
        "ema": dict(trainer.ema.ema.state_dict()),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "gradients": _gradients(trainer.optimizer),
        "last_step": trainer.last_step,
        "best_fitness": _number(trainer.best_fitness),
        "fitness": _number(trainer.fitness),
        "stopper": {k: _number(v) for k, v in vars(trainer.stopper).items() if k != "patience"},
        "metrics": {k: float(v) for k, v in (trainer.metrics or {}).items()},
        "loss_names": list(trainer.loss_names),
        "running_items": {k: v.detach() for k, v in (trainer.tloss or {}).items()} if within_epoch else {},
        "criterion": trainer.criterion.state() if trainer.criterion is not None else None,
        "random": random_states(),
        "loader": loader_state(loader),
        "arithmetic": arithmetic(trainer),
        "recipe": trainer.kd.to_dict()["recipe"],
        "run": trainer.kd.run,
    }
    if trainer.distillation is not None:
        state |= trainer.distillation.state()
    if trainer.quantization is not None:
        state["quantization"] = trainer.quantization.state()
    return state


def arithmetic(trainer: Any) -> dict[str, str]:
    """What rounding depends on besides the state: sums are split by threads, kernels chosen by CPU and version."""
    return {
        "bf16 on a CPU": str(trainer.cpu_bf16),
        "threads": str(torch.get_num_threads()),
        "CPU": f"{model_name()} ({describe()})",
        "torch": str(torch.__version__),  # a class of its own, which no sidecar may hold
        "Ultralytics": ultra.version(),
        **{name: installed(name) for name in PACKAGES},
    }


def installed(package: str) -> str:
    """A package's version, "none" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def is_finite(state: dict[str, Any]) -> bool:
    """Whether a training could go on from a state: no weight, moment or waiting gradient of it is NaN or infinite."""
    parts = [state["model"], state["optimizer"]["state"], state["gradients"], state.get("distillers", {})]
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(parts))


def restore_training(trainer: Any, state: dict[str, Any]) -> None:
    """Put the first part in place: after model, optimizer and EMA were built, before the criterion is.

    Raises:
        GateError: The teacher is another one.
        MisuseError: The state is of another model or recipe.
    """
    if state["run"] != trainer.kd.run or state["recipe"] != trainer.kd.to_dict()["recipe"]:
        raise MisuseError(  # `exist_ok=true`, and killed before its first save
            f"resume={trainer.args.model}: it is not of the run that kd.yaml in its run folder is of, a later one in this "
            "folder that saved nothing yet; start that one anew, or, if both have the same settings, write run: "
            f"{state['run']} into kd.yaml to go on with the older one"
        )
    groups = state["optimizer"]["param_groups"]
    for saved, now in zip(groups, trainer.optimizer.param_groups):
        if "fused" in now:
            saved["fused"] = now["fused"]  # of the device that there is now
    if trainer.distillation is not None:
        trainer.distillation.restore(state, trainer.teacher_given)
        if state["teacher_sha256"] != trainer.distillation.teacher.sha256:
            trainer.log("WARNING another teacher than before: this is no longer the run that was stopped")
    if trainer.quantization is not None:
        trainer.quantization.restore(state["quantization"])
    before, now = state.get("arithmetic", {}), arithmetic(trainer)
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        trainer.log(f"WARNING not bit-exact: {', '.join(changed)}")
    try:
        ultra.unwrap_model(trainer.model).load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.ema.ema.load_state_dict(state["ema"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MisuseError(f"resume={trainer.args.model}: the sidecar is of another model ({reason})") from None
    trainer.ema.updates = state["updates"]
    if state["scaler"]:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.best_fitness, trainer.fitness = state["best_fitness"], state["fitness"]
    vars(trainer.stopper).update(state["stopper"])
    trainer.metrics = {**(trainer.metrics or {}), **state["metrics"]}
    trainer.loss_names = tuple(state["loss_names"])
    trainer.start_epoch = state["epoch"] + 1


def same_batches(trainer: Any, state: dict[str, Any]) -> bool:
    """Whether the loader can stand where it stood: the same pictures in batches of the same size."""
    loader = trainer.train_loader
    now = (len(loader), trainer.batch_size, pictures(loader))
    return now == (state["batches"], state["batch_size"], state["pictures"])


def restore_stream(trainer: Any, state: dict[str, Any]) -> None:
    """Put the second part in place; the loader calls this before its first batch."""
    for parameter, gradient in zip(_parameters(trainer.optimizer), state["gradients"]):
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    if state["position"]:
        trainer.tloss = {k: v.to(trainer.device) for k, v in state["running_items"].items()}
        if trainer.criterion is not None and state["criterion"] is not None:
            # the start of the epoch was noted a second time; what the clock says now may be of another schedule
            trainer.criterion.restore(state["criterion"] | trainer.criterion.clock())
    if state["loader"] is not None and not trainer.train_loader.num_workers:
        set_loader(trainer.train_loader, state["loader"])
    if ultra.RANK == -1:  # ranks draw unlike numbers, and one of them wrote the state
        set_random_states(state["random"])


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[torch.nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor | None]:
    """What accumulates until the next step; empty where nothing does."""
    found = [parameter.grad for parameter in _parameters(optimizer)]
    return found if any(gradient is not None for gradient in found) else []


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All that lie in nested lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _number(value: Any) -> Any:
    """NumPy's numbers as Python's, which a weights-only load takes."""
    return value.item() if hasattr(value, "item") else value
