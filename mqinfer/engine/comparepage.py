"""A comparison as one HTML file, with the pictures of the examples in it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
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
.example img { max-width: 220px; max-height: 220px; image-rendering: auto; }
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


def blob_values(facts: Mapping[str, Any]) -> set[str]:
    """What the examples of a comparison say of their blobs: paths, and `data:` URLs."""
    return {
        side[name]
        for table in facts["tables"]
        for example in table["examples"]
        for side in (example["old"], example["new"])
        for name in table["blobs"]
        if side[name]
    }


def page(facts: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: as `mqinfer.engine.compare.compare` gives them.
        pictures: the URL of each blob's picture, by what its column says.
    """
    title = f"Run {facts['run']} beside {facts['with']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(_table_part(table, pictures) for table in facts["tables"]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table_part(table: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    parts = [
        f"<h2>{escape(table['table'])}</h2>",
        f"<p>{table['matched']:,} rows matched, {_percent(table['agreement'])} the same; "
        f"{table['only_new']:,} only in the run, {table['only_old']:,} only before.</p>",
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
    parts += [_example(example, table["blobs"], pictures) for example in table["examples"]]
    return "\n".join(parts)


def _example(example: Mapping[str, Any], blobs: Iterable[str], pictures: Mapping[str, str]) -> str:
    old, new = example["old"], example["new"]
    shown = dict.fromkeys(side[name] for name in blobs for side in (old, new))
    images = "".join(
        f'<img src="{escape(pictures[value])}" alt="{escape(value[:200])}">'
        for value in shown
        if value in pictures
    )
    rows = "".join(
        ("<tr>" if old[name] == new[name] else '<tr class="changed">')
        + f"<td>{escape(name)}</td><td>{_text(old[name])}</td><td>{_text(new[name])}</td></tr>"
        for name in old
    )
    head = "<tr><th>column</th><th>before</th><th>in run</th></tr>"
    return (
        f"<h4>{escape(example['input'])}</h4>"
        f'<div class="example">{images}<table>{head}{rows}</table></div>'
    )


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
