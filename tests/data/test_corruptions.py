"""Corruptions: deterministic, stronger from step to step, and each does what its name says."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from yolo_kd.data import scenes
from yolo_kd.data.corruptions import STRENGTHS, corrupt, corruptions

from yolo_kd.errors import MisuseError


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> np.ndarray:
    data = scenes.write_dataset(tmp_path_factory.mktemp("scenes"), train=1, val=1, size=256, seed=5)
    return cv2.imread(str(next((data.parent / "images" / "train").iterdir())))


@pytest.mark.parametrize("name", corruptions())
def test_the_same_seed_gives_the_same_and_strength_grows(picture, name):
    errors = []
    for strength in STRENGTHS:
        before = picture.copy()
        spoilt = corrupt(picture, name, strength, seed=3)
        assert (picture == before).all() and spoilt.shape == picture.shape and spoilt.dtype == np.uint8
        assert (spoilt == corrupt(picture, name, strength, seed=3)).all()
        errors.append(float(np.abs(spoilt.astype(int) - picture).mean()))
    assert 0.3 < errors[0] < errors[1] < errors[2], errors


@pytest.mark.parametrize("name", ["motion_blur", "fog", "rain", "sensor_noise"])
def test_another_seed_gives_another_picture(picture, name):
    assert (corrupt(picture, name, 2, seed=3) != corrupt(picture, name, 2, seed=4)).any()


def sharpness(image: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


def test_each_does_what_its_name_says(picture):
    assert sharpness(corrupt(picture, "motion_blur", 3)) < 0.5 * sharpness(picture)
    assert sharpness(corrupt(picture, "downscale", 3)) < 0.5 * sharpness(picture)
    assert sharpness(corrupt(picture, "sensor_noise", 3)) > 2 * sharpness(picture)
    assert corrupt(picture, "low_light", 3).mean() < 0.5 * picture.mean()
    assert corrupt(picture, "fog", 3).std() < picture.std()
    noise = corrupt(np.full((200, 200, 3), 128, np.uint8), "sensor_noise", 2).astype(float) - 128
    assert noise.std() == pytest.approx(0.07 * 255, rel=0.05)


def test_motion_blur_smears_a_point_but_does_not_move_it():
    image = np.zeros((320, 320, 3), np.uint8)
    image[155:165, 155:165] = 255
    rows, columns = np.mgrid[:320, :320]
    for seed in range(12):
        light = corrupt(image, "motion_blur", 3, seed)[..., 0].astype(float)
        centre = (light * rows).sum() / light.sum(), (light * columns).sum() / light.sum()
        assert centre == pytest.approx((159.5, 159.5), abs=0.6)


def test_colours_keep_their_order():
    """BGR in, BGR out: a blue picture stays blue in the dark."""
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 0] = 200
    dark = corrupt(blue, "low_light", 1)
    assert dark[..., 0].mean() == pytest.approx(255 * (200 / 255) ** 1.8, abs=1.5) and dark[..., 1:].max() == 0


def test_unknown_names_and_strengths(picture):
    with pytest.raises(MisuseError, match=r"fogg: no such corruption \(did you mean 'fog'\?\)"):
        corrupt(picture, "fogg", 1)
    with pytest.raises(MisuseError, match="strength=4: expected 1, 2 or 3"):
        corrupt(picture, "fog", 4)


def test_albumentations_is_all_they_need():
    """So that an artifact is evaluated under them where there is no torch."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'ultralytics'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from yolo_kd.data.corruptions import corrupt, corruptions\n"
        "grey = np.full((64, 64, 3), 128, np.uint8)\n"
        "print(*(name for name in corruptions() if corrupt(grey, name, 3).shape == grey.shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(corruptions())


def test_without_it_they_say_what_to_install(monkeypatch, picture):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(MisuseError, match="corruptions need albumentations: pip install albumentations$"):
        corrupt(picture, "fog", 1)
