"""A comparison as one HTML file, with the pictures of the examples in it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem;
  padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #8884; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.changed td { background: #f5a62326; }
.example { display: flex; gap: 1.2rem; align-items: flex-start; flex-wrap: wrap; }
.example img { max-width: 220px; max-height: 220px; min-height: 64px; display: block; }
figure { margin: .6rem 0; max-width: 220px; }
figcaption, .problem { font-size: 13px; opacity: .75; overflow-wrap: anywhere; }
"""

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
    title = f"Run {facts['run']} beside {facts['with']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(_table_part(table, figures) for table in facts["tables"]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table_part(table: Mapping[str, Any], figures: Figures) -> str:
    ignored = f"; ignored: {', '.join(table['ignored'])}" if table["ignored"] else ""
    parts = [
        f"<h2>{escape(table['table'])}</h2>",
        f"<p>{table['matched']:,} rows matched, {_percent(table['agreement'])} the same; "
        f"{table['only_new']:,} only in the run, {table['only_old']:,} only before"
        f"{escape(ignored)}.</p>",
        _grid(
            ("column", "the same", "mean before", "mean in run", "shift", "largest change"),
            (
                (name, _percent(column["agreement"]), *_numbers(column))
                for name, column in table["columns"].items()
            ),
            numbers=range(1, 6),
        ),
    ]
    for name, column in table["columns"].items():
        cells = column.get("changes") or ()
        if any(cell["old_value"] != cell["new_value"] for cell in cells):
            rows = ((cell["old_value"], cell["new_value"], f"{cell['n']:,}") for cell in cells)
            parts += [
                f"<h3>{escape(name)}</h3>",
                _grid(("before", "in run", "rows"), rows, numbers=(2,)),
            ]
    if table["examples"]:
        parts.append("<h3>Changed most</h3>")
    parts += [
        _example(example, table["ignored"], figures.get((table["table"], number), ()))
        for number, example in enumerate(table["examples"])
    ]
    return "\n".join(parts)


def _example(example: Mapping[str, Any], ignored: Sequence[str], figures: Sequence[Figure]) -> str:
    old, new = example["old"], example["new"]
    rows = "".join(
        ("<tr>" if name in ignored or old[name] == new[name] else '<tr class="changed">')
        + f"<td>{escape(name)}</td><td>{_text(old[name])}</td><td>{_text(new[name])}</td></tr>"
        for name in old
    )
    head = "<tr><th>column</th><th>before</th><th>in run</th></tr>"
    where = "" if example["sequence"] is None else f", sequence {example['sequence']:,}"
    problem = example.get("problem")
    return (
        f"<h4>{escape(example['input'])}{where}</h4>"
        + (f'<p class="problem">its input: {_text(problem)}</p>' if problem else "")
        + f'<div class="example">{"".join(map(_figure, figures))}'
        + f"<table>{head}{rows}</table></div>"
    )


def _figure(figure: Figure) -> str:
    text = _text(figure.text)
    image = "" if figure.url is None else f'<img src="{escape(figure.url)}" alt="{text}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _grid(titles: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def line(tag: str, values: Iterable[str]) -> str:
        cells = "".join(
            f"<{tag}{' class=n' if at in right else ''}>{_text(value)}</{tag}>"
            for at, value in enumerate(values)
        )
        return f"<tr>{cells}</tr>"

    return f"<table>{line('th', titles)}{''.join(line('td', row) for row in rows)}</table>"


def _numbers(column: Mapping[str, Any]) -> list[str]:
    found = column.get("numbers") or {}
    values = [found.get(name) for name in ("old_mean", "new_mean", "shift", "most_change")]
    return ["" if value is None else f"{value:,.4g}" for value in values]


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.2f} %"


def _text(value: Any) -> str:
    text = "-" if value is None else str(value)
    return escape(text if len(text) <= 300 else text[:300] + " ...")
