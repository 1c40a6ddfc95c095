"""Facts for people and for programs: tables, progress bars, JSON."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def print_json(value: Any, *, line: bool = False) -> None:
    """Print facts as JSON; times are ISO 8601.

    Args:
        value: of plain types.
        line: on one line, for a stream of values.
    """
    print(json.dumps(value, indent=None if line else 2, default=_plain, ensure_ascii=False))
    sys.stdout.flush()


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str]) -> Table:
    """A table of texts.

    Args:
        columns: their titles.
        rows: one text a column.
        right: titles of the columns that hold numbers.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(text) for text in row))  # no markup: texts of users hold brackets
    return made


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table; as wide as it needs when the output is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 400
    for text in _rendered(Console(width=width, highlight=False), columns, rows, right):
        print(text)


def _rendered(
    console: Any, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> Iterator[str]:
    with console.capture() as capture:
        console.print(table(columns, rows, right=right))
    yield from (line.rstrip() for line in capture.get().strip("\n").split("\n"))


@contextmanager
def byte_progress(source: IO[bytes]) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; its value is called with bytes that were read and messages stored."""
    if not sys.stderr.isatty():
        yield lambda _bytes, _stored: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    try:
        size = os.fstat(source.fileno()).st_size or None
    except (OSError, ValueError):
        size = None
    columns = (
        TextColumn("publishing"),
        BarColumn(),
        TextColumn("{task.fields[stored]:,} stored"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=size, stored=0)

        def advance(count: int, stored: int) -> None:
            progress.update(task, advance=count, stored=stored)

        yield advance
