"""One HTML file that needs no network: what every report is put together from.

Whatever comes from outside (class names, paths, messages) goes through `element`, which escapes all that is not Markup,
so that no report can forget to. Pictures are inside the file, there is no script, and the browser is told to fetch
nothing.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from yolo_kd.cfg.atomic import refuse_taken, write_bytes
from yolo_kd.evidence.page_style import STYLE
from yolo_kd.evidence.summary import Summary

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VOID = frozenset({"img", "meta"})
_CONTROL = {code: "\ufffd" for code in range(0x20) if chr(code) not in "\t\n"}


class Markup(str):
    """HTML that is safe as it stands; made by `element` and `join` only."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: object) -> Markup:
    """An element of HTML or SVG; text is escaped unless it is Markup.

    Args:
        tag: Its name.
        children: Text and Markup in order; None is left out.
        attributes: `class_` stands for class, `_` for a hyphen; None is left out, numbers are rounded to hundredths.

    >>> element("p", "a < b", element("b", "c"), class_="x", data_n=1.5)
    '<p class="x" data-n="1.5">a &lt; b<b>c</b></p>'
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Iterable[str | None]) -> Markup:
    """Text and Markup one after the other, the text escaped; None is left out."""
    return Markup("".join(c if isinstance(c, Markup) else _escape(c) for c in children if c is not None))


def picture(data: bytes, alt: str, kind: str = "jpeg") -> Markup:
    """A picture inside the page.

    Args:
        data: The bytes of the file.
        alt: What it shows, for those who cannot see it.
        kind: "jpeg" or "png".
    """
    return element("img", src=f"data:image/{kind};base64,{base64.b64encode(data).decode()}", alt=alt)


def section(title: str, *children: str | None, note: str = "") -> Markup:
    """A part of the page with a heading, and under it a line that says how to read what follows."""
    return element("section", element("h2", title), element("p", note, class_="note") if note else None, *children)


def verdict(summary: Summary) -> Markup:
    """What it all came to, on top of the page."""
    figures = (element("div", element("b", number), element("span", what)) for number, what in summary.figures)
    return element(
        "section",
        element("h2", summary.heading),
        *(element("p", line) for line in summary.lines),
        element("div", *figures, class_="figures") if summary.figures else None,
        class_=f"verdict {'passed' if summary.good else 'rejected'}",
    )


def coloured(kind: str) -> str:
    """The class of style that gives a kind of candidate its colour.

    >>> coloured("not judged")
    'k-not-judged'
    """
    return f"k-{kind.replace(' ', '-')}"


def mind(notes: Iterable[str]) -> Markup:
    """Lines that the reader must not miss."""
    return element("aside", element("b", "Mind"), bullets(notes), class_="mind")


def definitions(facts: Mapping[str, str]) -> Markup:
    """Names and values in two columns."""
    rows = (join((element("dt", name), element("dd", value))) for name, value in facts.items())
    return element("dl", *rows)


def bullets(lines: Iterable[str], class_: str | None = None) -> Markup:
    """A list, one point a line."""
    return element("ul", *(element("li", line) for line in lines), class_=class_)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], broad: Collection[str] = (), row_classes: Sequence[str] = ()
) -> Markup:
    """A table that becomes a list of cards on a phone.

    Args:
        heads: Names of the columns.
        rows: Cells in the order of `heads`; text is escaped, Markup is not.
        broad: Columns of text: they take the whole breadth of a card and may be broken into lines.
        row_classes: A class of style for each row.
    """
    body = []
    for index, row in enumerate(rows):
        cells = (
            element("td", cell, data_label=head, class_="broad" if head in broad else None)
            for head, cell in zip(heads, row, strict=True)
        )
        body.append(element("tr", *cells, class_=row_classes[index] if row_classes else None))
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in heads)))
    return element("div", element("table", head, element("tbody", *body)), class_="table")


def document(title: str, *sections: str | None) -> Markup:
    """The whole page."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element("body", element("main", element("h1", title), *sections))
    return Markup(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")


def require_own(path: Path) -> None:
    """Refuse a place where something lies that is no page of ours.

    Raises:
        MisuseError: Something else is there, or the place cannot be written.
    """
    refuse_taken(path, html.escape(POLICY))


def write(path: Path, page: Markup) -> None:
    """Write the page in one move: there is the whole of it, or what was there before.

    Raises:
        MisuseError: It cannot be written there.
    """
    write_bytes(path, page.encode("utf-8", "replace"))  # a file name may hold what UTF-8 cannot


def _escape(text: str) -> str:
    return html.escape(text.translate(_CONTROL), quote=True)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
