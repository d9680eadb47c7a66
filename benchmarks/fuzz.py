"""Inputs made wrong on purpose: 10,000 end in a clear line or a clean run, or are listed as escapes.

    python -m benchmarks.fuzz
    python -m benchmarks.fuzz log=runs/fuzz.jsonl
    python -m benchmarks.fuzz only=labels inputs=500 keep=runs/escapes
    python -m benchmarks.fuzz only=labels:137

What an input is, who reads it and what counts as an escape stands in tests/fuzz. The inputs run one after the other in a
process of their own, so that one that hangs or ends the process by force is seen as well; such a one is tried again alone,
and counts if it does it again. A result is written only by a run of all kinds over the full number. With `log` every answer
is kept, and the same command goes on behind the last one.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.table import aligned

DEFAULTS: dict[str, Any] = {"inputs": 10_000, "seed": 0, "only": None, "keep": None, "log": None, "limit_s": 60}
FULL = 10_000
MEMORY = 4 << 30  # bytes that a worker may take beyond what it has when it begins
Answer = tuple[str, str, str]  # way in, word, what


def main() -> int:
    """Run, print, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    from tests.fuzz.kinds import SLOTS

    plan = planned(list(SLOTS), int(keys["inputs"]), keys["only"])
    counts: dict[str, Counter[str]] = {kind: Counter() for kind, _ in plan}
    escapes, last = [], 0.0
    with tempfile.TemporaryDirectory(prefix="yolo-kd-fuzz-") as work:
        for done, (kind, number, (slot, word, what)) in enumerate(
            logged(plan, int(keys["seed"]), Path(work), float(keys["limit_s"]), keys["log"]), 1
        ):
            counts[kind][word] += 1
            if word == "escape":
                escapes.append(f"{kind}:{number} ({slot}): {what}")
                print(f"ESCAPE {escapes[-1]}", flush=True)
                if keys["keep"] and (Path(work) / "seeds").exists():  # else it was kept when it was logged
                    _keep(Path(str(keys["keep"])), kind, number, int(keys["seed"]), Path(work) / "seeds")
            elif len(plan) == 1:
                print(f"{kind}:{number} ({slot}): {word} {what}")
            if time.monotonic() - last > 30:
                last = time.monotonic()
                print(f"{done} of {len(plan)}, {len(escapes)} escapes", flush=True)
    rows = [
        {"kind": kind, "inputs": c.total(), "clean runs": c["clean"], "clear lines": c["line"], "escapes": c["escape"]}
        for kind, c in counts.items()
    ]
    if keys["only"] or len(plan) < FULL:
        print(aligned(rows))
        return 1 if escapes else 0
    notes = [f"seed {keys['seed']}; each input has at most {keys['limit_s']:g} s and {MEMORY >> 30} GiB"]
    bars = [bar("escapes", len(escapes), 0, "<="), bar("inputs", len(plan), FULL, ">=")]
    write("fuzz", command_line(), rows, bars, notes=[*notes, *escapes[:20]])
    return 1 if escapes else 0


def planned(kinds: list[str], inputs: int, only: Any) -> list[tuple[str, int]]:
    """Kind and number of every input, shared out evenly over the kinds.

    Raises:
        MisuseError: `only` names no kind.

    >>> planned(["a", "b"], 3, None)
    [('a', 0), ('b', 0), ('a', 1)]
    >>> planned(["a", "b"], 3, "b:7")
    [('b', 7)]
    """
    if only is None:
        return [(kinds[i % len(kinds)], i // len(kinds)) for i in range(inputs)]
    kind, colon, number = str(only).partition(":")
    if kind not in kinds or (colon and not number.isdecimal()):
        raise MisuseError(f"only={only}: expected one of {', '.join(kinds)}, or KIND:NUMBER")
    return [(kind, int(number))] if colon else [(kind, i) for i in range(inputs)]


def logged(
    plan: list[tuple[str, int]], seed: int, work: Path, limit_s: float, log: Any
) -> Iterator[tuple[str, int, Answer]]:
    """How each input ended, in order: those that a log holds, then those that are tried now and added to it.

    Raises:
        MisuseError: The log is of other inputs.
    """
    if not log:
        yield from answers(plan, seed, work, limit_s)
        return
    path = Path(str(log))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith("\n")]  # the last one may have been cut off
    known = [json.loads(line) for line in lines]
    if [entry[:3] for entry in known] != [[seed, *entry] for entry in plan[: len(known)]]:
        raise MisuseError(
            f"log={path}: was begun with another seed, number or kind of inputs; ask for the same, or name another"
        )
    for _, kind, number, answer in known:
        yield kind, number, tuple(answer)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        for kind, number, answer in answers(plan[len(known) :], seed, work, limit_s):
            file.write(json.dumps([seed, kind, number, answer]) + "\n")
            file.flush()
            yield kind, number, answer


def answers(plan: list[tuple[str, int]], seed: int, work: Path, limit_s: float) -> Iterator[tuple[str, int, Answer]]:
    """How each input ended, in order; a worker that dies is replaced."""
    context = multiprocessing.get_context("spawn")
    done = tried = 0
    while done < len(plan):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work_off, args=(theirs, plan[done:], seed, str(work), limit_s), daemon=True)
        worker.start()
        theirs.close()
        try:
            while done < len(plan):
                answer = ours.recv()
                if isinstance(answer, Exception):
                    raise answer
                yield (*plan[done], answer)
                done, tried = done + 1, 0
        except EOFError:
            worker.join()
            tried += 1
            if tried == 2:
                yield (
                    *plan[done],
                    ("?", "escape", f"ended its process, code {worker.exitcode}, or took {limit_s:g} s"),
                )
                done, tried = done + 1, 0
        finally:
            ours.close()
        worker.join()


def work_off(pipe: Connection, plan: list[tuple[str, int]], seed: int, work: str, limit_s: float) -> None:
    """In a process of its own: try inputs, tell how each ended."""
    os.environ["YOLO_CONFIG_DIR"] = work  # Ultralytics' settings of this machine are none of our business
    from tests.fuzz.guard import Sandbox
    from tests.fuzz.kinds import make
    from tests.fuzz.seeds import make_seeds
    from tests.fuzz.stand_ins import stand_ins

    seeds = Path(work) / "seeds"
    if not seeds.exists():
        made = make_seeds(Path(tempfile.mkdtemp(dir=work)) / "seeds")
        made.rename(seeds)
    _bound_memory()
    _silence()
    sandbox = Sandbox(seeds, Path(tempfile.mkdtemp(dir=work)) / "in" / "here")
    with stand_ins(Path(work) / "home"):
        for kind, number in plan:
            faulthandler.dump_traceback_later(limit_s, exit=True)
            try:
                one = make(kind, number, seed, seeds)
                found = one.run(sandbox)
            except Exception as error:  # ours, not the input's: the parent stops
                pipe.send(error)
                raise
            faulthandler.cancel_dump_traceback_later()
            pipe.send((one.slot.name, found.word, found.what))


def _bound_memory() -> None:
    """An input that swells ends in a MemoryError, not in a machine that stands still."""
    taken = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line
    )
    resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + MEMORY,) * 2)


def _silence() -> None:
    """What libraries print goes nowhere; what the watchdog says goes to stderr."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _keep(folder: Path, kind: str, number: int, seed: int, seeds: Path) -> None:
    from tests.fuzz.kinds import make

    folder.mkdir(parents=True, exist_ok=True)
    one = make(kind, number, seed, seeds)
    suffix = Path(one.slot.place or "words.json").suffix
    (folder / f"{kind}~{one.slot.name}~{number}{suffix}").write_bytes(one.content)


if __name__ == "__main__":
    sys.exit(main())
