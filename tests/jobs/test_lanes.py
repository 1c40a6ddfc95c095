"""Live before bulk: what comes of jobs waits elsewhere, and no live message stands behind it."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Context, Message
from mqinfer.completion import roots
from mqinfer.errors import WiringError
from mqinfer.flow.lanes import BULK_EVERY, Places, Turn
from mqinfer.replay.run import Run
from mqinfer.replay.runs import filters
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until


class Photo(Message):
    n: int


class Leaf(Message):
    n: int


class Grade(Message):
    n: int


class Gated:
    """Photo -> leaf -> grade; grading of numbers from 0 on waits until it may."""

    def __init__(self, concurrency: int | None) -> None:
        self.app = App("plants")
        self.begun: list[int] = []
        self.lanes: Counter[tuple[str, bool]] = Counter()
        self.may = asyncio.Semaphore(0)

        @self.app.stage
        async def cut(photo: Photo, ctx: Context) -> Leaf:
            self._saw(ctx, photo.n)
            return Leaf(photo.n)

        @self.app.stage(concurrency=concurrency, timeout=4.0, attempts=1)
        async def grade(leaf: Leaf, ctx: Context) -> Grade:
            self._saw(ctx, leaf.n)
            self.begun.append(leaf.n)
            while leaf.n >= 0 and self.may.locked():
                ctx.progress()
                await asyncio.sleep(0.01)
            if leaf.n >= 0:
                await self.may.acquire()
            return Grade(leaf.n)

        self.app.endpoint("grade", Photo, answers=Grade)

    def _saw(self, ctx: Context, n: int) -> None:
        bulk = roots.bulk(ctx.headers)
        assert bulk == ctx.subject.startswith("plants.bulk.") == (n >= 0)
        self.lanes[ctx.stage, bulk] += 1


async def test_a_request_overtakes_a_job_that_fills_every_place(nats: Settings) -> None:
    gated = Gated(None)
    async with Harness(gated.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", [Photo(n) for n in range(400)])

        async def full() -> bool:
            state = await harness.services.broker.consumer_state("plants", "grade=bulk")
            return state is not None and len(gated.begun) >= 128

        await until(full, "the job to stand")
        for n in range(3):
            request = await harness.client.request(Photo(-1 - n), wait=60)
            assert await request.result() == (Grade(-1 - n),)
        assert (await job.status()).done == 0
        for _ in range(400):
            gated.may.release()
        assert (await job.wait()).status == "completed"
        assert gated.lanes == {
            ("cut", True): 400, ("grade", True): 400, ("cut", False): 3, ("grade", False): 3,
        }  # fmt: skip
        assert len(await harness.messages(Photo)) == 403
        assert await harness.dead() == []


async def test_where_a_stage_bounds_its_handlers_a_live_message_has_the_next_place(
    nats: Settings,
) -> None:
    gated = Gated(1)
    async with Harness(gated.app, nats) as harness, harness.worker():
        job = await harness.client.submit("grade", [Photo(n) for n in range(30)])
        await until(lambda: gated.begun, "the first")
        request = await harness.client.request(Photo(-1))

        async def arrived() -> bool:
            state = await harness.services.broker.consumer_state("plants", "grade")
            return state is not None and state.unacknowledged == 1

        await until(arrived, "the live message")
        # For longer than the timeout of those that wait for a place: that is no time of theirs.
        await asyncio.sleep(5.0)
        assert len(gated.begun) == 1
        gated.may.release()
        assert await request.result(wait=60) == (Grade(-1),)
        assert gated.begun.index(-1) <= 2
        for _ in range(30):
            gated.may.release()
        assert (await job.wait()).status == "completed"
        assert await harness.dead() == []


def test_a_replay_takes_what_came_of_jobs_along() -> None:
    app = Gated(None).app
    now = datetime.datetime.now(datetime.UTC)
    run = Run(name="again", stage="grade", start=1, end=9, total=9, created=now)
    assert filters(app, run) == ("plants.leaf", "plants.bulk.leaf")


def test_bulk_belongs_to_jobs() -> None:
    app = App("plants")

    class Bulk(Message, subject="bulk.photo"):
        n: int

    @app.stage
    async def grade(photo: Photo) -> Bulk:
        return Bulk(photo.n)

    assert not app.resolve()[1]
    app.endpoint("grade", Photo, answers=Bulk)
    (problem,) = app.resolve()[1]
    assert isinstance(problem, WiringError)
    assert "'bulk' belongs to jobs" in str(problem)


@given(st.integers(1, 3), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_places_are_never_lost_nor_given_twice(count: int, comers: list[tuple[bool, bool]]) -> None:
    async def run() -> None:
        places, inside = Places(count), 0

        async def come(bulk: bool) -> None:
            nonlocal inside
            if not places.take():
                await places.wait(bulk=bulk)
            inside += 1
            assert inside <= count
            try:
                await asyncio.sleep(0)
            finally:
                inside -= 1
                places.leave()

        tasks = [(asyncio.create_task(come(bulk)), gives_up) for bulk, gives_up in comers]
        await asyncio.sleep(0)
        for task, gives_up in tasks:
            if gives_up and not task.done():
                task.cancel()
        await asyncio.wait_for(
            asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), 10
        )
        assert inside == 0
        for _ in range(count):
            assert places.take()
        assert not places.take()

    asyncio.run(run())


async def test_while_live_messages_wait_one_place_in_four_is_a_jobs() -> None:
    places, order = Places(1), list[bool]()
    assert places.take()

    async def come(bulk: bool) -> None:
        await places.wait(bulk=bulk)
        order.append(bulk)
        places.leave()

    async with asyncio.TaskGroup() as group:
        for bulk in (True,) * 4 + (False,) * 9:
            group.create_task(come(bulk))
        await asyncio.sleep(0)
        places.leave()
    assert order == ([False] * (BULK_EVERY - 1) + [True]) * 3 + [True]


async def test_messages_of_jobs_take_a_part_of_each_turn() -> None:
    now, turns = 0.0, Counter[int]()
    turn, number, ended = Turn(share=1.0, clock=lambda: now), 0, False

    async def bulk() -> None:
        nonlocal now
        for _ in range(25):
            await turn.room()
            turns[number] += 1
            now += 0.3

    async def live() -> None:
        nonlocal number
        while not ended:
            number += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(live())
        await asyncio.gather(bulk(), bulk())
        ended = True
        await other
    assert sum(turns.values()) == 50
    assert max(turns.values()) == 4  # 0.3 s each, until the second is over
    assert min(count for _, count in sorted(turns.items())[1:-1]) == 4


def test_after_something_live_those_of_jobs_stand_back_and_are_never_starved() -> None:
    now = 0.0
    turn = Turn(clock=lambda: now)

    def went(milliseconds: int, every: int | None) -> float:
        """The part of some time in which they may go on, where something live comes so often."""
        nonlocal now
        count = 0
        for n in range(milliseconds):
            if every is not None and n % every == 0:
                turn.live()
            count += turn._left() is None
            now += 0.001
        return count / milliseconds

    assert went(100, None) == 1.0
    assert 0.2 < went(4_000, 1) < 0.3  # live all the time: a quarter is theirs
    assert 0.45 < went(4_000, 20) < 0.75  # now and then: for ten milliseconds each time
    assert went(100, None) == 1.0


async def test_those_that_wait_look_together() -> None:
    """One timer wakes them; each that looked for itself, again and again, would be thousands."""
    now, looks = 0.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now

    turn = Turn(clock=clock)
    turn.live()
    waiting = [asyncio.create_task(turn.room()) for _ in range(500)]
    await until(lambda: looks > 510)  # who came has looked once, and the timer has for all
    assert not any(task.done() for task in waiting)
    for task in waiting[:250]:
        task.cancel()
    now = 1.0
    await asyncio.gather(*waiting[250:])
    assert looks < 510 + 250 + 50
    assert all(task.cancelled() for task in waiting[:250])
