"""The whole of distillation, as far as the student can see: its criterion.

`model.loss(batch)` calls `model.criterion(preds, batch)`. Ours adds the weighted terms to the detection loss of the
plain criterion that it wraps. It is no nn.Module, so it enters no state_dict; a deepcopy or pickle of it is None, so it
enters no EMA copy and no checkpoint, and the teacher is never copied with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from yolo_kd.distillers.base import ONE2MANY, HeadOutput, Targets
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import Acting, acting_levels, cut_output, student_view
from yolo_kd.engine.labelled import class_columns, detection_loss, joined, labelled_count, teacher_targets
from yolo_kd.engine.ranks import ELSEWHERE
from yolo_kd.engine.schedule import Schedule
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import Method, Term
from yolo_kd.errors import GateError, YoloKDError

MEASURED_BATCHES = 3  # per epoch, for the log; one batch alone scatters by a factor of two
MAX_BAD_STEPS = 10  # consecutive steps with a term that is not finite; a GradScaler recovers from fewer
BEFORE_BRANCHES = ("neck", "towers")  # towers are those of the one-to-many branch
COUNTERS = ("step", "bad_steps", "checked", "to_measure", "calibrated_batches")
CLOCK = ("factor", "warm")


class DistillationCriterion:
    """Detection loss plus weighted distillation terms.

    Args:
        base: The student's plain criterion (v8DetectionLoss or E2ELoss).
        model: The student; only its head is looked at.
        teacher: The frozen teacher, None when nothing is distilled.
        methods: Distillers with their terms, on the student's device.
        schedule: Factor of all gains over the run.
        every: Ask the teacher on every k-th step only; its terms weigh k times as much there.
        calibrate_batches: Batches over which auto gains are measured once warm-up is over.
        force: Go on, with a line, when a term is 0 on the first batch.
        log: Where lines go.
    """

    def __init__(
        self,
        base: Any,
        model: torch.nn.Module,
        teacher: Teacher | None = None,
        methods: list[Method] | None = None,
        schedule: Schedule | None = None,
        every: int = 1,
        calibrate_batches: int = 8,
        force: bool = False,
        log: Callable[[str], None] = print,
    ) -> None:
        self.base, self.teacher, self.methods = base, teacher, methods or []
        self.schedule, self.every, self.calibrate_batches = schedule or Schedule(), every, calibrate_batches
        self.force, self.log = force, log
        self.terms: list[Term] = [t for m in self.methods for t in m.terms]
        self.full_spec = ultra.head_spec(model)
        self.tap = ultra.TowerTap(model) if any(m.distiller.needs_towers for m in self.methods) else None
        self.step = 0
        self.bad_steps = 0
        self.checked = False
        self.to_measure = MEASURED_BATCHES
        self.factor = self.schedule.factor(0.0, False)
        self.warm = False
        self.calibrated_batches = 0
        self.last = {t.column: torch.zeros(()) for t in self.terms}

    def __deepcopy__(self, memo: dict) -> None:
        """EMA copies and checkpoints get None, and with it Ultralytics' own plain criterion."""

    def __reduce__(self) -> tuple:
        return type(None), ()

    def arm(self) -> None:
        """To be called before the student's forward pass: hooks what the terms need beyond the outputs."""
        if self.tap is not None and self.active:
            self.tap.arm()

    @property
    def active(self) -> bool:
        """Whether the teacher runs on the coming step."""
        return bool(self.terms) and self.factor > 0.0 and self.step % self.every == 0

    def start_epoch(self, progress: float, mosaic_closed: bool, warm: bool) -> None:
        """Set the clock.

        Args:
            progress: Share of the run's epochs that are done.
            mosaic_closed: Whether the epoch runs without mosaic.
            warm: Whether the optimizer's warm-up is over.
        """
        before, self.factor = self.factor, self.schedule.factor(progress, mosaic_closed)
        if before == 0.0:
            self.factor = 0.0  # with time= the number of epochs, and with it the progress, may fall back
        if self.terms and before > 0.0 and self.factor == 0.0:
            self.log("distillation is off from this epoch on (schedule); the teacher no longer runs")
        self.warm, self.to_measure = warm, MEASURED_BATCHES
        for term in self.terms:
            term.epoch_ratios.clear()

    def end(self) -> None:
        """Say which gains were still provisional when the run ended."""
        waiting = [f"{t.key}={t.gain:.4g}" for t in self.terms if not t.fixed]
        if waiting:
            self.log(
                f"WARNING the run ended before its gains were calibrated ({self.calibrated_batches} of {self.calibrate_batches} "
                f"batches after warm-up), so they were provisional to the end: {', '.join(waiting)}; train longer, or lower "
                "warmup_epochs or calibrate_batches"
            )

    def update(self) -> None:
        """Ultralytics calls this at the end of an epoch; dual heads shift weight between their branches."""
        if hasattr(self.base, "update"):
            self.base.update()

    def state(self) -> dict[str, Any]:
        """What the coming steps depend on besides weights and gains, as plain values and tensors."""
        return {
            **{name: getattr(self, name) for name in COUNTERS},
            "last": {column: value.detach() for column, value in self.last.items()},
            "ratios": {t.key: list(t.ratios) for t in self.terms},
            "epoch_ratios": {t.key: list(t.epoch_ratios) for t in self.terms},
            **self.clock(),
        }

    def clock(self) -> dict[str, Any]:
        """What of the state follows from how much of the run is done."""
        base = {k: v for k, v in vars(self.base).items() if isinstance(v, (int, float))}
        return {**{name: getattr(self, name) for name in CLOCK}, "base": base}

    def restore(self, state: dict[str, Any], new_schedule: bool = False) -> None:
        """Take over an earlier `state`.

        Args:
            state: Of the same recipe; terms that it does not know stay as they are.
            new_schedule: The run has become longer: what depends on its length is not taken over.
        """
        for name in (*COUNTERS, *CLOCK):
            setattr(self, name, state[name])
        self.last = {column: state["last"].get(column, value) for column, value in self.last.items()}
        for term in self.terms:
            term.ratios, term.epoch_ratios = (
                list(state[kind].get(term.key, [])) for kind in ("ratios", "epoch_ratios")
            )
        vars(self.base).update(state["base"])
        if new_schedule:
            self.factor = 1.0
            if hasattr(self.base, "updates"):
                self.base.updates -= 1
                self.update()

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss vector times batch size, and detached items, as Ultralytics' criteria return them."""
        device = batch["img"].device
        with torch.autocast(device.type, enabled=False):
            preds32 = ultra.replace_outputs(preds, lambda t: t.float())
            detection, items = detection_loss(self.base, preds32, batch, labelled_count(batch))
            if not self.terms:
                return detection, items
            distilled = self._distil(preds, preds32, batch, detection) if self.active else detection.new_zeros(())
        self.step += 1
        off = self.factor == 0.0
        for column, value in self.last.items():
            items[column] = (torch.zeros_like(value) if off else value).to(device)
        return torch.cat((detection.reshape(-1), distilled.reshape(1))), items

    def _distil(self, preds: Any, preds32: Any, batch: dict[str, Tensor], detection: Tensor) -> Tensor:
        assert self.teacher is not None
        towers = self.tap.take() if self.tap is not None else []
        raw = ultra.read_outputs(preds)
        branches = ultra.branch_weights(self.base)
        student = student_view(preds32, towers, branches)
        student = cut_output(student, self.full_spec, self.teacher.strides)
        taught, count = self.teacher(batch["img"]), labelled_count(batch)
        values = self._values(student, taught, self._targets(taught, batch, count))
        if not self._usable(values):
            return detection.new_zeros(())
        entry = acting_levels(raw, towers, self.full_spec, self.teacher.strides)
        self.last = {t.column: values[t.column].detach() for t in self.terms}
        for term in self.terms:
            # What lies before a dual head learns from labels by the one-to-many branch alone, whose weight falls over the
            # epochs: without the same weight a term there would grow to several times the share that was asked for.
            if term.acts_on in BEFORE_BRANCHES:
                values[term.column] = values[term.column] * branches[ONE2MANY]
        self._measure(values, partial(self._reference, detection, preds32, taught, batch, count), entry, count)
        total = sum(t.gain * self.factor * values[t.column] for t in self.terms if not t.watched)
        return torch.as_tensor(total, device=detection.device) * self.every * batch["img"].shape[0]

    def _targets(self, teacher: HeadOutput, batch: dict[str, Tensor], count: int) -> Targets:
        """Labels, and where a method looks at boxes the teacher's detections in pictures without."""
        given = Targets(batch["bboxes"], batch["cls"].reshape(-1).long(), batch["batch_idx"].reshape(-1).long())
        parts = [given]
        if count < len(batch["img"]) and any(m.distiller.uses_boxes for m in self.methods):
            parts.append(self._seen(teacher, count))
        return joined(parts, count)

    def _seen(self, teacher: HeadOutput, first: int) -> Targets:
        assert self.teacher is not None
        return teacher_targets(teacher, self.teacher.spec, class_columns(self.methods[0].distiller), first)

    def _reference(
        self, detection: Tensor, preds: Any, teacher: HeadOutput, batch: dict[str, Tensor], count: int
    ) -> Tensor:
        """The detection loss that gradients are held against: without a label, the one of the teacher's detections."""
        if count:
            return detection.sum()
        seen = self._seen(teacher, 0)
        boxes = {"bboxes": seen.boxes_xywhn, "cls": seen.classes[:, None].float(), "batch_idx": seen.image.float()}
        return self.base(preds, {**batch, **boxes})[0].sum()

    def _values(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for method in self.methods:
            watched = all(t.watched for t in method.terms)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not watched):
                out = method.distiller(student, teacher, targets)
            values.update({t.column: out[t.name] for t in method.terms})
        return values

    def _usable(self, values: dict[str, Tensor]) -> bool:
        """Check the terms: finite always, not 0 on the first batch."""
        stacked = torch.stack([v.detach() for v in values.values()])
        keys = {t.column: t.key for t in self.terms}  # as the user writes them
        numbers = dict(zip((keys[column] for column in values), stacked.tolist()))
        bad = {k: v for k, v in numbers.items() if not math.isfinite(v)}
        dead = {k: v for k, v in numbers.items() if v == 0.0} | bad
        # What one rank does all must do: those that go on would wait in the next collective for ever.
        any_bad, any_dead = _on_any_rank([bool(bad), bool(dead)], stacked)
        if not self.checked and any_dead:
            listed = ", ".join(f"{k}={v:g}" for k, v in dead.items()) or ELSEWHERE
            self._refuse(
                f"rank {max(ultra.RANK, 0)}: {listed} on the first batch, expected a finite value above 0; this "
                f"distillation would do nothing. Leave it out with {_without(dead)}"
            )
        self.checked = True
        self.bad_steps = self.bad_steps + 1 if any_bad else 0
        if any_bad:
            listed = ", ".join(f"{k}={v:g}" for k, v in numbers.items()) if bad else ELSEWHERE
            self.log(f"WARNING distillation left out of step {self.step}: {listed}")
            if self.bad_steps >= MAX_BAD_STEPS:
                raise YoloKDError(
                    f"distillation terms not finite for {self.bad_steps} steps in a row: {listed}; train again with amp=False, "
                    f"a lower lr0=, or {_without(bad)}"
                )
        return not any_bad

    def _refuse(self, reason: str) -> None:
        """Stop for a term that teaches nothing; with `force` only say so."""
        if not self.force:
            raise GateError(f"{reason}, or use force=true")
        self.log(f"WARNING forced: {reason}")

    def _measure(
        self,
        values: dict[str, Tensor],
        detects: Callable[[], Tensor],
        entry: dict[str, Acting],
        count: int,
    ) -> None:
        """Gradient norms of terms and detection loss where each term acts: for auto gains, and for the log.

        Both in the pictures with labels, so that a gain does not depend on how many others there are.
        """
        calibrating = self.warm and not all(t.fixed for t in self.terms)
        mute = any(t.gain == 0.0 for t in self.terms if not t.fixed)  # no batch so far said anything about its gain
        if not (self.to_measure or calibrating or mute):
            return
        detection = detects()
        if not detection.requires_grad:
            return
        if calibrating and self.calibrated_batches == 0:
            for term in self.terms:
                term.ratios.clear()  # what was seen in warm-up was provisional
        batch_size = entry["neck"].tensors[0].shape[0]
        rows = count or batch_size
        kinds = {t.acts_on for t in self.terms if not t.watched}
        reference = {kind: _grad_norm(detection, entry[kind], rows) for kind in kinds}
        for term in self.terms:
            if term.watched:
                continue
            norm = _mean_over_ranks(_grad_norm(values[term.column], entry[term.acts_on], rows) * batch_size, detection)
            wanted = _mean_over_ranks(reference[term.acts_on], detection)
            if norm == 0.0 and self.step == 0:
                self._refuse(
                    f"{term.key}: its gradient does not reach the student's {term.acts_on}; expected a norm above 0. "
                    f"Leave it out with {_without([term.key])}"
                )
            term.observe(norm, wanted)
        self.to_measure = max(self.to_measure - 1, 0)
        if calibrating:
            self.calibrated_batches += 1
            if self.calibrated_batches >= self.calibrate_batches:
                self._fix_gains()

    def _fix_gains(self) -> None:
        """Fix what was seen often enough; batches without objects say nothing, so it may take more of them."""
        enough = max(self.calibrate_batches // 2, 1)
        waiting = [t for t in self.terms if not t.fixed and len(t.ratios) < enough]
        if waiting:
            if self.calibrated_batches >= 100 * self.calibrate_batches:
                term = waiting[0]
                raise YoloKDError(
                    f"{term.key}=auto:{term.share:g}: hardly a gradient in {self.calibrated_batches} batches to calibrate "
                    f"on; give a number instead, e.g. {term.key}=1"
                )
            return
        for term in self.terms:
            term.fixed = True
        self.log("gains: " + ", ".join(f"{t.key}={t.gain:.4g}" for t in self.terms) + " (calibrated, now fixed)")


def _without(keys: Iterable[str]) -> str:
    """What to add to the command so that these terms are left out; another rank knows what its own are called."""
    return " ".join(f"{key}=none" for key in keys) or "METHOD.TERM=none"


def _grad_norm(loss: Tensor, at: Acting, rows: int) -> float:
    """Norm of d loss / d at over the first `rows` pictures of all its tensors; 0 where the loss does not depend on them."""
    inputs = [t for t in at.tensors if t.requires_grad]
    if not inputs or not loss.requires_grad:
        return 0.0
    scale = 1024.0  # keeps half-precision gradients from underflowing; divided out again
    grads = torch.autograd.grad(loss * scale, inputs, retain_graph=True, allow_unused=True)
    squares = [at.cut(g[:rows]).float().square().sum() for g in grads if g is not None]
    return float(torch.stack(squares).sum().sqrt()) / scale if squares else 0.0


def _on_any_rank(flags: list[bool], like: Tensor) -> list[bool]:
    """Each flag, true if it is true on any rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return flags
    shared = torch.tensor(flags, dtype=torch.float32, device=like.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


def _mean_over_ranks(value: float, like: Tensor) -> float:
    if not (dist.is_available() and dist.is_initialized()):
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=like.device)
    dist.all_reduce(shared)
    return float(shared) / dist.get_world_size()
