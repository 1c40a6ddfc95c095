"""Shadows on a real stream and a real ClickHouse: apart, exact, and never in the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

from mqinfer import App, Context, Message, Row, State, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.choice import chosen
from mqinfer.errors import ConfigurationError, TableError
from mqinfer.replay.compare import compare
from mqinfer.replay.promote import Promotions
from mqinfer.replay.run import Run
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.shadow.shadows import Shadows
from mqinfer.testing import FakeModels, Harness, until
from tests.support.replay import runs_of

SHARE = 0.5


class Number(Message, subject="number"):
    value: int


class Later(Message, subject="later"):
    value: int


class Graded(Row, frozen=True, table="graded", order_by="value"):
    value: int
    grade: int


class Seen(State):
    times: int = 0


def grading(name: str, ran: list[tuple[int, str | None]] | None = None) -> App:
    """A stage that says what it handled, and in which run."""
    app = App(name)
    grader = app.model("grader", version="1")

    @app.stage(models=[grader], attempts=2)
    async def grade(number: Number, ctx: Context) -> Graded:
        answer = await grader(x=np.array([number.value]))
        if ran is not None:
            ran.append((number.value, ctx.run))
        return Graded(number.value, int(answer["y"][0]))

    return app


def models(second: Any = None) -> FakeModels:
    """Version 2 answers otherwise for every third number."""

    def first(x: Any) -> Mapping[str, Any]:
        return {"y": [int(x[0])]}

    def other(x: Any) -> Mapping[str, Any]:
        return {"y": [int(x[0]) + (x[0] % 3 == 0)]}

    return FakeModels({"grader:1": first, "grader:2": second or other})


@asynccontextmanager
async def at(app: App, nats: Settings, url: str) -> AsyncIterator[Harness]:
    settings = Settings.load(
        {}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url, grace=5.0
    )
    async with Harness(app, settings) as harness:
        yield harness


def shadows_of(harness: Harness) -> Shadows:
    return wiring.shadows(harness.app, harness.services.broker)  # type: ignore[arg-type]


def share_of(first: int, last: int, share: float = SHARE) -> list[int]:
    return [value for value in range(first, last) if chosen(f"n{value}", share)]


async def publish(harness: Harness, first: int, last: int) -> None:
    await harness.publish(
        *(Number(value) for value in range(first, last)), ids=[f"n{i}" for i in range(first, last)]
    )


async def rows(db: ClickHouse, run: str) -> list[tuple[int, int]]:
    """All that the table keeps, shown or not; not FINAL, so that a repeat would be seen."""
    try:
        found = await db.query(
            f"SELECT value, grade FROM graded__storage FINAL WHERE _run = '{run}' ORDER BY value"
        )
    except TableError:
        return []
    return [(row["value"], row["grade"]) for row in found]


async def records(db: ClickHouse, run: str) -> dict[int, str]:
    """Number -> why it was passed over, "" where it was answered."""
    try:
        found = await db.query(
            f"SELECT input, skipped FROM mqinfer_run_inputs__storage FINAL WHERE run = '{run}'"
        )
    except TableError:
        return {}
    assert len({row["input"] for row in found}) == len(found)
    return {int(row["input"][1:]): row["skipped"] for row in found}


def reaches(count: int, ask: Callable[[], Any]) -> Callable[[], Any]:
    async def there() -> bool:
        return len(await ask()) >= count

    return there


async def done(harness: Harness, run: str) -> Run:
    async def over() -> Run | None:
        found = await runs_of(harness).get(run)
        return found if found.state == "done" else None

    return await until(over, f"the end of run {run}")


async def test_it_answers_its_share_beside_and_ends_as_a_run(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    ran: list[tuple[int, str | None]] = []
    with models():
        async with at(grading("beside", ran), nats, url) as harness, harness.worker():
            shadows = shadows_of(harness)
            await publish(harness, 0, 20)
            await until(reaches(20, lambda: rows(db, "")), "the rows before")
            # Nothing is restarted: the worker that runs takes it up by itself.
            run = await shadows.begin("grader", "2", SHARE, name="second", late=3600.0)
            with pytest.raises(ConfigurationError, match="is a shadow already, as run second"):
                await shadows.begin("grader", "2", SHARE)
            await publish(harness, 20, 80)
            ours = share_of(20, 80)
            await until(reaches(60 + 20, lambda: rows(db, "")), "the live rows")
            await until(reaches(len(ours), lambda: records(db, "second")), "the shadow's rows")
            expected = [(value, value + (value % 3 == 0)) for value in ours]
            assert await rows(db, "second") == expected
            assert await records(db, "second") == dict.fromkeys(ours, "")
            # What is shown, and what is told of live ones, is as ever.
            live = [(value, value) for value in range(80)]
            assert await rows(db, "") == live
            shown = await db.query("SELECT value, grade FROM graded ORDER BY value")
            assert [(one["value"], one["grade"]) for one in shown] == live
            assert Counter(ran) == Counter(
                [(value, None) for value in range(80)] + [(value, "second") for value in ours]
            )
            told = await compare(harness.app, run, None, db, examples=0)
            (table,) = told["tables"]
            assert table["matched"] == len(ours)
            assert table["agree"] == sum(value % 3 != 0 for value in ours)

            await shadows.end("grader")
            ended = await done(harness, "second")
            assert ended.end >= ended.start
            await publish(harness, 80, 100)
            await until(reaches(100, lambda: rows(db, "")), "the live rows after")
            assert len(await records(db, "second")) == len(ours)
            with pytest.raises(ConfigurationError, match="has no shadow"):
                await shadows.end("grader")
            promotions = Promotions(harness.app, runs_of(harness), db)
            await promotions.promote("second")
            shown = await db.query("SELECT value, grade FROM graded ORDER BY value")
            changed = dict(expected)
            assert {one["value"]: one["grade"] for one in shown} == {
                value: changed.get(value, value) for value in range(100)
            }
            await promotions.undo("second")
            await promotions.discard("second")
            assert await rows(db, "second") == []
            # Another may begin.
            await shadows.begin("grader", "2", 1.0, name="third")
            assert await harness.dead() == []


async def test_what_fails_or_is_late_is_told_and_live_goes_on(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    """Every message of the share is answered or told, whichever way the shadow is at fault."""
    hangs = asyncio.Event()

    async def second(x: Any) -> Mapping[str, Any]:
        if x[0] % 4 == 0:
            raise ValueError(f"no {x[0]}")
        if x[0] % 4 == 1:
            await hangs.wait()
        return {"y": [int(x[0])]}

    app = grading("atfault")
    with models(second):
        async with at(app, nats, url) as harness, harness.worker():
            await shadows_of(harness).begin("grader", "2", 1.0, name="faulty", late=3.0)
            published, answered = 0, list[int]()
            while not answered:  # a machine that is busy may make all of them late
                await publish(harness, published, published + 40)
                published += 40
                await until(reaches(published, lambda: rows(db, "")), "the live rows")
                await until(reaches(published, lambda: records(db, "faulty")), "its records")
                found = await records(db, "faulty")
                answered = sorted(value for value, told in found.items() if not told)
            for value, told in found.items():
                expected = {
                    0: f"ModelError: model grader: ValueError: no {value}",
                    1: "too late",
                }.get(value % 4, "")
                assert told in (expected, "too late"), value
            assert [value for value, _ in await rows(db, "faulty")] == answered
            assert await harness.dead() == []


async def test_states_and_timers_take_no_effect_twice(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    app = App("effects")
    grader = app.model("grader", version="1")

    class Keyed(Message, subject="keyed", key="who", ordered=True):
        who: str
        value: int

    @app.stage(models=[grader], later=Later)
    async def grade(one: Keyed, seen: Seen, ctx: Context) -> Graded:
        await grader(x=np.array([one.value]))
        seen.times += 1
        await ctx.later(Later(one.value), after="1h", name=f"t{one.value}")
        return Graded(one.value, seen.times)

    @app.stage
    async def reminded(one: Later) -> None:
        pass

    with models():
        async with at(app, nats, url) as harness, harness.worker():
            await shadows_of(harness).begin("grader", "2", 1.0, name="twice", late=3600.0)
            await harness.publish(
                *(Keyed("a", value) for value in range(5)), ids=[f"n{i}" for i in range(5)]
            )
            await until(reaches(5, lambda: rows(db, "")), "the live rows")
            await until(reaches(5, lambda: records(db, "twice")), "the shadow's records")
            assert await rows(db, "") == [(value, value + 1) for value in range(5)]
            state = await harness.state("grade", "a")
            assert isinstance(state, Seen)
            assert state.times == 5
            assert len(await harness.timers("grade")) == 5
            assert await rows(db, "twice") == [(value, value + 1) for value in range(5)]


async def test_workers_that_do_not_know_of_it_leave_nothing_out(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a rolling restart; and a version that nobody can ask holds up nothing live."""
    with models():
        async with at(grading("rolling"), nats, url) as harness:
            run = await shadows_of(harness).begin("grader", "2", SHARE, name="new", late=3600.0)
            await publish(harness, 0, 30)
            with monkeypatch.context() as patch:
                patch.setattr(Worker, "_beside", lambda *_: nullcontext())
                await harness.drain()
            assert len(await rows(db, "")) == 30
            ours = share_of(0, 30)
            async with harness.worker():
                await until(reaches(len(ours), lambda: records(db, "new")), "the records")
                assert await records(db, "new") == dict.fromkeys(ours, "")
                assert [value for value, _ in await rows(db, "new")] == ours
            assert len(await rows(db, "")) == 30
            assert (await runs_of(harness).get(run.name)).open


async def test_what_does_not_fit_is_refused(nats: Settings, url: str) -> None:
    app = App("refusing")
    grader = app.model("grader")

    @app.stage(models=[grader])
    async def plain(one: Later) -> Number:
        await grader(x=np.array([1]))
        return Number(one.value)

    async with at(app, nats, url) as harness:
        shadows = shadows_of(harness)
        with pytest.raises(ConfigurationError, match="plain writes no rows"):
            await shadows.begin("grader", "2", 0.5)
        with pytest.raises(ConfigurationError, match="no stage of app refusing is seen to ask"):
            await shadows.begin("other", "2", 0.5)

        @app.stage(models=[grader])
        async def more(one: Number) -> Graded:
            return Graded(one.value, 1)

        with pytest.raises(ConfigurationError, match="is asked by plain, more: say which one"):
            await shadows.begin("grader", "2", 0.5)
        with pytest.raises(ConfigurationError, match="a share is more than 0 and at most 1"):
            await shadows.begin("grader", "2", 1.5, stage="more")
        assert await shadows.standing(["grader", "other"]) == []
