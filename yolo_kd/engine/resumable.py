"""A DetectionTrainer that can be killed at any moment: what is resumed ends with the weights of what was not stopped.

On a CPU bit for bit. The checkpoint is a pair of files (resume.py), its state is exact.py's, the loader is loader.py's;
this ties them to Ultralytics' loop. That loop keeps two things in local variables: the number of the batch, which
`numbered` starts where the loader starts, and the batch of the last optimizer step, for which `accumulate` makes up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.deploy.artifact import sha256
from yolo_kd.engine import ultra
from yolo_kd.engine.decoding import decode_ahead
from yolo_kd.engine.exact import capture, is_finite, restore_stream, restore_training, same_batches
from yolo_kd.engine.history import cut_history
from yolo_kd.engine.label_lists import plain_label_lists
from yolo_kd.engine.loader import numbered, resumable
from yolo_kd.engine.loggers import drop_mlflow_without_store, named_finally
from yolo_kd.engine.resume import (
    LAST,
    PREVIOUS,
    commit,
    flush,
    forget_previous,
    is_stripped,
    join_optimizer,
    load_sidecar,
    only_begun,
    room_for,
    run_is_over,
    save_sidecar,
    settle,
    sidecar_path,
    split_optimizer,
    staging,
    state_of,
    usable_checkpoint,
    write_yaml,
)
from yolo_kd.engine.terms import adapter_parameters
from yolo_kd.engine.untouched import untouched_pictures
from yolo_kd.errors import MisuseError


class _Done(Exception):
    pass


class ResumableTrainer(ultra.DetectionTrainer):
    """Ultralytics' trainer with checkpoints that survive; base of DistillationTrainer, which builds what is used here."""

    kd: DistillSettings
    distillation: Any
    quantization: Any
    teacher_given: bool
    criterion: Any
    stopper: Any
    loss: Any
    model: Any
    optimizer: Any
    epochs: int
    epoch: int
    start_epoch: int
    wdir: Path
    csv: Path
    last: Path
    best: Path
    resumed: dict[str, Any] | None = None  # the sidecar's state, from set-up on
    batches_done = 0  # of this epoch
    last_step = -1  # batch of the last optimizer step, counted over the run
    lag = 0
    longer = False  # whether epochs= was raised
    goes_back = False  # whether there is a last.pt to go back to already in this process's first epoch

    def __init__(self, cfg: Any, overrides: dict[str, Any], _callbacks: dict | None = None) -> None:
        self.held: dict[str, Any] = {}  # what args.yaml will say once it is clear that a run can be resumed
        held = {"YAML": SimpleNamespace(save=lambda _, args: self.held.update(args))} if overrides.get("resume") else {}
        with ultra.renamed(ultra.training_loop, **held):
            super().__init__(cfg, overrides, _callbacks)

    # -- start ---------------------------------------------------------------------------------------------------------

    def choose_checkpoint(self, theirs: dict[str, Any]) -> Any:
        """Turn `resume` into the checkpoint that is whole; returns the number of epochs that the user gave now.

        Raises:
            MisuseError: None is.
        """
        if isinstance(theirs["resume"], str | Path):
            path = usable_checkpoint(Path(theirs["resume"]).resolve())
            theirs["resume"] = theirs["model"] = str(path)
            theirs["save_dir"] = str(path.parents[1])  # also where the run folder was moved
        return theirs.pop("epochs", None)

    def train_longer(self, epochs: Any) -> None:
        """Take over a larger `epochs` than the run had.

        Raises:
            MisuseError: A smaller one.
        """
        if epochs is None or epochs == self.epochs:
            return
        if not isinstance(epochs, int) or epochs < self.epochs:
            raise MisuseError(
                f"epochs={epochs}: the resumed run has {self.epochs}; it may be raised on resume, not lowered"
            )
        self.log(
            f"epochs {self.epochs} -> {epochs}: the schedule changes; learning rate, close_mosaic and distillation go on as in "
            f"a run of {epochs} epochs, which is not what such a run would have given from its start; patience= counts anew"
        )
        self.epochs = self.args.epochs = epochs
        self.longer = True

    def _setup_train(self) -> None:
        drop_mlflow_without_store(self.callbacks)
        super()._setup_train()
        self.add_callback("on_train_start", ResumableTrainer._start_loop)
        self.add_callback("on_train_epoch_start", ResumableTrainer._count_from)
        self.add_callback("on_train_batch_end", ResumableTrainer._count_batch)

    def _build_train_pipeline(self) -> None:
        self.last_step, self.lag = -1, 0
        super()._build_train_pipeline()
        decode_ahead(self.train_loader)

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """As in Ultralytics; the training's can start where it was."""
        loader = super().get_dataloader(*args, **kwargs)
        return resumable(loader) if kwargs.get("mode", "train") == "train" else loader

    def resume_training(self, ckpt: Any) -> None:
        """As in Ultralytics, but exact where the sidecar is there.

        Raises:
            MisuseError: The run is over, or its sidecar is of another checkpoint.
        """
        if ckpt is None or not self.resume:
            return
        path = Path(self.args.model).resolve()
        state = state_of(path)
        if state is None:
            if ckpt.get("epoch", -1) < 0:  # stripped, or of no epoch that is done
                raise run_is_over(path) if ckpt.get("optimizer") is None else only_begun(path)
            self.log(
                "WARNING no last.kd.pt beside the checkpoint: not bit-exact; gains that were fixed stay (kd.yaml), other gains, "
                "adapters and ranges start anew"
            )
            super().resume_training(ckpt)
            self._forget_lost_epochs()
            return
        stripped = is_stripped(path, state)
        if stripped and not self.longer:
            raise run_is_over(path, state)
        if path.name == PREVIOUS:
            whole = usable_checkpoint(path.with_name(LAST)).name == LAST
            why = "as asked" if whole else "last.pt or its sidecar is damaged"
            self.log(f"WARNING going on from the save before ({PREVIOUS}): {why}")
        self.resumed, self.goes_back = state, not stripped
        restore_training(self, state)
        if not stripped and ultra.RANK in {-1, 0}:
            settle(path, state)
        self._forget_lost_epochs()
        place = f", batch {state['position'] + 1} of {state['batches']}" if state["position"] else ""
        if same_batches(self, state):
            self.train_loader.pending = partial(restore_stream, self, state)
            self.train_loader.first = state["position"]
            if self.train_loader.num_workers:
                self.log(
                    "WARNING not bit-exact: with workers= the order of the pictures and what augments them is drawn anew"
                )
        else:
            state["position"], place = 0, ""
            self.log(
                "WARNING not bit-exact: other pictures, labels or another batch size than before, so the epoch starts anew and the "
                "order of the pictures is drawn anew"
            )
        if not state["done"] or self.longer:
            self.log(f"going on with epoch {self.start_epoch + 1} of {self.epochs}{place}")

    def _start_loop(self) -> None:
        """Right before the loop, whose own counters start at zero."""
        if self.held:
            with self.room("args.yaml"):
                write_yaml(self.save_dir / "args.yaml", {**self.held, "epochs": self.epochs})
        if self.longer:
            self.stopper.best_epoch = self.start_epoch  # else a run that patience ended would end after one more epoch
        state = self.resumed
        if state is None:
            return
        if not self.args.time:
            self.train_time_start -= state["seconds"]
        if same_batches(self, state):
            self.last_step, self.lag = state["last_step"], state["last_step"] + 1
        self.resumed = None
        if state["done"] and not self.longer:
            raise _Done

    def _do_train(self) -> None:
        try:
            super()._do_train()
        except _Done:
            self.log("every epoch is done; what is left is the final evaluation")
            self.epoch = self.start_epoch - 1
            self.final_eval()
            if ultra.RANK in {-1, 0}:
                self.run_callbacks("on_train_end")
        if self.criterion is not None:
            self.criterion.end()

    def train(self) -> None:
        """As in Ultralytics, its loop counting batches from where the loader starts; no picture is written over."""
        with ultra.renamed(ultra.training_loop, enumerate=numbered), untouched_pictures(), plain_label_lists():
            super().train()

    # -- counters ------------------------------------------------------------------------------------------------------

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step; until the first step of a resumed run as if the loop knew the step before it."""
        return self._accumulate + self.lag

    @accumulate.setter
    def accumulate(self, batches: int) -> None:
        self._accumulate = batches

    def optimizer_step(self) -> None:
        """As in Ultralytics, and noted."""
        super().optimizer_step()
        self.last_step, self.lag = self.epoch * len(self.train_loader) + self.batches_done, 0

    def seconds(self) -> float:
        """How long the run has trained, in all its parts."""
        return time.time() - self.train_time_start

    def _count_from(self) -> None:
        self.batches_done = getattr(self.train_loader, "first", 0)

    def _count_batch(self) -> None:
        self.batches_done += 1
        steps, total = self.kd.save_steps, len(self.train_loader)
        if not steps or self.batches_done == total or ultra.RANK not in {-1, 0} or self.stop:
            return
        if (self.epoch * total + self.batches_done) % steps == 0:
            self._save(within_epoch=True)

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        self.train_loader.closed = True

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            self.loss = self.loss * torch.nan  # they became so in the last step, of which no loss tells yet
        start = self.start_epoch
        if self.goes_back:
            self.start_epoch = 0  # the run's, not this process's
        try:
            recovered = super()._handle_nan_recovery(epoch)
        finally:
            self.start_epoch = start
        if recovered:
            self.last_step, self.lag = -1, 0
        return recovered

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def save_model(self) -> bool:
        """As in Ultralytics: a plain checkpoint without adapters; beside it what an exact resume needs.

        Raises:
            YoloKDError: No room on the disk; the checkpoint before is whole.
        """
        return self._save(within_epoch=False)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """As in Ultralytics.

        Raises:
            YoloKDError: No room on the disk; the checkpoint before is whole.
        """
        with self.room(self.csv.name):
            super().save_metrics(metrics)

    def room(self, what: str) -> AbstractContextManager[None]:
        """Inside, a file of this epoch is written before its checkpoint, or that; see `room_for`."""
        return room_for(what, self.last, getattr(self, "epoch", self.start_epoch))

    def _save(self, within_epoch: bool) -> bool:
        state = capture(self, within_epoch)
        if within_epoch and not is_finite(state):  # Ultralytics goes back to last.pt at the end of the epoch
            self.log(
                f"WARNING not saved after batch {self.batches_done} of epoch {self.epoch + 1}: not all of it is finite"
            )
            return False
        weights = self.wdir
        with self.room(f"the checkpoint of epoch {self.epoch + 1}"), staging(weights) as staged:
            with self._saving_to(staged, self.epoch - within_epoch):
                super().save_model()
            if within_epoch:
                for path in staged.iterdir():
                    if path.name != self.last.name:  # best.pt and epoch3.pt are of whole epochs
                        path.unlink()
            commit(staged, weights, state)
        return True

    @contextmanager
    def _saving_to(self, folder: Path, epoch: int) -> Iterator[None]:
        """Inside, Ultralytics saves into another folder, without adapters, as of another epoch."""
        optimizer, kept = self.optimizer, (self.wdir, self.last, self.best, self.epoch)
        plain, _ = split_optimizer(optimizer.state_dict(), len(self._adapters()))
        self.optimizer = copy(optimizer)
        self.optimizer.state_dict = lambda: plain  # type: ignore[method-assign]
        self.wdir, self.last, self.best = folder, folder / self.last.name, folder / self.best.name
        self.epoch = epoch
        try:
            yield
        finally:
            self.optimizer = optimizer
            self.wdir, self.last, self.best, self.epoch = kept

    def _load_checkpoint_state(self, ckpt: dict[str, Any]) -> None:
        """As in Ultralytics, which goes back to last.pt when a loss is not finite; with what is ours in the sidecar."""
        sidecar = state_of(self.last)
        if ckpt.get("optimizer") is not None and self._adapters():
            count = len(self._adapters())
            _, own = split_optimizer(sidecar["optimizer"] if sidecar else self.optimizer.state_dict(), count)
            ckpt = {**ckpt, "optimizer": join_optimizer(ckpt["optimizer"], own)}
        if sidecar is not None and self.distillation is not None:
            self.distillation.restore(sidecar, self.teacher_given)  # until the first save it is of the one before
        if self.quantization is not None:
            self.quantization.detach()  # the new EMA will be a deep copy of the student
            if sidecar is not None:
                self.quantization.restore(sidecar["quantization"])
        super()._load_checkpoint_state(ckpt)

    def final_eval(self) -> None:
        """As in Ultralytics; stripped files take their places when all is drawn: until then the run can be resumed.

        Raises:
            YoloKDError: No room on the disk; the checkpoint is whole.
        """
        stripped: list[tuple[Path, Path]] = []

        def strip(path: Any, name: str = "", updates: Any = None) -> dict[str, Any]:
            part = Path(path).with_name(Path(path).name + ".part")
            stripped.append((part, Path(name or path)))
            with named_finally(part, name):
                return ultra.strip_optimizer(path, str(part), updates)

        try:
            with room_for("the final checkpoint", self.last, self.epoch + 1):
                with ultra.renamed(ultra.training_loop, strip_optimizer=strip):
                    super().final_eval()
                if self.args.plots and ultra.RANK in {-1, 0}:
                    self.draw()
                self._place([(part, path) for part, path in stripped if part.exists()])
        finally:
            for part, _ in stripped:
                part.unlink(missing_ok=True)

    def plot_metrics(self) -> None:
        """Nothing: Ultralytics asks for it when the run is over, and what a kill prevents then is never drawn."""

    def draw(self) -> None:
        """What Ultralytics draws of a run."""
        super().plot_metrics()

    def _place(self, stripped: list[tuple[Path, Path]]) -> None:
        state = load_sidecar(sidecar_path(self.last))
        for part, path in reversed(stripped):  # last.pt comes last, and its sidecar knows it before
            flush(part)
            if path == self.last:
                if state is not None:
                    save_sidecar(sidecar_path(path), {**state, "stripped": sha256(part)})
                forget_previous(self.wdir)
            part.replace(path)

    def _forget_lost_epochs(self) -> None:
        if ultra.RANK in {-1, 0}:
            cut_history(self.csv, self.start_epoch)

    def _adapters(self) -> list[torch.nn.Parameter]:
        return adapter_parameters(self.distillation.methods) if self.distillation is not None else []

    def log(self, line: str) -> None:
        """One line, from the first rank."""
        if ultra.RANK in {-1, 0}:
            ultra.LOGGER.info(f"{ultra.colorstr('yolo-kd: ')}{line}")
