"""The time that `yolo-kd demo` says is left, and the epochs that fit into twelve minutes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from yolo_kd.engine import ultra
from yolo_kd.modes import demo, demo_time
from yolo_kd.modes.demo_time import LIMIT, STEP, Progress, expected_minutes, fitted, seconds_per_step

SLOW = 10 * STEP


def whole(keys: dict[str, Any], step: float = STEP) -> float:
    return sum(expected_minutes(keys, step).values())


def test_the_time_left_is_told_from_the_first_part_on(monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    clock = [0.0]
    monkeypatch.setattr(demo_time.time, "monotonic", lambda: clock[0])
    progress = Progress(expected_minutes(demo.DEFAULTS, STEP))
    rest = sum(progress.minutes.values())
    progress.begin("render scenes")
    assert f"part 1 of 6: render scenes (0.0 min so far, about {rest:.0f} min left)" in caplog.text
    progress.end("render scenes")  # at once: they were there already
    progress.begin("teacher")
    rest -= progress.minutes["render scenes"]
    assert f"part 2 of 6: teacher (0.0 min so far, about {rest:.0f} min left)" in caplog.text
    progress.end("teacher")
    done = progress.done
    rest -= progress.minutes["teacher"]
    clock[0] = 60 * 3 * done  # a third of the speed
    progress.begin("plain student")
    assert f"so far, about {3 * rest:.0f} min left)" in caplog.text


def test_fewer_pictures_and_epochs_take_less() -> None:
    usual = expected_minutes(demo.DEFAULTS, STEP)
    assert demo.DEFAULTS["images"] == 448 and demo_time.VAL_IMAGES == 120, "which every epoch sees, too"
    halves = {key: demo.DEFAULTS[key] / 2 for key in ("imgsz", "teacher_epochs")}
    less = expected_minutes({**demo.DEFAULTS, "images": 164, **halves}, STEP)
    assert less["render scenes"] == pytest.approx(usual["render scenes"] / 8)
    assert less["teacher"] == pytest.approx(usual["teacher"] / 16)
    set_up = demo_time.SET_UP
    assert less["distilled student"] - set_up == pytest.approx((usual["distilled student"] - set_up) / 8)
    assert less["INT8"] == usual["INT8"] and list(less) == list(usual)


def test_a_machine_of_half_the_speed_takes_twice_as_long() -> None:
    assert whole(demo.DEFAULTS, 2 * STEP) == pytest.approx(2 * whole(demo.DEFAULTS))


def test_where_the_demo_ends_in_time_nothing_is_cut(caplog) -> None:
    caplog.set_level("INFO")
    quick = STEP * LIMIT / whole(demo.DEFAULTS)
    assert fitted(demo.DEFAULTS, {}, 0.999 * quick) == demo.DEFAULTS and not caplog.text
    assert fitted(demo.DEFAULTS, {}, 1.001 * quick) != demo.DEFAULTS


def test_elsewhere_all_nets_get_the_most_epochs_that_end_in_time(caplog) -> None:
    caplog.set_level("INFO")
    keys = fitted(demo.DEFAULTS, {}, STEP)
    epochs = keys["epochs"]
    assert keys == {**demo.DEFAULTS, "epochs": epochs, "teacher_epochs": epochs} and 6 < epochs < 12
    assert whole(keys) <= LIMIT < whole({**keys, "epochs": epochs + 1, "teacher_epochs": epochs + 1})
    assert f"would take about {whole(demo.DEFAULTS):.0f} min: {epochs} epochs for each net" in caplog.text
    assert "(epochs=12 teacher_epochs=13 trains as long as elsewhere)" in caplog.text


def test_a_teacher_that_would_know_too_little_is_trained_all_the_same() -> None:
    assert {k: fitted(demo.DEFAULTS, {}, SLOW)[k] for k in ("epochs", "teacher_epochs")} == {
        "epochs": 6,
        "teacher_epochs": 6,
    }


@pytest.mark.parametrize("size", ["images", "imgsz", "teacher_epochs", "epochs"])
def test_what_the_user_chose_stays(size: str, caplog) -> None:
    caplog.set_level("INFO")
    assert fitted(demo.DEFAULTS, {size: demo.DEFAULTS[size]}, SLOW) == demo.DEFAULTS and not caplog.text
    assert fitted(demo.DEFAULTS, {"seed": 1}, SLOW) != demo.DEFAULTS


def test_the_step_is_a_whole_one_of_the_teachers_and_draws_nothing(monkeypatch) -> None:
    monkeypatch.setattr(demo_time, "IMGSZ", 64)
    monkeypatch.setattr(demo_time, "BATCH", 2)
    built: list[Any] = []
    model = ultra.DetectionModel

    def kept(*args: Any, **keys: Any) -> Any:
        built.append((args, model(*args, **keys)))
        return built[-1][1]

    monkeypatch.setattr(ultra, "DetectionModel", kept)
    state = torch.random.get_rng_state()
    assert seconds_per_step() > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    [(args, net)] = built
    assert args == (demo.DEFAULTS["teacher"],)
    assert all(p.grad is not None for name, p in net.named_parameters() if "dfl" not in name), "backward, too"
