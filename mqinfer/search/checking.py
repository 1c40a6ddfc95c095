"""Checking: is all in the index that is in the table, and what is missing.

The table is the record: each key whose newest row has a vector must be found in its shard, or is
named with the reason why it is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mqinfer.hits import Key
from mqinfer.search.recorded import Recorded

if TYPE_CHECKING:
    from mqinfer.index import Index
    from mqinfer.ports import Database
    from mqinfer.search.generations import Generation
    from mqinfer.search.roll import Roll
    from mqinfer.search.searching import Searching

_NAMED = 100  # keys that are named
_TIMEOUT = 10.0


class Checked(msgspec.Struct):
    """A generation of a model, held against the table.

    Attributes:
        index: its name.
        model: its name.
        generation: its number.
        recorded: keys in the table that have a vector.
        held: vectors in the shards that answered.
        refused: keys in the shards whose newest vector cannot be indexed: the reason.
        lacking: keys that the table has and no shard has, some of them.
        lacks: how many these are.
        missing: shards that did not answer.
    """

    index: str
    model: str
    generation: int
    recorded: int
    held: int
    refused: dict[Key, str]
    lacking: list[Key]
    lacks: int
    missing: list[str]

    @property
    def whole(self) -> bool:
        """Whether all is there that could be: what lacks was refused."""
        return not self.missing and self.lacks <= len(self.refused)


async def checked(
    index: Index,
    model: str,
    generation: Generation,
    created: str,
    database: Database,
    searching: Searching,
    roll: Roll,
) -> Checked:
    """Hold a generation against the table.

    Args:
        index: of which.
        model: whose vectors.
        generation: that is checked.
        created: when the app's stream was made.
        database: with the table.
        searching: asks shards.
        roll: what they hold.

    Raises:
        TableError: the table cannot be read.
        Unavailable: ClickHouse does not answer.
    """
    held, refused = 0, dict[Key, str]()
    missing: set[int] = set()
    for shard in range(generation.shards):
        states = roll.replicas(index.name, model, generation.number, shard)
        if not states:
            missing.add(shard)
            continue
        # Of several the one that has most; they differ by what one has not read yet.
        held += max(state.count for state in states)
        for state in states:
            refused |= dict(state.refused)
    recorded, lacking, lacks = 0, list[Key](), 0
    record = Recorded(index, index.models[model], generation, created)
    async for page in record.keys(database):
        keys = [key for key, gone in page if not gone]
        recorded += len(keys)
        some, silent = await searching.lacking(index, model, generation, keys, _TIMEOUT)
        lacks += len(some)
        lacking += some[: _NAMED - len(lacking)]
        missing |= silent
    return Checked(
        index.name,
        model,
        generation.number,
        recorded,
        held,
        refused,
        lacking,
        lacks,
        [f"{model}/{shard}" for shard in sorted(missing)],
    )
