"""Sources: where the rows of a job come from, one kind a module; `jobs.source` chooses.

Each gives blocks of rows, as few at a time as keep memory flat, however many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mqinfer.message import Message

BLOCK = 256  # rows that are read at a time


@dataclass(frozen=True, slots=True)
class Read:
    """One row as it was read.

    Attributes:
        fields: of its message, by name.
        data: its message as JSON, instead.
        message: itself, instead.
        problem: why it can be neither.
        custom_id: as whoever submits it calls it, where the source says so beside the row.
    """

    fields: dict[str, Any] | None = None
    data: bytes | None = None
    message: Message | None = None
    problem: str = ""
    custom_id: str = ""


class Source(Protocol):
    """Rows, in their order."""

    def blocks(self) -> AsyncIterator[list[Read]]:
        """Some of them at a time; none is empty.

        Raises:
            ConfigurationError: it cannot be read, as a whole.
            Unavailable: the store that has it does not answer.
        """


class InThread:
    """Rows that are read by blocking calls, in a thread.

    Args:
        rows: begins to read.
        block: rows at a time.
    """

    def __init__(self, rows: Callable[[], Iterator[Read]], block: int = BLOCK):
        self._rows = rows
        self._block = block

    async def blocks(self) -> AsyncIterator[list[Read]]:
        """Some of the rows at a time; see `Source.blocks`."""
        rows = self._rows()
        while block := await asyncio.to_thread(lambda: list(islice(rows, self._block))):
            yield block
