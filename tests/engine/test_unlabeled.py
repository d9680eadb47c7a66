"""unlabeled=: what comes into the batches, what is refused, and that nothing of the user's is touched."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from yolo_kd.cfg.settings import resolve

from yolo_kd import DistillationTrainer, distill
from yolo_kd.cli import main
from yolo_kd.engine import ultra, unlabeled
from yolo_kd.errors import GateError, MisuseError

PKD = {"distill": "pkd", "force": True, "teacher_engine": "torch"}
MAGENTA = (255, 0, 255)  # as OpenCV writes it: no labelled picture has it
STILL = {**dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "bgr"), 0.0), "augmentations": []}  # colours stay what they are
GREY = 114  # of the padding


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 5 pictures of one colour, no label beside them."""
    root = tmp_path_factory.mktemp("bare")
    for i in range(5):
        cv2.imwrite(str(root / f"{i}.png"), np.full((48 + 8 * i, 64, 3), MAGENTA, np.uint8))
    return root


@pytest.fixture
def unlabelled_data(pictures: Path, tmp_path: Path) -> Path:
    """A data.yaml that has no train part."""
    raw = yaml.safe_load(pictures.read_text())
    del raw["train"]
    path = tmp_path / "without.yaml"
    path.write_text(yaml.safe_dump({**raw, "path": str(pictures.parent)}))
    return path


class Seen(DistillationTrainer):
    """Keeps what comes out of the loader, and ends after the first epoch's batches."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.batches: list[dict[str, Any]] = []

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.batches.append({**batch, "img": batch["img"].clone()})
        return super().preprocess_batch(batch)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


class TestBatches:
    def test_hold_both_kinds_and_an_epoch_is_one_pass_over_the_labelled(self, train, make_checkpoint, bare, lines):
        teacher = str(make_checkpoint(seed=1))
        trainer = train(Seen, teacher=teacher, unlabeled=str(bare), epochs=2, mosaic=0, **PKD)
        assert len(trainer.batches) == 2 * 4, "8 labelled pictures, 2 in each batch"
        labelled, others = Counter(), Counter()
        for batch in trainer.batches:
            assert batch["labelled"] == (True, True, False, False) and len(batch["img"]) == 4
            assert set(batch["batch_idx"].tolist()) <= {0.0, 1.0}, "an unlabeled picture has no box"
            labelled.update(Path(name).parent.name + Path(name).stem for name in batch["im_file"][:2])
            others.update(Path(name) for name in batch["im_file"][2:])
        assert set(labelled.values()) == {2} and len(labelled) == 8
        assert {path.parent for path in others} == {bare} and sorted(others.values()) == [3, 3, 3, 3, 4], (
            "16 draws from 5"
        )
        assert (
            f"unlabeled: 5 images from {bare}, ratio 0.5: 2 beside 2 labelled ones in each batch; an epoch is one pass over the 8 labelled"
            in lines
        )
        row = next(csv.DictReader(Path(trainer.csv).read_text().splitlines()))
        assert float(row["train/box_loss"]) > 0 and float(row["train/pkd_loss"]) > 0
        settings = yaml.safe_load((trainer.save_dir / "kd.yaml").read_text())
        assert settings["unlabeled"] == [str(bare)] and settings["unlabeled_ratio"] == 0.5
        saved = torch.load(trainer.last, weights_only=False)["train_args"]
        assert set(saved) <= set(ultra.train_keys()) | {"save_dir", "augmentations"}

    @pytest.mark.parametrize(("ratio", "count"), [(0.1, 1), (0.75, 3), (0.99, 3)])
    def test_hold_the_share_that_was_asked_for_and_one_of_each_at_least(
        self, train, make_checkpoint, bare, ratio, count
    ):
        teacher = str(make_checkpoint(seed=1))
        trainer = train(Seen, teacher=teacher, unlabeled=str(bare), unlabeled_ratio=ratio, mosaic=0, **PKD)
        assert {batch["labelled"].count(False) for batch in trainer.batches} == {count}
        assert {batch["labelled"].count(True) for batch in trainer.batches[:-1]} == {4 - count}

    @pytest.mark.parametrize("cache", [False, "ram"])
    def test_never_mix_pictures_with_and_without_labels(self, train, make_checkpoint, bare, cache):
        teacher = str(make_checkpoint(seed=1))
        mixing = {"mosaic": 1.0, "mixup": 1.0, "cutmix": 0.5, "close_mosaic": 0, "cache": cache}
        trainer = train(Seen, teacher=teacher, unlabeled=str(bare), epochs=2, **mixing, **STILL, **PKD)
        for batch in trainer.batches:
            for img, labelled in zip(batch["img"].int(), batch["labelled"], strict=True):
                # mixing with another one would leave a trace of its colour: red and blue at full strength, no green
                magenta = ((img[0] > 180) & (img[1] < 60) & (img[2] > 180)).any()
                grey_or_magenta = ((img[0] - img[2]).abs() <= 8) & (img[0] >= GREY - 8) & (img[1] <= GREY + 8)
                assert not magenta if labelled else grey_or_magenta.all()

    def test_a_step_without_the_teacher_is_of_the_labelled_ones_alone(self, train, make_checkpoint, bare):
        sizes: list[tuple[int, bool]] = []

        class Sized(DistillationTrainer):
            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                batch = super().preprocess_batch(batch)
                sizes.append((len(batch["img"]), self.criterion.active))
                assert len(batch["im_file"]) == len(batch["labelled"]) == len(batch["img"])
                return batch

        teacher = str(make_checkpoint(seed=1))
        train(Sized, teacher=teacher, unlabeled=str(bare), epochs=2, until=0.5, teacher_every=2, **PKD)
        assert sizes == [(4, True), (2, False)] * 2 + [(2, False)] * 4

    def test_validation_is_what_it_was(self, train, make_checkpoint, bare):
        trainer = train(teacher=str(make_checkpoint(seed=1)), unlabeled=str(bare), val=True, **PKD)
        assert len(trainer.test_loader.dataset) == 4
        assert not any("labelled" in batch for batch in trainer.test_loader)

    def test_field_spoils_the_unlabeled_ones_too(self, train, make_checkpoint, bare):
        teacher = str(make_checkpoint(seed=1))
        keys = {"mosaic": 0, "augment": "field", "augment_share": 1.0, "epochs": 2, **STILL, **PKD}
        trainer = train(Seen, teacher=teacher, unlabeled=str(bare), **keys)
        unlabeled = [img.int() for batch in trainer.batches for img in batch["img"][2:]]
        pure = [(((img[0] - img[2]).abs() <= 2) & ((img[1] <= 2) | (img[1] == GREY))).all() for img in unlabeled]
        assert not all(pure)


@pytest.mark.parametrize("cache", [False, "ram", "disk"])
def test_nothing_is_written_beside_the_pictures(train, make_checkpoint, bare, pictures, tmp_path, cache, lines):
    mine = Path(shutil.copytree(bare, tmp_path / "mine"))
    np.save(mine / "0.npy", np.zeros((8, 8, 3), np.uint8))  # the user's own, newer than the picture
    data = Path(shutil.copytree(pictures.parent, tmp_path / "data")) / "data.yaml"  # Ultralytics writes beside these
    before = snapshot(mine)
    teacher = str(make_checkpoint(seed=1))
    trainer = train(Seen, data=str(data), teacher=teacher, unlabeled=str(mine), cache=cache, mosaic=0, **STILL, **PKD)
    assert snapshot(mine) == before
    assert all(img[0].max() == 255 for batch in trainer.batches for img in batch["img"][2:]), "the array was not read"
    assert any("cache=disk: not for unlabeled= pictures" in line for line in lines) == (cache == "disk")


class TestWithoutLabels:
    def test_the_default_recipe_trains(self, train, make_checkpoint, bare, unlabelled_data, lines):
        teacher = str(make_checkpoint(seed=1))
        keys = {"distill": "csgr_lqe", "force": True, "teacher_engine": "torch", "calibrate_batches": 2, "plots": True}
        trainer = train(
            Seen, data=str(unlabelled_data), teacher=teacher, unlabeled=str(bare), epochs=2, val=True, **keys
        )
        assert [len(batch["img"]) for batch in trainer.batches] == [4, 1, 4, 1], "an epoch is one pass over all 5"
        rows = list(csv.DictReader(Path(trainer.csv).read_text().splitlines()))
        assert all(float(row["train/box_loss"]) == 0 and float(row["val/box_loss"]) > 0 for row in rows)
        assert all(float(row["train/kdcls_loss"]) > 0 and float(row["gain/pcd.cls"]) > 0 for row in rows)
        assert "lqe.lqe is off: it is fitted on labels, and there is no labelled training picture" in lines
        assert any(line.startswith("gains: csgr.cs=") for line in lines)
        assert any("no labelled training picture, so an epoch is one pass over these" in line for line in lines)
        assert trainer.args.data == str(trainer.save_dir / "data.yaml")

    def test_what_was_learnt_comes_from_the_teacher(self, train, make_checkpoint, bare, unlabelled_data):
        keys = {"data": str(unlabelled_data), "unlabeled": str(bare), "epochs": 6, "optimizer": "AdamW", **PKD}
        teacher = str(make_checkpoint(seed=1))
        taught = train(teacher=teacher, **{**keys, "pkd.pkd": 1.0}).criterion.last["pkd_loss"]
        idle = train(teacher=teacher, **{**keys, "pkd.pkd": 0.0}).criterion.last["pkd_loss"]
        assert taught < 0.9 * idle

    def test_a_run_folder_that_was_moved_goes_on(self, train, make_checkpoint, bare, unlabelled_data, tmp_path):
        teacher = str(make_checkpoint(seed=1))
        keys = {"data": str(unlabelled_data), "teacher": teacher, "unlabeled": str(bare), **PKD}
        first = train(epochs=1, **keys)
        moved = Path(shutil.move(first.save_dir, tmp_path / "elsewhere"))
        distill(resume=moved / "weights" / "last.pt", epochs=2)
        assert yaml.safe_load((moved / "args.yaml").read_text())["epochs"] == 2
        assert len((moved / "results.csv").read_text().splitlines()) == 3

    @pytest.mark.parametrize("keys", [{"teacher_every": 2}, {"until": 0.5}, {"schedule": "mosaic"}])
    def test_steps_that_would_learn_nothing_are_refused(self, train, make_checkpoint, bare, unlabelled_data, keys):
        teacher = str(make_checkpoint(seed=1))
        (key, value), *_ = keys.items()
        with pytest.raises(MisuseError, match=f"{key}={value}: there is no labelled picture"):
            train(data=str(unlabelled_data), teacher=teacher, unlabeled=str(bare), **PKD, **keys)

    def test_nor_is_there_a_training_without_any_picture(self, unlabelled_data, tmp_path):
        with pytest.raises(MisuseError, match="'train:' key missing"):
            distill(data=unlabelled_data, distill="none", imgsz=64, project=str(tmp_path / "runs"))


class TestPool:
    def test_a_picture_of_val_is_refused_and_named(self, train, make_checkpoint, bare, pictures, tmp_path, lines):
        mine = Path(shutil.copytree(bare, tmp_path / "mine"))
        shutil.copy(pictures.parent / "images" / "val" / "002.png", mine / "x.png")
        keys = {"teacher": str(make_checkpoint(seed=1)), "unlabeled": str(mine), **PKD}
        with pytest.raises(
            GateError, match=rf"1 pictures are the same files as pictures of val \(first {mine}/x.png\)"
        ):
            train(**{**keys, "force": False})
        assert any("val/002.png in val" in line for line in lines)
        trainer = train(**keys)
        assert len(trainer.unlabeled.images) == 6 and any(
            line.startswith("WARNING forced: unlabeled=") for line in lines
        )

    def test_labelled_pictures_are_not_unlabeled_ones(self, train, make_checkpoint, bare, pictures, tmp_path, lines):
        mine = Path(shutil.copytree(bare, tmp_path / "mine"))
        shutil.copytree(pictures.parent / "images" / "train", mine / "all")
        keys = {"teacher": str(make_checkpoint(seed=1)), "unlabeled": str(mine), **PKD}
        assert len(train(**keys).unlabeled.images) == 5
        assert any("8 left out that are labelled training pictures" in line for line in lines)
        # of the sorted list fraction= takes the first two
        assert len(train(fraction=0.25, **keys).unlabeled.images) == 5 + 6

    def test_damaged_ones_are_listed_and_left_out(self, train, make_checkpoint, bare, tmp_path, lines):
        mine = Path(shutil.copytree(bare, tmp_path / "mine"))
        (mine / "cut.png").write_bytes((bare / "0.png").read_bytes()[:60])
        for suffix in (".bmp", ".tif"):  # which do not say where they end, so that only decoding them tells
            Image.new("RGB", (64, 48)).save(mine / f"cut{suffix}")
            os.truncate(mine / f"cut{suffix}", 5000)
        trainer = train(teacher=str(make_checkpoint(seed=1)), unlabeled=str(mine), **PKD)
        assert len(trainer.unlabeled.images) == 5 and (mine / "cut.png").stat().st_size == 60
        assert any("3 of 8 pictures cannot be used and are left out" in line for line in lines)
        assert all(any(f"cut{suffix}: is damaged" in line for line in lines) for suffix in (".png", ".bmp", ".tif"))

    def test_a_video_and_a_folder_together(self, train, make_checkpoint, bare, tmp_path):
        writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
        for i in range(30):
            writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
        writer.release()
        teacher = str(make_checkpoint(seed=1))
        named = f"{tmp_path / 'a.avi'},{bare}"
        trainer = train(teacher=teacher, unlabeled=named, unlabeled_frames=4, **PKD)
        assert [path.suffix for path in trainer.unlabeled.images] == [".png"] * 9
        assert [len(part) for part in trainer.train_loader.dataset.parts] == [8, 9]
        assert yaml.safe_load((trainer.save_dir / "kd.yaml").read_text())["unlabeled"] == [
            str(tmp_path / "a.avi"),
            str(bare),
        ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unlabeled=nowhere"], "unlabeled=nowhere: does not exist"),
        (["unlabeled={bare}", "distill=none"], "with distill=none these pictures would teach nothing"),
        (["unlabeled={bare}", "unlabeled_ratio=0"], "unlabeled_ratio=0: expected a share above 0 and up to 1"),
        (["unlabeled={bare}", "unlabeled_ratio=1.5"], "unlabeled_ratio=1.5: expected a share above 0"),
        (["unlabeled={bare}", "unlabeled_ratio=half"], "unlabeled_ratio=half: expected a number"),
        (["unlabeled={bare}", "unlabeled_ratio=1"], "unlabeled_ratio=1: the labelled pictures would never be seen"),
        (["unlabeled={bare}", "unlabeled_frames=0"], "unlabeled_frames=0: expected 1 or more"),
        (["unlabeled={bare}", "rect=true"], "rect=True: gives labelled and unlabeled= pictures unlike shapes"),
        (["unlabeled={bare}", "batch=1"], "batch=1: has no room for a labelled and an unlabeled picture"),
        (["unlabeled={bare}", "distill=none", "pseudo_labels=.5", "distill_model={teacher}"], "would take unlabeled= pictures for empty"),
        (["unlabeled={bare}", "pseudo_labels=60"], "pseudo_labels=60: expected a confidence between 0 and 1"),
        (["unlabeled={bare}", "pseudo_labels=true"], "pseudo_labels=True: expected a confidence"),
        (["pseudo_labels=.6"], "pseudo_labels=0.6: there is nothing to label; name the pictures with unlabeled="),
        (["unlabeled=5"], "unlabeled=5: does not exist"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(pictures, bare, make_checkpoint, tmp_path, capsys, words, said):
    teacher = make_checkpoint(seed=1)
    given = [word.format(bare=bare, teacher=teacher) for word in words]
    common = [f"teacher={teacher}", "distill=pkd", f"data={pictures}", f"project={tmp_path}/runs", "imgsz=64"]
    assert main(["train", *common, "force=true", "teacher_engine=torch", "epochs=1", *given]) == 2
    said_lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("yolo-kd:")]
    assert len(said_lines) == 1 and said in said_lines[0]


def test_pseudo_labels_without_a_teacher_are_refused(pictures, bare, capsys):
    assert main(["train", f"data={pictures}", "distill=none", f"unlabeled={bare}", "pseudo_labels=.6"]) == 2
    assert "teacher= is missing" in capsys.readouterr().err


class TestRecord:
    def test_a_folder_that_grew_changes_nothing_on_resume(self, train, make_checkpoint, bare, tmp_path):
        mine = Path(shutil.copytree(bare, tmp_path / "mine"))
        keys = {"teacher": str(make_checkpoint(seed=1)), "unlabeled": str(mine), **PKD}
        first = train(epochs=1, **keys)
        assert json.loads((first.save_dir / "unlabeled.json").read_text())["images"] == [
            str(mine / f"{i}.png") for i in range(5)
        ]
        shutil.copy(mine / "0.png", mine / "new.png")
        again = train(model=str(first.last), resume=str(first.last), epochs=2)
        assert again.unlabeled.images == first.unlabeled.images

    def test_pictures_that_are_gone_are_named(self, train, make_checkpoint, bare, tmp_path):
        mine = Path(shutil.copytree(bare, tmp_path / "mine"))
        keys = {"teacher": str(make_checkpoint(seed=1)), "unlabeled": str(mine), **PKD}
        first = train(epochs=1, **keys)
        (mine / "3.png").unlink()
        with pytest.raises(MisuseError, match=rf"1 of 5 pictures of the resumed run are gone, first {mine}/3.png"):
            train(model=str(first.last), resume=str(first.last), epochs=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"videos": [], "images": []}', "no picture"),  # a batch would never be full
        ('{"videos": [], "images": ["a.txt"]}', "'a.txt' is no picture"),
        ('{"videos": [], "images": [7]}', "images.0 is no path"),
        ('{"videos": [], "images": [null]}', "NoneType"),
        ('{"videos": "a.mp4", "images": ["a.png"]}', "videos is no path"),
        ('{"images": ["a.png"]}', "videos"),
        ("[1]", "list indices"),
        ('{"videos": [], "imag', "Unterminated"),
    ],
)
def test_a_damaged_list_is_one_line(tmp_path, text, said):
    record = tmp_path / unlabeled.RECORD
    record.write_text(text)
    with pytest.raises(MisuseError, match=f"no list of unlabeled pictures as a run writes it .*{said}.*start anew"):
        unlabeled._require(record, resolve({"teacher": "t.pt", "unlabeled": "pool"}))


@pytest.mark.parametrize("left", ["frames", "video"])
def test_frames_are_found_where_the_cache_is_now(tmp_path, pictures, monkeypatch, left):
    """A run that moved with its cache, or has only the videos left, goes on with the same frames."""
    video = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(8):
        writer.write(np.full((48, 64, 3), 30 * i, np.uint8))
    writer.release()
    kd = resolve({"teacher": "t.pt", "unlabeled": str(video), "unlabeled_frames": 3})
    args = SimpleNamespace(split="val", fraction=1.0)
    data = {part: str(pictures.parent / "images" / part) for part in ("train", "val")}
    run = SimpleNamespace(kd=kd, args=args, data=data, save_dir=tmp_path, resume=False, log=print)
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "before"))
    unlabeled.collect(run)
    before = unlabeled._recorded(tmp_path / unlabeled.RECORD)["images"]
    assert len(before) == 3 and all(path.is_relative_to(tmp_path / "before") for path in before)
    contents = [path.read_bytes() for path in before]
    if left == "frames":
        (tmp_path / "before").rename(tmp_path / "after")
        video.unlink()
    else:
        shutil.rmtree(tmp_path / "before")
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "after"))
    run.resume = True
    unlabeled.collect(run)
    after = unlabeled._recorded(tmp_path / unlabeled.RECORD)["images"]
    assert [path.read_bytes() for path in after] == contents and [p.name for p in after] == [p.name for p in before]


def test_a_name_that_is_too_long_is_of_a_picture_that_is_gone(tmp_path):
    record = tmp_path / unlabeled.RECORD
    record.write_text(json.dumps({"videos": ["a" * 2000 + ".mp4"], "images": ["a" * 2000 + ".png"]}))
    with pytest.raises(MisuseError, match="1 of 1 pictures of the resumed run are gone"):
        unlabeled._require(record, resolve({"teacher": "t.pt", "unlabeled": "pool"}))


def test_workers_and_ranks_get_the_settings(pictures: Path, bare: Path, make_checkpoint: Callable[..., Path], tmp_path):
    keys = {"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "device": "cpu", "imgsz": 64}
    teacher = str(make_checkpoint(seed=1))
    parent = DistillationTrainer(overrides={**keys, "teacher": teacher, "unlabeled": str(bare), "pseudo_labels": 0.5})
    plain = json.loads(json.dumps(parent.kd.to_dict()))
    worker = DistillationTrainer(overrides={**vars(parent.args), "kd": plain})
    assert worker.kd == parent.kd and worker.kd.unlabeled == [str(bare)]
