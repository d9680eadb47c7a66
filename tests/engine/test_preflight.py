"""Whether there is something to learn; the numbers are made up, the decision is arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from yolo_kd.engine import preflight, setup
from yolo_kd.engine.classes import match
from yolo_kd.engine.preflight import REPORT, decide, load_report, refuse_or_go_on, save_report
from yolo_kd.errors import GateError, MisuseError


def maps(teacher50, teacher, student=None):
    found = {"teacher": {"mAP50": teacher50, "mAP50-95": teacher}}
    return found if student is None else {**found, "student": {"mAP50": student, "mAP50-95": student}}


def test_a_teacher_above_the_floor_may_teach():
    assert decide(maps(0.05, 0.02), 0.05) is None
    assert decide(maps(0.5, 0.31, student=0.30), 0.05) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (maps(0.0499, 0.02), "below teacher_floor=0.05"),
        (maps(0.5, 0.30, student=0.30), "nothing to learn"),
        (maps(0.5, 0.20, student=0.30), "starts at 0.3000"),
    ],
)
def test_others_may_not(found, said):
    assert said in decide(found, 0.05)


def test_a_refused_teacher_teaches_only_by_force_which_is_said():
    teacher, lines = SimpleNamespace(path=Path("weak.pt")), list[str]()
    refuse_or_go_on(teacher, None, False, lines.append)
    with pytest.raises(GateError, match=r"^teacher=weak\.pt: it is too weak; or force=true$"):
        refuse_or_go_on(teacher, "it is too weak", False, lines.append)
    assert lines == []
    refuse_or_go_on(teacher, "it is too weak", True, lines.append)
    assert lines == ["WARNING forced past the pre-flight: teacher=weak.pt: it is too weak"]


def test_a_pretrained_student_is_measured_by_its_own_class_ids(monkeypatch):
    """The teacher knows the shared classes under other ids."""
    seen: dict[str, tuple[list[int], list[int]]] = {}

    def evaluate(trainer, predict, spec, classes, label):
        seen[label] = classes.student.tolist(), classes.teacher.tolist()
        return {"mAP50": 0.5, "mAP50-95": 0.3}

    monkeypatch.setattr(preflight, "evaluate", evaluate)
    student = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
    shared = match({0: "car", 1: "truck", 2: "person"}, {0: "person", 1: "boat", 2: "car"})
    preflight.measure(SimpleNamespace(ema=SimpleNamespace(ema=student)), SimpleNamespace(full_spec=None), shared, True)
    assert seen == {"teacher on val": ([0, 2], [2, 0]), "student on val": ([0, 2], [0, 2])}


@pytest.mark.parametrize(
    ("model", "given", "resume", "pretrained"),
    [
        ("yolov8n.yaml", True, False, False),  # Ultralytics' default, which says nothing of a YAML
        ("yolov8n.yaml", "yolov8n.pt", False, True),
        ("best.pt", True, False, True),
        ("best.pt", False, False, False),
        ("last.pt", True, True, False),  # half-way is no start
    ],
)
def test_only_a_pretrained_student_is_measured(monkeypatch, model, given, resume, pretrained):
    class Asked(Exception):
        pass

    def measure(trainer, teacher, shared, found):
        raise Asked(found)

    monkeypatch.setattr(setup, "TorchEngine", lambda *_: None)
    monkeypatch.setattr(preflight, "measure", measure)
    args = SimpleNamespace(model=model, pretrained=given)
    trainer = SimpleNamespace(device=torch.device("cpu"), args=args, resume=resume)
    with pytest.raises(Asked) as asked:
        setup.measured(trainer, SimpleNamespace(use=lambda *_: None, net=None), None)
    assert asked.value.args == (pretrained,)


def test_a_resumed_run_reads_the_report_of_its_own_teacher(tmp_path):
    report = {"teacher_sha256": "ab", "maps": {"teacher": {"mAP50": 0.5}}, "engine": "torch-fp32", "engines": []}
    assert load_report(tmp_path, "ab") is None
    save_report(tmp_path, report)
    assert load_report(tmp_path, "ab") == report and load_report(tmp_path, "cd") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"teacher_sha256": "ab", "eng', "Unterminated string"),
        ("[1]", "a list for names"),
        ("7", "a int for names"),
        ('{"teacher_sha256": 7}', "teacher_sha256"),
        ('{"engine": ["torch-fp32"]}', "engine"),
        ("[" * 20_000, "nested too deep"),
        ('{"teacher": "\\ud800"}', "surrogates"),
    ],
)
def test_a_damaged_report_is_one_line(tmp_path, text, said):
    (tmp_path / REPORT).write_text(text)
    with pytest.raises(
        MisuseError, match=rf"preflight.json: no report as a run writes it \(.*{said}.*delete it"
    ) as refusal:
        load_report(tmp_path, "ab")
    assert str(refusal.value).isprintable()


def test_teacher_is_measured_on_the_shared_classes_by_name(train):
    """Outputs that decode to the labels have mAP 1, under whatever names and order; unknown classes do not count."""
    from yolo_kd import DistillationTrainer
    from yolo_kd.distillers.base import Branch, HeadOutput, HeadSpec
    from yolo_kd.engine.evaluation import evaluate

    spec = HeadSpec((1, 1, 1), (8, 16, 32), 1, 3, (1, 1, 1))
    found: dict[str, dict[str, float]] = {}

    class Probe(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            names = {0: "car", 1: "truck", 2: "person"}

            def oracle(order):
                labels = iter(list(self.test_loader.dataset.labels))

                def predict(img):
                    """One cell of the finest level per object, with the distances to its sides in cells."""
                    size = img.shape[-1]
                    feats = tuple(torch.zeros(len(img), 1, size // s, size // s) for s in spec.strides)
                    cells = sum(f[0, 0].numel() for f in feats)
                    boxes, scores = torch.zeros(len(img), 4, cells), torch.full((len(img), 3, cells), -20.0)
                    for b in range(len(img)):
                        label = next(labels)
                        for k, (kind, box) in enumerate(zip(label["cls"][:, 0], label["bboxes"])):
                            x, y, w, h = (float(v) * 64 / 8 for v in box)
                            x, y = x + (size - 64) / 16, y + (size - 64) / 16  # validation pads the 64 px pictures
                            px, py = k % (size // 8) + 0.5, k // (size // 8) + 0.5
                            boxes[b, :, k] = torch.tensor(
                                [px - x + w / 2, py - y + h / 2, x + w / 2 - px, y + h / 2 - py]
                            )
                            scores[b, order.index(int(kind)), k] = 5.0
                    return HeadOutput(feats, {"one2many": Branch(boxes, scores)})

                return predict

            for title, order, own in (
                ("same", [0, 1, 2], names),
                ("permuted", [2, 0, 1], {i: names[j] for i, j in enumerate([2, 0, 1])}),
                ("partly", [0, 1, 2], {**names, 1: "boat"}),
                ("wrong", [0, 1, 2], {0: "truck", 1: "person", 2: "car"}),
            ):
                found[title] = evaluate(self, oracle(order), spec, match(names, own), title)

    train(Probe, distill="none")
    assert found["same"]["mAP50-95"] > 0.9
    assert found["permuted"] == found["same"]
    assert found["partly"]["mAP50-95"] > 0.9
    assert found["wrong"]["mAP50"] < 0.5
