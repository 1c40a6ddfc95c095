"""States on a real nats-server: each message changes its key's state once, whatever happens."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mqinfer import App, Context, Message, Reject, Rejected, Retry, Snooze, State, plan
from mqinfer.adapters.jetstream import JetStream
from mqinfer.backoff import Backoff
from mqinfer.errors import ConfigurationError, StateError
from mqinfer.operate import check, graph
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.operate.permissions import permissions
from mqinfer.operate.rename import rename
from mqinfer.settings import Settings
from mqinfer.state import reading, record
from mqinfer.testing import Harness, until
from mqinfer.wiring import runs, scanner

SOON = Backoff(initial=0.01, maximum=0.05)


class Grade(Message, key="position", ordered=True):
    position: str
    value: int = 0


class Sum(Message, key="position"):
    position: str
    total: int
    count: int


class Total(State):
    total: int = 0
    count: int = 0
    values: list[int] = msgspec.field(default_factory=list)


def add_to(state: Total, grade: Grade) -> Sum:
    state.total += grade.value
    state.count += 1
    state.values.append(grade.value)
    return Sum(grade.position, state.total, state.count)


async def kept(harness: Harness, stage: str, token: str, run: str | None = None) -> record.Record:
    """The record of a key."""
    bucket = harness.services.broker.bucket(plan.memory_bucket(harness.app))
    found = await bucket.load(record.bucket_key(stage, run, token))
    assert found is not None
    return record.decode(found[0])


def raw(harness: Harness) -> JetStream:
    broker = harness.services.broker
    assert isinstance(broker, JetStream)
    return broker


async def sums(harness: Harness) -> list[tuple[str, int, int]]:
    return [(one.position, one.total, one.count) for one in await harness.messages(Sum)]


async def test_a_state_goes_on_from_message_to_message_and_worker_to_worker(nats: Settings) -> None:
    app = App("plants", partitions=4)

    @app.stage
    async def add(grade: Grade, state: Total) -> Sum:
        return add_to(state, grade)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Grade(f"p{n % 3}", n) for n in range(9)))
        await harness.drain()
        await harness.publish(Grade("p0", 100), Grade("new", 1))
        await harness.drain()
        found = await sums(harness)
        for key, totals in {"p0": [0, 3, 9, 109], "p1": [1, 5, 12], "p2": [2, 7, 15]}.items():
            wanted = [(total, count + 1) for count, total in enumerate(totals)]
            assert [(t, c) for k, t, c in found if k == key] == wanted
        assert await harness.state("add", "p0") == Total(109, 4, [0, 3, 6, 100])
        assert await harness.client.state("add", "p0", Total) == Total(109, 4, [0, 3, 6, 100])
        assert await harness.state("add", "nothing") is None
        assert await harness.client.states("add") == {
            "new": Total(1, 1, [1]),
            "p0": Total(109, 4, [0, 3, 6, 100]),
            "p1": Total(12, 3, [1, 4, 7]),
            "p2": Total(15, 3, [2, 5, 8]),
        }
        with pytest.raises(ConfigurationError, match="has states of Total"):
            await harness.client.state("add", "p0", type("Other", (State,), {}))
        with pytest.raises(ConfigurationError, match="no stage"):
            await harness.client.state("other", "p0")
        assert await harness.dead() == []


async def test_every_shape_of_a_handler(nats: Settings) -> None:
    app = App("plants", partitions=4)

    @app.stage
    def in_a_thread(grade: Grade, state: Total) -> Sum:
        return add_to(state, grade)

    @app.stage(early=True)
    async def early(grade: Grade, state: Total, ctx: Context) -> AsyncIterator[Sum]:
        yield add_to(state, grade)

    @app.stage
    async def emits(grade: Grade, ctx: Context, state: Total) -> Sum | None:
        await ctx.emit(add_to(state, grade))
        return None

    @app.stage(batch_wait=0.02)
    async def batch(
        grades: list[Grade], states: list[Total], contexts: list[Context]
    ) -> list[Sum | Rejected]:
        assert len({grade.position for grade in grades}) == len(grades) == len(contexts)
        return [
            Rejected("seven") if grade.value == 7 else add_to(state, grade)
            for grade, state in zip(grades, states, strict=True)
        ]

    @app.stage
    def batch_in_a_thread(grades: list[Grade], states: list[Total]) -> None:
        for grade, state in zip(grades, states, strict=True):
            add_to(state, grade)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Grade(f"p{n % 4}", n) for n in range(12)))
        await harness.drain()
        for stage in ("in_a_thread", "early", "emits", "batch_in_a_thread"):
            assert await harness.state(stage, "p3") == Total(21, 3, [3, 7, 11])
        assert await harness.state("batch", "p3") == Total(14, 2, [3, 11])
        (letter,) = await harness.dead()
        assert "seven" in letter.reason
        found = await sums(harness)
        assert len(found) == 4 * 12 - 1
        assert found.count(("p3", 21, 3)) == 3  # batch has 14 of 2


async def test_what_fails_leaves_the_state_as_it_was(nats: Settings) -> None:
    app = App("plants", partitions=1)
    tried: dict[int, int] = {}

    @app.stage(backoff=SOON, attempts=3, timeout=0.3)
    async def add(grade: Grade, state: Total) -> Sum | None:
        answer = add_to(state, grade)
        tried[grade.value] = attempt = tried.get(grade.value, 0) + 1
        match grade.value:
            case 1:
                raise Reject("never")
            case 2 if attempt == 1:
                raise Retry("not now")
            case 3 if attempt == 1:
                raise Snooze(after=0.01)
            case 4 if attempt == 1:
                await asyncio.sleep(60)
            case 5:
                raise ValueError("always")
            case 6 if attempt == 1:
                raise asyncio.CancelledError
        return answer

    async with Harness(app, nats) as harness:
        await harness.publish(*(Grade("p", n) for n in range(8)))
        await harness.drain()
        assert await harness.state("add", "p") == Total(22, 6, [0, 2, 3, 4, 6, 7])
        assert [total for _, total, _ in await sums(harness)] == [0, 2, 5, 9, 15, 22]
        assert [letter.reason for letter in await harness.dead()] == ["never", "always"]
        assert tried[5] == 3
        # One that is sent back has a new place, and is applied there.
        tried[5] = tried[1] = -10

        async def mended(grade: Grade, state: Total) -> Sum:
            return add_to(state, grade)

        better = App("plants", partitions=1)
        better.stage(name="add")(mended)
        async with Harness(better, nats) as again:
            broker = raw(again)
            dead = DeadLetters(better, scanner(broker), broker, runs(better, broker))
            await dead.retry(Selection())
            await again.publish(Grade("p", 8))
            await again.drain()
            assert sorted((await kept_values(again))[-3:]) == [1, 5, 8]
            assert len(await kept_values(again)) == 9


async def kept_values(harness: Harness) -> list[int]:
    state = await harness.state("add", "p")
    assert isinstance(state, Total)
    return state.values


async def test_what_the_state_has_seen_is_not_handled_again(nats: Settings) -> None:
    app = App("plants", partitions=1)
    handled: list[int] = []

    @app.stage
    async def add(grade: Grade, state: Total) -> Sum:
        handled.append(grade.value)
        return add_to(state, grade)

    async with Harness(app, nats) as harness:
        await harness.publish(Grade("p", 1), Grade("p", 2))
        await harness.drain()
        # All is delivered again, as if the acknowledgements were lost.
        (task,) = plan.tasks(app, ["add"])
        (spec,) = plan.consumer_specs(app, task)
        await raw(harness).delete_consumer(spec.stream, spec.name)
        await raw(harness).ensure_consumer(spec)
        await harness.publish(Grade("p", 3))
        await harness.drain()
        assert handled == [1, 2, 3]
        assert await harness.state("add", "p") == Total(6, 3, [1, 2, 3])


async def test_numbers_of_another_stream_of_the_name_say_nothing(nats: Settings) -> None:
    app = App("plants", partitions=1)

    @app.stage(start="oldest")
    async def add(grade: Grade, state: Total) -> Sum:
        return add_to(state, grade)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Grade("p", n) for n in range(5)))
        await harness.drain()
        (task,) = plan.tasks(app, ["add"])
        for stream in ("plants", plan.stream_of(app, task)):
            await raw(harness).client.api(f"$JS.API.STREAM.DELETE.{stream}")
        await raw(harness).ensure_stream(plan.stream_spec(app))
        await harness.publish(Grade("p", 10))
        await harness.drain()
        assert await harness.state("add", "p") == Total(20, 6, [0, 1, 2, 3, 4, 10])


async def test_a_key_is_whatever_it_is(nats: Settings) -> None:
    app = App("plants", partitions=4)

    @app.stage
    async def add(grade: Grade, state: Total) -> None:
        add_to(state, grade)

    keys = ["", "a.b c*>", "ä/%2E", "x" * 159, "y" * 400, "y" * 399 + "z", "%00", " "]
    async with Harness(app, nats) as harness:
        for value in (1, 2):
            await harness.publish(*(Grade(key, value) for key in keys))
        # On the bare subject there is no key, whatever the payload says of one.
        await harness.publish_bytes("plants.grade", b'{"position": "p", "value": 5}')
        await harness.publish_bytes("plants.grade.q.r", b'{"position": "p", "value": 6}')
        await harness.drain()
        for key in keys:
            assert await harness.state("add", key) == Total(3, 2, [1, 2])
        states = await harness.client.states("add")
        assert set(keys) | {"q.r"} == set(states)
        assert await harness.state("add", "p") is None
        assert (await kept(harness, "add", "")).sequence == 17


async def test_states_too_large_are_refused_and_the_old_one_stands(nats: Settings) -> None:
    app = App("plants", partitions=1)

    class Large(State):
        text: str = ""

    @app.stage
    async def add(grade: Grade, state: Large) -> Sum:
        state.text += "x" * grade.value
        return Sum("p", len(state.text), 0)

    async with Harness(app, nats) as harness:
        limit = raw(harness).max_payload
        await harness.publish(Grade("p", 10), Grade("p", limit), Grade("p", 5))
        await harness.drain()
        assert await harness.state("add", "p") == Large("x" * 15)
        assert [total for _, total, _ in await sums(harness)] == [10, 15]
        (letter,) = await harness.dead()
        assert f"the state of stage add for key 'p' has {limit // 1000:,}," in letter.reason
        assert f"the server takes {limit:,} with headers" in letter.reason


async def test_values_are_kept_exactly_or_refused(nats: Settings) -> None:
    app = App("plants", partitions=1)

    class Odd(State):
        at: datetime.datetime | None = None
        ratio: float = 0.0
        pixels: NDArray[np.float32] = msgspec.field(
            default_factory=lambda: np.zeros(2, dtype=np.float32)
        )
        anything: int = 0

    @app.stage(attempts=1)
    async def add(grade: Grade, state: Odd) -> None:
        state.at = datetime.datetime(2026, 5, 27, 1, 2, 3, 4, tzinfo=datetime.UTC)
        state.ratio = float("nan")
        state.pixels[0] += 1.5
        if grade.value == 1:
            state.anything = "no number"  # type: ignore[assignment]

    async with Harness(app, nats) as harness:
        await harness.publish(Grade("p"), Grade("p", 1), Grade("p"))
        await harness.drain()
        state = await harness.client.state("add", "p", Odd)
        assert state is not None
        assert state.at == datetime.datetime(2026, 5, 27, 1, 2, 3, 4, tzinfo=datetime.UTC)
        assert state.ratio != state.ratio
        assert list(state.pixels) == [3.0, 0.0]
        assert "anything" in (await harness.dead())[0].reason


async def test_a_state_expires_after_its_ttl_and_each_change_puts_that_off(nats: Settings) -> None:
    app = App("plants", partitions=1)

    class Short(State, ttl="4s"):
        count: int = 0

    @app.stage
    async def add(grade: Grade, state: Short) -> Sum:
        state.count += 1
        return Sum("p", 0, state.count)

    async with Harness(app, nats) as harness, harness.worker():
        await harness.publish(Grade("p"))
        await until(lambda: harness.state("add", "p"), "the state")

        async def gone() -> bool:
            return await harness.state("add", "p") is None

        await until(gone, "its end")
        await harness.publish(Grade("p"), Grade("p"))
        await until(lambda: harness.messages(Sum), "the answers")

        async def three() -> bool:
            return len(await harness.messages(Sum)) == 3

        await until(three, "the answers")
        assert [count for _, _, count in await sums(harness)] == [1, 1, 2]


async def test_types_that_change(nats: Settings) -> None:
    def app_of(kind: type[State], change: Any) -> App:
        app = App("plants", partitions=1)

        @app.stage(attempts=2, backoff=SOON)
        async def add(grade: Grade, state: kind) -> None:  # type: ignore[valid-type]
            change(state)

        assert app.stages
        return app

    class Old(State):
        total: int = 7
        gone: str = "x"

    class Grown(State):
        total: int = 0
        new: float = 1.5

    class Other(State):
        total: list[int] = msgspec.field(default_factory=list)

    def more(state: Any) -> None:
        state.total += 1

    async with Harness(app_of(Old, more), nats) as harness:
        await harness.publish(Grade("p"))
        await harness.drain()
    async with Harness(app_of(Grown, more), nats) as harness:
        await harness.publish(Grade("p"))
        await harness.drain()
        assert await harness.state("add", "p") == Grown(9, 1.5)
    bad = app_of(Other, lambda state: state.total.append(1))
    async with Harness(bad, nats) as harness:
        report = check.Report()
        await check.check_streams(bad, scanner(raw(harness)), report)
        (problem,) = report.problems
        assert problem.startswith("stage add: 1 of 1 states cannot be read as Other is now")
        assert "key 'p'" in problem
        await harness.publish(Grade("p"), Grade("q"))
        await harness.drain()
        (letter,) = await harness.dead()
        assert "the state of stage add for key 'p' cannot be read as Other" in letter.reason
        assert "mqinfer state APP add p --reset" in letter.reason
        assert await harness.state("add", "q") == Other([1])
        with pytest.raises(StateError, match="key 'p'"):
            await harness.state("add", "p")
        with pytest.raises(StateError, match="key 'p'"):
            await harness.client.states("add")
    async with Harness(app_of(Grown, more), nats) as harness:
        assert await harness.state("add", "p") == Grown(9, 1.5)  # nothing was overwritten


async def test_a_reset_beside_a_worker_at_work_begins_anew(nats: Settings) -> None:
    app = App("plants", partitions=1)
    begun, go = asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    @app.stage(backoff=SOON)
    async def add(grade: Grade, state: Total) -> None:
        add_to(state, grade)
        calls.append(grade.value)
        if grade.value == 2:
            begun.set()
            await go.wait()

    async with Harness(app, nats) as harness, harness.worker():
        bucket = raw(harness).bucket(plan.memory_bucket(app))
        await harness.publish(Grade("p", 1))
        await until(lambda: harness.state("add", "p"), "the first state")
        await harness.publish(Grade("p", 2))
        await begun.wait()
        assert await reading.reset(app, "add", "p", bucket)
        assert not await reading.reset(app, "add", "p", bucket)  # it is anew
        assert not await reading.reset(app, "add", "q", bucket)
        assert await harness.state("add", "p") is None
        go.set()
        await until(lambda: harness.state("add", "p"), "the state")
        assert await harness.state("add", "p") == Total(2, 1, [2])
        assert calls == [1, 2, 2]
        assert (await kept(harness, "add", "p")).sequence == 2


def test_permissions_name_the_states_of_what_remembers() -> None:
    app = App("plants", partitions=2)

    @app.stage
    async def add(grade: Grade, state: Total) -> Sum:
        return add_to(state, grade)

    allowed = permissions(app)
    assert "$KV.plants-memory.live.add.>" in allowed.publish
    assert "$KV.plants-memory.run.may.add.>" in permissions(app, replays=["may"]).publish
    assert "$KV.plants-memory.run.*.add.>" in permissions(app, replays=["*"]).publish
    plain = App("plants", partitions=2)

    @plain.stage
    async def other(grade: Grade) -> None: ...

    assert not [subject for subject in permissions(plain).publish if "memory" in subject]


async def test_a_stage_that_is_renamed_takes_its_states_along(nats: Settings) -> None:
    async def add(grade: Grade, state: Total) -> None:
        add_to(state, grade)

    old, new = App("plants", partitions=1), App("plants", partitions=1)
    old.stage(name="old")(add)
    new.stage(name="new")(add)
    async with Harness(old, nats) as harness:
        await harness.publish(*(Grade(key, 1) for key in ("p", "q", "y" * 300)))
        await harness.drain()
    async with Harness(new, nats) as harness:
        await rename(new, "old", "new", raw(harness))
        await harness.publish(Grade("p", 2))
        await harness.drain()
        assert await harness.client.states("new") == {
            "p": Total(3, 2, [1, 2]),
            "q": Total(1, 1, [1]),
            "y" * 300: Total(1, 1, [1]),
        }


def test_the_graph_shows_what_is_remembered() -> None:
    app = App("plants")

    class Health(State, name="how it is"):
        worst: int = 0

    @app.stage
    async def watch(grade: Grade, health: Health) -> None: ...

    assert [node.note for node in graph.graph_of(app).nodes if node.kind == "stage"] == [
        "remembers how it is"
    ]
