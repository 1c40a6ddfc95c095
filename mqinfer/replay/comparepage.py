"""A comparison as one HTML file, with the pictures of the examples in it. Pure.

The page is `comparepage.html` beside this file; Jinja2 escapes every value that it is given, and is
imported when the first page is made.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# How the files begin that a browser shows as pictures.
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def data_url(content: bytes) -> str | None:
    """A picture as a URL that holds it, or None for what a browser does not show."""
    for start, kind in _PICTURES:
        if content.startswith(start):
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return None


@dataclass(frozen=True, slots=True)
class Figure:
    """A blob beside an example.

    Attributes:
        text: what it is, and why it is not shown where it is not.
        url: of the picture, with the picture in it; None where there is none.
    """

    text: str
    url: str | None = None


Figures = Mapping[tuple[str, int], Sequence[Figure]]


def page(facts: Mapping[str, Any], figures: Figures) -> str:
    """The page.

    Args:
        facts: as `mqinfer.replay.compare.compare` gives them.
        figures: of each example, by table and the example's number in it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mqinfer.replay", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        text=_text, number="{:,}".format, percent=_percent, columns=_columns, changes=_changes
    )
    return environment.get_template("comparepage.html").render(facts=facts, figures=figures)


def _columns(table: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """A line for each column: how much is the same, and the means of numbers."""
    for name, column in table["columns"].items():
        found = column.get("numbers") or {}
        values = [found.get(key) for key in ("old_mean", "new_mean", "shift", "most_change")]
        shown = ["" if value is None else f"{value:,.4g}" for value in values]
        yield name, _percent(column["agreement"]), *shown


def _changes(table: Mapping[str, Any]) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """The columns whose labels have changed, with how many rows went from which to which."""
    for name, column in table["columns"].items():
        cells = column.get("changes") or ()
        if any(cell["old_value"] != cell["new_value"] for cell in cells):
            yield name, [(cell["old_value"], cell["new_value"], f"{cell['n']:,}") for cell in cells]


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f} %"


def _text(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 300 else text[:300] + " ..."
