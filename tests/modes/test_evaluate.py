"""`yolo-kd evaluate`: the same precision as Ultralytics', for a checkpoint and for what is exported from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy.detections import Detections

from yolo_kd.cli import main
from yolo_kd.evidence.average_precision import PrecisionMeter
from yolo_kd.evidence.evaluation import truth_of


@pytest.fixture(scope="module")
def evaluated(learnt: Path, float_export: Path, pictures: Path, tmp_path_factory) -> dict:
    """The checkpoint and its OpenVINO export in float, on the pictures that it knows."""
    words = [f"model={learnt}", f"beside={float_export}", f"data={pictures}", "split=train"]
    out = tmp_path_factory.mktemp("evaluated") / "found" / "report.json"
    assert main(["evaluate", *words, "imgsz=64", "corruptions=fog,low_light", f"out={out}"]) == 0
    return json.loads(out.read_text())


def test_precision_is_that_of_ultralytics_own_detections(evaluated, learnt, pictures, tmp_path):
    """The AP of what Ultralytics' validation detects, matched and averaged by pycocotools.

    Not its mAP: by default it pads images of 64 pixels to 96, which costs this net .07.
    """
    from ultralytics import YOLO

    YOLO(learnt).val(
        data=str(pictures),
        split="train",
        imgsz=64,
        save_json=True,
        plots=False,
        rect=False,
        project=str(tmp_path),
        name="v",
    )
    rows: dict[str, list] = {}
    for row in json.loads((tmp_path / "v" / "predictions.json").read_text()):
        rows.setdefault(row["file_name"], []).append([*row["bbox"], row["score"], row["category_id"] - 1])
    split = read_split(pictures, "train")
    found = []
    for image in split.images:
        table = np.array(rows[image.name], float)
        boxes = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), 1)
        found.append(Detections(boxes, table[:, 4], table[:, 5].astype(int), split.names, (64, 64)))
    wanted = PrecisionMeter([truth_of(split, p, (64, 64)) for p in split.images], found, split.names).precision()
    ours = next(iter(evaluated["models"].values()))["precision"]
    assert wanted.ap > 0.5 and ours["AP"] == pytest.approx(wanted.ap, abs=0.005)
    assert evaluated["split"] == "train" and len(evaluated["models"]) == 2
    assert all(0.5 < found["ultralytics"]["mAP50-95"] < 1 for found in evaluated["models"].values())


def test_checkpoint_and_float_artifact_agree(evaluated):
    ours = [found["precision"] for found in evaluated["models"].values()]
    assert ours[0] == {k: v if v is None else pytest.approx(v, abs=0.03) for k, v in ours[1].items()}


def test_corruptions_cost_precision(evaluated):
    for found in evaluated["models"].values():
        for values in found["corruptions"].values():
            assert len(values) == 3 and values[2] < found["precision"]["AP"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=DATA"], "model= is missing"),
        (["model=PT", "data=DATA", "splt=val"], "splt=val: unknown key (did you mean 'split'?)"),
        (["model=PT", "data=DATA", "split=test"], "has no 'test' part; it has train, val"),
        (["model=PT", "data=DATA", "corruptions=fogg"], "corruptions=fogg: no such corruption (did you mean 'fog'?)"),
        (["model=PT", "data=DATA", "imgsz=384,640,999"], "expected a side or height,width in pixels"),
        (["model=PT", "data=DATA", "imgsz=abc"], "imgsz=abc: expected a side or height,width"),
        (["model=PT", "data=DATA", "imgsz=100"], "imgsz=100: expected multiples of 32"),
        (["model=none.pt", "data=DATA"], "model=none.pt: no such file"),
        (["model=none_model", "data=DATA"], "none_model: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(learnt, pictures, capsys, words, said):
    filled = [w.replace("DATA", str(pictures)).replace("PT", str(learnt)) for w in words]
    assert main(["evaluate", *filled]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]
