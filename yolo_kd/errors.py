"""The exception tree and the exit codes of the command line.

YoloKDError (1, failed)
├── MisuseError (2, the command, a key or a file is wrong; the user can mend it)
└── GateError (3, a check refused to go on; `force=true` or better inputs)

Every message is one line: what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class YoloKDError(Exception):
    """Something failed that the user did not do wrong; exit code 1."""

    exit_code = 1


class MisuseError(YoloKDError):
    """A key, value or file is not what the command can work with; exit code 2."""

    exit_code = 2


class GateError(YoloKDError):
    """A measured check refused to go on; exit code 3."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint ` (did you mean 'x'?)` for the nearest known word, or an empty string.

    >>> did_you_mean("epoch", ["epochs", "batch"])
    " (did you mean 'epochs'?)"
    >>> did_you_mean("zzz", ["epochs"])
    ''
    """
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
