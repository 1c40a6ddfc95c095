"""Early outputs: when they leave, under which ids, and what becomes of them in a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mqinfer import App, Backoff, Context, Message, Settings
from mqinfer.errors import PayloadTooLarge, WiringError
from mqinfer.flow.handling import CHUNK
from mqinfer.identity import MSG_ID, output_id
from mqinfer.testing import Harness, until
from tests.support.flow import Begun, Double, Flow, Number, Strange, pass_time, turns

SOON = Backoff(initial=0.0, jitter=0.0)


def ids(flow: Flow) -> list[str]:
    return [one.headers[MSG_ID] for one in flow.broker.published]


async def handled(flow: Flow) -> None:
    """Until no handler is at work."""
    await until(lambda: flow.broker.unanswered or not flow.runner.jobs, "the handler's end")
    flow.broker.answer_all()
    await turns()


async def published(flow: Flow, count: int) -> None:
    await until(lambda: len(flow.broker.published) >= count, "outputs")


# --- what is yielded ----------------------------------------------------------------------------


def yields(gate: threading.Event, begun: Begun) -> list[Callable[..., Any]]:
    """The two kinds of handlers; each yields two, waits, and yields a third."""

    async def asynchronous(number: Number) -> AsyncIterator[Double]:
        yield Double(1)
        yield Double(2)
        await begun.begin(number.value)
        yield Double(3)

    def plain(number: Number) -> Iterator[Double]:
        yield Double(1)
        yield Double(2)
        assert gate.wait(60)
        yield Double(3)

    return [asynchronous, plain]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("early", [True, False])
async def test_a_yield_leaves_at_once_if_that_was_asked_for(which: int, early: bool) -> None:
    gate, begun = threading.Event(), Begun()
    begun.hang.add(1)
    flow = Flow(yields(gate, begun)[which], early=early)
    async with flow.running():
        flow.deliver(1)
        if early:
            await published(flow, 2)
        await turns()
        assert flow.values == ([1, 2] if early else [])
        flow.broker.answer_all()
        assert flow.broker.said == []  # stored early is not done
        gate.set()
        begun.let_go()
        await published(flow, 3)
        flow.broker.answer_all()
        await handled(flow)
    assert flow.broker.heard() == [("ack", 1)]
    # The ids are those of outputs that are not early.
    assert flow.values == [1, 2, 3]
    assert ids(flow) == [output_id("t:1", "s", None, index) for index in range(3)]
    assert flow.metrics.outputs_published == 3


async def test_what_left_stays_and_a_retry_repeats_it() -> None:
    async def fails(number: Number, ctx: Context) -> AsyncIterator[Double]:
        yield Double(1)
        if ctx.attempt < 2:
            raise ValueError("half way")
        yield Double(2)

    flow = Flow(fails, early=True, backoff=SOON, attempts=3)
    async with flow.running():
        flow.deliver(1)
        await handled(flow)
        assert flow.broker.heard() == [("nak", 1)]
        flow.deliver(1, attempt=2)
        await handled(flow)
    assert flow.broker.heard() == [("nak", 1), ("ack", 1)]
    assert flow.values == [1, 1, 2]
    first, again, last = ids(flow)
    assert first == again != last


async def test_a_plain_generator_is_taken_in_portions_and_ended_with_its_handling() -> None:
    ended = threading.Event()

    def endless(number: Number) -> Iterator[Double]:
        try:
            while True:
                yield Double(0)
        finally:
            ended.set()

    flow = Flow(endless, attempts=1, timeout=5.0)
    async with flow.running():
        flow.deliver(1)
        await published(flow, 2 * CHUNK)
        await pass_time(flow, 6.0)
        assert await asyncio.to_thread(ended.wait, 60)
        flow.broker.answer_all()
        await turns()
    assert ("term", 1) in flow.broker.heard()


async def test_a_foreign_output_of_a_plain_generator_fails_its_message() -> None:
    def foreign(number: Number) -> Iterator[Double]:
        yield Double(1)
        yield Strange()  # type: ignore[misc]

    flow = Flow(foreign, early=True, backoff=SOON)
    async with flow.running():
        flow.deliver(1)
        await published(flow, 1)
        flow.broker.answer_all()
        await handled(flow)
    assert flow.broker.heard() == [("nak", 1)]
    assert flow.values == [1]


# --- what is emitted ----------------------------------------------------------------------------


async def test_what_is_emitted_is_numbered_apart_from_what_is_returned() -> None:
    async def coroutine(number: Number, ctx: Context) -> list[Double]:
        for value in range(3 - ctx.attempt):  # the second attempt emits one less
            await ctx.emit(Double(value))
        return [Double(10), Double(11)]

    flow = Flow(coroutine)
    for attempt in (1, 2):
        await flow.handling.run([flow.job(attempt=attempt)])
        assert ("ack", 1) not in flow.broker.heard()[attempt - 1 :]
        flow.broker.answer_all()
    assert flow.broker.heard() == [("ack", 1), ("ack", 1)]
    assert flow.values == [0, 1, 10, 11, 0, 10, 11]
    assert len(set(ids(flow))) == 4
    assert ids(flow)[2:4] == ids(flow)[5:7] == [output_id("t:1", "s", None, n) for n in (0, 1)]
    assert flow.metrics.outputs_published == 7


@pytest.mark.parametrize("yields", [True, False])
async def test_a_plain_def_emits_from_its_thread(yields: bool) -> None:
    def returning(number: Number, ctx: Context) -> Double:
        ctx.emit(Double(1))
        ctx.emit(Double(2))
        return Double(3)

    def yielding(number: Number, ctx: Context) -> Iterator[Double]:
        ctx.emit(Double(1))
        yield Double(3)
        ctx.emit(Double(2))

    flow = Flow(yielding if yields else returning)
    await flow.handling.run([flow.job()])
    flow.handling.close()
    assert flow.values == [1, 2, 3]
    flow.broker.answer_all()
    assert flow.broker.heard() == [("ack", 1)]


async def test_a_full_stream_holds_the_handler_back() -> None:
    room = asyncio.Event()
    brokers: list[Any] = []

    async def two(number: Number, ctx: Context) -> Double | None:
        await ctx.emit(Double(1))
        brokers[0].full = True
        await ctx.emit(Double(2))
        return None

    flow = Flow(two)
    brokers.append(flow.broker)
    flow.broker.room = room.wait
    running = asyncio.create_task(flow.handling.run([flow.job()]))
    await turns()
    assert flow.values == [1]
    flow.broker.full = False
    room.set()
    await running
    assert flow.values == [1, 2]


async def test_an_emitted_output_that_is_refused_fails_its_message() -> None:
    async def one(number: Number, ctx: Context) -> Double | None:
        await ctx.emit(Double(1))
        return None

    flow = Flow(one, backoff=SOON)
    await flow.handling.run([flow.job()])
    flow.broker.answer(error=PayloadTooLarge("too large"))
    flow.broker.answer_all()
    assert flow.broker.heard() == [("term", 1)]


async def test_what_cannot_be_emitted_says_why() -> None:
    kept: list[Context] = []
    said: list[str] = []

    async def one(number: Number, ctx: Context) -> Double | None:
        kept.append(ctx)
        try:
            await ctx.emit(Strange())
        except TypeError as error:
            said.append(str(error))
        return None

    async def batch(numbers: list[Number], contexts: list[Context]) -> list[Double | None]:
        await contexts[0].emit(Double(1))
        return [None for _ in numbers]

    flow = Flow(one)
    await flow.handling.run([flow.job()])
    assert said == ["stage s wrote a Strange; its annotation declares Double, Number"]
    with pytest.raises(RuntimeError, match="one that is done can send no more"):
        await kept[0].emit(Double(1))
    flow = Flow(batch, backoff=SOON)
    await flow.handling.run([flow.job()])
    assert flow.broker.heard() == [("nak", 1)]
    assert flow.broker.published == []


async def test_a_thread_that_was_given_up_can_emit_no_more() -> None:
    begun, gate, refused = threading.Event(), threading.Event(), threading.Event()

    def late(number: Number, ctx: Context) -> Double | None:
        begun.set()
        assert gate.wait(60)
        try:
            ctx.emit(Double(1))
        except RuntimeError:
            refused.set()
        return None

    flow = Flow(late, timeout=5.0, backoff=SOON)
    async with flow.running():
        flow.deliver(1)
        assert await asyncio.to_thread(begun.wait, 60)
        await pass_time(flow, 6.0)
        assert flow.broker.heard() == [("nak", 1)]
        gate.set()
        assert await asyncio.to_thread(refused.wait, 60)
    assert flow.values == []


async def test_outside_a_worker_the_context_keeps_what_is_emitted() -> None:
    context = Context(id="1", stage="s", sequence=1)
    await context.emit(Double(1))
    assert context.emitted == [Double(1)]


def test_early_is_for_handlers_that_yield() -> None:
    async def coroutine(number: Number) -> Double: ...

    def batch(numbers: list[Number]) -> list[Double]: ...

    for handler in (coroutine, batch):
        app = App("t")
        app.stage(name="s", early=True)(handler)
        with pytest.raises(WiringError, match=r"early=True is for .*await ctx\.emit"):
            _ = app.stages


# --- on a real stream ---------------------------------------------------------------------------


class Prompt(Message, subject="prompt"):
    text: str


class Token(Message, subject="token"):
    n: int


@pytest.mark.parametrize("plain", [True, False])
async def test_tokens_are_on_the_stream_before_the_handler_fails_and_once_after_its_retry(
    nats: Settings, plain: bool
) -> None:
    app, go = App("early"), threading.Event()

    def outcome(ctx: Context) -> None:
        assert go.wait(60)
        if ctx.attempt == 1:
            raise ValueError("half way")

    async def asynchronous(prompt: Prompt, ctx: Context) -> AsyncIterator[Token]:
        yield Token(0)
        await ctx.emit(Token(1))
        await asyncio.to_thread(outcome, ctx)
        yield Token(2)

    def threaded(prompt: Prompt, ctx: Context) -> Iterator[Token]:
        yield Token(0)
        ctx.emit(Token(1))
        outcome(ctx)
        yield Token(2)

    app.stage(name="generate", early=True, backoff=SOON)(threaded if plain else asynchronous)
    async with Harness(app, nats) as harness, harness.worker():
        await harness.publish(Prompt("x"))

        async def seen() -> bool:
            return await harness.messages(Token) == [Token(0), Token(1)]

        await until(seen, "the first tokens")
        go.set()

        async def done() -> bool:
            return await harness.lag("generate") == 0

        await until(done, "the retry")
        assert await harness.messages(Token) == [Token(0), Token(1), Token(2)]
