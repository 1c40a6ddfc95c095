"""Confirmer: what was said counts as read when one connection has answered after it."""

from __future__ import annotations

import asyncio

from mqinfer.adapters import confirm
from mqinfer.adapters.confirm import Confirmer
from mqinfer.errors import Unavailable
from mqinfer.testing import until


class Wire:
    """Pings that the test answers."""

    def __init__(self) -> None:
        self.pings: list[asyncio.Future[None]] = []
        self.again: list[bytes] = []
        self.done: list[int] = []
        self.confirmer = Confirmer(self._flush, self.again.append)

    async def _flush(self) -> None:
        self.pings.append(asyncio.get_running_loop().create_future())
        await self.pings[-1]

    def say(self, number: int) -> None:
        self.confirmer.confirm(b"r%d" % number, lambda: self.done.append(number))

    async def asked(self, count: int) -> asyncio.Future[None]:
        await until(lambda: len(self.pings) == count, "a ping")
        return self.pings[-1]


async def test_one_ping_confirms_all_that_was_said_before_it() -> None:
    wire = Wire()
    wire.say(1)
    wire.say(2)
    first = await wire.asked(1)
    wire.say(3)  # after the ping
    first.set_result(None)
    second = await wire.asked(2)
    assert wire.done == [1, 2]
    second.set_result(None)
    await until(lambda: wire.done == [1, 2, 3], "the third")
    assert wire.again == []
    assert "0 to confirm" in repr(wire.confirmer)


async def test_what_a_lost_connection_may_have_taken_is_said_again() -> None:
    confirm_retry, confirm.RETRY = confirm.RETRY, 0.01
    try:
        wire = Wire()
        wire.say(1)
        await wire.asked(1)
        wire.confirmer.lost()  # no answer will come
        (await wire.asked(2)).set_exception(Unavailable("not yet"))
        third = await wire.asked(3)
        assert (wire.done, wire.again) == ([], [b"r1", b"r1"])
        third.set_result(None)
        await until(lambda: wire.done == [1], "the end")
        wire.pings[0].set_result(None)
        wire.say(2)
        await wire.asked(4)
        wire.confirmer.close()
        assert wire.done == [1]
    finally:
        confirm.RETRY = confirm_retry
