"""Everything a distilled run builds besides the student: teacher, engine, distillers, and what they were calibrated on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import distributed as dist
from torch.nn import Parameter

from yolo_kd import distillers
from yolo_kd.cfg.home import cache_home
from yolo_kd.distillers.base import ClassMap
from yolo_kd.engine import classes as class_lists
from yolo_kd.engine import fitting, preflight, selection, ultra
from yolo_kd.engine.heads import common_levels, cut_spec
from yolo_kd.engine.ranks import from_first_rank
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.samples import sample_batches
from yolo_kd.engine.teacher import Teacher, TorchEngine, half_precision
from yolo_kd.engine.terms import Method, build_methods, refuse_idle
from yolo_kd.errors import GateError, MisuseError


@dataclass
class Distillation:
    """A teacher and the distillers of one run.

    Args:
        teacher: The frozen teacher.
        methods: Distillers with their terms, on the student's device.
        shared: Classes that both know.
        restored: SHA-256 of the teacher under which the distillers learnt, if their state came from a sidecar.
    """

    teacher: Teacher
    methods: list[Method]
    shared: ClassMap
    restored: str = ""

    def start(self, trainer: Any) -> None:
        """Pre-flight, engine, and what a distiller fits before the first step; random states stay as they are.

        Raises:
            GateError: The pre-flight refuses the teacher or its engine.
        """
        with preserved_rng(trainer.args.seed):
            for line in preflight.describe(
                self.teacher, ultra.unwrap_model(trainer.model), trainer.data["names"], self.shared
            ):
                trainer.log(line)
            report = preflight.load_report(trainer.save_dir, self.teacher.sha256) if trainer.resume else None
            if report is None:
                report = measured(trainer, self.teacher, self.shared)
            self._choose_engine(trainer, report)
            if ultra.RANK in {-1, 0}:
                preflight.save_report(trainer.save_dir, report)
            if self.restored != self.teacher.sha256:
                self._fit(trainer)
            self._agree_over_ranks()

    def state(self) -> dict[str, Any]:
        """What the sidecar holds: distillers' tensors, gains, the teacher's identity."""
        terms = [t for m in self.methods for t in m.terms]
        return {
            "distillers": {m.name: m.distiller.state_dict() for m in self.methods},
            "gains": {t.key: t.gain for t in terms},
            "fixed": {t.key: t.fixed for t in terms},
            "teacher_sha256": self.teacher.sha256,
        }

    def restore(self, state: dict[str, Any], given: bool = False) -> None:
        """Take over a sidecar's state; what was fitted to another teacher stays as it is here.

        Args:
            state: From `state`.
            given: The user named the teacher anew, so that another one is meant.

        Raises:
            GateError: It was written under another teacher.
            MisuseError: The teacher that was named is of another shape.
        """
        same = state["teacher_sha256"] == self.teacher.sha256
        if not same and not given:
            raise GateError(
                f"teacher={self.teacher.path}: not the checkpoint of the resumed run any more (sha256 "
                f"{self.teacher.sha256[:12]}, expected {state['teacher_sha256'][:12]}); put it back, or name with teacher= the "
                "one to go on with"
            )
        try:
            for method in self.methods:
                kept = state["distillers"][method.name]
                if not same and method.distiller.needs_fit:
                    learnt = {k: v for k, v in kept.items() if k in _learning(method)}
                    kept = {**method.distiller.state_dict(), **learnt}
                method.distiller.load_state_dict(kept)
        except RuntimeError:
            raise MisuseError(
                f"teacher={self.teacher.path}: its maps have other sizes than those of the run's teacher, so the adapters do "
                "not fit; name one of the same model, or start a new run"
            ) from None
        for method in self.methods:
            for term in method.terms:
                term.gain, term.fixed = state["gains"][term.key], state["fixed"][term.key]
        self.restored = state["teacher_sha256"]

    def _fit(self, trainer: Any) -> None:
        """Fit to this teacher; what has learnt under another one goes on, though a fit would have it start anew."""
        learnt = [{k: p.detach().clone() for k, p in _learning(m).items()} for m in self.methods if self.restored]
        fitting.fit(trainer, self.teacher, self.methods)
        for method, values in zip(self.methods, learnt):
            method.distiller.load_state_dict(values, strict=False)

    def _choose_engine(self, trainer: Any, report: dict[str, Any]) -> None:
        """The first rank measures; the others build what it chose, because timings differ."""
        kd, cache = trainer.kd, cache_home()
        if trainer.args.multi_scale > 0 and kd.teacher_engine == "auto":
            trainer.log("multi_scale: the teacher stays in torch, OpenVINO would compile anew for every size")
            kd = replace(kd, teacher_engine="torch")
        count = selection.batches_needed(kd, max(trainer.batch_size // max(trainer.world_size, 1), 1), trainer.device)
        batches = [batch["img"] for batch in sample_batches(trainer, count)]
        name, engine = _chosen_before(trainer, report), None
        if not name and ultra.RANK in {-1, 0}:
            choice = selection.choose(self.teacher, kd, batches, cache, trainer.log)
            name, engine = choice.name, choice.engine
            report["engine"], report["engines"] = name, [asdict(row) for row in choice.rows]
            if trainer.resume:
                trainer.log(
                    "WARNING not bit-exact: the teacher's engine was chosen anew, and may be another one than before"
                )
        name = from_first_rank(name)
        self.teacher.use(name, engine or selection.build(name, self.teacher, kd, batches, cache, trainer.log))
        trainer.log(f"teacher runs on {name}")

    def _agree_over_ranks(self) -> None:
        """Every rank starts from the first rank's distillers."""
        if dist.is_available() and dist.is_initialized():
            for method in self.methods:
                for tensor in method.distiller.state_dict().values():
                    dist.broadcast(tensor, src=0)


def measured(trainer: Any, teacher: Teacher, shared: ClassMap) -> dict[str, Any]:
    """The teacher's mAP on val, held against what a teacher must know.

    Raises:
        GateError: It knows too little, or no more than the student, and there is no `force`.
    """
    teacher.use("torch", TorchEngine(teacher.net, trainer.device, half_precision(trainer.device)))
    given = trainer.args.pretrained
    pretrained = isinstance(given, (str, Path)) or (str(trainer.args.model).endswith(".pt") and given is not False)
    pretrained = pretrained and not trainer.resume  # whose checkpoint is no start
    maps = preflight.measure(trainer, teacher, shared, pretrained)
    for who, found in maps.items():
        trainer.log(
            f"{who} on {trainer.args.split}, {shared.shared} shared classes: mAP50 {found['mAP50']:.4f}, mAP50-95 {found['mAP50-95']:.4f}"
        )
    reason = preflight.decide(maps, trainer.kd.teacher_floor)
    # a student on the integer grid can learn from its own float weights
    if pretrained and not trainer.kd.qat and preflight.same_file(trainer.args.model, teacher):
        reason = "it is the student's own checkpoint: there is nothing to learn from it. Choose a better teacher"
    preflight.refuse_or_go_on(teacher, reason, trainer.kd.force, trainer.log)
    known = class_lists.compare(trainer.data["names"], teacher.names, shared)
    return {"teacher": str(teacher.path), "teacher_sha256": teacher.sha256, "classes": known, "maps": maps}


def prepare(trainer: Any) -> Distillation:
    """Load the teacher and build the distillers, before the optimizer exists.

    Raises:
        MisuseError: The teacher cannot be used, or does not go with the student or the data.
        GateError: Every gain is 0, and there is no `force`.
    """
    kd, names = trainer.kd, trainer.data["names"]
    towers = any(distillers.load(name).needs_towers for name in kd.recipe.methods)
    with preserved_rng(trainer.args.seed), ultra.first_rank_first():
        teacher = Teacher(kd.teacher, trainer.device, towers, kd.trust)
    preflight.check_channels(teacher, trainer.data["channels"])
    shared = class_lists.match(names, teacher.names, trainer.args.classes)
    if trainer.args.single_cls and not shared.shared:
        raise MisuseError(
            "single_cls=True: renames every class to 'item', which this teacher does not know; leave it out"
        )
    class_lists.require_shared(names, teacher.names, shared, teacher.path.name)
    student_spec = ultra.head_spec(trainer.model)
    teacher.strides = common_levels(student_spec, teacher.full_spec, teacher.path.name)
    methods = build_methods(
        kd.recipe,
        cut_spec(student_spec, teacher.strides),
        teacher.spec,
        shared,
        trainer.log,
        kd.fixed_gains,
        trainer.args.seed,
        bool(trainer.data["train"]),
    )
    refuse_idle(methods, kd.force, trainer.log)
    for method in methods:
        method.distiller.to(trainer.device)
    return Distillation(teacher, methods, shared)


def judge_teacher(trainer: Any) -> None:
    """Refuse a teacher that only makes pseudo-labels as one that distils would be.

    Raises:
        GateError: It knows too little, or no more than the student, and there is no `force`.
    """
    kd = trainer.kd
    with preserved_rng(trainer.args.seed), ultra.restricted_loading(kd.trust), ultra.first_rank_first():
        teacher = Teacher(kd.teacher, trainer.device, trust=kd.trust)
    with preserved_rng(trainer.args.seed):
        measured(trainer, teacher, class_lists.match(trainer.data["names"], teacher.names, trainer.args.classes))


def _learning(method: Method) -> dict[str, Parameter]:
    """What of a distiller learns beside the student."""
    return {name: p for name, p in method.distiller.named_parameters() if p.requires_grad}


def _chosen_before(trainer: Any, report: dict[str, Any]) -> str:
    """The engine of the run that is resumed, if it may still run: timings differ, and with them the choice."""
    name = str(report.get("engine") or "") if trainer.resume else ""
    return name if name in selection.candidates(trainer.kd.teacher_engine, trainer.device) else ""
