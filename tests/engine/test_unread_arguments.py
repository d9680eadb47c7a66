"""Arguments that nothing reads, where a run starts and where one goes on."""

from __future__ import annotations

from tests.engine.stopping import FAST, stop

LINE = (
    "WARNING csgr.tau=0.2 changes nothing: only the term gr reads it, which this run leaves out; set csgr.gr=auto:0.5 or "
    "leave csgr.tau out"
)


def test_are_a_line_then_and_on_resume(train, make_checkpoint, lines):
    keys = {**FAST, "distill": "csgr", "csgr.gr": None, "csgr.tau": 0.2}
    last = stop(train, 1, epochs=2, teacher=str(make_checkpoint(seed=1)), **keys)
    assert [line for line in lines if "changes nothing" in line] == [LINE]
    lines.clear()
    assert train(model=str(last), resume=True).epoch == 1
    assert [line for line in lines if "changes nothing" in line] == [LINE]
