from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from clickhouse_connect.driver import options
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.backoff import Backoff
from mqinfer.blob import Blob
from mqinfer.column import Column
from mqinfer.errors import BadRows, PermissionDenied, TableError, Unavailable
from mqinfer.message import Row
from mqinfer.metrics import Metrics
from mqinfer.ports import Origin, Rehearse
from mqinfer.tables.block import build_block
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import generation_sql, schema_of, version_sql
from mqinfer.testing import until
from tests.support.clickhouse import started

NOW = 1_780_000_000_000_000_000
SECOND = 1_000_000_000


class Grade(Row, frozen=True, table="grade", order_by="position"):
    position: str
    grade: int


def items(count: int, **origin: Any) -> list[tuple[Row, Origin]]:
    return [
        (Grade(f"p{i % 7}", i), Origin(id=f"id-{i}", published=NOW + i, sequence=i, **origin))
        for i in range(count)
    ]


async def shown(db: ClickHouse) -> dict[str, int]:
    rows = await db.query("SELECT _id, grade FROM grade")
    assert len({r["_id"] for r in rows}) == len(rows)
    return {r["_id"]: r["grade"] for r in rows}


# --- values -------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Box(msgspec.Struct, frozen=True):
    left: int
    label: str | None


class Everything(Row, frozen=True, kw_only=True):
    text: str
    integer: int
    number: float
    flag: bool
    raw: bytes
    day: datetime.date
    moment: datetime.datetime
    key: uuid.UUID
    money: decimal.Decimal
    colour: Colour
    kind: Literal["a", "b"]
    small: Annotated[int, Column("UInt8")]
    millis: Annotated[datetime.datetime, Column("DateTime64(3, 'UTC')")]
    maybe: int | None
    maybe_day: datetime.date | None
    maybe_colour: Colour | None
    numbers: list[float]
    nested: tuple[tuple[int, ...], ...]
    bag: dict[str, float]
    box: Box
    boxes: list[Box]
    pair: tuple[int, str]
    vector: npt.NDArray[np.float32]
    image: np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    reference: Blob
    inline: Blob


async def test_every_type_comes_back_as_it_was(db: ClickHouse) -> None:
    key = uuid.uuid4()
    moment = datetime.datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=datetime.UTC)
    east = moment.astimezone(datetime.timezone(datetime.timedelta(hours=5)))
    row = Everything(
        text="a'b\\\"c\n\t\0 ü 😀",
        integer=-(2**63),
        number=-math.inf,
        flag=True,
        raw=b"\x00\xff'\\",
        day=datetime.date(1900, 1, 1),
        moment=east,
        key=key,
        money=decimal.Decimal("-12345678901234567890.000000000000000001"),
        colour=Colour.RED,
        kind="b",
        small=255,
        millis=moment.replace(tzinfo=None),
        maybe=None,
        maybe_day=datetime.date(1970, 1, 1),
        maybe_colour=None,
        numbers=[math.inf, 0.1, -0.0],
        nested=((1, 2), (), (3,)),
        bag={"x": 1e300, "": -1.5},
        box=Box(1, None),
        boxes=[Box(1, "x"), Box(2, None)],
        pair=(1, "z"),
        vector=np.array([0.5, np.inf, -1], dtype=np.float32),
        image=np.arange(6, dtype=np.uint8).reshape(2, 3),
        reference=Blob.at("a/b.png"),
        inline=Blob(b"\xff"),
    )
    other = msgspec.structs.replace(row, maybe=0, maybe_day=None, maybe_colour=Colour.RED)
    origin = Origin(
        id="one", ancestors=("a", "b"), stage="s", models={"m": "2"}, sequence=2**63, published=NOW
    )
    sink = Sink(db, Everything)
    assert await sink.write([(row, origin), (other, Origin(id="two", run=""))]) == {}
    (found,) = await db.query(
        "SELECT * EXCEPT (raw), hex(raw) AS raw, toUnixTimestamp64Nano(_published) AS nanos "
        "FROM everything WHERE _id = 'one'"
    )
    expected = {
        "text": row.text, "integer": row.integer, "number": row.number, "flag": True,
        "raw": row.raw.hex().upper(), "day": row.day, "key": key, "money": row.money,
        "colour": "red", "kind": "b", "small": 255, "maybe": None, "maybe_day": row.maybe_day,
        "maybe_colour": None, "numbers": row.numbers, "nested": [[1, 2], [], [3]], "bag": row.bag,
        "box": {"left": 1, "label": None},
        "boxes": [{"left": 1, "label": "x"}, {"left": 2, "label": None}], "pair": (1, "z"),
        "vector": [0.5, math.inf, -1.0], "image": [[0, 1, 2], [3, 4, 5]], "reference": "a/b.png",
        "inline": "data:;base64,/w==", "_ancestors": ["a", "b"], "_stage": "s", "_run": "",
        "_models": {"m": "2"}, "_sequence": 2**63, "nanos": NOW,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name] == value, name
    assert found["moment"].replace(tzinfo=datetime.UTC) == moment
    assert found["millis"].replace(tzinfo=None) == moment.replace(tzinfo=None, microsecond=123000)
    (second,) = await db.query(
        "SELECT maybe, maybe_day, maybe_colour FROM everything WHERE maybe=0"
    )
    assert second == {"maybe": 0, "maybe_day": None, "maybe_colour": "red"}


class Number(Row, frozen=True):
    value: float
    maybe: float | None


@given(st.lists(st.tuples(st.floats(), st.none() | st.floats()), max_size=20))
def test_floats_are_sent_as_they_are(pairs: list[tuple[float, float | None]]) -> None:
    rows = [(Number(a, b), Origin(id=str(i))) for i, (a, b) in enumerate(pairs)]
    block = build_block(schema_of(Number), rows)
    assert not block.refused
    for column, k in ((block.data[0], 0), (block.data[1], 1)):
        assert list(map(repr, column)) == [repr(pair[k]) for pair in pairs]


def test_what_inserts_need_is_imported_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("np", "pd"):  # as in a new process
        monkeypatch.delitem(vars(options), name, raising=False)
    ClickHouse("http://127.0.0.1").load()
    assert {"np", "pd"} <= vars(options).keys()


async def test_values_that_do_not_fit_cost_their_own_row(db: ClickHouse) -> None:
    class Tight(Row, frozen=True):
        small: Annotated[int, Column("UInt8")]
        big: int
        day: datetime.date
        money: decimal.Decimal
        single: Annotated[float, Column("Float32")]
        list_: list[Annotated[int, Column("Int8")]]
        vector: npt.NDArray[np.float32]

    good = Tight(
        small=1, big=1, day=datetime.date(2026, 1, 1), money=decimal.Decimal(1), single=1.5,
        list_=[1], vector=np.zeros(2, np.float32),
    )  # fmt: skip
    bad: dict[str, Any] = {
        "small": 256, "big": 2**63, "day": datetime.date(1, 1, 1),
        "money": decimal.Decimal("NaN"), "single": 1e60, "list_": [1, 128],
        "vector": np.zeros((2, 2), np.float32),
    }  # fmt: skip
    rows: list[Row] = [good]
    for name, value in bad.items():
        rows += [msgspec.structs.replace(good, **{name: value}), good]
    refused = await Sink(db, Tight).write([(row, Origin(id=str(i))) for i, row in enumerate(rows)])
    assert sorted(refused) == [1, 3, 5, 7, 9, 11, 13]
    for index, name in zip(sorted(refused), bad, strict=True):
        assert name in refused[index]
        assert "\n" not in refused[index]
    (count,) = await db.query("SELECT count() AS n FROM tight")
    assert count["n"] == 8


# --- one answer each ------------------------------------------------------------------------------


async def test_rows_written_twice_are_shown_once(db: ClickHouse) -> None:
    rows = items(50)
    one, other = Sink(db, Grade), Sink(db, Grade)
    await asyncio.gather(one.write(rows), other.write(rows[::-1]), one.write(rows[10:]))
    await other.write(rows + rows)
    assert await shown(db) == {f"id-{i}": i for i in range(50)}
    assert one.metrics.rows == 90
    assert one.metrics.blocks == 2


async def test_the_first_answer_stands_whichever_comes_first(db: ClickHouse) -> None:
    def answer(grade: int, published: int) -> list[tuple[Row, Origin]]:
        return [(Grade("p", grade), Origin(id="x", published=published))]

    sink = Sink(db, Grade)
    await sink.write(answer(2, NOW + SECOND))
    assert await shown(db) == {"x": 2}
    await sink.write(answer(1, NOW))
    await sink.write(answer(3, NOW + 2 * SECOND))
    assert await shown(db) == {"x": 1}
    await db.command("OPTIMIZE TABLE grade__storage FINAL")
    await sink.write(answer(3, NOW + 2 * SECOND))
    assert await shown(db) == {"x": 1}


async def test_a_run_is_hidden_until_promoted_and_late_rows_change_nothing(
    db: ClickHouse,
) -> None:
    sink = Sink(db, Grade)
    live = items(10)
    run = [
        (
            Grade(f"p{i % 7}", 100 + i),
            Origin(id=f"run-{i}", run="r1", published=NOW, ancestors=("a",)),
        )
        for i in range(5)
    ]
    await sink.write(live)
    await sink.write(run)
    assert await shown(db) == {f"id-{i}": i for i in range(10)}

    async def switch(generation: int, live_visible: int) -> None:
        await db.command(
            "INSERT INTO grade__storage SELECT * REPLACE ("
            "if(_run = '', {live:UInt8}, 1 - {live:UInt8}) AS _visible, "
            f"{version_sql('{generation:UInt64}')} AS _version) "
            "FROM (SELECT * FROM grade__storage FINAL WHERE (_run = 'r1' OR _id IN "
            "('id-0', 'id-1', 'id-2', 'id-3', 'id-4')) "
            f"AND {generation_sql()} < {{generation:UInt64}})",
            {"generation": generation, "live": live_visible},
        )

    promoted = {f"run-{i}": 100 + i for i in range(5)} | {f"id-{i}": i for i in range(5, 10)}
    for _ in range(2):  # idempotent
        await switch(1, 0)
        assert await shown(db) == promoted
    # Redelivered late, and earlier on the stream than anything before: still hidden.
    await Sink(db, Grade).write(live)
    await sink.write([(Grade("p0", 77), Origin(id="id-0", published=1))])
    await sink.write(run)
    assert await shown(db) == promoted
    await db.command("OPTIMIZE TABLE grade__storage FINAL")
    assert await shown(db) == promoted
    await switch(2, 1)  # undone
    assert sorted(await shown(db)) == [f"id-{i}" for i in range(10)]


# --- refused rows -------------------------------------------------------------------------------


class Word(Row, frozen=True):
    word: str


async def test_rows_that_the_server_refuses_are_found(db: ClickHouse) -> None:
    metrics = Metrics("plants")
    sink = Sink(db, Word, metrics=metrics)
    await sink.prepare()
    await db.command("ALTER TABLE word__storage MODIFY COLUMN word Enum8('good' = 1)")
    bad = (0, 77, 78, 199)
    refused = await sink.write(
        [(Word("bad" if i in bad else "good"), Origin(id=f"id-{i}")) for i in range(200)]
    )
    assert sorted(refused) == list(bad)
    assert all("bad" in reason and "\n" not in reason for reason in refused.values())
    found = await db.query("SELECT _id FROM word")
    assert sorted(r["_id"] for r in found) == sorted(f"id-{i}" for i in range(200) if i not in bad)
    assert metrics.sink("word") is sink.metrics
    assert sink.metrics.refused_rows == 4
    assert sink.metrics.rows == 196
    assert sum(sink.metrics.seconds.counts) == sink.metrics.blocks


class Counting:
    """A real database, and how many inserts and rehearsals it is asked for."""

    def __init__(self, db: ClickHouse):
        self.db = db
        self.sizes: list[int] = []
        self.rehearsed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.db, name)

    async def insert(self, *arguments: Any, **named: Any) -> None:
        self.sizes.append(len(arguments[3][0]))
        await self.db.insert(*arguments, **named)

    @asynccontextmanager
    async def rehearsal(self, *arguments: Any) -> AsyncIterator[Rehearse]:
        async with self.db.rehearsal(*arguments) as rehearse:

            async def counted(data: Any) -> None:
                self.rehearsed += 1
                await rehearse(data)

            yield counted


class Spot(Row, frozen=True, table="grade", order_by="grade"):
    position: str
    grade: int


ENUM = "ALTER TABLE grade__storage MODIFY COLUMN position Enum8('p0' = 1, 'p1' = 2, 'p2' = 3)"
CHECK = "ALTER TABLE grade__storage ADD CONSTRAINT {} CHECK {}"
VIEW = (
    "CREATE MATERIALIZED VIEW watch ENGINE = Memory AS "
    "SELECT throwIf(grade = 7, 'unlucky') AS x FROM grade__storage"
)


@pytest.mark.parametrize(
    ("statements", "bad", "rehearsed", "inserts"),
    [
        ([CHECK.format("c", "grade != 37")], {37}, 2, 2),
        ([CHECK.format("c", "grade % 2 = 0")], set(range(1, 60, 2)), 34, 2),
        ([CHECK.format("c", "grade < 0")], set(range(60)), 60, 1),
        (
            [CHECK.format("c", "grade % 2 = 0"), CHECK.format("d", "grade % 3 = 0")],
            {i for i in range(60) if i % 6},
            70,
            3,
        ),
        # The values p3 to p6 of positions: found once each.
        ([ENUM], {i for i in range(60) if i % 7 > 2}, 60, 2),
        # What hangs on the table is in no rehearsal.
        ([VIEW], {7}, 1, 20),
        ([VIEW, CHECK.format("c", "grade % 2 = 0")], {*range(1, 60, 2)}, 34, 2),
    ],
    ids=["one", "alternate", "all", "two reasons", "enum", "view", "view and alternate"],
)
async def test_rows_that_the_server_refuses_leave_one_part_of_good_ones(
    db: ClickHouse, statements: list[str], bad: set[int], rehearsed: int, inserts: int
) -> None:
    counting = Counting(db)
    sink = Sink(counting, Spot)  # type: ignore[arg-type]
    await sink.prepare()
    await db.command("SYSTEM STOP MERGES")
    for statement in statements:
        await db.command(statement)
    refused = await sink.write(
        [(Spot(f"p{i % 7}", i), Origin(id=f"id-{i}", published=NOW)) for i in range(60)]
    )
    assert set(refused) == bad
    found, good = await shown(db), {f"id-{i}": i for i in range(60) if i not in bad}
    assert found.items() >= good.items()
    assert found == good or statements == [VIEW]  # ClickHouse stores rows that a view refuses
    assert counting.rehearsed <= rehearsed
    assert len(counting.sizes) <= inserts
    for reason in refused.values():  # of the table, not of its likeness
        assert "\n" not in reason
        assert "temporary" not in reason
        assert "likeness" not in reason
    parts = await db.query(
        "SELECT count() AS n FROM system.parts WHERE active AND table = 'grade__storage' "
        "AND database = currentDatabase()"
    )
    await db.command("SYSTEM START MERGES")
    if statements[0] != VIEW:
        assert parts[0]["n"] <= 1


class Fake:
    """A database that refuses, fails and forgets answers on demand."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.tokens: list[str] = []
        self.sizes: list[int] = []
        self.bad: set[str] = set()
        self.failures: list[Exception] = []
        self.pings = 0
        self.most = 10**9
        self.rehearsed = 0
        self.unseen: set[str] = set()  # refused by the table, and by no rehearsal
        self.no_rehearsal: list[Exception] = []
        self.names_rows = False

    async def insert(
        self, table: str, columns: Sequence[str], types: Sequence[str], data: Any, *, token: str
    ) -> None:
        ids = data[columns.index("_id")]
        self.tokens.append(token)
        self.sizes.append(len(ids))
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop()
        if len(ids) > self.most:
            raise Unavailable("MEMORY_LIMIT_EXCEEDED")
        if (self.bad | self.unseen) & set(ids):
            raise BadRows("no")
        self.stored += ids

    @asynccontextmanager
    async def rehearsal(
        self, table: str, columns: Sequence[str], types: Sequence[str]
    ) -> AsyncIterator[Rehearse]:
        async def rehearse(data: Any) -> None:
            self.rehearsed += 1
            if self.no_rehearsal:
                raise self.no_rehearsal.pop()
            ids = data[columns.index("_id")]
            bad = [row for row, id_ in enumerate(ids) if id_ in self.bad]
            if bad:
                raise BadRows("no", row=bad[0] if self.names_rows else None)

        yield rehearse

    async def ping(self) -> None:
        self.pings += 1


def fake_sink(fake: Fake, **options: Any) -> Sink:
    sink = Sink(fake, Grade, probe=Backoff(initial=0.0), **options)  # type: ignore[arg-type]
    sink._ready = True
    return sink


@given(
    st.integers(1, 120), st.sets(st.integers(0, 119)), st.sets(st.integers(0, 119)),
    st.integers(50, 5000), st.booleans(),
    st.lists(st.sampled_from([Unavailable("away"), TableError("what?"), PermissionDenied("no")])),
)  # fmt: skip
async def test_exactly_the_bad_rows_are_refused(
    count: int, bad: set[int], unseen: set[int], size: int, named: bool, failures: list[Exception]
) -> None:
    """Whoever is at fault, and whatever becomes of the rehearsals."""
    fake = Fake()
    fake.bad = {f"id-{i}" for i in bad}
    fake.unseen = {f"id-{i}" for i in unseen}
    fake.names_rows, fake.no_rehearsal = named, failures
    bad = {i for i in bad | unseen if i < count}
    refused = await fake_sink(fake, max_bytes=size).write(items(count))
    assert set(refused) == bad
    assert sorted(fake.stored) == sorted(f"id-{i}" for i in range(count) if i not in bad)
    assert len(set(fake.tokens)) == len(fake.tokens)


class Silent(Fake):
    """It takes an insert, and says nothing of it until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()

    async def insert(self, *block: Any, token: str) -> None:
        await self.answers.wait()
        await super().insert(*block, token=token)


async def test_a_server_that_is_silent_is_told_of_before_the_call_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqinfer.tables.sink._SILENT", 0.0)
    fake = Silent()
    sink = fake_sink(fake)
    writing = asyncio.create_task(sink.write(items(3)))
    await until(lambda: sink.blocked, "the reason")
    assert "an insert had no answer for 0 s" in str(sink.blocked)
    fake.answers.set()
    assert await writing == {}
    assert sink.blocked is None


class Host(Row, frozen=True):
    address: Annotated[str, Column("IPv4")]


async def test_rows_that_do_not_fit_cost_the_others_no_insert() -> None:
    fake = Fake()
    sink = Sink(fake, Host)  # type: ignore[arg-type]
    sink._ready = True
    rows: list[tuple[Row, Origin]] = [
        (Host("10.1" if i % 2 else "10.0.0.1"), Origin(id=str(i))) for i in range(1200)
    ]
    refused = await sink.write(rows)
    assert sorted(refused) == list(range(1, 1200, 2))
    assert "'10.1' is no IPv4 address" in refused[1]
    assert fake.sizes == [600]


async def test_rows_that_the_server_refuses_are_found_with_few_inserts() -> None:
    fake = Fake()
    fake.bad = {"id-5", "id-500", "id-1023"}
    assert sorted(await fake_sink(fake).write(items(1024))) == [5, 500, 1023]
    assert fake.sizes == [1024, 1021]  # the good ones together
    assert fake.rehearsed <= 1 + 3 * (2 * 7 + 8)


@pytest.mark.parametrize(
    ("step", "named", "most"),
    [(1, True, 1000), (1, False, 1260), (2, True, 540), (2, False, 1260), (1000, True, 4)],
)
async def test_many_bad_rows_leave_one_insert_of_good_ones(
    step: int, named: bool, most: int
) -> None:
    """Every one, every second one, one in a thousand."""
    fake = Fake()
    fake.names_rows = named
    fake.bad = {f"id-{i}" for i in range(0, 1000, step)}
    assert len(await fake_sink(fake).write(items(1000))) == len(fake.bad)
    good = 1000 - len(fake.bad)
    assert fake.sizes == [1000, good] if good else [1000]
    assert fake.rehearsed <= most


async def test_an_outage_amid_a_rehearsal_is_waited_out() -> None:
    fake = Fake()
    fake.bad = {f"id-{i}" for i in range(0, 50, 2)}
    fake.no_rehearsal = [Unavailable("away")] * 2
    sink = fake_sink(fake)
    assert len(await sink.write(items(50))) == 25
    assert fake.sizes == [50, 25]
    assert fake.pings == 2
    assert sink.blocked is None


async def test_a_value_that_nothing_can_be_made_of_costs_its_own_row(db: ClickHouse) -> None:
    odd: list[Any] = [None, 5, object(), "\ud800", ["x"]]
    rows: list[tuple[Row, Origin]] = [
        (Word(value), Origin(id=str(i))) for i, value in enumerate(["a", *odd, "b"])
    ]
    assert sorted(await Sink(db, Word).write(rows)) == [1, 2, 3, 4, 5]
    found = await db.query("SELECT word FROM word ORDER BY word")
    assert found == [{"word": "a"}, {"word": "b"}]


async def test_an_insert_holds_a_bounded_number_of_bytes() -> None:
    class Picture(Row, frozen=True):
        data: bytes

    fake = Fake()
    sink = Sink(fake, Picture, max_bytes=10_000)  # type: ignore[arg-type]
    sink._ready = True
    sizes = [100] * 30 + [9000, 50_000] + [2000] * 9
    rows: list[tuple[Row, Origin]] = [
        (Picture(bytes(n)), Origin(id=str(i))) for i, n in enumerate(sizes)
    ]
    assert await sink.write(rows) == {}
    assert fake.stored == [str(i) for i in range(len(sizes))]
    position = 0
    for count in fake.sizes:
        assert count == 1 or sum(sizes[position : position + count]) <= 10_000
        position += count
    assert len(fake.sizes) < 12


async def test_a_lost_answer_is_asked_again_under_the_same_token() -> None:
    fake = Fake()
    fake.failures = [Unavailable("timed out"), Unavailable("reset")]
    sink = fake_sink(fake)
    assert await sink.write(items(3)) == {}
    assert len(fake.tokens) == 3
    assert len(set(fake.tokens)) == 1
    assert sink.metrics.retries == 2
    assert fake.pings == 2
    await sink.write(items(3))
    assert len(set(fake.tokens)) == 2  # what was deleted meanwhile must not be ignored


async def test_what_is_too_much_for_the_server_is_halved() -> None:
    fake = Fake()
    fake.most = 10
    sink = fake_sink(fake)
    assert await sink.write(items(64)) == {}
    assert sorted(fake.stored) == sorted(f"id-{i}" for i in range(64))
    assert sink.blocked is None


async def test_a_cancelled_wait_does_not_block_for_ever() -> None:
    fake = Fake()
    fake.failures = [Unavailable("away")] * 100_000
    sink = fake_sink(fake)
    task = asyncio.create_task(sink.write(items(3)))
    await until(lambda: sink.blocked)
    assert "away" in str(sink.blocked)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.blocked is None
    fake.failures = []
    assert await sink.write(items(3)) == {}


async def test_other_errors_are_raised() -> None:
    fake = Fake()
    fake.failures = [PermissionDenied("no")]
    with pytest.raises(PermissionDenied):
        await fake_sink(fake).write(items(1))


async def test_a_table_that_was_dropped_is_made_again(db: ClickHouse) -> None:
    sink = Sink(db, Grade)
    await sink.write(items(3))
    await db.command("DROP TABLE grade__storage")
    await sink.write(items(2))
    assert len(await shown(db)) == 2
    await db.command("DROP TABLE grade__storage")
    await db.command("CREATE TABLE grade__storage (x Int8) ENGINE = Log")
    with pytest.raises((TableError, Exception), match="engine Log"):
        await sink.write(items(2))


# --- outages ------------------------------------------------------------------------------------


async def test_nothing_is_lost_or_doubled_when_the_server_is_killed(tmp_path: Path) -> None:
    server = await started(tmp_path)
    client = ClickHouse(server.url)
    sink = Sink(client, Grade)
    rows = items(20_000)
    batches = [rows[i : i + 500] for i in range(0, len(rows), 500)]
    done = 0

    async def feed() -> None:
        nonlocal done
        for batch in batches:
            assert await sink.write(batch) == {}
            done += 1

    feeding = asyncio.create_task(feed())
    try:
        for stop_at in (5, 20):
            await until(lambda stop_at=stop_at: done >= stop_at)
            server.kill()
            await until(lambda: sink.blocked or feeding.done())
            assert not feeding.done()
            assert "clickhouse is not available" in str(sink.blocked)
            await server.start()
            await server.wait_ready()
        await asyncio.wait_for(feeding, 60)
        assert sink.blocked is None
        assert sink.metrics.retries >= 2
        assert await shown(client) == {f"id-{i}": i for i in range(len(rows))}
    finally:
        feeding.cancel()
        await client.close()
        await server.stop()


async def test_so_it_is_while_bad_rows_are_found(tmp_path: Path) -> None:
    """Killed amid rehearsals and inserts, and a sink that is given up in between."""
    server = await started(tmp_path)
    client = ClickHouse(server.url)
    counting = Counting(client)
    sink = Sink(counting, Spot)  # type: ignore[arg-type]
    await sink.prepare()
    await client.command(CHECK.format("c", "grade % 2 = 0"))
    rows: list[tuple[Row, Origin]] = [
        (Spot("p", i), Origin(id=f"id-{i}", published=NOW)) for i in range(160)
    ]
    refused: set[int] = set()

    async def feed(sink: Sink) -> None:
        for i in range(0, len(rows), 40):
            refused.update(i + at for at in await sink.write(rows[i : i + 40]))

    feeding = asyncio.create_task(feed(sink))
    try:
        for stop_at in (5, 30):
            await until(lambda stop_at=stop_at: counting.rehearsed >= stop_at)
            server.kill()
            await until(lambda: sink.blocked or feeding.done())
            assert not feeding.done()
            await server.start()
            await server.wait_ready()
        await until(lambda: counting.rehearsed >= 50)
        feeding.cancel()
        await asyncio.wait([feeding])
        assert sink.blocked is None
        await asyncio.wait_for(feed(Sink(client, Spot)), 300)  # another worker: all of them again
        assert refused == set(range(1, 160, 2))
        assert await shown(client) == {f"id-{i}": i for i in range(0, 160, 2)}
    finally:
        feeding.cancel()
        await client.close()
        await server.stop()


async def test_a_table_waits_for_its_server(tmp_path: Path) -> None:
    server = await started(tmp_path)
    await server.stop()
    client = ClickHouse(server.url)
    sink = Sink(client, Grade)
    writing = asyncio.create_task(sink.write(items(5)))
    try:
        await until(lambda: sink.blocked)
        assert not writing.done()
        await server.start()
        assert await asyncio.wait_for(writing, 60) == {}
        assert len(await shown(client)) == 5
    finally:
        writing.cancel()
        await client.close()
        await server.stop()
