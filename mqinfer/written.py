"""What a reader would get, beside what was written: says where the two differ, in words.

The slow side of `Codec.write`, which comes here when a payload does not give back the message that
it was made of. Pure.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from mqinfer.blob import Blob
from mqinfer.errors import EncodeError, MqinferError

_SHOWN = 80  # characters of a value in an error
_PLACE = re.compile(r" - at `\$\.([^.\[`]+)")


class AnyBlob(Blob):
    """What a check decodes instead of a blob: equal to any that was written there.

    The encoder made the payload of it, so that its bytes need not be decoded to be compared.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(b"")

    def __eq__(self, other: object) -> bool:
        return other is self or type(other) is Blob

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return "a Blob"


@cache
def any_array() -> Any:
    """What a check decodes instead of an array: equal to any that was written there."""
    import numpy as np

    class AnyArray(np.ndarray[Any, Any]):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, np.ndarray)

        __hash__ = None

    return AnyArray(0)


def not_written(
    message: msgspec.Struct, error: Exception, encode: Callable[[Any], bytes]
) -> Exception:
    """The error for a message that the encoder refuses; names the first field that it refuses."""
    if isinstance(error, MqinferError):
        return error
    kind = type(message).__name__
    for name in message.__struct_fields__:
        try:
            encode(getattr(message, name))
        except Exception as cause:  # noqa: BLE001 - whatever a value makes the encoder raise
            return EncodeError(f"{kind}.{name} cannot be written: {cause}")
    return EncodeError(f"{kind} cannot be written: {error}")


def not_read(message: msgspec.Struct, error: Exception) -> EncodeError:
    """The error for a message that no reader could decode; names field and value."""
    kind = type(message)
    found = _PLACE.search(str(error))
    for field in msgspec.structs.fields(kind):
        if found and field.encode_name == found[1]:
            value = _short(getattr(message, field.name))
            return EncodeError(
                f"{kind.__name__}.{field.name} is {value}, which its readers would refuse: {error}"
            )
    return EncodeError(f"the readers of {kind.__name__} would refuse it: {error}")


def not_finite(message: msgspec.Struct) -> tuple[str, float] | None:
    """The first number of a message that JSON cannot say, NaN or an infinity, and its place."""
    return next(_not_finite(message, type(message).__name__), None)


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    numpy = sys.modules.get("numpy")
    if isinstance(value, float) or (numpy is not None and isinstance(value, numpy.floating)):
        if not math.isfinite(value):
            yield place, float(value)
        return
    for step, part in _parts(value):
        yield from _not_finite(part, place + step)


def no_offset(message: msgspec.Struct) -> tuple[str, datetime.time] | None:
    """The first time of day whose zone would be lost, as it needs a date, and its place."""
    return next(_no_offset(message, type(message).__name__), None)


def _no_offset(value: Any, place: str) -> Iterator[tuple[str, datetime.time]]:
    if isinstance(value, datetime.time):
        if value.tzinfo is not None and value.utcoffset() is None:
            yield place, value
        return
    if isinstance(value, Mapping):
        for key in value:
            yield from _no_offset(key, f"{place}[{key!r}]")
    for step, part in _parts(value):
        yield from _no_offset(part, place + step)


def difference(found: Any, written: Any, place: str) -> str | None:
    """Where a reader gets another value than was written, in words; None where it gets the same.

    The same are a list and a tuple or set of its items, an enumeration's member and its value,
    one moment in two zones, NaN and NaN, and a blob and its wire form.

    Args:
        found: what a reader decodes.
        written: what the payload was made of.
        place: what to call it.
    """
    if _equal(found, written):
        return None
    if isinstance(written, (msgspec.Struct, Mapping)) or dataclasses.is_dataclass(written):
        theirs, ours = dict(_parts(found)), dict(_parts(written))
        alike = isinstance(written, Mapping) and isinstance(found, Mapping)
        if (alike or type(found) is type(written)) and theirs.keys() == ours.keys():
            for step, part in ours.items():
                if problem := difference(theirs[step], part, place + step):
                    return problem
            return None
    elif _is_many(written) and isinstance(found, (set, frozenset)):
        if len(found) == len(written) and all(
            any(difference(theirs, ours, "") is None for theirs in found) for ours in written
        ):
            return None
    elif _is_many(written) and isinstance(found, (list, tuple)) and len(found) == len(written):
        for index, (theirs, ours) in enumerate(zip(found, written, strict=True)):
            if problem := difference(theirs, ours, f"{place}[{index}]"):
                return problem
        return None
    return (
        f"{place} is {_short(written)}, a {type(written).__name__}, and its readers would get "
        f"{_short(found)}: return what the field is annotated with"
    )


def _equal(found: Any, written: Any) -> bool:
    try:
        if _is_array(found):  # == is of each element there
            return _same_array(found, written)
        if bool(found == written) or (found != found and written != written):
            return True
        if isinstance(found, datetime.datetime) and isinstance(written, datetime.datetime):
            utc = datetime.UTC
            return (
                bool(found.tzinfo and written.tzinfo)  # == is False where clocks are turned back
                and found.astimezone(utc) == written.astimezone(utc)
            )
    except Exception:  # noqa: BLE001 - whatever a value makes a comparison raise
        return False
    if isinstance(written, Blob):  # where the type is open
        return found == written.path or isinstance(found, (Mapping, bytes))
    return isinstance(found, enum.Enum) and bool(found.value == written)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _same_array(found: Any, written: Any) -> bool:
    """Whether an array was decoded of the one, or the list, that was written."""
    import numpy as np

    if _is_array(written):
        return bool(found == written)  # what a check decodes is equal to any
    rounded = np.asarray(written, found.dtype)
    return isinstance(written, (list, tuple)) and np.array_equal(found, rounded, equal_nan=True)


def _is_many(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(
        value, (str, bytes, bytearray, memoryview, Mapping)
    )


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, each with the step that leads to it."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f".{name}", getattr(value, name)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(value):
            yield f"[{index}]", part


def _short(value: Any) -> str:
    numpy = sys.modules.get("numpy")
    try:
        # As Python writes the number, whatever NumPy's release: 2.0, not np.float32(2.0).
        text = repr(value.item() if numpy and isinstance(value, numpy.generic) else value)
    except Exception:  # noqa: BLE001 - a user's own
        text = object.__repr__(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
