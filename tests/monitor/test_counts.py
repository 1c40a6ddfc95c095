"""Counts equal a recount, exactly, whatever came twice, late, again or was promoted."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqinfer import App, Confidence, Context, Embedding, Input, Label, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConflictError, TableError
from mqinfer.monitor import counting
from mqinfer.monitor.places import ensure_counts, foresee_counts
from mqinfer.monitor.sealing import keep_counts, seal
from mqinfer.monitor.watched import Watched, watched
from mqinfer.operate.check import check_wiring
from mqinfer.ports import Origin
from mqinfer.replay.promote import Promotions
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.tables.bydays import lay_by_days
from mqinfer.tables.sink import Sink
from mqinfer.tables.tables import schema_of, version_sql
from mqinfer.testing import Harness, until
from tests.support.bins import confidence_key, number_key
from tests.support.replay import Number, runs_of, work

HOUR = 3600
FIRST = int(time.time()) // HOUR * HOUR - 10 * HOUR  # ten hours ago, or a little more


class Guess(Row, frozen=True, table="guess", kw_only=True):
    label: Annotated[str | None, Label()]
    sure: Annotated[float | None, Confidence()] = None
    width: Annotated[float, Input()] = 0.0
    camera: Annotated[str, Input()] = ""


app = App("guessing")
grader = app.model("grader")


@app.stage(models=[grader])
async def guess(number: Number) -> Guess:
    raise NotImplementedError


(GUESSES,) = watched(app)[0]
Counts = dict[tuple[Any, ...], int]


def item(
    number: int,
    label: str | None = "a",
    second: float = 0,
    day: int = 1,
    run: str = "",
    **more: Any,
) -> tuple[Row, Origin]:
    """A row that the stream stored so many seconds after the first hour began."""
    return Guess(label=label, **more), Origin(
        id=f"id-{number}-{run}",
        ancestors=(f"in-{number}@2026-05-{day:02}",),
        stage="guess",
        run=run,
        models={"grader": "2", "cropper": "1"},
        published=int((FIRST + second) * 1e9),
    )


async def made(db: ClickHouse) -> bool:
    """Whether there is the view of the counts."""
    return bool(
        await db.query(
            "SELECT 1 FROM system.tables "
            "WHERE database = currentDatabase() AND name = 'guess__counts'"
        )
    )


async def kept(db: ClickHouse) -> list[tuple[Any, Origin]]:
    """What the table keeps."""
    rows = await db.query(
        "SELECT label, sure, width, camera, _id, _run, "
        "toUnixTimestamp64Nano(_published) AS at FROM guess__storage FINAL"
    )
    return [
        (
            Guess(label=row["label"], sure=row["sure"], width=row["width"], camera=row["camera"]),
            Origin(id=row["_id"], run=row["_run"], published=row["at"]),
        )
        for row in rows
    ]


def recount(items: Iterable[tuple[Any, Origin]]) -> Counts:
    """What should be counted of rows, each once."""
    found: Counter[tuple[Any, ...]] = Counter()
    for row, origin in items:
        step = origin.published // 10**9 // 10 * 10
        rest = (origin.run, step)
        found["label", "label", "grader", "2", *rest, row.label or "NULL"] += 1
        sure = "NULL" if row.sure is None else confidence_key(row.sure)
        found["sure", "confidence", "grader", "2", *rest, sure] += 1
        found["width", "input", "", "", *rest, number_key(row.width)] += 1
        found["camera", "input", "", "", *rest, row.camera] += 1
    return dict(found)


async def counts(db: ClickHouse, where: str = "1") -> Counts:
    rows = await db.query(
        "SELECT `column`, what, model, version, run, toUnixTimestamp(step) AS at, key, sum(n) AS n "
        f"FROM guess__counts WHERE {where} GROUP BY ALL"
    )
    names = ("column", "what", "model", "version", "run", "at", "key")
    return {tuple(row[name] for name in names): row["n"] for row in rows}


async def store(db: ClickHouse, items: Sequence[tuple[Row, Origin]]) -> None:
    """By a sink of its own, which knows nothing of what others stored."""
    assert await Sink(db, Guess, app="guessing").write(items) == {}


async def sealed(db: ClickHouse) -> dict[str, tuple[str, ...]]:
    """Seal what is due."""
    return await seal(db, GUESSES, await ensure_counts(db, GUESSES, "guessing"))


async def promoted(db: ClickHouse, visible: str) -> None:
    """Insert all rows again as a promotion does, with the next generation."""
    await db.command(
        f"INSERT INTO guess__storage SELECT * REPLACE (toUInt8({visible}) AS _visible, "
        f"{version_sql('bitShiftRight(_version, 44) + 1')} AS _version) "
        "FROM (SELECT * FROM guess__storage FINAL) SETTINGS insert_deduplicate = 0"
    )


def dying(db: ClickHouse, lines: int = 0) -> Any:
    """The database, for a process that dies after so many lines of seals."""

    class Dying:
        cluster = None

        def __init__(self) -> None:
            self.query = db.query
            self.lines = lines

        async def command(self, sql: str) -> None:
            if f"INTO {counting.SEALS}" in sql:
                self.lines -= 1
                if self.lines < 0:
                    raise asyncio.CancelledError
            await db.command(sql)

    return Dying()


SOME = [
    item(1, "cat", 0.5, sure=0.97, width=224.0, camera="north"),
    item(2, "cat", 9.9, sure=1.0, width=-3.5, camera="north"),
    item(3, "dog", 10.0, sure=0.05, width=math.inf),
    item(4, None, 11.0, sure=None, width=math.nan),
    item(5, "ü" * 3, 5 * HOUR, sure=-0.5, width=1e-300),
    item(6, "cat", 3.0, sure=0.5, run="r1", day=2),
]


async def test_live_and_sealed_counts_are_what_was_stored(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME)
    assert await counts(db) == recount(SOME)
    assert await counts(db, where="sealed") == {}
    assert len(await sealed(db)) == 2
    assert await counts(db, where="sealed") == await counts(db) == recount(SOME)
    (row,) = await db.query(
        "SELECT sum(n) AS n, sum(numbers) AS numbers, sum(total) AS total, sum(squares) AS squares "
        "FROM guess__counts WHERE `column` = 'label' AND key = 'cat' AND run = ''"
    )
    assert (row["n"], row["numbers"]) == (2, 2)
    assert row["total"] == pytest.approx(1.97)
    assert row["squares"] == pytest.approx(0.97**2 + 1)


async def test_what_was_stored_before_it_was_watched_is_counted_too(db: ClickHouse) -> None:
    await store(db, SOME)
    assert await sealed(db)
    assert await counts(db) == recount(SOME)


async def test_repeats_count_once(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    for _ in range(3):
        await store(db, SOME)
    assert await counts(db) == recount(SOME)
    await sealed(db)
    assert await counts(db) == recount(SOME)
    # Again, when its hour is sealed: the rows of later hours alone are looked at as they are.
    await store(db, SOME)
    assert await counts(db) == recount(SOME)


async def test_promoting_and_undoing_count_nothing(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME)
    for visible in ("_run != ''", "_run = ''"):
        await promoted(db, visible)
        assert await counts(db) == recount(SOME)
        await sealed(db)
        assert await counts(db) == recount(SOME)


MERGE = "OPTIMIZE TABLE guess__storage FINAL"


async def hours_pass(db: ClickHouse) -> None:
    """Ten of them, after which no insert is too near to a seal that is made then."""
    await ensure_counts(db, GUESSES, "guessing")
    for table, column in (("guess__storage", "_inserted"), (counting.SEALS, "made")):
        await db.command(
            f"ALTER TABLE {table} UPDATE {column} = {column} - 36000 WHERE 1 "
            "SETTINGS mutations_sync = 2"
        )


async def test_late_rows_seal_their_hour_again_and_what_has_rest_is_left(db: ClickHouse) -> None:
    await store(db, SOME)
    # Its insert may have begun before: so an hour is sealed again until its rows are old enough.
    for _ in range(2):
        assert len(await sealed(db)) == 2
    await hours_pass(db)
    assert len(await sealed(db)) == 2
    assert await sealed(db) == {}
    late = [item(7, "late", 20.0)]
    await store(db, late)
    assert len(await sealed(db)) == 1
    assert await counts(db) == recount([*SOME, *late])


async def test_a_row_that_moves_to_an_earlier_hour_leaves_the_later_one(db: ClickHouse) -> None:
    second = item(1, "second", 3 * HOUR)
    await store(db, [second, *SOME[1:]])
    await sealed(db)
    await store(db, [item(1, "first", 1 * HOUR)])  # stored by the stream before, inserted after
    await sealed(db)
    assert await counts(db) == recount([item(1, "first", 1 * HOUR), *SOME[1:]])


async def test_a_row_that_moves_is_missed_also_when_no_copy_is_left(db: ClickHouse) -> None:
    await store(db, [item(1, "second", 3 * HOUR), *SOME[1:]])
    await sealed(db)
    await store(db, [item(1, "first", 1 * HOUR)])
    await db.command(MERGE)  # the later hour has no row at all now
    await sealed(db)
    assert await counts(db) == recount([item(1, "first", 1 * HOUR), *SOME[1:]])


async def test_one_row_moves_and_another_comes(db: ClickHouse) -> None:
    await store(db, [item(1, "second", 3 * HOUR), item(2, "second", 2 * HOUR)])
    await sealed(db)
    await store(db, [item(1, "first", 2 * HOUR), item(3, "new", 3 * HOUR)])
    await store(db, [item(2, "first", 0)])
    await db.command(MERGE)
    await sealed(db)
    assert await counts(db) == recount(await kept(db))
    assert {row.label for row, _ in await kept(db)} == {"first", "new"}


async def test_a_move_is_found_again_after_a_death(db: ClickHouse) -> None:
    await store(db, [item(1, "second", 3 * HOUR), *SOME[1:]])
    await hours_pass(db)
    await sealed(db)
    await store(db, [item(1, "first", 1 * HOUR)])
    await db.command(MERGE)
    await hours_pass(db)
    schema = await ensure_counts(db, GUESSES, "guessing")
    for lines in range(2):
        with pytest.raises(asyncio.CancelledError):
            await seal(dying(db, lines), GUESSES, schema)
    assert len(await sealed(db)) == 1
    assert await counts(db) == recount([item(1, "first", 1 * HOUR), *SOME[1:]])
    assert await sealed(db) == {}


async def test_what_was_counted_of_a_day_stays_when_it_is_dropped(db: ClickHouse) -> None:
    there = [item(1, "a", 3 * HOUR), item(2, "b", 2 * HOUR)]
    gone = item(3, "old", 3 * HOUR, day=2)
    await store(db, [*there, gone])
    await hours_pass(db)
    await sealed(db)
    await db.command("ALTER TABLE guess__storage DROP PARTITION '2026-05-02'")  # by `keep=`
    late = item(4, "late", 0)
    await store(db, [late])
    assert len(await sealed(db)) == 1
    assert await counts(db) == recount([*there, gone, late])


async def test_hours_sealed_by_an_earlier_version_are_compared_too(db: ClickHouse) -> None:
    await store(db, [item(1, "second", 3 * HOUR), item(2, "b", 3 * HOUR)])
    await hours_pass(db)
    await sealed(db)
    await db.command(f"ALTER TABLE {counting.SEALS} DROP COLUMN rows")
    await store(db, [item(1, "first", 1 * HOUR)])
    await db.command(MERGE)
    assert len(await sealed(db)) == 2
    assert await counts(db) == recount([item(1, "first", 1 * HOUR), item(2, "b", 3 * HOUR)])


async def test_a_death_between_the_counts_and_their_line_counts_nothing(db: ClickHouse) -> None:
    schema = await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME)
    live = await counts(db)

    with pytest.raises(asyncio.CancelledError):
        await seal(dying(db), GUESSES, schema)
    assert await counts(db) == live == recount(SOME)
    first, second = await asyncio.gather(sealed(db), sealed(db))  # two workers at once
    assert first or second
    assert await counts(db) == recount(SOME)


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("store"),
            st.lists(
                st.tuples(
                    st.integers(0, 5),
                    st.sampled_from(["a", "b", None]),
                    st.integers(0, 3 * HOUR),
                    st.sampled_from([None, 0.0, 0.33, 1.0]),
                ),
                min_size=1,
                max_size=4,
            ),
        ),
        st.tuples(
            st.sampled_from(["again", "seal", "promote", "undo", "merge", "wait"]), st.none()
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
async def test_whatever_happens_a_recount_says_the_same(db: ClickHouse, events: Any) -> None:
    for table in ("guess__storage", *counting.COLUMNS):
        await db.command(f"DROP TABLE IF EXISTS {table} SYNC")
    await ensure_counts(db, GUESSES, "guessing")
    items: list[tuple[Row, Origin]] = []
    for event, new in events:
        if event == "store":
            stored = [item(n, label, at, sure=sure, day=1 + n % 2) for n, label, at, sure in new]
            items += stored
            await store(db, stored)
        elif event == "again":
            await store(db, items) if items else None
        elif event == "seal":
            await sealed(db)
        elif event == "merge":
            await db.command(MERGE)
        elif event == "wait":
            await hours_pass(db)
        else:
            await promoted(db, "1" if event == "undo" else "0")
    await sealed(db)
    assert await counts(db) == recount(await kept(db))


# --- through a pipeline -------------------------------------------------------------------------


async def test_redeliveries_a_run_its_promotion_and_undo(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    piped = App("piped")
    version = ["1"]

    @piped.stage(name="guess")
    async def answer(number: Number, ctx: Context) -> AsyncIterator[Guess]:
        ctx.models["grader"] = version[0]
        if number.value % 7 or version[0] == "1":
            yield Guess(label=f"{version[0]}-{number.value % 3}", sure=number.value / 100)

    told = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)

    async def recounted() -> Counts:
        rows = await db.query(
            "SELECT label AS key, _models['grader'] AS version, _run AS run, "
            "toUnixTimestamp(toStartOfInterval(toDateTime(_published), INTERVAL 10 SECOND)) AS at, "
            "count() AS n FROM guess__storage FINAL GROUP BY ALL"
        )
        return {
            ("label", "label", "grader", row["version"], row["run"], row["at"], row["key"]): row[
                "n"
            ]
            for row in rows
        }

    async def labels() -> Counts:
        # As if the stage asked a model, which answers as the handler says.
        schema = await ensure_counts(db, GUESSES, "piped")
        await seal(db, GUESSES, schema, rest=-2 * HOUR)
        return await counts(db, where="sealed AND `column` = 'label'")

    async with Harness(piped, told) as harness:
        await harness.publish(*map(Number, range(50)), ids=[f"n-{n}" for n in range(50)])
        async with harness.worker():
            await until(lambda: made(db))  # by the worker, beside its sink
        await harness.drain()
        found = await labels()
        assert sum(found.values()) == 50
        assert found == await recounted()
        # What died between its insert and its acknowledgement is inserted again.
        await db.command(
            "INSERT INTO guess__storage SELECT * FROM guess__storage "
            "SETTINGS insert_deduplicate = 0"
        )
        assert await labels() == found
        version[0] = "2"
        await runs_of(harness).create(
            stage="guess", wanted=Wanted(from_seq=1, to_seq=40), name="better"
        )
        await work(harness, "better")
        with_run = await labels()
        assert with_run == await recounted()
        assert {key[4] for key in with_run} == {"", "better"}
        promotions = Promotions(piped, runs_of(harness), db)
        await promotions.promote("better")
        assert await labels() == with_run == await recounted()
        await promotions.undo("better")
        assert await labels() == with_run == await recounted()


# --- made, checked, changed ---------------------------------------------------------------------


async def test_nothing_that_counts_hangs_on_an_insert(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    await db.command(f"DROP TABLE {counting.COUNTS} SYNC")
    await store(db, SOME)
    await sealed(db)  # which makes what is missing
    assert await counts(db) == recount(SOME)


async def test_what_is_counted_changes_with_the_type(db: ClickHouse) -> None:
    first = Watched(Guess, GUESSES.fields[:1])
    await ensure_counts(db, first, "guessing")
    await store(db, SOME[:2])
    assert {key[0] for key in await counts(db)} == {"label"}
    view = (
        "SELECT uuid FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'guess__counts'"
    )
    made = await db.query(view)
    await ensure_counts(db, first, "guessing")
    assert await db.query(view) == made  # nothing is done twice
    await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME[2:])
    assert {key[0] for key in await counts(db)} == {"label", "sure", "width", "camera"}
    await sealed(db)
    assert await counts(db) == recount(SOME)


async def test_what_is_not_ours_is_left_and_told(db: ClickHouse) -> None:
    await db.command("CREATE TABLE guess__counts (a Int64) ENGINE = MergeTree ORDER BY a")
    await db.command(
        f"CREATE TABLE {counting.SEALS} (hour String) ENGINE = MergeTree ORDER BY hour"
    )
    told = await foresee_counts(db, GUESSES)
    assert len(told) == 2
    assert "column 'hour': it has String" in told[0]
    assert "guess__counts exists in ClickHouse and is not mqinfer's (it is a MergeTree)" in told[1]
    with pytest.raises(ConflictError, match="column 'hour'"):
        await ensure_counts(db, GUESSES, "guessing")


async def test_a_column_with_too_many_values_is_refused_and_the_others_are_counted(
    db: ClickHouse,
) -> None:
    many = [item(n, f"label-{n}", 1.0) for n in range(counting.MOST_KEYS + 200)]
    await store(db, many)
    ((_, refused),) = (await sealed(db)).items()
    assert refused == ("label",)
    assert {key[0] for key in await counts(db)} == {"sure", "width", "camera"}
    await ensure_counts(db, GUESSES, "guessing", refused)
    await store(db, [item(-1, "new", 2 * HOUR)])
    assert {key[0] for key in await counts(db, where="NOT sealed")} == {"sure", "width", "camera"}


async def test_it_goes_on_when_a_table_was_laid_by_days(db: ClickHouse) -> None:
    schema = schema_of(Guess)
    old = schema.create_storage().replace("PARTITION BY toDate(_born)\n", "")
    await db.command(old)
    await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME[:3])
    assert await lay_by_days(db, Guess, "guessing", lambda _: None)
    await ensure_counts(db, GUESSES, "guessing")
    await store(db, SOME[3:])
    assert await counts(db) == recount(SOME)
    await sealed(db)
    assert await counts(db) == recount(SOME)


async def test_a_worker_counts_and_no_error_ends_it(db: ClickHouse) -> None:
    class Failing:
        cluster = None

        def __init__(self) -> None:
            self.asked = 0

        async def query(self, sql: str, parameters: Any = None) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise TableError("busy")
            return await db.query(sql, parameters)

        async def command(self, sql: str, parameters: Any = None) -> None:
            await db.command(sql, parameters)

    failing: Any = Failing()
    task = asyncio.create_task(keep_counts(failing, [GUESSES, GUESSES], "guessing"))

    await until(lambda: made(db))
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- whose answers they are ---------------------------------------------------------------------


def test_the_model_is_the_only_one_or_must_be_said() -> None:
    class Two(Row, frozen=True):
        label: Annotated[str, Label()]
        vector: Annotated[list[float], Embedding(model="first")]

    several = App("several")
    models = [several.model("first"), several.model("second")]

    @several.stage(models=models)
    async def both(number: Number) -> Two:
        raise NotImplementedError

    (problem,) = watched(several)[1]
    assert "Two.label: whose answer is it? stage both asks first, second: write Label(" in str(
        problem
    )
    assert str(problem) in check_wiring(several)[0].problems

    class Said(Row, frozen=True):
        label: Annotated[str, Label(model="second")]
        sure: Annotated[float, Confidence()]

    class Odd(Row, frozen=True):
        label: Annotated[str, Label(model="third")]

    @several.stage(name="said", models=models)
    async def said(number: Number) -> Said | Odd:
        raise NotImplementedError

    found, problems = watched(several)
    assert [(field.column, field.model) for field in found[0].fields] == [
        ("label", "second"),
        ("sure", "second"),
    ]
    assert "no stage asks such a model; they ask first, second" in str(problems[1])


async def test_each_stage_that_makes_a_row_asks_a_model_of_its_own(db: ClickHouse) -> None:
    graded = App("graded")

    class Grade(Row, frozen=True, table="grade_of_two"):
        grade: Annotated[int, Label()]
        sure: Annotated[float | None, Confidence()] = None
        size: Annotated[float, Input()] = 1.0

    for name in ("rust", "blight"):
        model = graded.model(f"model_{name}")

        @graded.stage(name=name, models=[model])
        async def grade(number: Number) -> Grade:
            raise NotImplementedError

    (one,) = watched(graded)[0]
    schema = await ensure_counts(db, one, "graded")
    items = [
        (
            Grade(n, 0.5),
            Origin(
                id=f"{stage}-{n}",
                ancestors=(f"in-{n}@2026-05-01",),
                stage=stage,
                models={f"model_{stage}": version, "cropper": "7"},
                published=int((FIRST + n) * 1e9),
            ),
        )
        for n in range(3)
        for stage, version in (("rust", "2"), ("blight", "1"))
    ]
    assert await Sink(db, Grade, app="graded").write(items) == {}
    for _ in range(2):
        rows = await db.query(
            "SELECT `column`, model, version, sum(n) AS n FROM grade_of_two__counts GROUP BY ALL"
        )
        assert {(row["column"], row["model"], row["version"]): row["n"] for row in rows} == {
            **{(column, "model_rust", "2"): 3 for column in ("grade", "sure")},
            **{(column, "model_blight", "1"): 3 for column in ("grade", "sure")},
            ("size", "", ""): 6,
        }
        await seal(db, one, schema)


def test_without_marks_or_models_there_is_little_to_count() -> None:
    class Plain(Row, frozen=True):
        value: int

    class Said(Row, frozen=True):
        label: Annotated[bool, Label()]

    class Other(Message):
        value: int

    plain = App("plain")

    @plain.stage
    async def make(number: Other) -> Plain | Said:
        raise NotImplementedError

    (one,) = watched(plain)[0]
    assert one.row is Said
    assert [(field.column, field.model) for field in one.fields] == [("label", "")]
