"""DistillationTrainer: Ultralytics' DetectionTrainer with a teacher. Wiring only.

What differs from the stock trainer: our settings travel beside its args; adapters join its optimizer as the last
group; after its set-up the student's criterion is wrapped; on a CPU the student trains in bf16 and channels_last where
the hardware has it; and with qat it trains and is validated on the integer grid. Student, EMA and checkpoints stay plain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any
from uuid import uuid4

import torch

from yolo_kd.data.description import find_description
from yolo_kd.deploy.machine import cores, has_bf16
from yolo_kd.deploy.machine import describe as describe_cpu
from yolo_kd.engine import ultra
from yolo_kd.engine.augment import augmentations, check_channels
from yolo_kd.engine.criterion import DistillationCriterion
from yolo_kd.engine.data_check import check_data
from yolo_kd.engine.foreign_code import no_foreign_code
from yolo_kd.engine.labelled import labelled_only
from yolo_kd.engine.qat import FakeQuantization, check_keys, quantized_layers
from yolo_kd.engine.ranks import average_gradients, kept_for_workers, reported_to, worker_error
from yolo_kd.engine.resumable import ResumableTrainer
from yolo_kd.engine.resume import write_yaml
from yolo_kd.engine.run_pictures import draw_pictures
from yolo_kd.engine.run_settings import (
    SETTINGS_FILE,
    idle,
    require_teacher,
    resolve_travelled,
    resumed_settings,
    split_keys,
    teacher_given,
    travelling,
)
from yolo_kd.engine.schedule import Schedule
from yolo_kd.engine.setup import Distillation, judge_teacher, prepare
from yolo_kd.engine.terms import adapter_parameters
from yolo_kd.engine.unlabeled import (
    Unlabeled,
    collect,
    refuse_with,
    training_loader,
    with_train_part,
    without_labels,
    written,
)
from yolo_kd.errors import MisuseError

LARGEST_SEED = (1 << 32) - 1  # NumPy's, which Ultralytics seeds as well


class DistillationTrainer(ResumableTrainer):
    """Trains a plain student under a teacher; `YOLO("yolov8n.yaml").train(trainer=DistillationTrainer, teacher=...)`.

    Args:
        cfg: As in Ultralytics.
        overrides: Ultralytics' keys and ours (cfg/default.yaml, dotted ones like "csgr.tau") mixed.
        _callbacks: As in Ultralytics.

    Raises:
        MisuseError: A key, value or file that cannot work.
        GateError: The pre-flight refuses the teacher, or a term is 0 on the first batch.
    """

    def __init__(
        self, cfg: Any = ultra.DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict | None = None
    ) -> None:
        theirs, ours = split_keys(overrides or {})
        if found := find_description(str(theirs.get("data"))):  # else Ultralytics looks among its own, by exact case
            theirs["data"] = str(found.absolute())  # a relative one would be lost on resume from elsewhere
        resuming = theirs.get("resume")
        epochs = self.choose_checkpoint(theirs) if resuming else None
        self.teacher_given = teacher_given(ours)
        self.unlabeled: Unlabeled | None = None
        if not resuming:
            self.kd = resolve_travelled(ours)
            if not self.kd.run:
                self.kd = replace(self.kd, run=uuid4().hex)
            if self.kd.qat:
                check_keys(theirs)
            if isinstance(seed := theirs.get("seed"), int) and not 0 <= seed <= LARGEST_SEED:
                raise MisuseError(f"seed={seed}: expected a whole number from 0 to {LARGEST_SEED}")
            if self.kd.unlabeled:
                refuse_with(theirs)
            if self.kd.augment and "kd" not in ours:  # in a worker they are among its keys already
                theirs["augmentations"] = augmentations(self.kd, theirs)
            if theirs.get("distill_model") and self.kd.recipe.methods:
                raise MisuseError(
                    f"distill_model={theirs['distill_model']}: Ultralytics' own distillation together with ours; "
                    "use one: teacher= (ours), or distill_model= with distill=none"
                )
        trust = bool(ours.get("kd", ours).get("trust")) if resuming else self.kd.trust
        with no_foreign_code(trust):
            super().__init__(cfg, theirs, _callbacks)
        if resuming:
            self.kd = resumed_settings(Path(self.args.model).resolve().parents[1], ours)
            require_teacher(self.kd)
            self.train_longer(epochs)
        if not ultra.in_tested_range():
            self.log(f"WARNING Ultralytics {ultra.version()} is untested here; tested: {ultra.TESTED}")
        if unread := idle(self.kd, ours):
            self.log(f"WARNING {unread}")
        if (self.kd.recipe.methods or self.kd.qat) and self.args.compile:
            self.log(
                "compile is off: gradient shares cannot be measured, nor values rounded, inside a compiled student"
            )
            self.args.compile = False
        self.distillation: Distillation | None = None
        self.quantization: FakeQuantization | None = None
        self.criterion: DistillationCriterion | None = None
        self._take_over_cpu()
        if not resuming:  # else once it is clear that the teacher given now will do
            self._write_settings()

    # -- the machine ---------------------------------------------------------------------------------------------------

    def _take_over_cpu(self) -> None:
        """bf16, channels_last and all cores on a CPU, all of which Ultralytics refuses or ignores there."""
        self.cpu_bf16 = self.cpu_channels_last = False
        if self.device.type != "cpu":
            return
        wanted = self.args.amp in {"bf16", True}
        self.cpu_bf16 = wanted and (has_bf16() or self.args.amp == "bf16")
        self.cpu_channels_last = self.args.channels_last is not False
        if self.args.amp == "bf16":
            if not has_bf16():
                self.log("WARNING amp=bf16 on a CPU without bf16 instructions: emulated, slower than float32")
            self.args.amp = True  # Ultralytics' autocast raises for "bf16" on a CPU, and takes bf16 there for True
        self.args.channels_last = None if self.cpu_channels_last else False  # which a resumed run goes by
        torch.set_num_threads(self.kd.cpu_threads or cores())
        self.log(
            f"student in {'bf16' if self.cpu_bf16 else 'float32'}, "
            f"{'channels_last' if self.cpu_channels_last else 'contiguous'}, {torch.get_num_threads()} threads "
            f"on {describe_cpu()}"
        )

    def setup_model(self) -> Any:
        """As in Ultralytics, then channels_last on CPUs too."""
        ckpt = super().setup_model()
        if self.cpu_channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        return ckpt

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As in Ultralytics; the student's own images also in channels_last on CPUs."""
        if self.criterion is not None and not self.criterion.active:
            batch = labelled_only(batch)
        batch = super().preprocess_batch(batch)
        if self.cpu_channels_last:
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        if self.criterion is not None:
            self.criterion.arm()
        return batch

    # -- pictures ------------------------------------------------------------------------------------------------------

    def get_dataset(self) -> dict[str, Any]:
        """As in Ultralytics; beside unlabeled pictures there need be no training pictures in the data.yaml."""
        wanted = bool(self.resume or self.kd.unlabeled)  # the settings of a resumed run come later
        self.args.data = with_train_part(self.args.data, self.save_dir, wanted)
        return super().get_dataset()

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """As in Ultralytics; without a path, of unlabeled pictures."""
        if mode == "train" and not img_path:
            return without_labels(self, batch)
        return super().build_dataset(img_path, mode, batch)

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """As in Ultralytics; the training's batches hold unlabeled pictures, too."""
        build = partial(super().get_dataloader, mode=mode)
        if mode == "train" and self.kd.unlabeled:
            return training_loader(self, build, dataset_path, batch_size, rank)
        return build(dataset_path, batch_size, rank)

    # -- set-up --------------------------------------------------------------------------------------------------------

    def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As in Ultralytics, with the adapters as last group: scheduled and warmed up like the others."""
        if self.kd.unlabeled:  # of whose batches labelled pictures are a part only
            pictures = len(self.train_loader) * self.batch_size
            kwargs["iterations"] = ceil(pictures / max(self.batch_size, self.args.nbs)) * self.epochs
        optimizer = super().build_optimizer(model, *args, **kwargs)
        if self.kd.qat:
            self.quantization = FakeQuantization(quantized_layers(model), self.device)
        if self.kd.recipe.methods:
            self._refuse_rare_teacher()
            self.distillation = prepare(self)
            adapters = adapter_parameters(self.distillation.methods)
            if adapters:
                optimizer.add_param_group({**_like_weights(optimizer), "params": adapters, "param_group": "adapter"})
        return optimizer

    def auto_batch(self, *args: Any, **kwargs: Any) -> int:
        """As in Ultralytics, which measures the student alone; says so where a teacher will want memory too."""
        size = super().auto_batch(*args, **kwargs)
        if self.kd.recipe.methods or self.kd.qat:
            self.log(
                f"WARNING batch={size} was sized for the student alone, and a teacher or qat needs some of the memory that "
                "is left; if it does not fit, the first epoch starts again with half, or name a batch= yourself"
            )
        return size

    def _setup_train(self) -> None:
        super()._setup_train()
        if self.cpu_bf16:
            self.amp = True
        model = ultra.unwrap_model(self.model)
        if ultra.distils_natively(model):
            return
        base = getattr(model, "criterion", None) or model.init_criterion()
        if self.quantization is not None:
            self.quantization.start(self)
        if self.distillation is None and self.kd.pseudo_labels is not None and not self.resume:
            judge_teacher(self)
        if self.distillation is None:
            self.criterion = DistillationCriterion(base, model)
        else:
            with ultra.restricted_loading(self.kd.trust), self._on_grid():
                self.distillation.start(self)
            schedule = Schedule(self.kd.recipe.schedule, self.kd.recipe.until)
            self.criterion = DistillationCriterion(
                base, model, self.distillation.teacher, self.distillation.methods, schedule, self.kd.teacher_every,
                self.kd.calibrate_batches, self.kd.force, self.log,
            )  # fmt: skip
        if self.resumed is not None and self.resumed["criterion"] is not None:
            self.criterion.restore(self.resumed["criterion"], new_schedule=self.longer)
        self._refuse_idle_schedule()
        model.criterion = self.criterion
        self.add_callback("on_train_epoch_start", DistillationTrainer._start_epoch)
        self.add_callback("on_train_epoch_end", DistillationTrainer._end_epoch)
        self._write_settings()  # where the teacher lies, which the first epoch may not live to say

    def _refuse_idle_schedule(self) -> None:
        """A schedule by which the teacher never runs, or never stops as asked, is a mistake; say so before the start."""
        if not self.kd.recipe.methods or self.kd.recipe.schedule != "mosaic" or self.resume:
            return
        if not 0 < self.args.close_mosaic < self.epochs:
            raise MisuseError(
                f"schedule=mosaic: with epochs={self.epochs} and close_mosaic={self.args.close_mosaic} mosaic "
                f"{'never closes' if not self.args.close_mosaic else 'is closed from the start, so nothing is distilled'}; "
                "expected 0 < close_mosaic < epochs"
            )

    def _refuse_rare_teacher(self) -> None:
        """A teacher that is hardly asked teaches nothing, while its terms keep the values that they had then."""
        every, batches = self.kd.teacher_every, len(self.train_loader)
        if 1 < every >= batches:
            raise MisuseError(
                f"teacher_every={every}: the teacher would see one batch at most of an epoch's {batches}; use "
                f"teacher_every={max(batches - 1, 1)} or less, or a smaller batch="
            )

    def _start_epoch(self) -> None:
        assert self.criterion is not None
        batches = len(self.train_loader)
        closed = bool(self.args.close_mosaic) and self.epoch >= self.epochs - self.args.close_mosaic
        warm = self.epoch * batches >= self._get_warmup_iterations(batches)
        self.criterion.start_epoch(self.epoch / max(self.epochs, 1), closed, warm)

    def _end_epoch(self) -> None:
        """Log each term's share of the gradient, and write gains that have just been fixed."""
        assert self.criterion is not None
        if self.quantization is not None:
            self.quantization.detach()
            self.quantization.average()
        if self.criterion.terms and self.criterion.factor > 0:
            shares = ", ".join(f"{t.key} {t.share_at(self.criterion.factor):.3g}" for t in self.criterion.terms)
            self.log(f"gradient shares of the detection loss: {shares}")
            self._write_settings()

    def _model_train(self) -> None:
        """As in Ultralytics at the start of each epoch, whose forward passes are then on the integer grid."""
        super()._model_train()
        if self.quantization is not None:
            self.quantization.attach(ultra.unwrap_model(self.model), observe=True)

    def _on_grid(self) -> AbstractContextManager[None]:
        """Inside, the EMA is what will be deployed: on the integer grid if the run trains for it."""
        return nullcontext() if self.quantization is None else self.quantization.on(self.ema.ema)

    # -- one step ------------------------------------------------------------------------------------------------------

    def optimizer_step(self) -> None:
        """As in Ultralytics; adapter gradients are averaged over ranks and clipped by a norm of their own.

        Clipped apart, a large adapter gradient does not shrink the student's.
        """
        adapters = self._adapters()
        if adapters:
            average_gradients(adapters)
            torch.nn.utils.clip_grad_norm_(adapters, max_norm=10.0 * self.scaler.get_scale())
        super().optimizer_step()

    # -- results -------------------------------------------------------------------------------------------------------

    def validate(self) -> Any:
        """As in Ultralytics; best.pt is chosen by what is deployed."""
        with self._on_grid():
            return super().validate()

    def final_eval(self) -> None:
        """As in Ultralytics, that is of a fused best.pt in float."""
        if self.quantization is not None:
            self.log(
                "qat: what follows is best.pt in float; results.csv holds the epochs' validation on 8 bits (qat=1)"
            )
        super().final_eval()

    def draw(self) -> None:
        """What Ultralytics draws, and what was distilled."""
        super().draw()
        draw_pictures(self)

    def label_loss_items(self, loss_items: dict | None = None, prefix: str = "train") -> Any:
        """As in Ultralytics; validation has no distillation terms, so no columns of zeros that look like results."""
        if prefix == "val" and self.criterion is not None:
            terms = set(self.criterion.last)
            if loss_items is None:
                return [f"{prefix}/{name}" for name in self.loss_names if name not in terms]
            loss_items = {k: v for k, v in loss_items.items() if k not in terms}
        return super().label_loss_items(loss_items, prefix)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """As in Ultralytics, with gain and gradient share of each term, and qat=1 where the row is on the integer grid."""
        if self.criterion is not None:
            for term in self.criterion.terms:
                metrics[f"gain/{term.key}"] = term.gain
                metrics[f"share/{term.key}"] = term.share_at(self.criterion.factor)
        if self.quantization is not None:
            metrics["qat"] = 1
        super().save_metrics(metrics)

    # -- other processes -----------------------------------------------------------------------------------------------

    def train(self) -> None:
        """As in Ultralytics; multi-GPU workers are rebuilt from `args` alone, so our settings ride on it meanwhile.

        Raises:
            GateError: The data have faults that would silently change the training.
            YoloKDError: What a worker refused or failed at, with its own message and exit code.
        """
        if ultra.LOCAL_RANK == -1:
            check_channels(self)
            check_data(self)
            if self.kd.unlabeled:
                collect(self)
        if not self.ddp:
            with reported_to(self.save_dir, ultra.RANK) if ultra.LOCAL_RANK != -1 else nullcontext():
                super().train()
            return
        try:
            keeping = kept_for_workers(written(self))
            with self._settings_on_args(), ultra.restricted_loading(self.kd.trust), keeping:
                super().train()
        except CalledProcessError as error:
            raise worker_error(self.save_dir) or error from None

    @contextmanager
    def _settings_on_args(self) -> Iterator[None]:
        self.args.kd = travelling(self.kd, self.teacher_given)
        try:
            yield
        finally:
            del self.args.kd

    def _write_settings(self) -> None:
        if ultra.RANK not in {-1, 0}:
            return
        plain = self.kd.to_dict()
        if self.distillation is not None:
            plain["teacher"] = str(self.distillation.teacher.path)  # a relative one would be lost elsewhere
        if self.kd.unlabeled:
            plain["unlabeled"] = [str(Path(source).absolute()) for source in self.kd.unlabeled]
        if self.criterion is not None:
            plain["fixed_gains"] = {t.key: t.gain for t in self.criterion.terms if t.fixed}
        with self.room(SETTINGS_FILE):
            write_yaml(self.save_dir / SETTINGS_FILE, plain)


def _like_weights(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Options for a further group: those of the student's decayed weights, at the lowest learning rate of any group."""
    group = next(g for g in optimizer.param_groups if g["param_group"] == "weight")
    options = {k: v for k, v in group.items() if k not in {"params", "initial_lr"}}
    return {**options, "lr": min(g["lr"] for g in optimizer.param_groups)}
