"""Reading values as people mean them: YAML takes `1e-3` for text and `on` for True; we try numbers first."""

from __future__ import annotations

import ast
from typing import Any

_WORDS: dict[str, Any] = {"none": None, "null": None, "true": True, "false": False}


def read_value(text: Any) -> Any:
    """The value that a person means by `text`; anything but a string is returned as it is.

    >>> [read_value(t) for t in ("1e-3", ".2", "8", "True", "none", "on", "[1, 2]", "auto:0.5")]
    [0.001, 0.2, 8, True, None, 'on', [1, 2], 'auto:0.5']
    """
    if not isinstance(text, str):
        return text
    word = text.strip()
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word
