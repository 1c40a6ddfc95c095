"""Handling: a handler in every shape, and what becomes of a batch that fails or answers oddly."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mqinfer.backoff import Backoff
from mqinfer.context import Context, current
from mqinfer.errors import ModelUnavailable, Reject, Retry, Unavailable
from mqinfer.flow.deadletter import KIND, REASON
from mqinfer.flow.handling import CHUNK, HANDLERS
from mqinfer.message import Rejected
from tests.support.flow import Double, Flow, Number, Strange

SOON = Backoff(initial=0.0, jitter=0.0)


async def run(flow: Flow, count: int = 1) -> list[tuple[str, int]]:
    """What was said about `count` messages, numbered from 1, once all publishes are answered."""
    jobs = [flow.job(number, number) for number in range(1, count + 1)]
    try:
        await flow.handling.run(jobs)
        flow.broker.answer_all()
    finally:
        flow.handling.close()
    return sorted(flow.broker.heard())


# --- one by one ---------------------------------------------------------------------------------


async def coroutine(number: Number) -> Double:
    return Double(number.value)


async def with_context(number: Number, ctx: Context) -> Double:
    assert current.get() is ctx
    return Double(ctx.sequence)


async def many(number: Number) -> list[Double]:
    return [Double(number.value), Double(2)]


async def nothing(number: Number) -> None:
    return None


def function(number: Number) -> Double:
    return Double(number.value)


def function_with_context(number: Number, ctx: Context) -> Double:
    assert current.get() is ctx
    return Double(ctx.sequence)


def generator(number: Number) -> Iterator[Double]:
    yield Double(number.value)
    yield Double(2)


async def async_generator(number: Number) -> AsyncIterator[Double]:
    yield Double(number.value)
    yield Double(2)


@pytest.mark.parametrize(
    ("handler", "values"),
    [
        (coroutine, [1]),
        (with_context, [1]),
        (many, [1, 2]),
        (nothing, []),
        (function, [1]),
        (function_with_context, [1]),
        (generator, [1, 2]),
        (async_generator, [1, 2]),
    ],
)
async def test_every_shape_of_a_handler_of_one(handler: Any, values: list[int]) -> None:
    flow = Flow(handler)
    assert await run(flow) == [("ack", 1)]
    assert flow.values == values


async def fails(number: Number) -> Double:
    raise Reject("one")


def fails_in_a_thread(number: Number) -> Double:
    raise Reject("one")


def fails_on_the_way(number: Number) -> Iterator[Double]:
    yield Double(1)
    raise Reject("one")


async def fails_while_it_yields(number: Number) -> AsyncIterator[Double]:
    yield Double(1)
    raise Reject("one")


@pytest.mark.parametrize(
    "handler", [fails, fails_in_a_thread, fails_on_the_way, fails_while_it_yields]
)
async def test_what_any_of_them_raises_is_an_outcome(handler: Any) -> None:
    flow = Flow(handler)
    assert await run(flow) == [("term", 1)]
    assert flow.broker.subjects() == ["dead.t.s"]  # nothing of what it had yielded
    assert flow.broker.published[0].headers[REASON] == "one"


async def foreign(number: Number) -> Double:
    return Strange(1)  # type: ignore[return-value]


async def test_what_it_did_not_declare_is_not_published() -> None:
    flow = Flow(foreign, attempts=1)
    assert await run(flow) == [("term", 1)]
    assert (
        "wrote a Strange; its annotation declares Double"
        in (flow.broker.published[0].headers[REASON])
    )


@pytest.mark.parametrize("fails", [False, True])
async def test_a_long_generator_is_published_as_it_runs_and_settled_when_it_ends(
    fails: bool,
) -> None:
    flows: list[Flow] = []

    async def long(number: Number) -> AsyncIterator[Double]:
        for value in range(2 * CHUNK + 1):
            if value == 2 * CHUNK:
                (flow,) = flows
                assert len(flow.values) == 2 * CHUNK
                flow.broker.answer_all()  # all that was published is stored, and it runs on
                assert flow.broker.said == []
                if fails:
                    raise ValueError("late")
            yield Double(value)

    flow = Flow(long)
    flows.append(flow)
    assert await run(flow) == [("nak" if fails else "ack", 1)]
    assert flow.values == list(range(2 * CHUNK + (not fails)))
    assert len({one.headers["Nats-Msg-Id"] for one in flow.broker.published}) == len(flow.values)


async def test_how_many_run_at_once() -> None:
    assert Flow(coroutine).handling.concurrency == HANDLERS
    assert Flow(coroutine, max_in_flight=7).handling.concurrency == 7
    assert Flow(coroutine, concurrency=9, max_in_flight=7).handling.concurrency == 7
    assert Flow(function).handling.concurrency == 2 * (os.cpu_count() or 1)
    assert Flow(halves).handling.concurrency == 2


# --- batches ------------------------------------------------------------------------------------


class Calls:
    """Sizes of the batches that a handler was called with."""

    def __init__(self) -> None:
        self.sizes: list[int] = []


CALLS = Calls()


@pytest.fixture(autouse=True)
def _calls() -> None:
    CALLS.sizes.clear()


async def halves(numbers: list[Number]) -> list[Double]:
    return [Double(number.value) for number in numbers]


def in_a_thread(numbers: list[Number], contexts: list[Context]) -> list[Double]:
    assert current.get() is contexts[0]
    return [Double(context.sequence) for context in contexts]


@pytest.mark.parametrize("handler", [halves, in_a_thread])
async def test_a_batch_is_one_call_and_each_message_has_its_own_result(handler: Any) -> None:
    flow = Flow(handler)
    assert await run(flow, 5) == [("ack", number) for number in range(1, 6)]
    assert flow.values == [1, 2, 3, 4, 5]
    assert [one.headers["Mq-Ancestors"] for one in flow.broker.published] == [
        f"t:{number}" for number in range(1, 6)
    ]


@pytest.mark.parametrize("bad", [{1}, {64}, {17, 40}, set(range(1, 65))])
async def test_those_at_fault_are_found_and_the_others_answered(bad: set[int]) -> None:
    async def picky(numbers: list[Number]) -> list[Double]:
        CALLS.sizes.append(len(numbers))
        if bad & {number.value for number in numbers}:
            raise ValueError("bad")
        return [Double(number.value) for number in numbers]

    flow = Flow(picky, backoff=SOON)
    assert await run(flow, 64) == sorted(
        ("nak" if number in bad else "ack", number) for number in range(1, 65)
    )
    assert len(CALLS.sizes) <= 1 + 12 * len(bad)


@pytest.mark.parametrize(
    "error", [Retry("later", after=3.0), Unavailable("away"), ModelUnavailable("away")]
)
async def test_what_is_nobodys_fault_fails_the_batch_with_one_call(error: Exception) -> None:
    async def later(numbers: list[Number]) -> list[Double]:
        CALLS.sizes.append(len(numbers))
        raise error

    flow = Flow(later)
    assert await run(flow, 64) == [("nak", number) for number in range(1, 65)]
    assert CALLS.sizes == [64]  # halves, and halves of halves, would be 127


async def test_one_result_may_reject_be_nothing_or_be_several() -> None:
    async def mixed(numbers: list[Number]) -> list[Any]:
        return [Rejected("odd"), None, [Double(3), Double(4)], Strange(1)]

    mixed.__annotations__["return"] = list[Double | Rejected | None]
    flow = Flow(mixed, attempts=1)
    assert await run(flow, 4) == [("ack", 2), ("ack", 3), ("term", 1), ("term", 4)]
    assert flow.values == [3, 4]
    dead = [one.headers for one in flow.broker.published if one.subject == "dead.t.s"]
    assert [(letter[KIND], letter["Mq-Dead-Sequence"]) for letter in dead] == [
        ("rejected", "1"),
        ("failed", "4"),
    ]


@pytest.mark.parametrize("returned", [[], [Double(1)] * 3, Double(1), None])
async def test_another_number_of_results_is_a_failure_of_each(returned: Any) -> None:
    async def wrong(numbers: list[Number]) -> list[Double]:
        return returned  # type: ignore[no-any-return]

    flow = Flow(wrong, attempts=1)
    assert await run(flow, 2) == [("term", 1), ("term", 2)]
    assert (
        "a list with one result for each of its 1 messages"
        in (flow.broker.published[0].headers[REASON])
    )


async def test_a_batch_that_writes_nothing_may_return_nothing() -> None:
    async def store(numbers: list[Number]) -> None:
        return None

    flow = Flow(store)
    assert await run(flow, 3) == [("ack", 1), ("ack", 2), ("ack", 3)]


async def test_a_model_that_answered_a_batch_answered_each_of_its_messages() -> None:
    async def ask(numbers: list[Number]) -> list[Double]:
        context = current.get()
        assert context is not None
        context.models["leaf"] = "3"
        return [Double(number.value) for number in numbers]

    flow = Flow(ask)
    await run(flow, 3)
    assert [one.headers["Mq-Models"] for one in flow.broker.published] == ["leaf=3"] * 3
