"""Markers: inert, and refused with the field's name and what to write where they mark nothing."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, NewType

import numpy as np
import pytest
from numpy.typing import NDArray

from mqinfer import App, Column, Confidence, Embedding, Input, Label, Message, Row
from mqinfer.errors import WiringError
from mqinfer.marker import Mark, Marker, marks_of, mismarked
from mqinfer.operate.check import check_wiring
from mqinfer.tables.tables import schema_of
from tests.support.names import named


class Kind(enum.Enum):
    CAT = "cat"
    DOG = "dog"


class Level(enum.IntEnum):
    LOW = 1


Name = NewType("Name", str)
Vector = NDArray[np.float32]


def row(base: type[Message] = Row, **hints: Any) -> Any:
    space = {"__annotations__": hints, "__module__": __name__}
    return type(base)("Sample", (base,), space)


FITS = [
    (Label(), str, "value"),
    (Label(), Name, "value"),
    (Label(), bool, "value"),
    (Label(), int, "value"),
    (Label(), Kind, "value"),
    (Label(), Level, "value"),
    (Label(), Literal["a", "b"], "value"),
    (Label("grader"), str | None, "value"),
    (Confidence(), float, "sure"),
    (Confidence(), float | None, "sure"),
    (Input(), float, "number"),
    (Input(), int | None, "number"),
    (Input(), Level, "value"),
    (Input(), str, "value"),
    (Embedding(), list[float], "vector"),
    (Embedding(), tuple[float, ...], "vector"),
    (Embedding(), Vector, "vector"),
]


@pytest.mark.parametrize(("marker", "hint", "shape"), FITS, ids=named)
def test_what_fits_is_marked_and_stored_as_before(marker: Marker, hint: Any, shape: str) -> None:
    kind = row(value=Annotated[hint, marker], other=int)
    assert mismarked(kind) == ()
    assert marks_of(kind) == (Mark("value", "value", marker, shape),)
    assert schema_of(kind).types["value"] == schema_of(row(value=hint)).types["value"]


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (
            Annotated[float, Label()],
            r"Label\(\) is for text, .*, and the field is float; mark a nu",
        ),
        (Annotated[list[str], Label()], "the field is list"),
        (Annotated[str | float, Label()], r"the field is str \| float"),
        (Annotated[str, Confidence()], r"Confidence\(\) is for a float, and the field is str"),
        (Annotated[int, Confidence()], "the field is int"),
        (Annotated[bytes, Input()], r"Input\(\) is for a float, text"),
        (Annotated[list[int], Embedding()], "the field is list"),
        (Annotated[list[float] | None, Embedding()], "is for a list"),
        (Annotated[list[list[float]], Embedding()], "of one dimension"),
        (Annotated[NDArray[np.int64], Embedding()], "NDArray of floats"),
        (
            Annotated[np.ndarray[tuple[int, int], np.dtype[np.float32]], Embedding()],
            "of one dimension",
        ),
        (Annotated[str, Label], r"write Label\(\), with brackets"),
        (Annotated[str, Label(), Input()], r"it is marked as Label\(\) and Input\(\)"),
        (
            list[Annotated[str, Label()]],
            r"stands inside of the type.*Annotated\[\.\.\., Label\(\)\]",
        ),
        (dict[str, tuple[int, Annotated[float, Input()]]], "stands inside"),
    ],
    ids=named,
)
def test_what_does_not_fit_is_said(hint: Any, told: str) -> None:
    kind = row(value=hint)
    (problem,) = mismarked(kind)
    assert problem.startswith("Sample.value: ")
    with pytest.raises(WiringError, match=told):
        marks_of(kind)


def test_other_extras_and_types_are_left_alone() -> None:
    kind = row(a=Annotated[int, Column("UInt8")], b=list[Annotated[int, "x"]], c=type(None))
    assert marks_of(kind) == ()
    sure = row(
        label=Annotated[Kind, Label()], sure=Annotated[float, Column("Float32"), Confidence()]
    )
    assert [mark.field for mark in marks_of(sure)] == ["label", "sure"]
    assert schema_of(sure).types["sure"] == "Float32"


def test_the_column_is_what_the_wire_calls_it() -> None:
    class Renamed(Row, rename="camel"):
        leaf_grade: Annotated[int, Label()]

    assert [(mark.field, mark.column) for mark in marks_of(Renamed)] == [
        ("leaf_grade", "leafGrade")
    ]


def test_a_confidence_says_of_which_label() -> None:
    sure = Annotated[float, Confidence()]
    label = Annotated[str, Label()]
    assert mismarked(row(sure=sure)) == ()  # its own spread is watched
    assert mismarked(row(a=label, sure=sure)) == ()
    (problem,) = mismarked(row(a=label, b=label, sure=sure))
    assert (
        "of which label? write Confidence(of='a'); the fields with a Label() are: a, b" in problem
    )
    named_one = row(a=label, b=label, sure=Annotated[float, Confidence(of="b")])
    assert mismarked(named_one) == ()
    (problem,) = mismarked(row(a=label, c=str, sure=Annotated[float, Confidence(of="c")]))
    assert problem.endswith("Confidence(of='c'): the fields with a Label() are: a")


def test_a_marker_on_a_message_that_is_no_row_is_refused() -> None:
    (problem,) = mismarked(row(Message, value=Annotated[str, Label()]))
    assert problem == "Sample.value: Label() is for rows, which are kept: derive it from Row"


def test_check_names_the_stage_and_every_field_once() -> None:
    class Odd(Row):
        one: Annotated[float, Label()]
        two: Annotated[str, Confidence()]

    app = App("marked")

    @app.stage
    async def first(item: Odd) -> None: ...

    @app.stage
    async def second(item: Odd) -> None: ...

    problems = check_wiring(app)[0].problems
    assert [line.split(": ")[:2] for line in problems] == [
        ["stage first", "Odd.one"],
        ["stage first", "Odd.two"],
    ]
