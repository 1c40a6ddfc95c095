"""What becomes of a pack in its sink: acknowledged when each row is stored, or a dead letter."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mqinfer import App, Message, Row, plan
from mqinfer.flow import deadletter
from mqinfer.flow.job import Job
from mqinfer.flow.mailbox import Weighing
from mqinfer.identity import ANCESTORS, CONTENT_TYPE, IDENTITY, MSG_ID, STAGE, output_id
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.layout import Lineages
from mqinfer.tables.origins import Batch
from tests.support.flow import Delivered, turns
from tests.worker.test_assembly import Assembled


class Word(Message):
    text: str


class Told(Row, table="told", order_by="n"):
    n: int


class Table:
    """A sink that keeps rows, but those whose number is in `bad`."""

    def __init__(self) -> None:
        self.schema = SimpleNamespace(name="told")
        self.blocked = None
        self.bad: set[int] = set()
        self.blocks: list[list[int]] = []
        self.stored: dict[str, tuple[int, Any]] = {}
        self.go = asyncio.Event()
        self.go.set()

    async def write(self, batch: Batch) -> dict[int, str]:
        await self.go.wait()
        rows: Any = batch.rows
        self.blocks.append([row.n for row in rows])
        origins = batch.origins
        assert len({len(column) for column in origins.columns()} | {len(rows)}) == 1
        refused = {at: f"{row.n} is bad" for at, row in enumerate(rows) if row.n in self.bad}
        for at, row in enumerate(rows):
            if at not in refused:
                self.stored[origins.id[at]] = (row.n, origins.ancestors[at])
        return refused


def identity(parent: str, index: int) -> str:
    return output_id(parent, "tell", None, index)


def pack(sequence: int, groups: dict[str, list[bytes]], **headers: str) -> Any:
    ids = [identity(parent, at) for parent, rows in groups.items() for at in range(len(rows))]
    lineages = Lineages(
        bytes.fromhex("".join(ids)),
        [len(rows) for rows in groups.values()],
        {ANCESTORS: list(groups)},
    )
    data = layout.write(lineages, [row for rows in groups.values() for row in rows], "json")
    given = {CONTENT_TYPE: "application/json", STAGE: "tell", MSG_ID: f"pack:{sequence}", **headers}
    return delivered(sequence, data, given)


def delivered(sequence: int, data: bytes, headers: dict[str, str]) -> Any:
    return Delivered(
        sequence, data, headers, subject="t.=pack.told", size=len(data), published=10**18
    )


def numbers(*values: int) -> list[bytes]:
    return [b'{"n":%d}' % value for value in values]


class Sunk(Assembled):
    """The runner of packs over fakes."""

    def __init__(self) -> None:
        app = App("t")

        @app.stage
        async def tell(word: Word) -> Told:
            return Told(1)

        super().__init__(app, packs="sink-told-packs")
        self.table = Table()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        task = plan.tasks(self.work.app, ["sink-told"])[0]
        table: Any = self.table
        plain, runner = self.assembly.runners(task, table, None)
        assert plain.source.consumer == "sink-told"
        assert runner.source.consumer == "sink-told-packs"
        runner._mailbox._batch_wait = 0.0
        stop = asyncio.Event()
        work = asyncio.create_task(runner.run(stop, 5.0))
        await turns()
        try:
            yield runner
        finally:
            stop.set()
            async with asyncio.timeout(120):
                await work

    def letters(self) -> dict[str, Any]:
        found = [one for one in self.broker.published if one.subject == "dead.t.sink-told"]
        assert len(found) == len({one.headers[MSG_ID] for one in found})
        return {one.headers[IDENTITY]: one for one in found}


async def test_a_pack_is_one_message_and_its_rows_go_into_one_block() -> None:
    made = Sunk()
    async with made.running():
        made.broker.on_message(pack(1, {"a": numbers(1, 2), "b c": numbers(3)}))
        made.broker.on_message(pack(2, {"d": numbers(4)}))
        await turns()
        assert made.broker.heard() == [("ack", 1), ("ack", 2)]
    assert made.table.blocks == [[1, 2, 3, 4]]
    assert made.table.stored == {
        identity("a", 0): (1, ("a",)),
        identity("a", 1): (2, ("a",)),
        identity("b c", 0): (3, ("b", "c")),
        identity("d", 0): (4, ("d",)),
    }
    assert not made.broker.published
    assert made.metrics.stage("sink-told").completed == 2  # messages; the table counts rows


async def test_bad_rows_are_dead_letters_of_their_own_and_then_the_pack_is_acknowledged() -> None:
    made = Sunk()
    made.table.bad = {2}
    async with made.running():
        rows = [*numbers(1, 2), b'{"n":"three"}', *numbers(4)]
        made.broker.on_message(pack(1, {"a": numbers(0), "b": rows}))
        await turns()
        assert made.broker.said == []  # the dead letters are not stored yet
        letters = made.letters()
        assert set(letters) == {identity("b", 1), identity("b", 2)}
        refused, unread = letters[identity("b", 1)], letters[identity("b", 2)]
        assert (refused.payload, unread.payload) == (b'{"n":2}', b'{"n":"three"}')
        assert refused.headers[deadletter.REASON] == "2 is bad"
        assert refused.headers[deadletter.KIND] == "rejected"
        assert unread.headers[deadletter.KIND] == "decode"
        for letter in letters.values():
            assert letter.headers[deadletter.SUBJECT] == "t.told"
            assert letter.headers[ANCESTORS] == "b"
            assert letter.headers[STAGE] == "tell"
            assert letter.headers[CONTENT_TYPE] == "application/json"
            assert letter.headers[deadletter.SEQUENCE] == "1"
        made.broker.answer()
        assert made.broker.said == []
        made.broker.answer()
        assert made.broker.heard() == [("ack", 1)]
    assert sorted(n for n, _ in made.table.stored.values()) == [0, 1, 4]
    assert +Counter(made.metrics.stage("sink-told").deaths) == {"decode": 1, "rejected": 1}


async def test_a_dead_letter_that_cannot_be_stored_brings_the_pack_again() -> None:
    made = Sunk()
    made.table.bad = {1, 2}
    async with made.running():
        made.broker.on_message(pack(1, {"a": numbers(0, 1, 2)}))
        await turns()
        made.broker.answer(0, RuntimeError("refused"))
        made.broker.answer()
        assert made.broker.heard() == [("nak", 1)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no pack of rows"),
        (b"\x02" + bytes(20), "layout 2"),
        (b'{"n": 1}       ', "layout 123"),
        (b"\x01\xff\xff\xff\xff\x01\x00\x00\x00\x90", "does not say whose"),
        (b"\x01\x01\x00\x00\x00\xff\xff\xff\xff", "was cut off"),
    ],
)
async def test_what_is_no_pack_is_one_dead_letter_and_the_worker_goes_on(
    data: bytes, reason: str
) -> None:
    made = Sunk()
    async with made.running():
        made.broker.on_message(delivered(1, data, {}))
        made.broker.on_message(pack(2, {"a": numbers(1)}))
        await turns()
        (letter,) = made.letters().values()
        assert reason in letter.headers[deadletter.REASON]
        assert letter.payload == data
        assert letter.headers[deadletter.SUBJECT] == "t.=pack.told"
        made.broker.answer_all()
        assert sorted(made.broker.heard()) == [("ack", 2), ("term", 1)]


async def test_a_batch_counts_rows() -> None:
    made = Sunk()
    made.table.go.clear()
    async with made.running() as runner:
        runner._mailbox._batch_size = 10
        for sequence in range(1, 13):
            made.broker.on_message(pack(sequence, {f"in:{sequence}": numbers(1, 2, 3, 4)}))
        await turns()
        made.table.go.set()
        await turns(60)
        assert sorted(made.broker.heard()) == [("ack", number) for number in range(1, 13)]
    assert max(map(len, made.table.blocks)) == 8
    assert sum(map(len, made.table.blocks)) == 48


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 30)),
            st.tuples(st.sampled_from(["take", "last", "empty"]), st.integers(1, 3)),
        ),
        max_size=30,
    )
)
async def test_a_mailbox_weighs_what_is_in_it(steps: list[tuple[str, int]]) -> None:
    def weigh(job: Job) -> int:
        return job.delivery.sequence

    box = Weighing(weigh, 20, 0.0, lambda: False, lambda: 0.0, lambda: None)
    for what, value in steps:
        if what == "put":
            box.put(Job(Delivered(value), 0.0, 0.0))  # type: ignore[arg-type]
        elif what == "take" and len(box):
            taken = await box.take()
            assert taken
            assert len(taken) == 1 or sum(map(weigh, taken)) <= 20
        elif what == "last":
            box.take_last(value)
        elif what == "empty":
            box.empty()
        assert box._weight == sum(map(weigh, box._jobs))


async def test_both_runners_of_a_sink_stop_pulling_for_one_reason_told_once() -> None:
    made = Sunk()
    task = plan.tasks(made.work.app, ["sink-told"])[0]
    table: Any = made.table
    both = made.assembly.runners(task, table, None)
    stop = asyncio.Event()
    work = [asyncio.create_task(runner.run(stop, 1.0)) for runner in both]
    with capture_logs() as logs:
        await turns()
        for table.blocked in ("clickhouse is away", None):
            for runner in both:
                runner._intake.look()
            assert [runner.blocked for runner in both] == [table.blocked] * 2
    stop.set()
    await asyncio.gather(*work)
    told = [(line["event"], line["stage"], line["reason"]) for line in logs if "reason" in line]
    assert told == [
        ("stops pulling", "sink-told", "clickhouse is away"),
        ("pulls again", "sink-told", None),
    ]
