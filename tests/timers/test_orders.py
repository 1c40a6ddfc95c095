"""Which of several wishes counts, in whatever order they are heard, repeated, or cut off."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import plan
from mqinfer.codec import Codec
from mqinfer.errors import Unavailable
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.job import TimedContext
from mqinfer.identity import header_block, parse_header_block
from mqinfer.later import Later, cancelled, later
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from mqinfer.timers import places
from mqinfer.timers.asked import cancel
from mqinfer.timers.places import Entry
from mqinfer.timers.setter import Setter
from mqinfer.timers.table import write
from tests.support.flow import Delivered
from tests.support.timers_app import Due, app

T = TypeVar("T")

# --- the rule, over a table in memory -------------------------------------------------------------


class Died(Exception):
    """The process ends here."""


class Memory:
    """A `Table` that is a list; it ends the process before or after the step that it is told."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, str, Entry]] = []
        self.sequence = 0
        self.dies_in: int | None = None

    def step(self) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise Died

    async def ensure(self, spec: Any) -> None: ...

    async def newest(self, place: str, kind: str | None = None) -> Entry | None:
        self.step()
        found = [one[2] for one in self.stored if kind in (None, one[2].kind)]
        return found[-1] if found else None

    async def put(self, place: str, end: str, header: bytes, payload: bytes, after: int) -> bool:
        self.step()
        if (self.stored[-1][0] if self.stored else 0) != after:
            return False
        self.sequence += 1
        kind, _, operation = end.partition(".")
        order = header.decode()
        headers = {places.OPERATION: operation or payload.decode(), places.ORDER: order}
        if order.startswith("NATS/1.0"):  # a client's
            headers |= {places.ORDER: ""} | parse_header_block(header)
        entry = Entry(self.sequence, kind, headers)
        self.stored = [one for one in self.stored if one[2].kind != "cancel" or kind != "cancel"]
        self.stored.append((self.sequence, operation, entry))
        self.step()
        return True

    async def drop(self, subject: str, before: int | None = None) -> None:
        self.step()
        self.stored = [
            one for one in self.stored if one[2].kind != "at" or before is None or one[0] >= before
        ]

    def fire(self, *only: str) -> list[str]:
        """The server's part: what waits comes, or only what is named of it."""
        due = [one for one in self.stored if one[2].kind == "at" and (not only or one[1] in only)]
        self.stored = [one for one in self.stored if one not in due]
        for _, operation, entry in due:
            self.sequence += 1
            fired = Entry(self.sequence, "fired", entry.headers)
            self.stored.append((self.sequence, operation, fired))
        return [operation for _, operation, _ in due]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do what never waits, as `Memory` has nobody wait; an event loop each would be its cost."""
    try:
        work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waits")


async def ask(table: Memory, number: int, cancels: bool) -> None:
    operation = f"m{number}"
    order = places.format_order((1, number))
    end, payload = ("cancel", operation.encode()) if cancels else (f"at.{operation}", b"")
    await write(table, "p", end, order.encode(), payload, operation=operation, order=(1, number))


async def client_asks(table: Memory, number: int) -> None:
    operation = f"m{number}"
    header = header_block({places.OPERATION: operation})
    await write(table, "p", f"at.{operation}", header, b"", operation=operation, order=None)


wishes = st.lists(st.booleans(), min_size=1, max_size=4)


@given(wishes, st.data())
def test_in_any_order_with_deaths_and_repeats_the_last_word_counts(
    cancels: list[bool], data: st.DataObject
) -> None:
    """Until nothing is delivered any more; nothing comes in between."""
    table = Memory()
    left = dict.fromkeys(range(len(cancels)), 0)
    while left:
        number = data.draw(st.sampled_from(sorted(left)))
        table.dies_in = data.draw(st.one_of(st.none(), st.integers(0, 6)))
        try:
            run(ask(table, number, cancels[number]))
        except Died:
            pass
        else:
            left[number] += 1
            if left[number] == data.draw(st.integers(1, 2)) or left[number] > 2:
                del left[number]  # acknowledged
    last = len(cancels) - 1
    assert table.fire() == ([] if cancels[last] else [f"m{last}"])


@pytest.mark.parametrize("dies_in", range(10))
def test_what_comes_before_its_writer_is_back_leaves_nothing_that_it_replaced(dies_in: int) -> None:
    """The server was away between two steps, and is quicker than who writes when it is back."""
    table = Memory()
    run(ask(table, 0, cancels=False))
    table.dies_in = dies_in
    with suppress(Died):
        run(ask(table, 1, cancels=False))
    table.dies_in = None
    come = table.fire("m1")
    run(ask(table, 1, cancels=False))
    assert come + table.fire() == ["m1"]


@pytest.mark.parametrize("again", [0, 1])
@pytest.mark.parametrize("dies_in", range(10))
def test_what_is_replaced_as_it_comes_loses_nothing_that_replaced_it(
    dies_in: int, again: int
) -> None:
    table = Memory()
    run(ask(table, 0, cancels=False))
    table.dies_in = dies_in
    with suppress(Died):
        run(ask(table, 1, cancels=False))
    table.dies_in = None
    come = table.fire("m0")
    for number in {again, 1}:
        run(ask(table, number, cancels=False))
    assert [*come, *table.fire()] in (["m1"], ["m0", "m1"])


def test_a_cancel_finds_what_replaced_one_as_it_came() -> None:
    table = Memory()
    run(ask(table, 0, cancels=False))
    table.dies_in = 4  # before the first is dropped
    with pytest.raises(Died):
        run(ask(table, 1, cancels=False))
    table.dies_in = None
    assert table.fire("m0") == ["m0"]
    assert run(cancel(table, "p"))
    assert not run(cancel(table, "p"))
    assert table.fire() == []


@pytest.mark.parametrize("again", [True, False])
def test_what_a_cancel_had_not_dropped_is_dropped_by_who_comes_next(again: bool) -> None:
    table = Memory()
    asyncio.run(ask(table, 0, cancels=False))
    table.dies_in = 3  # the cancel is stored, and what it cancels is there
    with pytest.raises(Died):
        asyncio.run(ask(table, 1, cancels=True))
    table.dies_in = None
    if again:
        assert not asyncio.run(cancel(table, "p"))
    else:
        asyncio.run(ask(table, 2, cancels=False))
    assert table.fire() == ([] if again else ["m2"])


@pytest.mark.parametrize("dies_in", range(10))
def test_the_last_one_that_a_client_sets_counts(dies_in: int) -> None:
    """It replaces one as that comes: it is found by who cancels, repeats and replaces it."""
    for cancels in (True, False):
        table = Memory()
        asyncio.run(client_asks(table, 0))
        table.dies_in = dies_in
        with suppress(Died):
            asyncio.run(client_asks(table, 1))
        table.dies_in = None
        come = table.fire("m0")
        if not any(operation == "m1" for _, operation, _ in table.stored):
            asyncio.run(client_asks(table, 1))  # it was not told that it is set
        if cancels:
            assert asyncio.run(cancel(table, "p"))
            assert table.fire() == []
        else:
            asyncio.run(client_asks(table, 2))
            assert [*come, *table.fire()] in (["m0", "m2"], ["m2"])


@given(wishes, st.data())
def test_what_has_come_never_comes_again(cancels: list[bool], data: st.DataObject) -> None:
    """The server may fire at any moment; whatever is repeated, each comes at most once."""
    table = Memory()
    come: list[str] = []
    for _ in range(data.draw(st.integers(1, 12))):
        number = data.draw(st.integers(0, len(cancels) - 1))
        table.dies_in = data.draw(st.one_of(st.none(), st.integers(0, 6)))
        with suppress(Died):
            run(ask(table, number, cancels[number]))
        if data.draw(st.booleans()):
            come += table.fire()
    come += table.fire()
    assert len(come) == len(set(come))


@given(st.floats(0, 4e9, allow_nan=False))
def test_a_time_is_never_told_too_early(seconds: float) -> None:
    told = datetime.datetime.fromisoformat(places.moment(seconds)).timestamp()
    assert 0 <= told - seconds < 0.002


@given(st.text(max_size=40))
def test_an_order_is_read_from_whatever_a_header_holds(text: str) -> None:
    assert all(part >= 0 for part in places.parse_order(text))
    assert places.parse_order(places.format_order((17, 4))) == (17, 4)


# --- the same, on a real server ------------------------------------------------------------------


def setter(harness: Harness) -> Setter:
    services = harness.services
    emitter = Emitter(
        app,
        "steps",
        (Due,),
        run=None,
        codec=Codec(services.store),
        store=services.store,
        inline_limit=0,
        broker=services.broker,
    )
    assert services.timers is not None
    return Setter(app, "steps", "position", emitter, services.timers, lambda: None)


async def handled(made: Setter, sequence: int, *asked: Later) -> None:
    """As the settler of a message at `sequence` has its wishes set."""
    context = TimedContext(
        Delivered(sequence), {"Mq-Id": f"s{sequence}"}, "steps", None, None, None
    )
    context.timers = list(asked)
    job: Any = SimpleNamespace(
        context=context,
        id=context.id,
        ancestors=(),
        delivery=SimpleNamespace(sequence=sequence),
        message=SimpleNamespace(position="p"),
    )
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def called(error: Exception | None, _repeat: bool) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    made.set(job, made.take(job), called)
    await done


def wish(number: int, after: float) -> Later:
    return later(Due("p", number), after=after, at=None, name="check", key=None)


async def there(harness: Harness) -> list[int]:
    return [one.number for one in await harness.messages(Due)]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (2, 1, 3)])
async def test_the_latest_message_of_the_stream_has_the_last_word(
    nats: Settings, order: tuple[int, ...]
) -> None:
    asked = {1: wish(1, 600), 2: wish(2, 600), 3: wish(3, 0.1)}
    async with Harness(app, nats) as harness:
        made = setter(harness)
        for sequence in order:
            await handled(made, sequence, asked[sequence])
            await handled(made, sequence, asked[sequence])
        await until(lambda: there(harness), "the last")
        for sequence in order:  # delivered again when it has come
            await handled(made, sequence, asked[sequence])
        await handled(made, 4, wish(4, 0))

        async def both() -> bool:
            return await there(harness) == [3, 4]

        await until(both, "both")
        assert await harness.stored("timed=timers", "timed=timers.*.*.at.>") == []


async def test_what_is_replaced_as_it_comes_loses_neither(nats: Settings) -> None:
    """The server is about to publish the first when the second is stored: both are of the past."""
    async with Harness(app, nats) as harness:
        made = setter(harness)
        due = time.time() + 1.0

        async def one(key: int) -> None:
            first = Later(Due("p", key), due, "check", str(key))
            await handled(made, 1, first)
            await asyncio.sleep(due - time.time() + key / 400)  # around the moment that it comes
            await handled(made, 2, Later(Due("p", 1000 + key), due + 1.0, "check", str(key)))

        await asyncio.gather(*(one(key) for key in range(120)))

        async def all_second() -> bool:
            found = await there(harness)
            return sum(number >= 1000 for number in found) == 120

        await until(all_second, "every second one")
        found = await there(harness)
        assert len(found) == len(set(found))


async def test_a_cancelled_timer_is_not_set_again_by_its_message(nats: Settings) -> None:
    async with Harness(app, nats) as harness:
        made, table = setter(harness), harness.services.timers
        assert table is not None
        await handled(made, 1, wish(1, 600))
        place = places.place("timed", "steps", places.slot_of("check", "p"))
        assert await cancel(table, place)
        assert not await cancel(table, place)
        await handled(made, 1, wish(1, 0))
        assert (await table.newest(place) or Entry(0, "")).kind == "cancel"
        await handled(made, 2, wish(2, 0))
        await until(lambda: there(harness), "the next")
        await handled(made, 3, cancelled("check", None))
        assert await there(harness) == [2]


async def test_a_server_that_is_away_is_waited_for(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Harness(app, nats) as harness:
        made, table = setter(harness), harness.services.timers
        assert table is not None
        real, refusals = table.put, [Unavailable("away"), Unavailable("away")]

        async def put(*arguments: Any) -> bool:
            if refusals:
                raise refusals.pop()
            return await real(*arguments)

        monkeypatch.setattr(table, "put", put)
        monkeypatch.setattr("mqinfer.timers.setter.AGAIN", 0.01)
        await handled(made, 1, wish(1, 0))
        await until(lambda: there(harness), "it")


async def test_what_came_while_the_server_did_not_answer_leaves_nothing_that_it_replaced(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill of the server: it publishes what is due before a worker is connected."""
    async with Harness(app, nats) as harness:
        made, table = setter(harness), harness.services.timers
        assert table is not None
        await handled(made, 1, wish(1, 600))
        real = table.drop

        async def drop(*arguments: Any, **options: Any) -> None:
            if not await there(harness):
                raise Unavailable("away")
            await real(*arguments, **options)

        monkeypatch.setattr(table, "drop", drop)
        monkeypatch.setattr("mqinfer.timers.setter.AGAIN", 0.01)
        await handled(made, 2, wish(2, 0.1))
        assert await there(harness) == [2]
        assert await harness.stored("timed=timers", "timed=timers.*.*.at.>") == []


async def test_a_stop_lets_go_of_what_is_not_set(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Harness(app, nats) as harness:
        made, table = setter(harness), harness.services.timers

        async def put(*arguments: Any) -> bool:
            await asyncio.Event().wait()
            return False

        monkeypatch.setattr(table, "put", put)
        hanging = asyncio.create_task(handled(made, 1, wish(1, 0)))
        await until(lambda: made._tasks, "a task")
        await made.close()
        assert not made._tasks
        hanging.cancel()


def test_the_stream_of_timers_is_kept_apart() -> None:
    spec, own = plan.timers_spec(app), plan.stream_spec(app)
    assert spec.schedules
    assert spec.subjects == ("timed=timers.>",)
    assert own.copies is not None
    assert own.copies.transforms == (("timed=timers.*.*.fired.>", "timed.>"),)
    assert (spec.max_age or 0) > 2 * app.max_age
