"""Answering: what is asked of a shard, in the order in which it comes, many at a time.

Whatever waits when a search ends is searched for together: one pass over the vectors, or one call
into the graph, answers all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from mqinfer.errors import SearchError
from mqinfer.search import protocol
from mqinfer.search.protocol import Answered, Asked
from mqinfer.search.rows import Near
from mqinfer.search.vectors import Floats

if TYPE_CHECKING:
    from mqinfer.search.counting import Searches
    from mqinfer.search.shard import Shard

_Waits = tuple[str, Asked, float]  # where the answer goes, the question, when it came
_MOST: Final = 64  # that are searched for together
_SMALL: Final = 1 << 18  # numbers that are compared in less time than a thread takes to be woken


class Answering:
    """Answers for one shard.

    Args:
        shard: that is asked.
        generation: its number, which each answer says.
        say: sends an answer to where it is wanted.
        limit: bytes that an answer may have.
        searches: counts what is asked.
    """

    def __init__(
        self,
        shard: Shard,
        generation: int,
        say: Callable[[str, bytes], None],
        limit: int,
        searches: Searches,
    ):
        self._shard = shard
        self._generation = generation
        self._say = say
        self._limit = limit
        self._searches = searches
        self._waiting: list[_Waits] = []
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def asked(self, reply: str, data: bytes) -> None:
        """Something is asked; on the event loop."""
        try:
            asked = protocol.read_asked(data)
        except msgspec.MsgspecError as error:
            self._refuse(reply, f"the question cannot be read: {error}")
            return
        self._waiting.append((reply, asked, time.monotonic()))
        self._idle.clear()
        self._woken.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._woken.wait()
            taken, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            for group in _grouped(taken):
                await self._answer(group)
                now = time.monotonic()
                for _, _, came in group:
                    self._searches.seconds.observe(now - came)
            if not self._waiting:
                self._woken.clear()
                self._idle.set()

    async def finished(self) -> None:
        """Return when nothing waits for an answer."""
        await self._idle.wait()

    async def _answer(self, group: list[_Waits]) -> None:
        first = group[0][1]
        try:
            if first.keys is not None:
                self._of_keys(group[0][0], first)
                return
            queries = np.vstack([np.frombuffer(one.vector, "<f4") for _, one, _ in group])
            rows = self._shard.rows
            if rows is None or (not rows.frozen and rows.tail.nbytes < 4 * _SMALL):
                found = self._shard.search(queries, first.k, first.where)
            else:
                found = await asyncio.to_thread(self._shard.search, queries, first.k, first.where)
        except (SearchError, ValueError, KeyError) as error:
            for reply, _, _ in group:
                self._refuse(reply, str(error))
            return
        for (reply, _, _), near in zip(group, found, strict=True):
            self._tell(reply, self._told(near))

    def _told(self, near: list[Near]) -> Answered:
        return Answered(
            self._generation,
            [one.key for one in near],
            [one.score for one in near],
            [list(one.values) for one in near],
        )

    def _of_keys(self, reply: str, asked: Asked) -> None:
        keys = asked.keys or []
        if not asked.vector:
            told = Answered(self._generation, self._shard.lacking(keys))
        else:
            query: Floats = np.frombuffer(asked.vector, "<f4")
            scores = self._shard.scores(query, keys)
            told = Answered(self._generation, list(scores), list(scores.values()))
        self._tell(reply, told)

    def _tell(self, reply: str, told: Answered) -> None:
        payload = protocol.encode(told)
        if len(payload) > self._limit:  # the server would close the connection
            self._refuse(reply, f"the answer has {len(payload):,} bytes, too many: ask for fewer")
        else:
            self._say(reply, payload)

    def _refuse(self, reply: str, why: str) -> None:
        self._searches.refused += 1
        self._say(reply, protocol.encode(Answered(self._generation, error=why)))


def _grouped(taken: list[_Waits]) -> list[list[_Waits]]:
    """Those that can be searched for together."""
    found: dict[object, list[_Waits]] = {}
    for number, (reply, asked, came) in enumerate(taken):
        alone = asked.keys is not None or bool(asked.where)
        same = number if alone else (asked.k, len(asked.vector), "")
        found.setdefault(same, []).append((reply, asked, came))
    return list(found.values())
