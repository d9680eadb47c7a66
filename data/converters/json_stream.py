"""JSON files of any size, read entry by entry: COCO's train2017 is one line of 450 MB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from yolo_kd.errors import MisuseError

CHUNK = 1 << 20  # characters read at a time
_SPACE = " \t\n\r"


def entries(path: Path) -> Iterator[tuple[str, int, int, Any]]:
    """The entries of every list of a JSON file, one at a time.

    Yields:
        The list's key ("" for a file that is one list), the entry's number in it from 0, the line it begins in, and the
        entry. A key comes first with the number -1 and its value, None for a list.

    Raises:
        MisuseError: It cannot be read, or is no JSON of that form; the message names file and line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = _Text(file)
            first = text.take("[{")
            if first == "[":
                yield from _list(text, "")
            else:
                yield from _object(text)
            if text.peek():
                raise text.wrong("the end")
    except _NoJsonError as error:
        raise MisuseError(f"{path}:{error.line}: {error}") from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise MisuseError(f"{path}:1: cannot be read ({what})") from None


def _object(text: _Text) -> Iterator[tuple[str, int, int, Any]]:
    mark = "" if text.peek() != "}" else text.take("}")
    while mark != "}":
        if text.peek() != '"':
            raise text.wrong("a key in quotes")
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            text.take("[")
            yield key, -1, text.line, None
            yield from _list(text, key)
        else:
            line = text.line
            yield key, -1, line, text.value()
        mark = text.take(",}")


def _list(text: _Text, key: str) -> Iterator[tuple[str, int, int, Any]]:
    mark, number = "" if text.peek() != "]" else text.take("]"), 0
    while mark != "]":
        text.peek()
        line = text.line
        yield key, number, line, text.value()
        number += 1
        mark = text.take(",]")


class _NoJsonError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Text:
    """A window on the text that moves on as it is consumed."""

    def __init__(self, file: TextIO) -> None:
        self.line = 1
        self._file, self._window, self._at = file, "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space, or an empty text at the end."""
        while True:
            while self._at < len(self._window) and self._window[self._at] in _SPACE:
                self.line += self._window[self._at] == "\n"
                self._at += 1
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> str:
        """The next character, which has to be one of these."""
        found = self.peek()
        if not found or found not in wanted:
            raise self.wrong(" or ".join(wanted))
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, read as far as it goes."""
        self.peek()
        while True:
            try:
                found, end = self._decode(self._window, self._at)
            except ValueError:
                if self._more():
                    continue
                raise self.wrong("a value") from None
            except RecursionError:
                raise self.wrong("a value of less depth") from None
            if len(self._window) - end < len("e+1") and self._more():
                continue  # a number may go on
            self.line += self._window.count("\n", self._at, end)
            self._at = end
            return found

    def wrong(self, expected: str) -> _NoJsonError:
        """What to say of the place that was reached."""
        found = self._window[self._at : self._at + 30].split("\n")[0] or "the end of the file"
        return _NoJsonError(self.line, f"no JSON as expected: {expected} should be here, found '{found}'")

    def _more(self) -> bool:
        chunk = self._file.read(CHUNK)
        if chunk:
            self._window, self._at = self._window[self._at :] + chunk, 0
        return bool(chunk)
