"""Headers that strangers wrote: whatever they say, a message is handled, and its outputs leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Context, Message, Row, Settings
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.codec import Codec
from mqinfer.errors import Reject
from mqinfer.flow import deadletter
from mqinfer.flow.deadletter import MAX_HEADER, dead_letter
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.job import Job
from mqinfer.flow.ordered.partition import Held
from mqinfer.flow.reader import Reader
from mqinfer.flow.saveblobs import HEADERS
from mqinfer.identity import (
    ANCESTORS,
    IDENTITY,
    MAX_ID,
    MODELS,
    MSG_ID,
    ONLY,
    RUN,
    SOURCE,
    STAGE,
    TRACE,
    TRACE_STATE,
    header_block,
    parse_header_block,
)
from mqinfer.operate.letters import Letter, retry_headers
from mqinfer.streams import Stored
from mqinfer.tables.block import build_block
from mqinfer.tables.intotable import _row, dead_letter_row
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import schema_of
from mqinfer.testing import Harness
from tests.support.flow import Delivered


class Told(Message):
    n: int = 0


class Grade(Row, table="grade", order_by="n"):
    n: int = 0


app = App("t")
OURS = (MSG_ID, IDENTITY, ANCESTORS, MODELS, RUN, STAGE, ONLY, TRACE, TRACE_STATE, SOURCE)
DEAD = tuple(value for name, value in vars(deadletter).items() if str(value).startswith("Mq-Dead-"))
SAMPLES = (
    b"a b c", b"leaf=3 =x y= z", b"retry:dead.t.other:3:x", b"\xff\xfe", b"\xc2\xb2", b"9" * 5000,
    b"18446744073709551616", b"s", b"other", b"x" * 40_000, b"a " * 9_000, b"m=1 " * 9_000,
    "ä€😀".encode(), b"\x00\x1b[31m", b"-1", b"1e3", b"{", b'"\\ud800"', b"a \xc2\xb2 > > x",
)  # fmt: skip


def as_read(value: bytes) -> str:
    """A header's value as a parser gives it."""
    return parse_header_block(b"NATS/1.0\r\nx: " + value + b"\r\n\r\n")["x"]


values = st.one_of(
    st.sampled_from(SAMPLES),
    st.binary(max_size=200).map(lambda raw: raw.replace(b"\r\n", b"")),
).map(as_read)
names = st.one_of(st.sampled_from(OURS + DEAD), st.from_regex(r"[!-9;-~]{1,20}", fullmatch=True))
headers = st.dictionaries(names, values, max_size=14)


def job_of(kind: type[Message], pairs: dict[str, str], *, foreign_ids: bool = True) -> Job:
    """A message that a stage was given, and begins with."""
    job = Job(Delivered(5, headers=dict(pairs)), 0.0, 0.0)
    reader = Reader(
        "s", "s", lambda _: kind(), app="t", readers=frozenset({"s"}), foreign_ids=foreign_ids
    )
    assert reader.read(job)  # for nobody else
    assert job.message == kind()
    return job


def text_of(values: Any) -> None:
    for value in values:
        json.dumps(value, ensure_ascii=False).encode()  # UTF-8, without surrogates


@given(headers, st.booleans())
def test_a_message_is_handled_and_its_outputs_can_be_published(
    pairs: dict[str, str], foreign_ids: bool
) -> None:
    job = job_of(Told, pairs, foreign_ids=foreign_ids)
    broker: Any = SimpleNamespace(full=False, max_payload=1 << 20)
    emitter = Emitter(
        app, "s", (Told,), run=None, codec=Codec(), store=None, inline_limit=0, broker=broker
    )
    ((_, block, payload),) = emitter.make(job, [Told(1)])
    assert payload == b'{"n":1}'
    assert len(block) <= HEADERS
    child = parse_header_block(block)
    assert child[STAGE] == "s"
    assert RUN not in child
    assert job.id.isascii()
    assert child[ANCESTORS].split()[-1] == job.id


@given(headers, st.booleans())
def test_its_row_is_stored(pairs: dict[str, str], foreign_ids: bool) -> None:
    row, origin = _row(job_of(Grade, pairs, foreign_ids=foreign_ids))
    block = build_block(schema_of(Grade), [(row, origin)])
    assert not block.refused
    text_of((origin.id, origin.stage, origin.run, *origin.ancestors, origin.models))
    assert len(origin.stage) <= MAX_ID + 1
    assert origin.run == ""


@given(headers)
def test_its_dead_letter_can_be_stored_told_and_sent_back(pairs: dict[str, str]) -> None:
    job = job_of(Told, pairs)
    block, payload = dead_letter(job, "s", ValueError("x"), max_payload=1 << 20)
    assert len(block) <= MAX_HEADER
    stored = parse_header_block(block)
    told(stored, payload)
    row = dead_letter_row("t", Delivered(9, payload, stored))
    assert (row.stage, row.sequence, row.message_id) == ("s", 5, job.id)
    letter = _letter(stored, payload)
    back = header_block(retry_headers(letter, "s"))
    assert len(back) < 64 * 1024
    found = parse_header_block(back)
    assert (found[IDENTITY], found[ONLY]) == (job.id, "s")


@given(headers)
def test_what_lies_among_the_dead_letters_and_is_none(pairs: dict[str, str]) -> None:
    told(pairs, b"x")


@given(headers)
def test_a_copy_has_a_place(pairs: dict[str, str]) -> None:
    partition: Any = None
    held = Held(Delivered(7, headers=pairs), partition, 0.0)  # type: ignore[arg-type]
    assert held.sequence > 0


def _letter(pairs: dict[str, str], payload: bytes) -> Letter:
    time: Any = SimpleNamespace(isoformat=lambda: "2026-05-01T00:00:00+00:00")
    return Letter(Stored("t-dead", "dead.t.s", 9, time, pairs, payload))


def told(pairs: dict[str, str], payload: bytes) -> None:
    """A person may ask for it, and a table have it, if it is a dead letter at all."""
    letter = _letter(pairs, payload)
    summary = letter.summary()
    assert all(isinstance(summary[name], int) for name in ("attempts", "stream_seq", "bytes"))
    assert isinstance(letter.traceback, str)
    assert isinstance(letter.line, str)
    try:
        row = dead_letter_row("t", Delivered(9, payload, pairs))
    except Reject:
        assert MSG_ID not in pairs or deadletter.STAGE not in pairs
        return
    text_of((row.stage, row.kind, row.reason, row.error, row.subject, row.message_id, row.run))
    job = Job(Delivered(9, payload, dict(pairs)), 0.0, 0.0)
    job.open("sink-mqinfer_dead_letters", None, None)
    job.message = row
    block = build_block(schema_of(type(row)), [_row(job)])
    assert not block.refused
    text_of((_row(job)[1].id,))


async def test_rows_with_any_headers_are_stored(db: ClickHouse) -> None:
    rows = [_row(job_of(Grade, {name: as_read(v) for name in OURS})) for v in SAMPLES]
    assert await Sink(db, Grade).write(rows) == {}
    (found,) = await db.query("SELECT uniqExact(_id) AS n, max(length(_stage)) AS l FROM grade")
    assert found["n"] == len({origin.id for _, origin in rows})
    assert found["l"] <= MAX_ID + 1


async def test_a_worker_goes_on_whatever_strangers_send(nats: Settings, tmp_path: Path) -> None:
    app, seen = App("strange", partitions=2), list[int]()

    class Photo(Message):
        n: int

    class Leaf(Message, key="plant", ordered=True):
        plant: str
        n: int

    class Answer(Message):
        n: int

    @app.stage(attempts=1)
    async def look(photo: Photo, ctx: Context) -> Leaf:
        return Leaf("p", photo.n)

    @app.stage(attempts=1)
    async def follow(leaf: Leaf) -> Answer:
        seen.append(leaf.n)
        return Answer(leaf.n)

    # What JetStream gives a meaning of its own it refuses, or takes as it is.
    foreign = [IDENTITY, ANCESTORS, MODELS, RUN, STAGE, ONLY, TRACE, TRACE_STATE, *DEAD]
    async with Harness(app, nats) as harness:
        for n, value in enumerate(SAMPLES):
            size = 60_000 // len(foreign)
            pairs = {name: as_read(value)[:size] for name in foreign if name != IDENTITY}
            await harness.publish_bytes("strange.photo", b'{"n": %d}' % n, pairs)
            await harness.publish_bytes(
                "strange.leaf.q", b'{"plant":"q","n":%d}' % (100 + n), pairs
            )
        async with asyncio.timeout(100):
            await harness.drain()
        expected = [base + n for n in range(len(SAMPLES)) for base in (0, 100)]
        assert sorted(seen) == sorted(expected)
        assert sorted(one.n for one in await harness.messages(Answer)) == sorted(expected)
        assert await harness.dead() == []
