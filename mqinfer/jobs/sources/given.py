"""Given: rows that a program has, as messages or as their fields."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

from mqinfer.jobs.sources import BLOCK, Read
from mqinfer.message import Message

Given = Message | Mapping[str, Any]


class GivenRows:
    """Rows of a program; see `jobs.sources.Source`.

    Args:
        rows: that it has, or makes as they are asked for.
        kind: the type of the messages.
    """

    def __init__(self, rows: Iterable[Given] | AsyncIterable[Given], kind: type[Message]):
        self._rows = rows
        self._kind = kind

    async def blocks(self) -> AsyncIterator[list[Read]]:
        """Some of the rows at a time."""
        block: list[Read] = []
        if isinstance(self._rows, AsyncIterable):
            async for row in self._rows:
                block.append(self._read(row))
                if len(block) == BLOCK:
                    yield block
                    block = []
        else:
            for row in self._rows:
                block.append(self._read(row))
                if len(block) == BLOCK:
                    yield block
                    block = []
        if block:
            yield block

    def _read(self, row: Given) -> Read:
        if isinstance(row, self._kind):
            return Read(message=row)
        if isinstance(row, Mapping):
            return Read(fields=dict(row))
        return Read(problem=f"the row is a {type(row).__name__}, no {self._kind.__name__}")
