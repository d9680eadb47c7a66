"""How long a developer waits: `make check`, `make test` and `yolo-kd demo`, one after the other, each once.

    python -m benchmarks.durations
    python -m benchmarks.durations only=check,demo write=false

They run in the environment of the Python that runs this, in which nothing is installed or brought up to date: where
packages or the browser of the tests are missing, they fail. The demo starts in an empty folder with nothing cached;
ruff and mypy take what an earlier run left, as before any commit but the first. What the commands print is shown.
Minutes are wall clock; CPU minutes are those of all cores together. Only a run of all, each of which ended well, writes
a result.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inputs import listed
from benchmarks.machine import quiet
from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.errors import did_you_mean
from yolo_kd.evidence.table import aligned

DEFAULTS: dict[str, Any] = {"only": None, "write": True}
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Command:
    """One command of the front door.

    Args:
        name: As a user types it.
        words: What is started.
        limit: Minutes that it may take on two cores.
        folder: Where it runs; None for an empty one.
    """

    name: str
    words: list[str]
    limit: float
    folder: Path | None = None


def commands(environment: Path) -> dict[str, Command]:
    """What `only=` can name; the targets that install something count as done.

    Args:
        environment: Folder of the virtual environment.
    """
    make = ["make", f"--old-file={environment}/.installed", "--old-file=browser", f"VENV={environment}"]
    return {
        "check": Command("make check", [*make, "check"], 2.0, ROOT),
        "test": Command("make test", [*make, "test"], 10.0, ROOT),
        "demo": Command("yolo-kd demo", [str(environment / "bin" / "yolo-kd"), "demo"], 12.0),
    }


def main() -> int:
    """Run, print, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:], DEFAULTS)}
    known = commands(Path(sys.prefix))
    chosen = listed(keys["only"]) if keys["only"] else list(known)
    for word in {*keys} - {*DEFAULTS} | {*chosen} - {*known}:
        hint = did_you_mean(word, [*DEFAULTS, *known])
        print(f"durations: '{word}' is no key, and none of {', '.join(known)}{hint}", file=sys.stderr)
        return 2
    notes = quiet()
    rows = [timed(known[word]) for word in chosen]
    failed = [row["command"] for row in rows if row["exit code"]]
    if failed or keys["only"] or not keys["write"]:
        print(aligned(rows))
        for name in failed:
            print(f"durations: {name} failed, so its time says nothing", file=sys.stderr)
        return 1 if failed else 0
    bars = [
        bar(f"{row['command']}, minutes", row["minutes"], known[word].limit, "<=") for word, row in zip(chosen, rows)
    ]
    write("durations", command_line(), rows, bars, notes=notes)
    return 0


def timed(command: Command) -> dict[str, Any]:
    """Run a command to its end; what it took."""
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
        environment = {**os.environ, **({} if command.folder else {"YOLO_KD_HOME": f"{work}/home"})}
        before, start = _processor_seconds(), time.perf_counter()
        try:
            code = subprocess.run(command.words, cwd=command.folder or work, env=environment, check=False).returncode
        except OSError as error:
            print(f"durations: {command.words[0]}: {error.strerror}", file=sys.stderr)
            code = 127  # a shell's for a command that is not there
        taken = time.perf_counter() - start
    used = _processor_seconds() - before
    return {"command": command.name, "minutes": taken / 60, "CPU minutes": used / 60, "exit code": code}


def _processor_seconds() -> float:
    """Of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
