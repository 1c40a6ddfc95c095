"""What is begun on a page: one at a time of a thing, told when it ends, however it ends."""

from __future__ import annotations

import asyncio

import pytest

from mqinfer.console import deeds
from mqinfer.console.deeds import Deeds, Told
from mqinfer.errors import ConfigurationError, Unavailable


async def test_one_at_a_time_and_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def good() -> Told:
        await gate.wait()
        return "done", ("a line",)

    async def away() -> Told:
        raise Unavailable("NATS does not answer")

    async def broken() -> Told:
        raise ZeroDivisionError("secret")

    async with asyncio.TaskGroup() as group:
        known = Deeds(group)
        deed = known.begin("a", "promoting run a", good)
        assert known.of("a") is deed
        assert not deed.ended
        with pytest.raises(ConfigurationError, match="promoting run a goes on"):
            known.begin("a", "undoing", good)
        others = [known.begin("b", "b", away), known.begin("c", "c", broken)]
        await asyncio.gather(*(one.over.wait() for one in others))
        assert [(one.bad, one.said) for one in others] == [
            (True, "NATS does not answer"),
            (True, "a fault of the console's, which is in its log: ZeroDivisionError"),
        ]
        gate.set()
        await deed.over.wait()
        assert (deed.bad, deed.said, deed.more) == (False, "done", ("a line",))
        assert known.begin("a", "again", good) is not deed
        assert known.of("none") is None
        monkeypatch.setattr(deeds, "_KEPT", -1.0)
        assert known.of("b") is None


async def test_none_keeps_the_console_from_its_end() -> None:
    async def endless() -> Told:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        known = Deeds(group)
        known.begin("a", "a", endless)
        await asyncio.sleep(0)
        known.close()
