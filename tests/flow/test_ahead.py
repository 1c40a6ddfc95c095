"""Ahead: what may wait follows the rate, and is given back when that has collapsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Context, Worker
from mqinfer.flow.ahead import HORIZON, LONG, Ahead
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.faults.support import redeliveries, runner_of
from tests.support.flow import Begun, Double, Flow, Number, pass_time, turns

TICK = 0.25


def looks(ahead: Ahead, rates: list[float], beyond: int, start: float = 0.0) -> list[int]:
    """What is given back at each look, while so many are beyond what is allowed."""
    found, now = [], start
    ahead.measured(0, now)
    for rate in rates:
        now += TICK
        ahead.measured(int(rate * TICK), now)
        found.append(ahead.too_many(beyond, now))
    return found


def test_it_is_doubled_while_handlers_wait_and_cut_when_they_slow_down() -> None:
    ahead = Ahead(4, 100)
    for expected in (3, 7, 15, 31):
        ahead.starved()
        assert ahead.allowed == 4 + expected
    looks(ahead, [40.0], 0)
    assert ahead.allowed == 4 + int(40.0 / 2 * HORIZON)  # half of what the first look has seen
    looks(ahead, [0.0] * 20, 0, 10.0)
    assert ahead.allowed == 5


def test_what_would_wait_long_is_given_back_once_it_has() -> None:
    ahead = Ahead(4, 500)
    assert not any(looks(ahead, [2000.0] * 8, 400))  # a fifth of a second of work
    found = looks(ahead, [0.0] * 8, 400, 2.0)
    first = next(number for number, count in enumerate(found) if count)
    assert LONG <= (first + 1) * TICK <= 2.0
    assert set(found[first:]) == {400}


def test_a_pause_gives_nothing_back() -> None:
    ahead = Ahead(4, 500)
    assert not any(looks(ahead, [2000.0] * 8 + [0.0, 0.0, 0.0] + [2000.0] * 8, 400))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(-50, 500)), max_size=30))
def test_no_more_is_given_back_than_is_beyond(steps: list[tuple[int, int]]) -> None:
    ahead, now = Ahead(4, 100), 0.0
    for handled, beyond in steps:
        now += TICK
        ahead.measured(handled, now)
        assert 0 <= ahead.too_many(beyond, now) <= max(0, beyond)


# --- in a stage -----------------------------------------------------------------------------------


def hanging() -> Flow:
    """A stage whose two handlers never end."""
    begun = Begun()
    begun.hang |= set(range(1, 100))

    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    return Flow(handler, concurrency=2, max_in_flight=50)


async def test_the_newest_that_nobody_began_with_go_and_are_explained() -> None:
    flow = hanging()
    async with flow.running():
        for sequence in range(1, 21):
            flow.deliver(sequence)
        await turns()
        for _ in range(8):
            await pass_time(flow, TICK)
            await flow.runner._share()
        assert flow.broker.heard() == [("nak", sequence) for sequence in range(4, 21)]
        assert {delay for _, _, delay in flow.broker.said} == {0}
        assert (len(flow.runner._mailbox), flow.slots.free) == (1, 0)
        assert list(flow.broker.counts.values) == ["s.back"]
        again = flow.job(7, attempt=2)
        await flow.ledger.explain([again], flow.clock)
        assert again.past.unexplained == 0


async def test_while_a_gate_is_closed_nothing_is_given_back() -> None:
    flow = hanging()
    async with flow.running():
        for sequence in range(1, 21):
            flow.deliver(sequence)
        flow.gate = "away"
        flow.runner._intake.look()
        for _ in range(8):
            await pass_time(flow, TICK)
            await flow.runner._share()
        assert flow.broker.said == []


async def test_what_cannot_be_written_down_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no(jobs: object) -> bool:
        return False

    flow = hanging()
    async with flow.running():
        monkeypatch.setattr(flow.ledger, "handed_back", no)
        for sequence in range(1, 21):
            flow.deliver(sequence)
        for _ in range(8):
            await pass_time(flow, TICK)
            await flow.runner._share()
        assert flow.broker.said == []
        assert len(flow.runner._mailbox) == 18


# --- two workers on a real server -----------------------------------------------------------------

COUNT = 2_000
HANDLERS = 4


class Pace:
    """Handlers that are quick until their worker holds much, then stand still, then are slow."""

    def __init__(self) -> None:
        self.begun: dict[str, list[int]] = {"one": [], "two": []}
        self.quick = True
        self.held: Callable[[], int] = lambda: 0
        self.start = asyncio.Event()
        self.go_on = asyncio.Event()

    def app(self, who: str) -> App:
        app = App("pace")

        @app.stage(name="double", concurrency=HANDLERS)
        async def double(number: Number, ctx: Context) -> Double:
            self.begun[who].append(ctx.attempt)
            await self.start.wait()
            if self.quick and self.held() < 10 * HANDLERS:
                await asyncio.sleep(0)
            else:
                self.quick = False
                await self.go_on.wait()
                await asyncio.sleep(0.02)
            return Double(number.value)

        return app


async def test_a_worker_that_joins_a_stage_that_became_slow_gets_its_share(nats: Settings) -> None:
    pace = Pace()
    async with Harness(pace.app("one"), nats) as harness:
        await harness.publish(*(Number(value) for value in range(COUNT)))
        async with harness.worker() as one:
            first = runner_of(one, "double")
            pace.held = lambda: len(first.jobs)
            pace.start.set()
            await until(lambda: not pace.quick, "handlers that are slow")
            await until(lambda: len(first.jobs) <= HANDLERS + 1, "what it may hold", 60)
            two = Worker(pace.app("two"), settings=nats)
            running = asyncio.create_task(two.run())
            try:
                await until(lambda: len(pace.begun["two"]) == HANDLERS, "a share for the other", 60)
                assert len(runner_of(two, "double").jobs) <= HANDLERS + 1
                gone, looks = await redeliveries(harness, "double"), 0

                def looked(now: float, tick: Callable[[float], None] = first.tick) -> None:
                    nonlocal looks
                    looks += 1
                    tick(now)

                first.tick = looked  # type: ignore[method-assign]
                await until(lambda: looks > 6, "some looks")
                # Nothing goes to and fro.
                assert await redeliveries(harness, "double") - gone <= 2 * HANDLERS
                left = COUNT - len(pace.begun["one"]) - HANDLERS
                pace.go_on.set()

                async def done() -> bool:
                    return await harness.lag("double") == 0

                await until(done, "the end", 200)
            finally:
                two.stop()
                await running
        assert left / 3 < len(pace.begun["two"]) < left * 2 / 3
        assert {*pace.begun["one"], *pace.begun["two"]} == {1}  # it was no attempt
        answers = sorted(m.value for m in await harness.messages(Double))
        assert answers == list(range(COUNT))
