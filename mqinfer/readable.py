"""Whether messages of a type can be read at all: said when the app is wired, not by dead letters.

A decoder is built for every field, and what the field is made of must be what the codec knows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from mqinfer.blob import Blob
from mqinfer.blobfields import within
from mqinfer.message import Message
from mqinfer.statetype import State

_ADVICE = {
    "Path": "use str",
    "complex": "use two floats, or an array",
    "object": "use Any, or name the types that it can be",
}
_UNION = (
    "make two fields of it, or a union of Structs with tag=True; a Blob or an array stands alone, "
    "or beside None"
)
_NO_KEY = (
    inspect.CollectionType,
    inspect.TupleType,
    inspect.DictType,
    inspect.StructType,
    inspect.DataclassType,
)


@cache
def unreadable(kind: type[Message | State]) -> tuple[str, ...]:
    """Why messages of `kind` could never be read: a line for each field at fault; none if they can.

    Each line names the type and the field, and says what to write instead.
    """
    try:
        fields = msgspec.structs.fields(kind)
    except Exception as error:  # noqa: BLE001 - whatever an annotation makes typing raise
        return (
            f"{kind.__name__}: its annotations cannot be read: {error}; what they name must be at "
            "the top of its module (not under TYPE_CHECKING, not inside a function)",
        )
    wire = kind.__mqinfer__.wire
    return tuple(
        f"{kind.__name__}.{field.name}: {problem}"
        for field in fields
        if (problem := _problem(field.type, wire))
    )


def _problem(hint: Any, wire: str) -> str | None:
    make = msgspec.json.Decoder if wire == "json" else msgspec.msgpack.Decoder
    try:
        make(hint)
        info = inspect.type_info(hint)
    except Exception as error:  # noqa: BLE001 - whatever an annotation makes msgspec raise
        why = str(error).partition(" - type ")[0]
        advice = _UNION if "union" in why else "use types that msgspec decodes"
        return f"{_shown(hint)} cannot be read back ({why}): {advice}"
    return next(_faults(info, wire), None)


def _faults(info: inspect.Type, wire: str) -> Iterator[str]:
    for part in within(info):
        if isinstance(part, inspect.CustomType) and not _known(part.cls):
            yield f"a {part.cls.__name__} cannot be read back: {_advice(part.cls)}"
        elif isinstance(part, (inspect.SetType, inspect.FrozenSetType)):
            if not _hashable(part.item_type):
                yield "a set of what has no hash cannot be read back: use a list, or frozen Structs"
        elif isinstance(part, inspect.DictType):
            if not _hashable(part.key_type):
                yield "a dict's keys must have a hash: use text or numbers"
            elif wire == "json" and isinstance(part.key_type, _NO_KEY):
                yield "a dict's keys in JSON are text or numbers: use those, or wire='msgpack'"


def _known(kind: type) -> bool:
    """Whether the codec reads this class, which msgspec does not."""
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    return kind is Blob or (numpy is not None and kind is numpy.ndarray)


def _advice(kind: type) -> str:
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return f"use {type(kind().item()).__name__}, or an array"
    for base in kind.__mro__[:-1]:
        if base.__name__.removeprefix("Pure") in _ADVICE:
            return _ADVICE[base.__name__.removeprefix("Pure")]
    return _ADVICE.get(kind.__name__, "use a plain type, a dataclass or a msgspec.Struct")


def _hashable(info: inspect.Type) -> bool:
    if isinstance(info, inspect.TupleType):
        return all(map(_hashable, info.item_types))
    if isinstance(info, inspect.VarTupleType):
        return _hashable(info.item_type)
    if isinstance(info, inspect.StructType):
        config = info.cls.__struct_config__
        return config.frozen or not config.eq
    if isinstance(info, (inspect.DataclassType, inspect.CustomType)):
        return info.cls.__hash__ is not None
    if isinstance(info, inspect.FrozenSetType):
        return True
    return not isinstance(info, (inspect.CollectionType, inspect.DictType))


def _shown(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return name.replace("mqinfer.blob.", "").replace("numpy.ndarray", "ndarray")
