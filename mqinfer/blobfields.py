"""Where a message type can hold blobs: read from its types, at any depth.

A type is what msgspec reads in an annotation, so that an alias, a `NewType`, a generic or a struct
in a list is what it stands for. Done once for a type; no message is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from mqinfer.blob import Blob
from mqinfer.message import Message


@cache
def can_hold_blobs(kind: type[Message]) -> bool:
    """Whether a message of this type may have a `Blob` anywhere in it.

    Where the type leaves that open (`Any`, a class that msgspec does not know, an annotation that
    cannot be read) the answer is yes.
    """
    try:
        return any(_is_open(part) for part in within(inspect.type_info(kind)))
    except Exception:  # noqa: BLE001 - whatever an annotation makes msgspec raise
        return True


@cache
def blob_columns(kind: type[msgspec.Struct]) -> Mapping[str, inspect.Type]:
    """The fields whose type names `Blob`, at any depth: name on the wire -> type."""
    found = {}
    for field in msgspec.structs.fields(kind):
        info = inspect.type_info(field.type)
        if any(_is_blob(part) for part in within(info)):
            found[field.encode_name] = info
    return found


def blob_values(info: inspect.Type, value: Any) -> Iterator[Any]:
    """What stands in `value` where `info` has a blob.

    Args:
        info: the type.
        value: built of lists, tuples and dictionaries alone: a column's value as it is read back.
    """
    if _is_blob(info):
        yield value
    elif isinstance(info, inspect.DictType) and isinstance(value, Mapping):
        for key, item in value.items():
            yield from blob_values(info.key_type, key)
            yield from blob_values(info.value_type, item)
    elif fields := getattr(info, "fields", ()):
        for place, field in enumerate(fields):
            if isinstance(value, Mapping):
                yield from blob_values(field.type, value.get(field.name))
            elif isinstance(value, Sequence) and place < len(value):
                yield from blob_values(field.type, value[place])
    elif isinstance(info, inspect.TupleType) and isinstance(value, Sequence):
        for part, item in zip(info.item_types, value, strict=False):
            yield from blob_values(part, item)
    elif isinstance(info, inspect.CollectionType) and isinstance(value, (list, tuple)):
        for item in value:
            yield from blob_values(info.item_type, item)
    elif isinstance(info, (inspect.UnionType, inspect.Metadata)) and value is not None:
        for part in _parts(info):
            yield from blob_values(part, value)


def within(info: inspect.Type, seen: set[int] | None = None) -> Iterator[inspect.Type]:
    """The type and all that it is made of; each once, for a type may be made of itself."""
    seen = set() if seen is None else seen
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    for part in _parts(info):
        yield from within(part, seen)


def _parts(info: inspect.Type) -> Sequence[inspect.Type]:
    if isinstance(info, inspect.UnionType):
        return info.types
    if isinstance(info, inspect.TupleType):
        return info.item_types
    if isinstance(info, inspect.CollectionType):
        return (info.item_type,)
    if isinstance(info, inspect.DictType):
        return (info.key_type, info.value_type)
    if isinstance(info, inspect.Metadata):
        return (info.type,)
    return [field.type for field in getattr(info, "fields", ())]


def _is_blob(info: inspect.Type) -> bool:
    return isinstance(info, inspect.CustomType) and issubclass(info.cls, Blob)


def _is_open(info: inspect.Type) -> bool:
    if isinstance(info, inspect.AnyType):
        return True
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    array = () if numpy is None else (numpy.ndarray, numpy.generic)
    return isinstance(info, inspect.CustomType) and not issubclass(info.cls, array)
