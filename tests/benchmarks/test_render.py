"""The page of results: complete, the same every time, and up to date with the files it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.render import PAGE, SHORTFALLS, UNKNOWN, render
from benchmarks.result import bar, write
from yolo_kd.errors import MisuseError


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make results`"


def test_every_bar_that_falls_short_says_why() -> None:
    assert f"Why: {UNKNOWN}" not in render(), f"explain it in docs/results/{SHORTFALLS}"


def test_a_missed_bar_is_followed_by_its_reason_and_a_reason_by_a_missed_bar(tmp_path: Path) -> None:
    write("speed", "python x.py", [{"x": 1}], [bar("fast", 2, 1, "<="), bar("small", 3, 1, "<=")], folder=tmp_path)
    (tmp_path / SHORTFALLS).write_text("speed:\n  fast: the disk\n    is slow\n", encoding="utf-8")
    page = render(tmp_path)
    assert "FALLS SHORT by 1 (100 %)\n  Why: the disk is slow\n- small" in page
    assert f"FALLS SHORT by 2 (200 %)\n  Why: {UNKNOWN}\n" in page
    write("speed", "python x.py", [{"x": 1}], [bar("fast", 1, 1, "<=")], folder=tmp_path)
    with pytest.raises(MisuseError, match=f"{SHORTFALLS}: speed has no bar 'fast' that falls short"):
        render(tmp_path)


def test_tables_bars_notes_command_and_machine_are_on_the_page(tmp_path: Path) -> None:
    bars = [bar("fast", 0.5, 1, "<="), bar("accurate", 0.6, 0.8, ">=")]
    write("teacher", "python -m benchmarks.teacher runs=3", [{"a|b": 1}, {"c": True}], bars, ["cold"], folder=tmp_path)
    page = render(tmp_path)
    assert "1 of 2 bars hold." in page
    assert "| [teacher](#teacher) | accurate | 0.6 | >= 0.8 | **FALLS SHORT by 0.2 (25 %)** |" in page
    assert "| [teacher](#teacher) | fast | 0.5 | <= 1 | HOLDS by 0.5 (50 %) |" in page
    assert "| a\\|b | c |\n|---:|---|\n| 1 | - |\n| - | yes |\n" in page
    assert "```\npython -m benchmarks.teacher runs=3\n```" in page
    assert "Note: cold" in page and " cores" in page and "python 3." in page


def test_the_order_of_writing_does_not_matter(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(name, "python x.py", [{"x": 1}], [], folder=tmp_path)
    first = render(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "kept")
    (tmp_path / "kept").rename(tmp_path / "a.json")
    assert render(tmp_path) == first
    assert first.index("## a") < first.index("## b")


def test_a_plot_goes_to_the_benchmark_with_the_longest_matching_name(tmp_path: Path) -> None:
    for name in ("speed", "speed_teacher"):
        write(name, "python x.py", [{"x": 1}], [], folder=tmp_path)
    for picture in ("speed.png", "speed_teacher_cpu.png", "other.png"):
        (tmp_path / picture).write_bytes(b"")
    page = render(tmp_path)
    speed, teacher = page.split("## speed_teacher")
    assert f"![speed]({tmp_path.name}/speed.png)" in speed and "speed_teacher_cpu.png" not in speed
    assert f"({tmp_path.name}/speed_teacher_cpu.png)" in teacher
    assert "other.png" not in page


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    assert "No benchmark has been recorded yet." in render(tmp_path)


def test_a_malformed_file_stops_the_page(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MisuseError, match=r"x.json: missing keys"):
        render(tmp_path)
