"""Bytes <-> typed payload: JSON or msgpack, with blobs and NumPy arrays as fields.

A JSON array field is `{"dtype": "<f4", "shape": [2, 3], "base64": "..."}`; in msgpack the data is
a binary. dtype strings are NumPy's array interface typestr, numbers and booleans only: nothing is
ever unpickled.

What is published is decoded again and compared before it leaves: a value is what its type says, or
it is refused where it was written, rather than by every reader.
"""

from __future__ import annotations

import base64
import re
import sys
import typing
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from mqinfer.blob import Blob, BlobStore
from mqinfer.blobfields import within
from mqinfer.errors import DecodeError, EncodeError
from mqinfer.message import Message, Row, Wire
from mqinfer.statetype import State
from mqinfer.written import (
    AnyBlob,
    any_array,
    difference,
    no_offset,
    not_finite,
    not_read,
    not_written,
)

M = TypeVar("M", bound=Message | State)

CONTENT_TYPES: dict[Wire, str] = {"json": "application/json", "msgpack": "application/msgpack"}
_WIRES: dict[str, Wire] = {
    "application/json": "json",
    "text/json": "json",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
_ARRAY_KINDS = "biufc"
REFERENCE = 80  # bytes of a blob's own path (SHA-256) in a payload
# A map in msgpack begins with none of these.
_JSON_STARTS = (b"{", b" ", b"\n", b"\r", b"\t")
# Fields without constraints whose values both formats keep if they are of just this type.
_PLAIN = ((inspect.StrType(), str), (inspect.IntType(), int), (inspect.BoolType(), bool))
# Format, encoder, what gives the types of the values, those that are plain, whether it has times.
_Writer = tuple[Wire, Callable[[Any], bytes], Callable[[Any], object], object, bool]
_BYTE = re.compile(r"\(byte (\d+)\)")
_NO_NUMBER = re.compile(rb"[-\s:,\[]?(?:NaN|Infinity)\b")
_DTYPE = re.compile(
    r"[<>|=]?[biufc][0-9]{1,2}|bool|u?int(?:8|16|32|64)|float(?:16|32|64)|complex(?:64|128)"
)


class Codec:
    """Encoders and decoders of one connection; decoded blobs read from its store."""

    def __init__(self, store: BlobStore | None = None):
        self._store = store
        self._encode: dict[Wire, Callable[[Any], bytes]] = {
            "json": msgspec.json.Encoder(enc_hook=_encode_json).encode,
            "msgpack": msgspec.msgpack.Encoder(enc_hook=_encode_msgpack).encode,
        }
        self._decoders: dict[tuple[type, Wire], Callable[[bytes], Any]] = {}
        self._writers: dict[type, _Writer] = {}
        self._checks: dict[tuple[type, Wire], Callable[[bytes], Any]] = {}

    def encode(self, message: Message) -> bytes:
        """The payload of `message`, in the wire format of its type; unchecked."""
        return self._encode[message.__mqinfer__.wire](message)

    def write(self, message: M) -> tuple[bytes, Wire]:
        """The payload to publish, which gives every reader what `message` holds, and its format.

        That is the wire format of its type, but for a `Row` that holds NaN or an infinity, which
        JSON cannot say: it goes as msgpack, and the `Content-Type` says so.

        Raises:
            EncodeError: a value is not what its type says, or cannot be carried exactly; names
                type, field and value.
            BlobError: a blob in it is not stored.
        """
        kind = type(message)
        found = self._writers.get(kind)
        if found is None:
            wire = kind.__mqinfer__.wire
            found = self._writers[kind] = (
                wire, self._encode[wire], *_plain_types(kind), _has_times(kind)
            )  # fmt: skip
        wire, encode, types, plain, times = found
        try:
            data = encode(message)
            if types(message) == plain:
                return data, wire
            if not times and self._check(kind, wire)(data) == message:
                return data, wire
        except Exception:  # noqa: BLE001 - told below, in words
            pass
        return self._write_slowly(message, wire)

    def _write_slowly(self, message: M, wire: Wire) -> tuple[bytes, Wire]:
        """`write` of what is not plainly equal to what its reader gets: why, and whether it is."""
        kind = type(message)
        if wire == "json" and (place := not_finite(message)):
            if not issubclass(kind, Row):
                raise EncodeError(
                    f"{place[0]} is {place[1]}, which JSON cannot say: declare {kind.__name__} "
                    "with wire='msgpack', or return a number"
                )
            wire = "msgpack"
        if lost := no_offset(message):
            raise EncodeError(
                f"{lost[0]} is {lost[1]!r}, whose zone says no offset without a date, so that no "
                "reader would get it: use one with a fixed offset, or a datetime"
            )
        try:
            data = self._encode[wire](message)
        except Exception as error:  # noqa: BLE001 - whatever a value makes the encoder raise
            raise not_written(message, error, self._encode[wire]) from None
        try:
            found = self._check(kind, wire)(data)
        except Exception as error:  # noqa: BLE001 - whatever a value makes a decoder raise
            raise not_read(message, error) from None
        if problem := difference(found, message, kind.__name__):
            raise EncodeError(problem)
        return data, wire

    def _check(self, kind: type[M], wire: Wire) -> Callable[[bytes], M]:
        """A decoder of what was just encoded, which leaves out the bytes of arrays and blobs."""
        found = self._checks.get((kind, wire))
        if found is None:
            make = msgspec.json.Decoder if wire == "json" else msgspec.msgpack.Decoder
            found = self._checks[kind, wire] = make(kind, dec_hook=_stand_in).decode
        return found

    def decoder(self, kind: type[M], wire: Wire) -> Callable[[bytes], M]:
        """A function from payload to `kind`; raises msgspec's own errors. For hot loops."""
        found = self._decoders.get((kind, wire))
        if found is None:
            make = msgspec.json.Decoder if wire == "json" else msgspec.msgpack.Decoder
            found = make(kind, dec_hook=self.decode_custom).decode
            self._decoders[kind, wire] = found
        return found

    def reader(self, kind: type[M]) -> Callable[[bytes, str | None], M]:
        """`decode` of one type. For hot loops."""
        own = kind.__mqinfer__.wire
        decode = self.decoder(kind, own)
        # What is surely of its own format; without a name only JSON is.
        sure = {CONTENT_TYPES[own]} | ({None} if own == "json" else set())

        def read(data: bytes, content_type: str | None) -> M:
            if content_type in sure:
                try:
                    return decode(data)
                except Exception:  # noqa: BLE001 - `decode` says what it is, in words
                    pass
            return self.decode(kind, data, content_type)

        return read

    def decode(self, kind: type[M], data: bytes, content_type: str | None = None) -> M:
        """The message in `data`.

        Args:
            kind: the type to decode.
            data: the payload.
            content_type: the `Content-Type` header; without one, what looks like JSON is JSON
                and anything else is what `kind` would be written as.

        Raises:
            DecodeError: what is wrong, and where in the payload.
        """
        # Most name it just so: what else a name may be is looked at where it is none of these.
        wire = _WIRES.get(content_type or "") or self.wire(kind, data, content_type)
        try:
            return self.decoder(kind, wire)(data)
        except msgspec.ValidationError as error:
            raise DecodeError(f"the payload is no {kind.__name__}: {error}") from None
        except Exception as error:  # noqa: BLE001 - whatever the bytes make a library raise
            start = data[:40]
            raise DecodeError(
                f"the payload is no {wire}: {error} ({len(data)} bytes, it starts with {start!r})"
                + (_not_json(data, error) if wire == "json" else "")
            ) from None

    def convert(self, kind: type[M], value: dict[str, Any]) -> M:
        """The message that a row of a table says; texts may stand for numbers and the like.

        Raises:
            DecodeError: what is wrong, and in which field.
        """
        try:
            return msgspec.convert(value, kind, strict=False, dec_hook=self._convert_custom)
        except Exception as error:  # noqa: BLE001 - whatever a value makes a library raise
            raise DecodeError(f"the row is no {kind.__name__}: {error}") from None

    def wire(self, kind: type[M], data: bytes, content_type: str | None) -> Wire:
        """The format that a payload is in; arguments and errors as in `decode`."""
        if not content_type:
            own = kind.__mqinfer__.wire
            return "json" if own == "json" or data[:1] in _JSON_STARTS else own
        base = content_type.partition(";")[0].strip().lower()
        wire = _WIRES.get(base)
        if wire is None:
            if base.endswith("+json"):
                return "json"
            raise DecodeError(
                f"Content-Type {content_type!r} is unknown: publish JSON "
                "(application/json, or no header at all) or application/msgpack"
            )
        return wire

    def _convert_custom(self, kind: type, value: Any) -> Any:
        if isinstance(value, typing.get_origin(kind) or kind):
            return value
        return self.decode_custom(kind, value)

    def decode_custom(self, kind: type, value: Any) -> Any:
        """A blob or an array from its wire form, for msgspec's `dec_hook`.

        Raises:
            ValueError: it is none.
            NotImplementedError: the type is neither.
        """
        if kind is Blob:
            return Blob.from_wire(value).bind(self._store)
        if _is_array(kind):
            return _array(kind, value)
        raise NotImplementedError(f"fields of type {kind} are not supported")


def _not_json(data: bytes, error: Exception) -> str:
    """Advice where a payload holds what some writers of JSON, Python's among them, make of NaN."""
    place = _BYTE.search(str(error))
    if place is None or not _NO_NUMBER.match(data, max(0, int(place[1]) - 1)):
        return ""
    return "; JSON has no NaN and no Infinity: publish null, or msgpack as application/msgpack"


def _plain_types(kind: type[msgspec.Struct]) -> tuple[Callable[[Any], object], object]:
    """What gives the types of a message's values, and those by which it is exact as it is.

    Nothing is equal to the latter for a type that has other fields. Such a message need not be
    decoded, which for a long text would take as long as to encode it.
    """
    try:
        fields = inspect.type_info(kind).fields  # type: ignore[attr-defined]
        plain = [next(plain for info, plain in _PLAIN if info == field.type) for field in fields]
        # One call in C, which runs for every output. A value that lies of its class was not
        # encoded: msgspec looks at its type.
        types = attrgetter(*(f"{field.name}.__class__" for field in fields))
    except Exception:  # noqa: BLE001 - whatever an annotation makes msgspec raise
        return type, None
    return types, tuple(plain) if len(plain) > 1 else plain[0]


def _has_times(kind: type[msgspec.Struct]) -> bool:
    """Whether a message may hold times of day: two that are equal may differ in their zone."""
    try:
        return any(isinstance(part, inspect.TimeType) for part in within(inspect.type_info(kind)))
    except Exception:  # noqa: BLE001 - whatever an annotation makes msgspec raise
        return True


def _stand_in(kind: type, value: Any) -> Any:
    if kind is Blob:
        return AnyBlob()
    if _is_array(kind) and isinstance(value, dict):
        _array_dtype(value, _wanted(kind))
        return any_array()
    return _array(kind, value)


def blobs_in(value: Any, wire: Wire) -> tuple[list[Blob], int]:
    """Every blob that the encoder of `wire` meets in `value`, and the bytes of all the rest.

    A blob that stands in two places is there twice.

    Raises:
        TypeError, ValueError, OverflowError: `value` cannot be encoded.
    """
    found: list[Blob] = []
    others = _encode_json if wire == "json" else _encode_msgpack

    def meet(one: Any) -> Any:
        if isinstance(one, Blob):
            found.append(one)
            return ""
        return others(one)

    encode = msgspec.json.encode if wire == "json" else msgspec.msgpack.encode
    rest = encode(value, enc_hook=meet)
    return found, len(rest) - len(found) * len(encode(""))


def wire_size(blob: Blob, wire: Wire) -> int:
    """The bytes that a blob takes in a payload, as it is; a few too many where it has a path."""
    if blob.path is not None:
        return len(blob.path.encode()) + 5
    size = len(blob.inline or b"")
    if wire == "json":
        return (size + 2) // 3 * 4 + len('{"base64":""}')
    return size + (2 if size < 1 << 8 else 3 if size < 1 << 16 else 5)  # bin 8, 16 and 32


def _is_array(kind: Any) -> bool:
    numpy = sys.modules.get("numpy")  # whoever annotates with it has imported it
    return numpy is not None and (typing.get_origin(kind) or kind) is numpy.ndarray


def _encode_json(value: Any) -> Any:
    if isinstance(value, Blob):
        wire = value.wire()
        return wire if isinstance(wire, str) else {"base64": base64.b64encode(wire).decode()}
    return _encode_numpy(value, lambda raw: ("base64", base64.b64encode(raw).decode()))


def _encode_msgpack(value: Any) -> Any:
    if isinstance(value, Blob):
        return value.wire()
    return _encode_numpy(value, lambda raw: ("data", raw))


def _encode_numpy(value: Any, pack: Callable[[bytes], tuple[str, Any]]) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            if isinstance(value, numpy.ma.MaskedArray):
                raise TypeError("a masked array cannot travel: fill it, array.filled(0)")
            if value.dtype.kind not in _ARRAY_KINDS:
                raise TypeError(f"an array of dtype {value.dtype} cannot travel: numbers only")
            name, data = pack(numpy.ascontiguousarray(value).tobytes())
            return {"dtype": value.dtype.str, "shape": list(value.shape), name: data}
        if isinstance(value, numpy.generic):
            return value.item()
    raise TypeError(f"a message cannot carry a {type(value).__name__}")


def _array(kind: Any, value: Any) -> Any:
    """An array from its wire form; a plain nested list is taken as well.

    Raises:
        ValueError: the form, dtype, or size does not fit.
    """
    import numpy as np

    wanted = _wanted(kind)
    if isinstance(value, list):
        return _array_of_list(np, value, wanted)
    dtype = _array_dtype(value, wanted)
    raw = value.get("data")
    if isinstance(value.get("base64"), str):
        raw = base64.b64decode(value["base64"], validate=True)
    if not isinstance(raw, bytes):
        raise ValueError("an array needs its bytes in base64 or data")  # noqa: TRY004
    shape = value.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array's shape is a list of sizes")
    # A copy, for what `raw` gives cannot be written to; in this machine's byte order if one is
    # asked for.
    return np.frombuffer(raw, dtype=dtype).reshape(shape).astype(wanted or dtype)


def array_dtype(kind: Any, hint: Any = None) -> Any:
    """The dtype of the arrays of a type, float32 where it leaves that open; None: it is no array.

    Args:
        kind: the type.
        hint: its annotation, which says more.
    """
    if not _is_array(kind):
        return None
    import numpy as np

    return _wanted(hint) or np.dtype(np.float32)


def _wanted(kind: Any) -> Any:
    """The dtype that `NDArray[np.float32]` names; None where it leaves that open."""
    import numpy as np

    wanted = None
    for argument in typing.get_args(kind)[1:]:
        for scalar in typing.get_args(argument):
            if isinstance(scalar, type) and issubclass(scalar, np.generic):
                wanted = np.dtype(scalar) if scalar not in (np.generic, np.number) else None
    return wanted


def _array_dtype(value: Any, wanted: Any) -> Any:
    """The dtype that an array's wire form names.

    Raises:
        ValueError: it is no such form, or the dtype is not the one wanted.
    """
    import numpy as np

    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        raise ValueError(  # noqa: TRY004 - the codec makes a ValueError a DecodeError
            'an array is {"dtype", "shape", "base64" or "data"} or a nested list'
        )
    # NumPy's own parser of dtypes is a language; what may stand here is one number's type.
    if not _DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"array dtype {value['dtype'][:40]!r} is not that of a number")
    try:
        dtype = np.dtype(value["dtype"])
    except TypeError:
        raise ValueError(f"array dtype {value['dtype']!r} is unknown") from None
    if wanted is not None and dtype.newbyteorder("=") != wanted:
        raise ValueError(f"the array is {dtype}, the field wants {wanted}")
    return dtype


def _array_of_list(np: Any, value: list[Any], wanted: Any) -> Any:
    """An array of a nested list of numbers, exact but for a float's precision.

    Raises:
        ValueError: it is not regular, holds something else, or does not fit the dtype.
    """
    array = np.array(value)
    if array.dtype.kind not in _ARRAY_KINDS:
        raise ValueError("an array's nested list must be regular and hold numbers")
    if wanted is None or array.dtype == wanted:
        return array
    with np.errstate(all="ignore"):
        found = array.astype(wanted)
        exact = np.array_equal(found, array)
    inexact = wanted.kind in "fc" and array.dtype.kind in "iuf"
    if not exact and not (inexact and np.array_equal(np.isfinite(found), np.isfinite(array))):
        raise ValueError(f"the list holds numbers that {wanted} cannot: it is {array.dtype}")
    return found
