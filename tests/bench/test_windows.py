"""Windows: when one ends, over a stream and a worker of the test's own."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from mqinfer.bench import windows
from mqinfer.bench.windows import Working
from mqinfer.observe import Metrics
from tests.bench.app import Part, Photo

TASKS = [SimpleNamespace(name="cut", reads=Photo), SimpleNamespace(name="add", reads=Part)]


class Room:
    """A stream that holds what the test says, and answers when the test says."""

    def __init__(self):
        self.times = {}
        self.held = {}
        self.meanwhile = []  # what happens between each question and its answer

    @asynccontextmanager
    async def broker(self):
        yield None

    async def counts(self, broker):
        found = dict(self.held)
        if self.meanwhile and (step := self.meanwhile.pop(0)):
            step()
        return found


def working(room):
    return Working(room, SimpleNamespace(metrics=Metrics("bench")), TASKS)


async def nothing():
    pass


async def test_what_is_written_while_the_stream_is_asked_is_waited_for():
    room = Room()
    work = working(room)
    cut, add = (work._metrics[name] for name in ("cut", "add"))
    room.held = {Photo: 1}

    def written():
        room.held[Part] = 3
        cut.done(0.1)
        room.meanwhile = [None, handled]

    def handled():
        for _ in range(3):
            add.done(0.1)

    room.meanwhile = [written]
    window = await work.until_settled(60, asyncio.create_task(nothing()))
    assert (window.stages["cut"].done, window.stages["add"].done) == (1, 3)


@pytest.mark.parametrize("outcome", ["done", "dead"])
async def test_a_stage_has_until_its_first_message(outcome):
    work = working(Room())
    cut = work._metrics["cut"]
    waiting = asyncio.create_task(work.until_done("cut", 100, 0.0))
    for _ in range(3):  # looks
        await asyncio.sleep(2 * windows.LOOK)
    assert not waiting.done()
    if outcome == "done":
        cut.done(0.1)
    else:
        cut.dead("failed")
    window = await waiting
    assert window.stages["cut"].done + window.stages["cut"].dead == 1


async def test_a_stage_that_handles_nothing_ends(monkeypatch):
    monkeypatch.setattr(windows, "PATIENCE", 0.0)
    assert (await working(Room()).until_done("cut", 100, 0.0)).rate("cut") == 0
