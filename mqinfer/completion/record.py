"""Record: what became of one message at one stage, for whoever waits for the root it came of. Pure.

A record is stored after all that it tells of and before its message is acknowledged: it never
promises an output that is not there. It names the readers of each output as they were then, so that
a deployment in between changes nothing about what is waited for.

What readers of a join want of the outputs rides along. Where that is too much for one message it is
cut into pieces, each in a record of its own. A piece is a node like others: the first record opens
it, and so nothing is complete before all pieces are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from mqinfer.completion.progress import LIMIT, Effect, node
from mqinfer.errors import DecodeError
from mqinfer.identity import output_id

if TYPE_CHECKING:
    from mqinfer.ports import Delivery

# The numbers of what is made of a message beside its outputs: none of a handler's is negative, and
# what a policy publishes beside an answer counts down from -1.
JOINED: Final = -1_000_000
PIECE: Final = 200_000  # bytes of data in one record, where the server takes so many

Outcome = Literal["answered", "dead", "failed"]


class Kind(msgspec.Struct, array_like=True, frozen=True):
    """A type of outputs.

    Attributes:
        subject: of the type.
        readers: the stages that read it.
        joins: those whose root it is.
    """

    subject: str
    readers: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()


class Output(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An output that is on the stream.

    Attributes:
        id: its identity.
        kind: place of its type in the record.
        index: its number among the outputs of its message.
        data: place of its payload in the record's data; -1: nobody wants it.
    """

    id: str
    kind: int
    index: int
    data: int = -1


class Payload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message's bytes, and their `Content-Type` ("" for none)."""

    data: bytes
    content_type: str = ""


class First(msgspec.Struct, array_like=True, frozen=True):
    """The root itself, told by each stage that reads it.

    Attributes:
        readers: the stages that read it.
        payload: place in the record's data; -1: nobody wants it.
        published: nanoseconds since the epoch, when the stream stored it.
        headers: those that its children have of it.
        outer: the roots that it came of itself, as in the header.
        joins: those whose root it is, where they are waited for, too: of a request.
    """

    readers: tuple[str, ...]
    payload: int
    published: int
    headers: dict[str, str]
    outer: str = ""
    joins: tuple[str, ...] = ()


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What became of one message at one stage.

    Attributes:
        id: of the message.
        stage: that handled it; for a piece the name of the piece.
        outcome: "failed" of an attempt that sent some outputs early: they are told, and nothing
            is settled.
        run: the replay run, "" for live.
        kinds: types of its outputs.
        outputs: in their order, at most one more than a root may have.
        data: payloads of the root and of outputs, unless they are in pieces.
        pieces: names of those that the data was cut into.
        first: where the message is the root.
        error: kind and reason, of a dead letter.
        models: `name=version` that answered on the way.
        piece: a part of the data of another one.
        too_many: whether there are more outputs than are told, none of them with its data.
        trace: the `traceparent` of what was done with it, if that was recorded.
    """

    id: str
    stage: str
    outcome: Outcome
    run: str = ""
    kinds: tuple[Kind, ...] = ()
    outputs: tuple[Output, ...] = ()
    data: tuple[Payload, ...] = ()
    pieces: tuple[str, ...] = ()
    first: First | None = None
    error: tuple[str, str] | None = None
    models: str = ""
    piece: bytes | None = None
    too_many: bool = False
    trace: str = ""

    @property
    def node(self) -> bytes:
        """What it settles."""
        return node(self.id, self.stage)


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Record, ...]).decode
_encode_data = msgspec.msgpack.Encoder().encode
_decode_data = msgspec.msgpack.Decoder(tuple[Payload, ...]).decode


def together(records: Sequence[bytes]) -> bytes:
    """Encoded records of one root as one payload."""
    return encode([msgspec.Raw(one) for one in records])


def decode(payload: bytes) -> tuple[Record, ...]:
    """The records of one payload.

    Raises:
        DecodeError: there are none in it.
    """
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DecodeError(f"this message holds no records of mqinfer: {error}") from None


def read(delivery: Delivery) -> tuple[Record, ...]:
    """The records that were delivered.

    Raises:
        DecodeError: it holds none.
    """
    return decode(delivery.data)


def joined_id(root: str, join: str, run: str) -> str:
    """The id of the message that tells a join of its root."""
    return output_id(root, join, run, JOINED)


def nodes_of(output: Output, kind: Kind, run: str) -> Iterator[tuple[str, str]]:
    """Message and reader of each node that an output opens.

    A join whose root it is answers it as well, in the end; what that gives is below it.
    """
    for reader in kind.readers:
        yield output.id, reader
    for join in kind.joins:
        yield joined_id(output.id, join, run), join


def firsts(record: Record) -> Iterator[tuple[str, str]]:
    """Message and reader of each node that a root opens, by one of its own records."""
    if record.first is not None:
        for reader in record.first.readers:
            yield record.id, reader
        for join in record.first.joins:
            yield joined_id(record.id, join, record.run), join


def effect(record: Record) -> Effect:
    """What a record adds to what is opened and settled."""
    opens = [node(record.id, name) for name in record.pieces]
    if record.first is not None:
        opens += [node(*one) for one in firsts(record)]
    for output in record.outputs:
        for identity, reader in nodes_of(output, record.kinds[output.kind], record.run):
            opens.append(node(identity, reader))
    settles = () if record.outcome == "failed" else (record.node,)
    return Effect(
        rooted=record.first is not None,
        opens=frozenset(opens),
        settles=frozenset(settles),
        too_many=record.too_many,
    )


def bounded(record: Record, limit: int = LIMIT) -> Record:
    """A record that says so where a message has more outputs than are told.

    Args:
        record: with all outputs, or the first ones and one more than are told.
        limit: the most outputs.
    """
    if len(record.outputs) <= limit:
        return record
    keep = record.data[:1] if record.first is not None and record.first.payload >= 0 else ()
    outputs = tuple(msgspec.structs.replace(one, data=-1) for one in record.outputs[: limit + 1])
    return msgspec.structs.replace(record, outputs=outputs, data=keep, too_many=True)


def cut(record: Record, size: int = PIECE) -> list[Record]:
    """A record and, where it holds much, the pieces of its data, which take its place.

    A piece is called by what it holds: those of two attempts that differ are not mixed up.

    Args:
        record: one for all.
        size: the most bytes of a piece.
    """
    if sum(len(payload.data) for payload in record.data) <= size // 4:
        return [record]
    data = _encode_data(record.data)
    digest = blake2b(data, digest_size=8).hexdigest()
    pieces = [
        Record(
            id=record.id,
            stage=f"{record.stage}#{digest}.{number}",
            outcome="answered",
            run=record.run,
            piece=data[at : at + size],
        )
        for number, at in enumerate(range(0, len(data), size))
    ]
    names = tuple(piece.stage for piece in pieces)
    return [*pieces, msgspec.structs.replace(record, data=(), pieces=names)]


def whole(pieces: Sequence[bytes]) -> tuple[Payload, ...]:
    """The data that was cut into pieces."""
    return _decode_data(b"".join(pieces))
