"""benchmarks.teacher_engine: what the students' bars let pass."""

from __future__ import annotations

import pytest

from benchmarks.teacher_engine import BF16, INT8, PLAIN, student_bars


@pytest.mark.parametrize(
    ("plain", "bf16", "int8", "holds"),
    [
        ((0.08, 0.09), (0.110, 0.118), (0.108, 0.106), [True, True]),
        ((0.08, 0.09), (0.110, 0.118), (0.105, 0.105), [False, True]),
        ((0.003, 0.005), (0.004, 0.0125), (0.0, 0.0), [True, False]),  # nobody learnt anything: INT8 only seems as good
    ],
)
def test_students_that_learnt_nothing_decide_nothing(plain, bf16, int8, holds) -> None:
    assert [bar.holds for bar in student_bars({PLAIN: plain, BF16: bf16, INT8: int8})] == holds
