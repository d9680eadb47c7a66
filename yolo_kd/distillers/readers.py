"""Which terms read an argument, and with which values of others: each method declares it beside its arguments.

An argument that nothing reads is no harmless one: whoever sweeps it compares equal runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from yolo_kd.distillers import arguments, load


@dataclass(frozen=True)
class Not:
    """Any value but this one."""

    value: Any


@dataclass(frozen=True)
class Reader:
    """What reads an argument.

    Args:
        terms: One of these has to be in the run.
        values: What other arguments have to be, a value or Not(value).
    """

    terms: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    def missing(self, method: str, terms: Collection[str], values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Why nothing reads the argument, and what would have to be set; both empty where it is read.

        Args:
            method: Name of the distiller.
            terms: Those in the run.
            values: All arguments.
        """
        reasons, remedies = [], []
        if not set(self.terms) & set(terms):
            several = len(self.terms) > 1
            who = f"the terms {' and '.join(self.terms)} read" if several else f"the term {self.terms[0]} reads"
            reasons.append(f"only {who} it, which this run leaves out")
            remedies.append(f"{method}.{self.terms[0]}=auto:0.5")
        for name, wanted in self.values.items():
            key, value = f"{method}.{name}", values[name]
            if isinstance(wanted, Not):
                if value == wanted.value:
                    reasons.append(f"with {key}={value} nothing reads it")
                    remedies.append(f"another {key}")
            elif value != wanted:
                reasons.append(f"it is read with {key}={wanted} only, not with {value}")
                remedies.append(f"{key}={wanted}")
        return reasons, remedies


def read_by(*terms: str, **values: Any) -> Reader:
    """A reader as a method declares it.

    >>> read_by("gr", form="yolo").missing("csgr", ["gr"], {"form": "paper"})[1]
    ['csgr.form=yolo']
    """
    return Reader(terms, values)


def unread(method: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """The arguments among the settings that nothing reads, each with a line that says why and what to do.

    Args:
        method: Name of the distiller.
        settings: Its gains and arguments, mixed by key as in a recipe; all of them exist.
    """
    kind, values = load(method), {**arguments(method), **settings}
    terms = [term for term in kind.terms if settings.get(term) is not None]
    lines = {}
    for name in (name for name in settings if name not in kind.terms):
        reasons, remedies = kind.readers[name].missing(method, terms, values)
        if reasons:
            key = f"{method}.{name}"
            lines[name] = (
                f"{key}={settings[name]} changes nothing: {', and '.join(reasons)}; set {' and '.join(remedies)} or leave {key} out"
            )
    return lines
