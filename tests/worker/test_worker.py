"""The engine on a real nats-server: every handler shape, every outcome, identity and drain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

import mqinfer
from mqinfer import App, Blob, Context, Message, Reject, Rejected, Retry, Row, Worker, plan, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.pull import EXPIRES
from mqinfer.backoff import Backoff
from mqinfer.errors import ConflictError, PayloadTooLarge, Unavailable
from mqinfer.flow.deadletter import ATTEMPTS, ERROR, SEQUENCE, STAGE, SUBJECT, TRACEBACK
from mqinfer.identity import ANCESTORS, MSG_ID, ONLY, retry_id
from mqinfer.model import inference
from mqinfer.settings import Settings
from mqinfer.starting import Patience
from mqinfer.testing import Harness, until
from tests.support.held import Held

SOON = Backoff(initial=0.01, maximum=0.05)


class Number(Message, subject="number"):
    value: int


class Double(Message, subject="double"):
    value: int


class Named(Message, subject="named", key="name"):
    name: str
    value: int = 0


async def test_every_shape_of_handler(nats: Settings) -> None:
    app = App("shapes")

    class One(Message):
        value: int

    class Many(Message):
        value: int

    class FromThread(Message):
        value: int

    class FromGenerator(Message):
        value: int

    class Either(Message):
        value: int

    class Batched(Message):
        value: int

    @app.stage
    async def one(number: Number) -> One:
        return One(number.value)

    @app.stage
    async def nothing(number: Number) -> None:
        return None

    @app.stage
    async def many(number: Number) -> AsyncIterator[Many]:
        for index in range(number.value):
            yield Many(index)

    @app.stage
    def thread(number: Number) -> FromThread:
        assert threading.current_thread() is not threading.main_thread()
        return FromThread(number.value)

    @app.stage
    def generator(number: Number) -> Iterator[FromGenerator]:
        yield FromGenerator(number.value)
        yield FromGenerator(number.value + 1)

    @app.stage
    async def union(number: Number) -> Either | Double | None:
        if number.value == 0:
            return None
        return Either(1) if number.value % 2 else Double(2)

    @app.stage(batch_size=3, batch_wait=0.01)
    async def batch(numbers: list[Number]) -> list[Batched | Rejected]:
        assert len(numbers) <= 3
        return [
            Rejected("two is not liked") if number.value == 2 else Batched(number.value)
            for number in numbers
        ]

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(4)))
        await harness.drain()
        assert sorted(m.value for m in await harness.messages(One)) == [0, 1, 2, 3]
        assert sorted(m.value for m in await harness.messages(Many)) == [0, 0, 0, 1, 1, 2]
        assert sorted(m.value for m in await harness.messages(FromThread)) == [0, 1, 2, 3]
        assert len(await harness.messages(FromGenerator)) == 8
        assert len(await harness.messages(Either)) == 2
        assert len(await harness.messages(Double)) == 1
        assert sorted(m.value for m in await harness.messages(Batched)) == [0, 1, 3]
        (dead,) = await harness.dead()
        assert (dead.kind, dead.reason) == ("rejected", "two is not liked")


async def test_a_plain_client_is_served(nats: Settings) -> None:
    app = App("plain")

    @app.stage
    async def double(number: Number, ctx: Context) -> Double:
        assert ctx.id == f"plain:{ctx.sequence}"
        assert ctx.attempt == 1
        return Double(2 * number.value)

    async with Harness(app, nats) as harness:
        await harness.publish_bytes("plain.number", b'{"value": 21}')
        await harness.drain()
        assert await harness.messages(Double) == [Double(42)]


async def test_lineage_and_keys(nats: Settings) -> None:
    app = App("lineage")

    @app.stage
    async def name(number: Number) -> Named:
        return Named("a.b c", number.value)

    @app.stage
    async def double(named: Named) -> Double:
        return Double(named.value * 2)

    async with Harness(app, nats) as harness:
        (first,) = await harness.publish(Number(1))
        await harness.publish_bytes("lineage.named", b'{"name": "x"}')
        await harness.drain()
        stored = await harness.stored()
        (named,) = [raw for raw in stored if raw.subject == "lineage.named.a%2Eb%20c"]
        assert named.headers[ANCESTORS] == first
        doubles = [raw for raw in stored if raw.subject == "lineage.double"]
        assert len(doubles) == 2
        chain = [raw.headers[ANCESTORS] for raw in doubles]
        assert f"{first} {named.headers[MSG_ID]}" in chain


async def test_answers_twice_make_one(nats: Settings) -> None:
    """A worker that dies between publish and acknowledgement answers again, under the same id."""
    app = App("twice")
    runs = 0

    @app.stage(backoff=SOON)
    async def double(number: Number) -> AsyncIterator[Double]:
        nonlocal runs
        runs += 1
        yield Double(1)
        yield Double(2)

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        await harness.drain()
        # The same message once more, as a redelivery after a crash would bring it.
        (number,) = [raw for raw in await harness.stored() if raw.subject == "twice.number"]
        await harness.publish_bytes("twice.number", number.data, {"Mq-Id": number.headers[MSG_ID]})
        await harness.drain()
        assert runs == 2
        assert len(await harness.messages(Double)) == 2


async def test_failures_are_retried_then_dead_lettered(nats: Settings) -> None:
    app = App("failures")
    attempts: dict[int, int] = {}

    @app.stage(attempts=3, backoff=SOON)
    async def double(number: Number, ctx: Context) -> Double:
        attempts[number.value] = ctx.attempt
        match number.value:
            case 0:
                raise ValueError("zero cannot be doubled")
            case 1:
                raise Reject("one is odd")
            case 2 if ctx.attempt < 3:
                raise Retry("not yet", after=0.01)
            case 3:
                return Number(1)  # type: ignore[return-value]
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(6)))
        await harness.publish_bytes("failures.number", b"no json", {"traceparent": "kept"})
        await harness.publish_bytes("failures.number", b"{}")
        await harness.publish_bytes("failures.number", b'{"value": "x"}')
        await harness.publish_bytes("failures.number", b'{"value": 9}', {"Content-Type": "text/x"})
        await harness.drain()
        assert sorted(m.value for m in await harness.messages(Double)) == [2, 4, 5]
        assert attempts == {0: 3, 1: 1, 2: 3, 3: 3, 4: 1, 5: 1}
        dead = {raw.headers[SEQUENCE]: raw for raw in await harness.dead()}
        kinds = [dead[sequence].kind for sequence in sorted(dead, key=int)]
        assert kinds == ["failed", "rejected", "failed", "decode", "decode", "decode", "decode"]
        first = dead["1"]
        assert first.headers[ATTEMPTS] == "3"
        assert first.headers[STAGE] == "double"
        assert first.headers[SUBJECT] == "failures.number"
        assert first.headers[ERROR] == "ValueError"
        assert "zero cannot be doubled" in first.reason
        assert "in double" in first.headers[TRACEBACK]
        assert first.data == b'{"value":0}'
        assert "declares Double" in dead["4"].reason
        assert dead["7"].headers["traceparent"] == "kept"
        assert dead["7"].data == b"no json"
        assert "missing required field `value`" in dead["8"].reason
        assert "Expected `int`, got `str`" in dead["9"].reason
        assert await harness.lag("double") == 0


async def test_a_server_that_is_away_costs_no_attempt(nats: Settings) -> None:
    app = App("away")
    seen: list[int] = []

    @app.stage(attempts=2, backoff=SOON)
    async def double(number: Number, ctx: Context) -> Double:
        seen.append(ctx.attempt)
        if ctx.attempt < 4:
            raise Unavailable("the blob store does not answer")
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        await harness.drain()
        assert await harness.messages(Double) == [Double(1)]
        assert seen[-1] == 4
        assert await harness.dead() == []


async def test_a_handler_that_hangs_is_timed_out(nats: Settings) -> None:
    app = App("hang")

    @app.stage(timeout=2.0, attempts=2, backoff=SOON, concurrency=4)
    async def double(number: Number, ctx: Context) -> Double:
        if number.value == 0:
            await asyncio.Event().wait()
        if number.value == 1:  # longer than the timeout, but it says that it advances
            for _ in range(6):
                await asyncio.sleep(0.5)
                ctx.progress()
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(5)))
        await harness.drain()
        assert sorted(m.value for m in await harness.messages(Double)) == [1, 2, 3, 4]
        (dead,) = await harness.dead()
        assert dead.kind == "timeout"
        assert "timeout of 2.0 s" in dead.reason


async def test_work_longer_than_ack_wait_is_not_redelivered(nats: Settings) -> None:
    app = App("pulse")
    handled = 0

    @app.stage(ack_wait=5.0)
    async def double(number: Number) -> Double:
        nonlocal handled
        handled += 1
        await asyncio.sleep(12.0)
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        await harness.drain()
        assert handled == 1
        assert await harness.messages(Double) == [Double(1)]


async def test_never_more_in_flight_than_the_limits(nats: Settings) -> None:
    app = App("bounded")
    running = most = 0

    @app.stage(max_in_flight=5)
    async def double(number: Number) -> Double:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(100)))
        async with harness.worker() as worker:
            assert worker.engine is not None
            (runner,) = await until(lambda: worker.engine and worker.engine.runners, "runner")
            held = Held()
            while await harness.lag("double"):
                state = await harness.services.broker.consumer_state("bounded", "double")
                assert state is not None
                held.look(state.unacknowledged)
                assert runner.slots.in_flight <= 5
            assert runner.slots.in_flight == 0
        assert held.most <= 5
        assert most == 5
        assert len(await harness.messages(Double)) == 100


async def test_a_clean_stop_hands_back_what_was_not_begun(nats: Settings) -> None:
    app = App("stop")
    began: list[int] = []
    finish = asyncio.Event()

    @app.stage(max_in_flight=6, concurrency=2)
    async def double(number: Number) -> Double:
        began.append(number.value)
        await finish.wait()
        return Double(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Number(value) for value in range(6)))
        async with harness.worker() as worker:
            await until(lambda: len(began) == 2, "two handlers")
            worker.stop()

            assert worker.engine is not None
            (runner,) = worker.engine.runners
            await until(lambda: len(runner.jobs) == 2, "the four that were not begun are back")
            finish.set()
        assert len(await harness.messages(Double)) == 2
        await harness.drain()
        assert sorted(m.value for m in await harness.messages(Double)) == list(range(6))
        assert sorted(began) == list(range(6))


async def test_grace_ends_and_the_message_goes_to_another(nats: Settings) -> None:
    app = App("grace")
    cancelled = 0

    @app.stage
    async def double(number: Number, ctx: Context) -> Double:
        nonlocal cancelled
        if ctx.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
        return Double(number.value)

    hurried = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, grace=0.1)
    async with Harness(app, hurried) as harness:
        await harness.publish(Number(1))
        async with harness.worker():

            async def taken() -> bool:
                state = await harness.services.broker.consumer_state("grace", "double")
                return state is not None and state.unacknowledged == 1

            await until(taken)
        assert cancelled == 1
        await harness.drain()
        assert await harness.messages(Double) == [Double(1)]


async def test_lifespans_and_state(nats: Settings) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def process() -> AsyncIterator[None]:
        events.append("process up")
        yield
        events.append("process down")

    @asynccontextmanager
    async def own() -> AsyncIterator[dict[str, int]]:
        events.append("stage up")
        yield {"factor": 3}
        events.append("stage down")

    app = App("life", lifespan=process)

    @app.stage(lifespan=own)
    async def triple(number: Number, ctx: Context) -> Double:
        return Double(number.value * ctx.state["factor"])

    async with Harness(app, nats) as harness:
        await harness.publish(Number(2))
        await harness.drain()
        assert await harness.messages(Double) == [Double(6)]
    assert events == ["process up", "stage up", "stage down", "process down"]


async def test_a_client_in_a_lifespan_leaves_handlers_their_models(nats: Settings) -> None:
    """They are asked by the worker, which has the pins of a run and the stage's turns."""
    seen: list[object] = []

    @asynccontextmanager
    async def connected() -> AsyncIterator[None]:
        async with mqinfer.connect(app, nats):
            yield

    app = App("inner", lifespan=connected)
    app.model("never_asked")

    @app.stage(lifespan=connected)
    async def look(_number: Number) -> None:
        seen.append(inference.get())

    async with Harness(app, nats) as harness:
        await harness.publish(Number(1))
        worker = Worker(app, settings=nats, drain=True)
        await worker.run()
    assert seen == [worker.services.inference]
    assert seen[0] is not None


async def test_what_sinks_import_is_there_before_the_event_loop_is_watched(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[ClickHouse] = []
    monkeypatch.setattr(ClickHouse, "load", lambda one: loaded.append(one))
    app = App("imports")

    class Word(Row):
        text: str

    @app.stage
    async def count(_number: Number) -> Word:
        return Word("a")

    async with wiring.services(app, nats, "test", plan.tasks(app), Patience(wait=True)) as found:
        assert loaded == [found.database]


async def test_blobs_are_stored_before_their_message(nats: Settings) -> None:
    app = App("blobs")

    class Picture(Message):
        image: Blob

    class Copy(Message):
        image: Blob

    @app.stage
    async def copy(picture: Picture) -> AsyncIterator[Copy]:
        data = await picture.image.bytes()
        yield Copy(Blob(data))
        yield Copy(Blob(data, path="copies/1.bin"))

    async with Harness(app, nats) as harness:
        await harness.publish(Picture(Blob(b"small")), Picture(Blob(b"x" * 100_000)))
        await harness.client.blobs.put("there/a.bin", b"by path")
        await harness.publish_bytes("blobs.picture", b'{"image": "there/a.bin"}')
        await harness.publish_bytes("blobs.picture", b'{"image": "../../etc/passwd"}')
        await harness.drain()
        copies = await harness.messages(Copy)
        contents = sorted([await c.image.bytes() for c in copies], key=len)
        assert (
            contents == [b"small"] * 2 + [b"by path"] * 2 + [b"x" * 100_000] * 2 or len(copies) == 6
        )
        assert {c.image.path for c in copies if c.image.path} >= {"copies/1.bin"}
        (dead,) = await harness.dead()
        assert dead.kind == "decode"
        assert "not allowed" in dead.reason


async def test_a_missing_blob_is_dead_lettered_with_its_path(nats: Settings) -> None:
    app = App("missing")

    class Picture(Message):
        image: Blob

    @app.stage(attempts=2, backoff=SOON)
    async def look(picture: Picture) -> None:
        await picture.image.bytes()

    async with Harness(app, nats) as harness:
        await harness.publish_bytes("missing.picture", b'{"image": "p1/none.png"}')
        await harness.drain()
        (dead,) = await harness.dead()
        assert "p1/none.png" in dead.reason
        assert dead.headers[ERROR] == "BlobNotFound"


async def test_too_large_is_refused_and_the_client_stays_usable(nats: Settings) -> None:
    app = App("large")

    class Text(Message):
        text: str

    @app.stage(attempts=2, backoff=SOON)
    async def grow(text: Text) -> Double:
        return Double(len(text.text))

    async with Harness(app, nats) as harness:
        limit = harness.services.broker.max_payload
        with pytest.raises(PayloadTooLarge, match="raise max_payload"):
            await harness.publish(Text("x" * limit))
        await harness.publish(Text("x" * (limit - 1000)))
        await harness.drain()
        assert await harness.messages(Double) == [Double(limit - 1000)]


async def test_an_output_that_is_too_large_is_dead_lettered(nats: Settings) -> None:
    app = App("grow")

    class Text(Message):
        text: str

    @app.stage(attempts=3, backoff=SOON)
    async def grow(number: Number) -> AsyncIterator[Text]:
        yield Text("fits")
        yield Text("x" * number.value)

    async with Harness(app, nats) as harness:
        limit = harness.services.broker.max_payload
        await harness.publish(Number(limit), Number(10))
        await harness.drain()
        (dead,) = await harness.dead()
        assert dead.kind == "rejected"
        assert dead.headers[ATTEMPTS] == "1"
        assert "max_payload" in dead.reason


async def test_messages_for_another_stage_are_passed_over(nats: Settings) -> None:
    app = App("only")

    class A(Message):
        value: int

    class B(Message):
        value: int

    @app.stage
    async def a(number: Number) -> A:
        return A(number.value)

    @app.stage
    async def b(number: Number) -> B:
        return B(number.value)

    async with Harness(app, nats) as harness:
        await harness.publish_bytes("only.number", b'{"value": 1}', {ONLY: "b"})
        sent_back = {ONLY: "b", MSG_ID: retry_id("dead.only.b", 1, "2026")}
        await harness.publish_bytes("only.number", b'{"value": 2}', sent_back)
        await harness.drain()
        # A stranger's header hides nothing.
        assert await harness.messages(A) == [A(1)]
        assert await harness.messages(B) == [B(1), B(2)]


async def test_a_long_generator_is_published_while_it_runs(nats: Settings) -> None:
    app = App("long")
    release = asyncio.Event()

    @app.stage
    async def many(number: Number) -> AsyncIterator[Double]:
        for index in range(number.value):
            yield Double(index)
        await release.wait()
        yield Double(-1)

    async with Harness(app, nats) as harness:
        await harness.publish(Number(2500))
        async with harness.worker():

            async def some() -> bool:
                info = await harness.services.broker.stream_info("long")  # type: ignore[attr-defined]
                return info["state"]["messages"] >= 2001

            await until(some)
            assert await harness.lag("many") == 1
            release.set()
            await until(lambda: _zero(harness, "many"))
        values = [m.value for m in await harness.messages(Double)]
        assert sorted(values) == [-1, *range(2500)]


async def _zero(harness: Harness, consumer: str) -> bool:
    return await harness.lag(consumer) == 0


async def test_a_setting_that_differs_is_changed_or_told(nats: Settings) -> None:
    first = App("conflict", max_age="1d")

    @first.stage
    async def work(number: Number) -> None:
        return None

    async with Harness(first, nats) as harness:
        await harness.drain()
        info = await harness.services.broker.stream_info("conflict")  # type: ignore[attr-defined]
        assert info["config"]["max_age"] == 86400 * 10**9

    second = App("conflict", max_age="2d")

    @second.stage(name="work", ack_wait=10)
    async def work_two(number: Number) -> None:
        return None

    async with Harness(second, nats) as harness:
        await harness.drain()
        info = await harness.services.broker.stream_info("conflict")  # type: ignore[attr-defined]
        assert info["config"]["max_age"] == 2 * 86400 * 10**9
        client = harness.services.broker.client  # type: ignore[attr-defined]
        await client.api("$JS.API.STREAM.CREATE.other", {"name": "other", "subjects": ["taken.>"]})
        third = App("taken")
        with pytest.raises(ConflictError, match="another stream holds a subject"):
            async with Harness(third, nats):
                pass


async def test_an_idle_worker_notices_a_new_message_at_once(nats: Settings) -> None:
    app = App("idle")
    done = asyncio.Event()

    @app.stage
    async def work(number: Number) -> None:
        done.set()

    async with Harness(app, nats) as harness, harness.worker():
        await harness.publish(Number(1))
        await asyncio.wait_for(done.wait(), EXPIRES - 5)  # it did not wait for its next request
