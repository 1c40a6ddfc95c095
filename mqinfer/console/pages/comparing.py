"""Comparing: a run beside what was said before, the matrix of each label, and rows of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mqinfer.console import rendering
from mqinfer.console.figures import Figure
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.marker import Label, marks_of
from mqinfer.replay import coverage
from mqinfer.replay.compare import LIVE, Comparison, compare
from mqinfer.replay.examples import attach
from mqinfer.replay.promote import Promotions

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.console.site import Site
    from mqinfer.message import Row
    from mqinfer.replay.examples import Attached
    from mqinfer.replay.run import Run

KEY: Final = "="  # before a value in an address, so that "" is none that is missing
_EVERY: Final = 60.0  # seconds between comparisons of a run that stays as it is
_EXAMPLES: Final = 6
_CELL: Final = 12
_SIDE: Final = 12  # labels of a matrix, the most frequent
_PICTURES: Final = 3
_HEATS: Final = 5


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a matrix.

    Attributes:
        old: value before.
        new: value in the run.
        rows: that went from the one to the other.
        heat: 0 to 5, by its part of the row of the matrix.
    """

    old: str
    new: str
    rows: int
    heat: int

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return self.old == self.new


@dataclass(frozen=True, slots=True)
class Matrix:
    """What became of each value of a label.

    Attributes:
        column: the label.
        values: before and in the run, the most frequent first.
        lines: of cells, by the value before.
        rest: rows of values that have no place in it, as far as they were counted.
        label: whether the column says that it is one.
    """

    column: str
    values: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    rest: int
    label: bool = False


def matrix_of(column: str, changes: Sequence[Mapping[str, Any]]) -> Matrix:
    """The matrix of a label.

    Args:
        column: the label.
        changes: `old_value`, `new_value` and `n`, as a comparison gives them.
    """
    rows: dict[str, int] = {}
    for one in changes:
        for value in {one["old_value"], one["new_value"]}:
            rows[value] = rows.get(value, 0) + int(one["n"])
    ranked = sorted(rows, key=lambda value: (-rows[value], value))
    values = tuple(sorted(ranked[:_SIDE], key=_natural))
    cells = {(one["old_value"], one["new_value"]): int(one["n"]) for one in changes}
    lines = []
    for old in values:
        total = sum(cells.get((old, new), 0) for new in values)
        lines.append(tuple(_cell(old, new, cells.get((old, new), 0), total) for new in values))
    shown = sum(cell.rows for line in lines for cell in line)
    return Matrix(column, values, tuple(lines), sum(cells.values()) - shown)


def _matrices(row: type[Row], table: Mapping[str, Any]) -> list[Matrix]:
    """The matrices worth looking at: of labels, and of what has few values that change."""
    labels = {mark.column for mark in marks_of(row) if isinstance(mark.marker, Label)}
    found = []
    for column, facts in table["columns"].items():
        changes = facts.get("changes") or ()
        values = {one[side] for one in changes for side in ("old_value", "new_value")}
        moved = any(one["old_value"] != one["new_value"] for one in changes)
        if changes and (column in labels or (moved and len(values) <= _SIDE)):
            found.append(replace(matrix_of(column, changes), label=column in labels))
    return found


def _cell(old: str, new: str, rows: int, total: int) -> Cell:
    heat = 0 if not rows else 1 + min(_HEATS - 1, int(_HEATS * rows / total))
    return Cell(old, new, rows, heat)


def _natural(value: str) -> tuple[int, float, str]:
    """Numbers by their size, and before texts."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


# --- parts --------------------------------------------------------------------------------------


async def comparison(site: Site, request: Request) -> Response:
    """A run beside the live rows, or another run."""
    run, other, name = await _asked(site, request)
    edition = (run.state, run.order, run.retries, run.applied)
    make = partial(_compared, site, run, other)
    key = ("compare", run.name, edition, name)
    found = (await site.looks.of(key, make, _EVERY).now()).found()
    return site.render(request, "runs_comparison.html", run=run, other=name, key=KEY, **found)


async def _compared(site: Site, run: Run, other: Run | None) -> Mapping[str, Any]:
    facts = await compare(site.app, run, other, site.database, examples=_EXAMPLES)
    figures = await _figures(site, run, facts)
    promotions = Promotions(site.app, site.runs, site.database)
    return {
        "facts": facts,
        "figures": figures,
        "counts": await promotions.rows(run),
        "answered": await promotions.covered(run),
        "matrices": {
            table["table"]: _matrices(site.app.rows[table["table"]], table)
            for table in facts["tables"]
        },
    }


async def cell(site: Site, request: Request) -> Response:
    """Rows of one cell of a matrix."""
    run, other, name = await _asked(site, request)
    asked = request.query_params
    table, column = asked.get("table", ""), asked.get("column", "")
    old, new = (asked.get(side, "").removeprefix(KEY) for side in ("old", "new"))
    row = coverage.row_types(site.app, run).get(table)
    if row is None:
        raise ConfigurationError(f"run {run.name} writes to no table {table[:60]!r}")
    last, identity = asked.get("after", ""), asked.get("row", "")
    found = await Comparison(site.app, row, run, other).cell(
        site.database, column, old, new, _CELL, (last, identity) if last else None
    )
    facts = {"tables": [{"table": table, "examples": found}]}
    figures = await _figures(site, run, facts)
    more = None
    if len(found) == _CELL:
        more = rendering.address(
            "/runs/cell", dict(asked), after=found[-1]["input"], row=found[-1]["row"]
        )
    return site.render(
        request,
        "runs_cell.html",
        table=table,
        examples=found,
        figures=figures,
        more=more,
        first=not last,
        other=name,
    )


async def _asked(site: Site, request: Request) -> tuple[Run, Run | None, str]:
    """The run, the other side, and what that is called."""
    asked = request.query_params
    run = await site.runs.get(asked.get("run", ""))
    name = asked.get("with", LIVE)
    return run, None if name == LIVE else await site.runs.get(name), name


async def _figures(
    site: Site, run: Run, facts: dict[str, Any]
) -> dict[tuple[str, int], list[Figure]]:
    """Pictures of examples, by table and the example's number; each example gets its `problem`."""
    try:
        attached = await attach(site.app, run, facts, site.streams)
    except Unavailable as error:
        for table in facts["tables"]:
            for example in table["examples"]:
                example.setdefault("problem", str(error))
        return {}
    return {
        (table["table"], number): list(_of(attached[table["table"], number], example))[:_PICTURES]
        for table in facts["tables"]
        for number, example in enumerate(table["examples"])
    }


def _of(blobs: Sequence[Attached], example: Mapping[str, Any]) -> list[Figure]:
    """Each blob once, wherever it stands; those that ride in a row have no address."""
    found: dict[str, list[str]] = {}
    number = 0
    for one in blobs:
        url = None
        if one.blob.path is not None:
            url = rendering.picture(one.blob.path)
        elif one.of == "input" and example["sequence"] is not None:
            url = rendering.address("/labels/picture", message=example["sequence"], number=number)
        number += one.of == "input"
        if url is not None:
            found.setdefault(url, []).append(f"{one.of}.{one.field}")
    return [Figure(url, ", ".join(names)) for url, names in found.items()]
