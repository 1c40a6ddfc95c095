"""The one server that all models share: up or down, told to whom, and whose tasks end with it."""

import asyncio

import pytest

from mqinfer.errors import ModelUnavailable, NotConnected, Unavailable
from mqinfer.inference.link import Link
from tests.support.inference import Server, until


async def test_it_is_asked_until_it_answers_and_everybody_is_told(server: Server) -> None:
    link, told = Link(server), []
    link.listeners.append(lambda: told.append(link.availability.reason))
    server.down = "connection refused"
    link.down("connection reset")
    link.down("connection reset again")
    assert told == ["connection reset", "connection reset again"]
    await until(lambda: server.probes >= 2)
    assert link.availability.reason == "connection refused"
    assert len(link.tasks) == 1, "one probe, however many told of it"
    server.down = None
    await until(lambda: len(told) == 3)
    assert (told[-1], link.returns) == (None, 1)
    await until(lambda: not link.tasks)


async def test_metadata_is_a_models_or_a_reason(server: Server) -> None:
    link = Link(server)
    assert (await link.describe("double", None)).versions == ("1", "2")
    with pytest.raises(ModelUnavailable):
        await link.describe("double", "9")
    server.down = "no route"
    with pytest.raises(Unavailable, match="no route"):
        await link.describe("double", None)


async def test_tasks_end_with_it(server: Server) -> None:
    link = Link(server)
    task = link.spawn(asyncio.Event().wait(), "for ever")  # type: ignore[arg-type]
    server.down = "away"
    link.down("away")
    await link.close()
    assert task.cancelled()
    assert link.tasks == set()
    with pytest.raises(NotConnected, match="while the worker runs"):
        link.require_open()
    link.down("still")
    assert link.tasks == set(), "nothing is begun any more"


async def test_a_task_that_dies_ends_it_and_says_of_what(server: Server) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("a fault of ours")

    link, told = Link(server), []
    link.listeners.append(lambda: told.append(link.crash))
    link.spawn(broken(), "broken")
    await link.crashed.wait()
    assert isinstance(link.crash, ZeroDivisionError)
    assert told == [link.crash]
    with pytest.raises(NotConnected, match="ZeroDivisionError"):
        link.require_open()
