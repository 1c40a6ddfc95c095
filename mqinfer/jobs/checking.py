"""Checking: a row becomes a message of the endpoint's type, or an error that names the field."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from mqinfer.blobfields import can_hold_blobs
from mqinfer.codec import CONTENT_TYPES, blobs_in
from mqinfer.errors import BlobPathError, DecodeError, EncodeError
from mqinfer.flow.saveblobs import HEADERS, save_blobs
from mqinfer.jobs.chunk import Failure, Item
from mqinfer.message import key_token
from mqinfer.requests.state import Body

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.codec import Codec
    from mqinfer.jobs.sources import Read
    from mqinfer.message import Message, Wire
    from mqinfer.ports import Broker

CUSTOM = "custom_id"
_LONGEST = 200  # characters of one
_REASON = 1_000  # characters

# The payload of a message whose blobs are stored, and its format.
Encode = Callable[["Message"], Awaitable[tuple[bytes, "Wire"]]]


def encoder(codec: Codec, store: BlobStore, inline_limit: int, broker: Broker) -> Encode:
    """What stores the blobs of a message, and encodes it.

    Args:
        codec: that encodes.
        store: of blobs.
        inline_limit: bytes of a blob that ride in a message.
        broker: that carries it.
    """

    async def encode(message: Message) -> tuple[bytes, Wire]:
        if can_hold_blobs(type(message)):
            most = broker.max_payload
            await save_blobs([message], store, inline_limit=inline_limit, max_payload=most)
        return codec.write(message)

    return encode


class _Named(msgspec.Struct):
    custom_id: str | int | None = None


_named = msgspec.json.Decoder(_Named).decode
_loose = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Checker:
    """Makes items of rows.

    Args:
        kind: the type of their messages.
        codec: to decode.
        encode: of messages.
        max_payload: bytes that the server takes.
        prefix: of the paths of blobs that rows may name; "" is any.
    """

    def __init__(
        self,
        kind: type[Message],
        codec: Codec,
        encode: Encode,
        max_payload: int,
        prefix: str = "",
    ):
        self._kind = kind
        self._prefix = prefix if can_hold_blobs(kind) else ""
        self._codec = codec
        self._encode = encode
        self._room = max_payload - HEADERS
        names = {field.encode_name for field in msgspec.structs.fields(kind)}
        self._own = CUSTOM in names  # then it is the message's, too
        self._strict = bool(kind.__struct_config__.forbid_unknown_fields)

    async def item(self, number: int, read: Read) -> Item:
        """A row as an item of its number.

        Raises:
            BlobError: a blob in it cannot be stored.
            Unavailable: nor can anything, now.
        """
        custom = read.custom_id
        try:
            custom = custom or self._custom(read)
            message = self._message(read)
            if self._prefix:
                self._check_paths(message)
            payload, wire = await self._encode(message)
        except (DecodeError, EncodeError, BlobPathError) as error:
            return _bad(number, custom, str(error))
        if len(custom) > _LONGEST:
            told = f"its custom_id has {len(custom):,} characters, more than {_LONGEST}"
            return _bad(number, custom, told)
        if len(payload) > self._room:
            told = f"its message has {len(payload):,} bytes, the server takes {self._room:,}"
            return _bad(number, custom, told)
        key = message.__mqinfer__.key
        token = "" if key is None else key_token(getattr(message, key))
        return Item(number, custom, token, Body.of(payload, CONTENT_TYPES[wire]))

    def _custom(self, read: Read) -> str:
        """What the row says of its own name."""
        if read.fields is not None:
            found = read.fields.get(CUSTOM)
        elif read.data is not None:
            try:
                found = _named(read.data).custom_id
            except msgspec.MsgspecError:
                return ""  # its error is told of the message
        else:
            found = getattr(read.message, CUSTOM, None) if self._own else None
        return "" if found is None else str(found)

    def _message(self, read: Read) -> Message:
        if read.problem:
            raise DecodeError(read.problem)
        if read.message is not None:
            return read.message
        if read.fields is not None:
            fields = read.fields
            if not self._own and CUSTOM in fields:
                fields = {name: value for name, value in fields.items() if name != CUSTOM}
            return self._codec.convert(self._kind, fields)
        assert read.data is not None
        data = read.data
        if self._strict and not self._own:
            data = _without_custom(data)
        return self._codec.decode(self._kind, data, "application/json")

    def _check_paths(self, message: Message) -> None:
        try:
            found, _ = blobs_in(message, message.__mqinfer__.wire)
        except (TypeError, ValueError, OverflowError) as error:
            raise DecodeError(str(error)) from None
        for blob in found:
            if blob.path is not None and not blob.path.startswith(self._prefix):
                raise DecodeError(
                    f"{blob.path!r} is no path of yours: yours begin with {self._prefix!r}"
                )


def _bad(number: int, custom: str, reason: str) -> Item:
    return Item(number, custom[:_LONGEST], failure=Failure("invalid", reason[:_REASON]))


def _without_custom(data: bytes) -> bytes:
    try:
        found = _loose(data)
    except msgspec.MsgspecError:
        return data
    found.pop(CUSTOM, None)
    return msgspec.json.encode(found)
