"""Layout: what the bytes of a snapshot of a shard mean. Pure.

4 bytes   "mqix"
4 bytes   layout, little endian
8 bytes   length of what follows, up to the parts
msgpack   `Head`
parts     versions, codes of each column, vectors of the tail, the graph; `Head` has the lengths
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np

from mqinfer.errors import DecodeError
from mqinfer.hits import Key, Plain
from mqinfer.index import Parameters
from mqinfer.search.columns import Column
from mqinfer.search.graph import Graph
from mqinfer.search.growing import Growing
from mqinfer.search.rows import Rows

LAYOUT = 1
_MAGIC = b"mqix"
_START = struct.Struct("<4sIQ")


class Head(msgspec.Struct):
    """What a shard was.

    Attributes:
        sequence: of the stream, up to which all was in it.
        created: when that stream was made.
        dimensions: of the vectors; 0: there never was one.
        keys: by slot.
        alive: slots that are; the others are kept since the graph has them.
        values: of each column, those that differ.
        gone: keys that were taken out, and the versions.
        refused: keys, versions and reasons.
        parts: lengths in bytes.
    """

    sequence: int
    created: str
    dimensions: int
    keys: list[Key]
    alive: bytes
    values: dict[str, list[Plain]]
    gone: list[tuple[Key, int]]
    refused: list[tuple[Key, int, str]]
    parts: list[int]


class Snapshot:
    """A shard as it is at a moment; made on the thread that changes it, written in any.

    Args:
        rows: of the shard.
        gone: keys that were taken out.
        refused: keys that were refused.
        sequence: up to which all of the stream is in it.
        created: when that stream was made.
    """

    def __init__(
        self,
        rows: Rows | None,
        gone: dict[Key, int],
        refused: dict[Key, tuple[int, str]],
        sequence: int,
        created: str,
    ):
        self._rows = rows
        self._gone = list(gone.items())
        self._refused = [(key, version, why) for key, (version, why) in refused.items()]
        self._sequence, self._created = sequence, created
        self._count = 0 if rows is None else rows.count
        self._alive = b"" if rows is None else np.packbits(rows.alive.upto(rows.count)).tobytes()

    def pieces(self) -> list[bytes]:
        """The bytes, one piece behind the other."""
        rows, count = self._rows, self._count
        parts: list[bytes] = []
        values: dict[str, list[Plain]] = {}
        if rows is not None:
            parts.append(rows.versions.upto(count).tobytes())
            for name, column in rows.columns.items():
                parts.append(column.codes.upto(count).tobytes())
                values[name] = list(column.values)
            parts.append(rows.tail.upto(count - rows.frozen).tobytes())
            parts.append(b"" if rows.graph is None else rows.graph.saved())
        head = msgspec.msgpack.encode(
            Head(
                self._sequence,
                self._created,
                0 if rows is None else rows.dimensions,
                [] if rows is None else rows.keys[:count],
                self._alive,
                values,
                self._gone,
                self._refused,
                [len(part) for part in parts],
            )
        )
        return [_START.pack(_MAGIC, LAYOUT, len(head)), head, *parts]


def read(
    data: bytes, parameters: Parameters, names: tuple[str, ...]
) -> tuple[Head, Rows | None, dict[Key, int], dict[Key, tuple[int, str]]]:
    """What a snapshot says, and the rows in it.

    Args:
        data: its bytes.
        parameters: of the generation.
        names: of the columns that are filtered by now.

    Raises:
        DecodeError: it is none that this version reads; says why.
    """
    try:
        magic, layout, size = _START.unpack_from(data)
        if magic != _MAGIC or layout != LAYOUT:
            raise DecodeError(f"the snapshot has layout {layout}, and this version reads {LAYOUT}")
        head = msgspec.msgpack.decode(data[_START.size : _START.size + size], type=Head)
    except (struct.error, msgspec.MsgspecError) as error:
        raise DecodeError(f"this is no snapshot of a shard: {error}") from None
    gone = dict(head.gone)
    refused = {key: (version, why) for key, version, why in head.refused}
    if not head.dimensions:
        return head, None, gone, refused
    if list(head.values) != list(names):
        raise DecodeError("the snapshot has other columns to filter by than the index has now")
    at, parts = _START.size + size, []
    for length in head.parts:
        parts.append(memoryview(data)[at : at + length])
        at += length
    if at != len(data):
        raise DecodeError("the snapshot was cut off")
    rows = Rows(parameters, head.dimensions)
    rows.keys = head.keys
    rows.versions = _growing(np.int64, parts[0])
    alive = np.unpackbits(np.frombuffer(head.alive, np.uint8), count=len(head.keys))
    rows.alive = Growing(np.bool_, alive.astype(np.bool_))
    rows.living = int(alive.sum())
    for number, (name, values) in enumerate(head.values.items(), start=1):
        rows.columns[name] = Column(values, np.frombuffer(parts[number], np.int32).copy())
    tail = np.frombuffer(parts[-2], np.float32).reshape(-1, head.dimensions)
    rows.tail = Growing(np.float32, tail.copy(), head.dimensions)
    rows.frozen = rows.count - len(tail)
    if rows.frozen:
        rows.graph = Graph.restored(parameters, head.dimensions, parts[-1])
    return head, rows, gone, refused


def _growing(dtype: Any, data: memoryview) -> Growing:
    return Growing(dtype, np.frombuffer(data, dtype).copy())
