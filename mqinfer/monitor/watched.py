"""Watched: which fields of an app's rows are counted, and whose answers they are; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from mqinfer.errors import WiringError
from mqinfer.marker import Confidence, Embedding, Input, Label, Mark, Shape, marks_of, mismarked
from mqinfer.message import Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqinfer.app import App
    from mqinfer.stage import Stage

What = Literal["label", "confidence", "input", "embedding"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column that is counted.

    Attributes:
        column: its name.
        what: it is.
        shape: how it is counted.
        model: whose answer it is; "" where none is asked, or of an input, which no model made.
        number: the column whose numbers are summed beside it, if any: a label's confidence.
        by_stage: of each stage that makes the row the model that it asks, where they differ.
    """

    column: str
    what: What
    shape: Shape
    model: str = ""
    number: str | None = None
    by_stage: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """A table of which something is counted.

    Attributes:
        row: the row type.
        fields: in the order of the columns.
    """

    row: type[Row]
    fields: tuple[Field, ...]


def watched(app: App) -> tuple[list[Watched], list[WiringError]]:
    """The tables of an app of which something is counted, and what is wrong with their marks."""
    stages, _ = app.resolve()
    found: list[Watched] = []
    problems: list[WiringError] = []
    for row in app.rows.values():
        if mismarked(row):
            continue  # said of the wiring
        try:
            fields = tuple(_fields(row, stages))
        except WiringError as error:
            problems.append(error)
            continue
        if fields:
            found.append(Watched(row, fields))
    return found, problems


def _fields(row: type[Row], stages: Mapping[str, Stage]) -> Iterator[Field]:
    marks = marks_of(row)
    labels = {mark.field: mark for mark in marks if isinstance(mark.marker, Label)}
    sure = {
        mark.marker.of or next(iter(labels), ""): mark
        for mark in marks
        if isinstance(mark.marker, Confidence)
    }
    for mark in marks:
        marker = mark.marker
        if isinstance(marker, Label):
            own = sure.get(mark.field)
            whose = _whose(row, mark, stages)
            number = own.column if own else None
            yield Field(mark.column, "label", mark.shape, number=number, **whose)
        elif isinstance(marker, Confidence):
            of = labels.get(marker.of or next(iter(labels), ""))
            whose = _whose(row, of or mark, stages)
            yield Field(mark.column, "confidence", mark.shape, number=mark.column, **whose)
        elif isinstance(marker, Input):
            number = mark.column if mark.shape == "number" else None
            yield Field(mark.column, "input", mark.shape, number=number)
        elif isinstance(marker, Embedding):
            yield Field(mark.column, "embedding", mark.shape, **_whose(row, mark, stages))


class _Whose(TypedDict, total=False):
    model: str
    by_stage: tuple[tuple[str, str], ...]


def _whose(row: type[Row], mark: Mark, stages: Mapping[str, Stage]) -> _Whose:
    """The model that a mark names, or the only one that each stage asks which makes the row."""
    said = getattr(mark.marker, "model", None)
    place = f"{row.__name__}.{mark.field}"
    if said is not None:
        known = sorted({model.name for stage in stages.values() for model in stage.models})
        if said not in known:
            raise WiringError(
                f"{place}: {type(mark.marker).__name__}(model={said!r}): no stage asks such a "
                f"model; they ask {', '.join(known) or 'none'}"
            )
        return {"model": str(said)}
    asked = {
        stage.name: sorted({model.name for model in stage.models})
        for stage in stages.values()
        if row in stage.writes
    }
    for name, models in asked.items():
        if len(models) > 1:
            raise WiringError(
                f"{place}: whose answer is it? stage {name} asks {', '.join(models)}: write "
                f"Label(model={models[0]!r})"
            )
    pairs = tuple((name, models[0]) for name, models in sorted(asked.items()) if models)
    if len({model for _, model in pairs}) <= 1:
        return {"model": pairs[0][1]} if pairs else {}
    return {"by_stage": pairs}
