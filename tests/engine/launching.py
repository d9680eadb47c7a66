"""Processes that work together, and end together whatever becomes of one of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence


def run_together(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]] = (), seconds: float = 240
) -> list[int | None]:
    """Their exit codes; when one has failed or the time is over, the others, which would wait for it, are killed.

    Args:
        commands: A program with its arguments each.
        environments: Of each; this process's own if there is none.
        seconds: For all of them.
    """
    settings = environments or [os.environ] * len(commands)
    running = [subprocess.Popen(words, env=env) for words, env in zip(commands, settings, strict=True)]
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            codes = [process.poll() for process in running]
            if None not in codes or any(codes):
                break
            time.sleep(0.05)
        return [process.poll() for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
