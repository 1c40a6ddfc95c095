"""Threads: calls beside the event loop, and those that hang for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from mqinfer.context import Context, current
from mqinfer.flow.threads import ABANDONED_FACTOR, Threads
from mqinfer.testing import until


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2, "test")
    yield made
    made.close()


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What a hanging call waits for; it ends with the test."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_runs_elsewhere_with_the_context_of_its_caller(threads: Threads) -> None:
    mine = Context(id="a", stage="s", sequence=1)
    current.set(mine)

    def where(number: int) -> tuple[int, str, Context | None]:
        return number, threading.current_thread().name, current.get()

    number, name, context = await threads.call(where, (3,))
    assert (number, context) == (3, mine)
    assert name.startswith("test-")


async def test_no_more_run_at_once_than_its_size(threads: Threads, held: threading.Event) -> None:
    running = threading.Semaphore(0)

    def wait() -> None:
        running.release()
        held.wait(120)

    calls = [asyncio.create_task(threads.call(wait, ())) for _ in range(5)]
    await until(lambda: running._value == 2, "two calls")
    await asyncio.sleep(0)
    assert running._value == 2
    held.set()
    await asyncio.gather(*calls)
    assert running._value == 5


@pytest.mark.parametrize(
    ("error", "arrives"),
    [
        (ValueError("bad"), ValueError),
        (StopIteration(3), RuntimeError),  # which a future refuses
        (asyncio.CancelledError(), asyncio.CancelledError),
    ],
)
async def test_what_a_call_raises_arrives(
    threads: Threads, error: BaseException, arrives: type[BaseException]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(arrives):
        await threads.call(fail, ())
    assert await threads.call(int, ("7",)) == 7  # the thread lives on
    assert not threads.abandoned


async def test_a_call_that_hangs_leaves_its_place_to_another(
    threads: Threads, held: threading.Event
) -> None:
    began = threading.Semaphore(0)

    def hang() -> None:
        began.release()
        held.wait(120)

    for count in range(1, 2 * ABANDONED_FACTOR + 1):
        assert not threads.exhausted
        call = asyncio.create_task(threads.call(hang, ()))
        await until(lambda: began.acquire(blocking=False), "the call")
        call.cancel()
        await asyncio.wait({call})
        assert threads.abandoned == count
    assert threads.exhausted
    assert await threads.call(int, ("7",)) == 7
    # Those that end after all are no reason to start the process anew.
    held.set()
    await until(lambda: threads.abandoned == 0, "the end of the hanging calls")
    assert not threads.exhausted


async def test_a_call_that_has_not_begun_is_taken_back(
    threads: Threads, held: threading.Event
) -> None:
    done: list[int] = []
    busy = [asyncio.create_task(threads.call(held.wait, (30,))) for _ in range(2)]
    waiting = asyncio.create_task(threads.call(done.append, (1,)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    held.set()
    await asyncio.gather(*busy)
    await threads.call(done.append, (2,))
    assert (done, threads.abandoned) == ([2], 0)
