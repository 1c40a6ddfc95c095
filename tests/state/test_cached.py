"""With a tenure: a message costs one write, and what changed behind the owner's back is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from mqinfer import App, Message, State, plan
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.backoff import Backoff
from mqinfer.settings import Settings
from mqinfer.state import reading, states
from mqinfer.testing import Harness, until


class Step(Message, key="who", ordered=True):
    who: str
    value: int


class Sum(Message, key="who"):
    who: str
    total: int


class Total(State, ttl="1h"):
    total: int = 0


async def test_a_hot_key_is_read_once_in_a_tenure(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, reads, tenure = App("plants", partitions=2), list[str](), 1
    load = JetStreamBucket.load

    async def counted(self: Any, key: str) -> Any:
        if key.startswith("live."):
            reads.append(key)
        return await load(self, key)

    monkeypatch.setattr(JetStreamBucket, "load", counted)
    monkeypatch.setattr(states, "tenure_of", lambda _delivery: tenure)

    @app.stage(backoff=Backoff(initial=0.01))
    async def add(step: Step, state: Total) -> Sum:
        state.total += step.value
        return Sum(step.who, state.total)

    async with Harness(app, nats) as harness, harness.worker():

        async def totals(count: int) -> list[int]:
            found = [one.total for one in await harness.messages(Sum) if one.who == "p"]
            return found if len(found) >= count else []

        await harness.publish(*(Step("p", 1) for _ in range(30)))
        assert await until(lambda: totals(30), "the sums") == list(range(1, 31))
        assert reads == ["live.add.p"]
        # Another change than its own: the write is refused, and the message handled again.
        bucket = harness.services.broker.bucket(plan.memory_bucket(app))

        async def written() -> bool:
            return await harness.client.state("add", "p", Total) == Total(30)

        await until(written, "the last state")
        assert await reading.reset(app, "add", "p", bucket)
        await harness.publish(Step("p", 5))

        async def anew() -> bool:
            return await harness.client.state("add", "p", Total) == Total(5)

        await until(anew, "the new state")
        # In another tenure what was kept says nothing.
        reads.clear()
        tenure = 2
        await harness.publish(Step("p", 6), Step("q", 1))

        async def both() -> bool:
            found = await harness.client.states("add")
            return found == {"p": Total(11), "q": Total(1)}

        await until(both, "both states")
        assert reads.count("live.add.q") == 1
        assert "live.add.p" in reads


async def test_an_answer_that_is_lost_is_no_conflict(nats: Settings) -> None:
    app, handled, lost = App("plants", partitions=1), list[int](), list[bytes]()

    @app.stage
    async def add(step: Step, state: Total) -> None:
        handled.append(step.value)
        state.total += step.value

    async with Harness(app, nats) as harness, harness.worker() as worker:
        await until(lambda: not worker.not_ready(), "readiness")
        publisher = worker.services.broker.publisher  # type: ignore[attr-defined]
        finish = publisher._finish

        def lose_one(number: int, entry: Any, error: Any, repeat: bool = False) -> None:
            if entry.subject.startswith(b"$KV.plants-memory.") and not lost:
                lost.append(entry.subject)
                publisher._send(number, entry)  # again, as after the time for an answer
            else:
                finish(number, entry, error, repeat)

        publisher._finish = lose_one
        await harness.publish(Step("p", 1), Step("p", 2))

        async def both() -> bool:
            return await harness.client.state("add", "p", Total) == Total(3)

        await until(both, "the state")
        assert lost
        assert handled == [1, 2]
