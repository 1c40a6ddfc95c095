"""Replays on real servers: exact ranges, kills, and that nothing live is touched."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from mqinfer import App, Blob, Context, Message
from mqinfer.adapters.runs import JetStreamRuns
from mqinfer.adapters.scan import Scanner
from mqinfer.backoff import Backoff
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.identity import MODELS, MSG_ID, RUN
from mqinfer.inference.inference import Inference
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.ports import ModelInfo, ModelReply, TensorInfo
from mqinfer.replay.consumers import progress
from mqinfer.replay.runs import Runs, Wanted
from mqinfer.replay.work import RunWork
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from mqinfer.worker.live import LiveWork
from mqinfer.worker.services import Services
from mqinfer.worker.worker import Worker
from tests.support.replay import Double, Keyed, Noise, Number, runs_of, work


def doubling(name: str) -> tuple[App, list[tuple[int, str | None]]]:
    """An app whose stage says what it handled, and in which run."""
    app = App(name)
    seen: list[tuple[int, str | None]] = []

    @app.stage
    async def double(number: Number, ctx: Context) -> Double:
        seen.append((number.value, ctx.run))
        return Double(2 * number.value)

    @app.stage
    async def noise(one: Noise) -> None:
        pass

    @app.stage
    async def keyed(one: Keyed) -> Double:
        return Double(one.value)

    return app, seen


@asynccontextmanager
async def filled(app: App, nats: Settings) -> AsyncIterator[Harness]:
    """A stream of ten numbers (1, 3, ... 19) with noise behind each, answered by the live stage."""
    async with Harness(app, nats) as harness:
        for value in range(10):
            await harness.publish(Number(value), ids=[f"n{value}"])
            await harness.publish(Noise(value))
        await harness.drain()
        yield harness


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (Wanted(), range(10)),
        (Wanted(from_seq=1, to_seq=1), [0]),
        (Wanted(from_seq=2, to_seq=2), []),  # noise
        (Wanted(from_seq=3, to_seq=7), [1, 2, 3]),
        (Wanted(from_seq=4, to_seq=6), [2]),
        (Wanted(from_seq=19, to_seq=19), [9]),
        (Wanted(from_seq=19, to_seq=5000), [9]),
        (Wanted(to_seq=20), range(10)),
    ],
)
async def test_bounds_are_exact(nats: Settings, wanted: Wanted, values: Any) -> None:
    app, seen = doubling("exact")
    async with filled(app, nats) as harness:
        seen.clear()
        run = await runs_of(harness).create(stage="double", wanted=wanted, name="r1")
        assert run.total == len(values)
        # What comes after the run was made is not part of it, and is live's alone.
        await harness.publish(Number(100), Number(101))
        await work(harness, "r1")
        assert sorted(seen) == [(value, "r1") for value in values]
        stored = await harness.stored(subject="exact.run.>")
        assert len(stored) == len(values)
        assert all(raw.headers[RUN] == "r1" for raw in stored)
        assert (await runs_of(harness).get("r1")).state == "done"
        assert await harness.lag("double") == 2
        await harness.drain()
        assert sorted(seen)[-2:] == [(100, None), (101, None)]
        assert len(await harness.messages(Double)) == 12


async def test_a_range_that_cannot_be_is_refused(nats: Settings) -> None:
    app, _ = doubling("refused")
    async with filled(app, nats) as harness:
        runs = runs_of(harness)
        last = (await runs.store.bounds("refused")).last  # type: ignore[union-attr]
        for wanted, text in [
            (Wanted(from_seq=last + 1), "ahead of the end"),
            (Wanted(from_seq=7, to_seq=3), "ends before it begins"),
        ]:
            with pytest.raises(ConfigurationError, match=text):
                await runs.create(stage="double", wanted=wanted)
        with pytest.raises(ConfigurationError, match="has no stage nope"):
            await runs.create(stage="nope", wanted=Wanted())
        with pytest.raises(ConfigurationError, match="has no model"):
            await runs.create(stage="double", wanted=Wanted(), models={"m": "2"})
        with pytest.raises(ConfigurationError, match="no key= to choose by"):
            await runs.create(stage="double", wanted=Wanted(), key="a")
        with pytest.raises(ConfigurationError, match="no hyphen"):
            await runs.create(stage="double", wanted=Wanted(), name="a-b")
        with pytest.raises(ConfigurationError, match="it has: none"):
            await runs.get("r1")
        await runs.create(stage="double", wanted=Wanted(), name="r1")
        with pytest.raises(ConflictError, match="never used twice"):
            await runs.create(stage="double", wanted=Wanted(), name="r1")
        # An end beyond the stream's is cut, and said.
        run = await runs.create(stage="double", wanted=Wanted(from_seq=3, to_seq=999), name="r2")
        assert run.end == last
        assert "the stream ends at" in run.notes[0]


async def test_what_retention_removed_is_said_before_the_start(nats: Settings) -> None:
    app, seen = doubling("removed")
    async with filled(app, nats) as harness:
        client = harness.services.broker.client  # type: ignore[attr-defined]
        await client.api("$JS.API.STREAM.PURGE.removed", {"seq": 6})
        await client.api("$JS.API.STREAM.MSG.DELETE.removed", {"seq": 9})
        seen.clear()
        runs = runs_of(harness)
        run = await runs.create(stage="double", wanted=Wanted(from_seq=2, to_seq=13), name="r1")
        assert (run.start, run.end, run.total) == (6, 13, 3)
        assert "retention has removed 2 to 5" in run.notes[0]
        assert "1 messages" in run.notes[1]
        with pytest.raises(ConfigurationError, match="removed by retention"):
            await runs.create(stage="double", wanted=Wanted(from_seq=1, to_seq=4))
        # More goes while the run exists: what is left is replayed, and the run ends.
        await client.api("$JS.API.STREAM.PURGE.removed", {"seq": 10})
        await work(harness, "r1")
        assert seen == [(5, "r1"), (6, "r1")]
        await client.api("$JS.API.STREAM.PURGE.removed", {})
        with pytest.raises(ConfigurationError, match="removed by retention"):
            await runs.create(stage="double", wanted=Wanted())


async def test_by_time_and_by_key(nats: Settings) -> None:
    app, seen = doubling("times")
    async with Harness(app, nats) as harness:
        await harness.publish(Number(0), Keyed("a", 1), Keyed("b.c", 2))
        await asyncio.sleep(0.05)
        middle = datetime.datetime.now(datetime.UTC)
        await asyncio.sleep(0.05)
        await harness.publish(Number(1), Keyed("b.c", 3))
        await harness.drain()
        seen.clear()
        runs = runs_of(harness)
        await runs.create(stage="double", wanted=Wanted(since=middle), name="late")
        await work(harness, "late")
        assert seen == [(1, "late")]
        await runs.create(stage="double", wanted=Wanted(until=middle), name="early")
        await work(harness, "early")
        assert seen[1:] == [(0, "early")]
        empty = await runs.create(
            stage="double", wanted=Wanted(since=middle, until=middle), name="none"
        )
        assert empty.total == 0
        await work(harness, "none")
        assert len(seen) == 2
        await runs.create(stage="keyed", wanted=Wanted(), key="b.c", name="key")
        await work(harness, "key")
        stored = await harness.stored(subject="times.run.key.>")
        assert [raw.data for raw in stored] == [b'{"value":2}', b'{"value":3}']


async def test_a_run_is_stopped_and_resumed_and_joined(nats: Settings) -> None:
    app = App("joined")
    go = asyncio.Event()
    begun: list[int] = []

    @app.stage(max_in_flight=2)
    async def double(number: Number) -> Double:
        begun.append(number.value)
        if len(begun) > 4:
            await go.wait()
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(30)))
        runs = runs_of(harness)
        await runs.create(stage="double", wanted=Wanted(), name="r1")
        one = asyncio.create_task(work(harness, "r1"))
        await until(lambda: len(begun) >= 5)
        assert (await runs.stop("r1")).state == "stopped"
        go.set()
        await one
        assert (await runs.get("r1")).state == "stopped"
        await asyncio.gather(work(harness, "r1"), work(harness, "r1"))
        assert (await runs.get("r1")).state == "done"
        stored = await harness.stored(subject="joined.run.>")
        assert len(stored) == 30
        assert await harness.lag("double") == -1  # no live consumer was made


async def test_dead_letters_of_a_run_say_so(nats: Settings) -> None:
    app = App("letters")

    @app.stage(attempts=1)
    async def double(number: Number) -> Double:
        raise ValueError("no")

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        await runs_of(harness).create(stage="double", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        (dead,) = await harness.dead()
        assert (dead.stored.subject, dead.headers[RUN]) == ("dead.letters.double", "r1")


def letters_of(harness: Harness) -> DeadLetters:
    broker = harness.services.broker
    scanner = Scanner(broker.client)  # type: ignore[attr-defined]
    return DeadLetters(harness.app, scanner, broker, runs_of(harness))


async def test_dead_letters_go_back_to_their_run(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App("back")
    bad, worse = {2, 5, 7}, {5}
    seen: list[tuple[str, int, str | None]] = []

    class Last(Message):
        value: int

    @app.stage(attempts=1)
    async def double(number: Number, ctx: Context) -> Double:
        seen.append(("double", number.value, ctx.run))
        if ctx.run and number.value in bad:
            raise ValueError("no")
        return Double(number.value)

    @app.stage(attempts=1)
    async def last(one: Double, ctx: Context) -> Last:
        seen.append(("last", one.value, ctx.run))
        if ctx.run and one.value in worse | {8}:
            raise ValueError("no")
        return Last(one.value)

    @app.stage
    async def other(number: Number, ctx: Context) -> None:
        seen.append(("other", number.value, ctx.run))

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(10)))
        await harness.drain()
        runs, letters = runs_of(harness), letters_of(harness)

        async def stored_values(kind: str) -> list[int]:
            stored = await harness.stored(subject=f"back.run.r1.{kind}")
            return sorted(int(raw.data[len(b'{"value":') : -1]) for raw in stored)

        await runs.create(stage="double", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        run = await runs.get("r1")
        assert (run.state, len(await harness.dead())) == ("done", 4)  # 2, 5, 7; and 8 in `last`
        await harness.publish(*(Number(value) for value in range(100, 120)))
        seen.clear()

        # Killed before the run is open again: the letters are kept, and go back once.
        with monkeypatch.context() as patch:
            patch.setattr(Runs, "reopen", None)
            with pytest.raises(TypeError):
                await letters.retry(Selection())
        assert len(await harness.dead()) == 4
        assert (await runs.get("r1")).state == "done"
        bad.clear()
        result = await letters.retry(Selection())
        assert (result.done, result.reopened, result.problems) == (4, ["r1"], [])
        assert await harness.dead() == []
        run = await runs.get("r1")
        assert (run.state, run.retries) == ("running", 1)
        assert await progress(app, run, harness.services.broker, runs) == 7
        await asyncio.gather(work(harness, "r1"), work(harness, "r1"))
        # 5 and 8 fail in `last`, now and again; those that were sent back came once, to the run.
        run = await runs.get("r1")
        assert (run.state, len(await harness.dead())) == ("done", 2)
        assert await progress(app, run, harness.services.broker, runs) == 10
        assert sorted(seen) == [
            *(("double", value, "r1") for value in (2, 5, 7)),
            *(("last", value, "r1") for value in (2, 5, 7, 8)),
        ]
        seen.clear()
        worse.clear()
        result = await letters.retry(Selection())
        assert (result.done, result.reopened) == (2, ["r1"])
        await work(harness, "r1")
        assert sorted(seen) == [("last", 5, "r1"), ("last", 8, "r1")]
        assert len(await harness.dead()) == 1
        # One answer each; what was sent back to `last` lies beside them, for it alone.
        answers, again = await stored_values("last"), await stored_values("double")
        assert answers == [0, 1, 2, 3, 4, 5, 6, 7, 9]
        assert again == sorted([*range(10), 5, 8, 8])
        # Nothing of it is live.
        assert await harness.lag("double") == 20
        assert len(await harness.stored(subject="back.number")) == 30
        assert await harness.lag("last") == 0


async def test_when_dead_letters_cannot_go_back_to_their_run(nats: Settings) -> None:
    app = App("refusing")

    @app.stage(attempts=1)
    async def double(number: Number) -> Double:
        raise ValueError("no")

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        runs, letters = runs_of(harness), letters_of(harness)
        await runs.create(stage="double", wanted=Wanted(), name="r1")
        await work(harness, "r1")

        async def refused(text: str, **changes: Any) -> None:
            before = await runs.get("r1")
            await runs.change("r1", lambda run: structs.replace(run, **changes))
            result = await letters.retry(Selection())
            assert text in result.problems[0]
            assert (result.done, result.failed, result.reopened) == (0, 1, [])
            assert len(await harness.dead()) == 1
            assert await harness.stored(subject="refusing.run.>") == []
            await runs.change("r1", lambda _: before)

        await refused("still at work", state="running", finished=None)
        await refused("runs undo APP r1", state="promoted")
        await refused("drop the letter", state="discarded")
        (dead,) = await harness.dead()
        await harness.publish_bytes(
            "dead.refusing.double", b"", {**dead.headers, RUN: "gone", MSG_ID: "x"}
        )
        result = await letters.retry(Selection(sequences=((2, 2),)))
        assert "there is no replay run gone" in result.problems[0]


async def test_downstream_stays_in_the_run(nats: Settings) -> None:
    app = App("chain")
    live: list[str | None] = []

    class Last(Message):
        value: int

    @app.stage
    async def double(number: Number) -> AsyncIterator[Double]:
        for index in range(number.value):
            yield Double(index)

    @app.stage
    async def last(one: Double, ctx: Context) -> Last:
        live.append(ctx.run)
        return Last(one.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(6)))
        await harness.drain()
        runs = runs_of(harness)
        await runs.create(stage="double", wanted=Wanted(), name="alone")
        await work(harness, "alone")
        assert len(await harness.stored(subject="chain.run.alone.>")) == 15
        await runs.create(stage="double", wanted=Wanted(), name="all", downstream=True)
        await work(harness, "all")
        assert len(await harness.stored(subject="chain.run.all.last")) == 15
        assert live == [None] * 15 + ["all"] * 15


async def test_counting_is_exact(nats: Settings) -> None:
    app, _ = doubling("count")
    async with filled(app, nats) as harness:
        store = JetStreamRuns(harness.services.broker, "count-runs")  # type: ignore[arg-type]
        assert await store.count("count", ("count.number",), 1, 20) == 10
        assert await store.count("count", ("count.number",), 2, 2) == 0
        assert await store.count("count", ("count.number", "count.noise"), 5, 8) == 4
        assert await store.count("count", ("count.number",), 9, 5) == 0


class Versions:
    """A server whose model answers with the version that was asked for, 1 where none was."""

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        kind = np.dtype(np.int64)
        tensors = (TensorInfo("x", kind, (1,)),), (TensorInfo("y", kind, (1,)),)
        return ModelInfo(model, ("1", "2"), *tensors, max_batch_size=8)

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Any], *, timeout: float | None
    ) -> ModelReply:
        answered = version or "1"
        return ModelReply({"y": inputs["x"] * int(answered)}, answered)

    async def ready(self) -> None:
        pass

    async def reload(self, model: str) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_a_run_answers_with_its_own_model_version(nats: Settings) -> None:
    app = App("versions")
    model = app.model("grader", version="1")

    @app.stage
    async def double(number: Number) -> Double:
        answer = await model(x=np.array([number.value], np.int64))
        return Double(int(answer["y"][0]))

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(5)))

        async def services() -> Services:
            return replace(harness.services, inference=Inference(Versions()))

        connections = await services()
        await Worker(connections, LiveWork(app, connections.broker, drain=True)).run()
        runs = runs_of(harness)
        run = await runs.create(stage="double", wanted=Wanted(), name="r1", models={"grader": "2"})
        connections = await services()
        await Worker(connections, RunWork(app, connections, run, runs)).run()
        assert connections.metrics.run == "r1"
        stored = await harness.stored(subject="versions.run.r1.double")
        assert sorted(raw.data for raw in stored) == [b'{"value":%d}' % (2 * i) for i in range(5)]
        assert {raw.headers[MODELS] for raw in stored} == {"grader=2"}
        assert sorted(m.value for m in await harness.messages(Double)) == list(range(5))
        stored = await harness.stored(subject="versions.double")
        assert {raw.headers[MODELS] for raw in stored} == {"grader=1"}


async def test_blobs_of_a_run_replace_none(nats: Settings) -> None:
    app = App("pictures")
    content = b"live"

    class Picture(Message):
        image: Blob

    @app.stage
    async def draw(number: Number) -> Picture:
        return Picture(Blob(content, path=f"pictures/{number.value}.bin"))

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        await harness.drain()
        content = b"run"
        await runs_of(harness).create(stage="draw", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        blobs = harness.client.blobs
        assert await blobs.get("pictures/1.bin") == b"live"
        assert await blobs.get("runs/r1/pictures/1.bin") == b"run"
        (raw,) = await harness.stored(subject="pictures.run.>")
        assert raw.data == b'{"image":"runs/r1/pictures/1.bin"}'


async def test_an_ordered_stage_is_replayed_in_order(nats: Settings) -> None:
    app = App("inorder")
    seen: list[tuple[str, int]] = []
    failed: set[int] = set()

    class Step(Message, subject="step", key="who", ordered=True):
        who: str
        value: int

    @app.stage(backoff=Backoff(initial=0.01, maximum=0.02))
    async def walk(step: Step) -> None:
        await asyncio.sleep(0.001 * (step.value % 3))
        if step.value % 4 == 0 and step.value not in failed:
            failed.add(step.value)
            raise ValueError("not yet")
        seen.append((step.who, step.value))

    async with Harness(app, nats) as harness:
        for value in range(20):
            await harness.publish(Step("ab"[value % 2], value))
        run = await runs_of(harness).create(
            stage="walk", wanted=Wanted(from_seq=3, to_seq=18), name="r1"
        )
        assert run.total == 16
        await asyncio.gather(work(harness, "r1"), work(harness, "r1"))
        for who in "ab":
            values = [value for one, value in seen if one == who]
            assert values == [v for v in range(2, 18) if "ab"[v % 2] == who]


async def test_the_end_waits_for_what_is_tried_again(nats: Settings) -> None:
    app = App("again")
    tries: dict[int, int] = {}

    @app.stage(attempts=4, backoff=Backoff(initial=0.4, maximum=0.5))
    async def double(number: Number) -> Double:
        assert number.value < 100, "behind the end"
        tries[number.value] = tries.get(number.value, 0) + 1
        if number.value in (4, 9) and tries[number.value] < 4:
            raise ValueError("not yet")
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(10)))
        run = await runs_of(harness).create(stage="double", wanted=Wanted(), name="r1")
        working = asyncio.create_task(work(harness, "r1"))
        while not working.done():  # live traffic behind the end, all the time
            await harness.publish(Number(100))
            await asyncio.wait({working}, timeout=0.05)
        await working
        assert tries == {value: 4 if value in (4, 9) else 1 for value in range(10)}
        stored = await harness.stored(subject="again.run.>")
        assert len(stored) == run.total == 10
        assert await harness.dead() == []
