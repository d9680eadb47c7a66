"""The exception tree and the exit codes of the command line.

YoloKDError (1, failed)
├── MisuseError (2, the command, a key or a file is wrong; the user can mend it)
└── GateError (3, a check refused to go on; `force=true` or better inputs)

Every message is one line: what was expected, what came, what to do. It may quote what a stranger wrote (a key, a label, a
file name), so what would break the line or steer a terminal is shown as an escape, and what is endless is cut.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 1000  # characters of a message
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # what sets a terminal's colour or weight, and does nothing else


class YoloKDError(Exception):
    """Something failed that the user did not do wrong; exit code 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class MisuseError(YoloKDError):
    """A key, value or file is not what the command can work with; exit code 2."""

    exit_code = 2


class GateError(YoloKDError):
    """A measured check refused to go on; exit code 3."""

    exit_code = 3


def one_line(text: str) -> str:
    r"""The text as one printable line of at most `LONGEST` characters, cut in its middle.

    >>> print(one_line("two\nlines and a \x1b[2J"))
    two\nlines and a \x1b[2J
    >>> print(one_line("\x1b[34m\x1b[1mval: \x1b[0mError loading data"))
    val: Error loading data
    """
    plain = COLOUR.sub("", text)  # Ultralytics' own messages have some
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 3 :]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint ` (did you mean 'x'?)` for the nearest known word, or an empty string.

    >>> did_you_mean("epoch", ["epochs", "batch"])
    " (did you mean 'epochs'?)"
    >>> did_you_mean("zzz", ["epochs"])
    ''
    """
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
