"""Protocol: what a shard is asked, and what it answers. Pure.

Both sides pass over fields that they do not know, so that two versions understand each other.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mqinfer.hits import Key, Plain


class Asked(msgspec.Struct, omit_defaults=True):
    """What one of a shard's replicas is asked: the nearest, scores of keys, or keys it lacks.

    Attributes:
        vector: float32, little endian.
        k: the most that are wanted.
        where: conditions; see `columns.Where`.
        keys: whose scores are wanted, instead of the nearest; without a vector, those of them that
            have none.
    """

    vector: bytes = b""
    k: int = 0
    where: dict[str, list[tuple[str, Any]]] = {}
    keys: list[Key] | None = None


class Answered(msgspec.Struct, omit_defaults=True):
    """What it answers.

    Attributes:
        generation: that it is of.
        keys: nearest first.
        scores: of each.
        values: of the fields to filter by, of each key.
        error: why it cannot answer; the question is at fault.
    """

    generation: int
    keys: list[Key] = []
    scores: list[float] = []
    values: list[list[Plain]] = []
    error: str = ""


class ShardState(msgspec.Struct):
    """A shard as one process holds it.

    Attributes:
        index: its name.
        model: its name.
        generation: its number.
        shard: its number, from 0.
        ready: whether it answers.
        lag: messages that it has not read yet; -1: it is being loaded.
        count: vectors.
        frozen: of these, how many slots the graph has.
        nbytes: that the vectors take.
        refused: the newest keys whose vector cannot be indexed, and why.
        sequence: of the newest snapshot that it knows.
    """

    index: str
    model: str
    generation: int
    shard: int
    ready: bool
    lag: int
    count: int
    frozen: int
    nbytes: int
    refused: list[tuple[Key, str]]
    sequence: int = 0


class Holding(msgspec.Struct):
    """What one process holds.

    Attributes:
        host: where it runs.
        pid: of the process.
        shards: all of them.
        ready: whether all that there is can be searched here.
    """

    host: str
    pid: int
    shards: list[ShardState]
    ready: bool = False


encode = msgspec.msgpack.Encoder().encode
read_asked = msgspec.msgpack.Decoder(Asked).decode
read_answered = msgspec.msgpack.Decoder(Answered).decode
read_holding = msgspec.msgpack.Decoder(Holding).decode
