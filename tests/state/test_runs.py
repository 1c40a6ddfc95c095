"""Replay runs have states of their own, which begin empty and go with the run."""

from __future__ import annotations

from mqinfer import App, Context, Message, Reject, State
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.replay.promote import Promotions, remembered
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from mqinfer.wiring import runs, scanner
from tests.support.replay import runs_of, work


class Step(Message, key="who", ordered=True):
    who: str
    value: int


class Sum(Message, key="who", ordered=True):
    who: str
    total: int


class Total(State, ttl="1h"):
    total: int = 0


async def test_a_run_has_states_of_its_own(nats: Settings) -> None:
    app = App("again", partitions=2)
    refusing = True

    @app.stage
    async def add(step: Step, state: Total, ctx: Context) -> Sum:
        if ctx.run and step.value == 2 and refusing:
            raise Reject("not in this run")
        state.total += step.value
        return Sum(step.who, state.total)

    @app.stage
    async def count(one: Sum, state: Total) -> None:
        state.total += 1

    async with Harness(app, nats) as harness:
        for value in range(1, 5):
            await harness.publish(Step("p", value), Step("q", 10 * value))
        await harness.drain()
        live = {"p": Total(10), "q": Total(100)}
        assert await harness.client.states("add") == live
        store = runs_of(harness)
        run = await store.create(stage="add", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        assert await harness.client.states("add") == live
        assert await harness.client.states("add", run="r1") == {"p": Total(8), "q": Total(100)}
        assert await harness.client.state("count", "p", Total, run="r1") == Total(3)
        assert await harness.client.states("count") == {"p": Total(4), "q": Total(4)}
        # What is sent back to the run comes to the run's state.
        refusing = False
        broker = harness.services.broker
        letters = DeadLetters(app, scanner(broker), broker, runs(app, broker))  # type: ignore[arg-type]
        assert (await letters.retry(Selection())).done == 1
        await work(harness, "r1")
        assert await harness.client.states("add", run="r1") == {"p": Total(10), "q": Total(100)}
        assert await harness.client.states("add") == live
        told = remembered(app, run)
        assert told is not None
        assert told.startswith("the live states of add, count stay as they are")
        assert (await Promotions(app, store, None).discard("r1")).state == "discarded"
        assert await harness.client.states("add", run="r1") == {}
        assert await harness.client.states("count", run="r1") == {}
        assert await harness.client.states("add") == live
