"""Marker: what a field of a row means, so that it can be watched: label, confidence, input, vector.

Inert: a marker changes neither what is sent nor what is stored. `mqinfer.monitor` counts what is
marked, and says when it is no longer what it was.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec

from mqinfer.errors import WiringError
from mqinfer.hints import seen_through
from mqinfer.message import Message, Row


@dataclass(frozen=True, slots=True)
class Label:
    """In an annotation: `label: Annotated[str, Label()]`: what a model answered, one of few values.

    The field is text, a bool, a whole number, an enumeration or a `Literal`, or one of these or
    None.

    Attributes:
        model: that answered it. None: the only one of the stage that makes the row; a stage with
            several must be told, since a row's `_models` names those of the stages before, too.
    """

    model: str | None = None


@dataclass(frozen=True, slots=True)
class Confidence:
    """In an annotation: `score: Annotated[float, Confidence()]`: how sure a label is, 0 to 1.

    Attributes:
        of: the field of the label. None: the only one of the row.
    """

    of: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """In an annotation: `width: Annotated[int, Input()]`: what is known of a model's input.

    Brightness, size, camera: a number (counted by size), or one of few values, as of a `Label`.
    """


@dataclass(frozen=True, slots=True)
class Embedding:
    """In an annotation: `vector: Annotated[list[float], Embedding()]`: an input's vector.

    A list, a tuple or a NumPy array of one dimension, of floats.

    Attributes:
        model: as of `Label`.
    """

    model: str | None = None


Marker = Label | Confidence | Input | Embedding
_MARKERS = (Label, Confidence, Input, Embedding)
# How a field is counted: by value, by size, by how sure it is, by direction.
Shape = Literal["value", "number", "sure", "vector"]

_FLOATS = (list, tuple, collections.abc.Sequence)
_VALUE = "text, a bool, a whole number, an enumeration or a Literal"
# What each marker is for, and how that is said.
_FITS: dict[type, tuple[tuple[Shape, ...], str]] = {
    Label: (("value",), _VALUE),
    Confidence: (("sure",), "a float"),
    Input: (("number", "value"), f"a float, {_VALUE}"),
    Embedding: (("vector",), "a list, tuple or NDArray of floats, of one dimension"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A field that is marked.

    Attributes:
        field: its name.
        column: the column's.
        marker: what it is.
        shape: how it is counted.
    """

    field: str
    column: str
    marker: Marker
    shape: Shape


def marks_of(kind: type[Row]) -> tuple[Mark, ...]:
    """The fields of a row type that are marked, in their order.

    Raises:
        WiringError: a marker stands where it cannot; says on which field, and what to write.
    """
    marks, problems = _read(kind)
    if problems:
        raise WiringError(problems[0])
    return marks


def mismarked(kind: type[Message]) -> tuple[str, ...]:
    """What is wrong with the markers of a type, a line each, with what to write instead."""
    return _read(kind)[1]


@cache
def _read(kind: type[Message]) -> tuple[tuple[Mark, ...], tuple[str, ...]]:
    try:
        fields = msgspec.structs.fields(kind)
    except Exception:  # noqa: BLE001 - whatever an annotation makes typing raise: `readable` says it
        return (), ()
    marks: list[Mark] = []
    problems: list[str] = []
    for field in fields:
        place = f"{kind.__name__}.{field.name}"
        try:
            marker, hint = _marker(field.type)
            if marker is None:
                continue
            shape = _shape(marker, hint)
        except WiringError as error:
            problems.append(f"{place}: {error}")
            continue
        if issubclass(kind, Row):
            marks.append(Mark(field.name, field.encode_name, marker, shape))
        else:
            name = type(marker).__name__
            problems.append(f"{place}: {name}() is for rows, which are kept: derive it from Row")
    problems += _unsure(kind.__name__, marks)
    return tuple(marks), tuple(problems)


def _marker(hint: Any) -> tuple[Marker | None, Any]:
    """The marker of a field, and the type beneath it."""
    found: list[Marker] = []
    plain = hint = seen_through(hint)
    while typing.get_origin(plain) is typing.Annotated:
        for extra in plain.__metadata__:
            if isinstance(extra, type) and issubclass(extra, _MARKERS):
                raise WiringError(f"write {extra.__name__}(), with brackets")
            if isinstance(extra, _MARKERS):
                found.append(extra)
        plain = seen_through(plain.__origin__)
    inner = {type(one).__name__ for part in typing.get_args(plain) for one in _within(part)}
    for name in sorted(inner):
        raise WiringError(
            f"{name}() stands inside of the type, where it marks nothing: put it around the whole "
            f"field, Annotated[..., {name}()]"
        )
    if len(found) > 1:
        names = " and ".join(f"{type(one).__name__}()" for one in found)
        raise WiringError(f"it is marked as {names}: a field is one of them")
    return (found[0] if found else None), plain


def _within(hint: Any) -> Iterator[Any]:
    """All markers that stand anywhere in an annotation."""
    hint = seen_through(hint)
    if typing.get_origin(hint) is typing.Annotated:
        yield from (one for one in hint.__metadata__ if isinstance(one, _MARKERS))
        hint = hint.__origin__
    if typing.get_origin(hint) is not Literal:
        for part in typing.get_args(hint):
            yield from _within(part)


def _shape(marker: Marker, hint: Any) -> Shape:
    shapes, said = _FITS[type(marker)]
    for shape in shapes:
        if _is(hint, shape):
            return shape
    name = type(marker).__name__
    shown = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    other = "; mark a number with Confidence() or Input()" if name == "Label" else ""
    shown = shown.replace("typing.", "")
    raise WiringError(f"{name}() is for {said}, and the field is {shown}{other}")


def _is(hint: Any, shape: Shape) -> bool:
    """Whether a type is counted so."""
    hint = seen_through(hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _is(hint.__origin__, shape)
    if shape == "vector":
        numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
        if numpy is not None and origin is numpy.ndarray:
            kinds = [one for part in parts[1:] for one in typing.get_args(part)]
            sides = typing.get_args(parts[0])
            flat = len(sides) < 2 or ... in sides
            return flat and any(
                isinstance(one, type) and issubclass(one, numpy.floating) for one in kinds
            )
        return origin in _FLOATS and all(part is ... or _is(part, "sure") for part in parts)
    if origin is typing.Union or origin is types.UnionType:
        rest = [part for part in parts if part is not type(None)]
        return len(rest) == 1 and _is(rest[0], shape)
    if shape == "sure":
        return hint is float
    if shape == "number":
        return hint is float or hint is int
    if origin is Literal:
        return True
    return isinstance(hint, type) and issubclass(hint, (str, bool, int, enum.Enum))


def _unsure(name: str, marks: list[Mark]) -> Iterator[str]:
    """Confidences of which nobody can say what they belong to."""
    labels = [mark.field for mark in marks if isinstance(mark.marker, Label)]
    for mark in marks:
        if isinstance(mark.marker, Confidence):
            of, place = mark.marker.of, f"{name}.{mark.field}"
            known = f"the fields with a Label() are: {', '.join(labels) or 'none'}"
            if of is not None and of not in labels:
                yield f"{place}: Confidence(of={of!r}): {known}"
            elif of is None and len(labels) > 1:
                yield f"{place}: of which label? write Confidence(of={labels[0]!r}); {known}"
