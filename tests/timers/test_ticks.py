"""Stages that the clock feeds: one tick each through deaths and deployments, and what is late."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mqinfer import App, Context, Message, Tick
from mqinfer.backoff import Backoff
from mqinfer.birth import BIRTH_SQL
from mqinfer.errors import Unavailable, WiringError
from mqinfer.operate.graph import graph_of
from mqinfer.schedule import every
from mqinfer.settings import Settings
from mqinfer.streams import Stored
from mqinfer.testing import Harness, until
from mqinfer.tick import tick_id
from mqinfer.timers import places, record
from mqinfer.timers.keeper import Keeper
from mqinfer.timers.ontime import OnTime
from mqinfer.timers.record import Clock, Record, ahead, ticks, without
from tests.support.bucket import Memory

SOON = Backoff(initial=0.01, maximum=0.05)
BEGAN = datetime.datetime(2026, 5, 27, 12, tzinfo=datetime.UTC).timestamp()


class Done(Message):
    at: datetime.datetime
    attempt: int = 1


def clocked(period: Any = 1, name: str = "beat", **rest: Any) -> App:
    app = App("plants")

    @app.every(period, name=name, **{"backoff": SOON, **rest})
    async def beat(tick: Tick, ctx: Context) -> Done:
        assert ctx.id == tick_id(name, tick.at)
        return Done(tick.at, ctx.attempt)

    return app


async def pending(harness: Harness) -> list[str]:
    stored = await harness.stored("plants=timers", "plants=timers.*.*.at.>")
    return sorted(one.headers[places.DUE] for one in stored)


async def come(harness: Harness, count: int) -> list[Stored]:
    async def there() -> list[Stored]:
        found = await harness.stored(subject="plants.=tick.>")
        return found if len(found) >= count else []

    return await until(there, f"{count} ticks")


async def test_one_tick_a_second_whatever_workers_there_are(nats: Settings) -> None:
    async with Harness(clocked(), nats) as harness:
        async with harness.worker(), harness.worker(), harness.worker():
            found = await come(harness, 4)
        await harness.drain()
        due = [datetime.datetime.fromisoformat(one.headers[places.DUE]) for one in found]
        assert [b - a for a, b in pairwise(due)] == [datetime.timedelta(seconds=1)] * (len(due) - 1)
        assert all(one.time >= at for one, at in zip(found, due, strict=True))
        done = Counter(one.at for one in await harness.messages(Done))
        assert set(done.values()) == {1}
        assert set(done) >= set(due[:4])


class Stage:
    """A keeper with a clock of the test's, over the real stream."""

    def __init__(self, harness: Harness, app: App, now: float):
        self.now = now
        timers = harness.services.timers
        assert timers is not None
        self.keeper = Keeper(
            "plants",
            {name: stage.clock for name, stage in app.stages.items() if stage.clock},
            timers,
            harness.services.broker.bucket("plants-schedules"),
            now=lambda: self.now,
        )

    async def look(self, now: float | None = None) -> float:
        self.now = self.now if now is None else now
        return await self.keeper.look("beat")


@asynccontextmanager
async def kept(nats: Settings, app: App, now: float = BEGAN) -> AsyncIterator[tuple[Harness, Any]]:
    async with Harness(app, nats) as harness:
        stage = Stage(harness, app, now)
        await stage.keeper.begin()
        yield harness, stage


async def of_the_past(harness: Harness) -> list[str]:
    """The times of the ticks that came; those of a year that is past come at once."""
    found = await harness.stored(subject="plants.=tick.>")
    return [one.headers[places.DUE][11:16] for one in found]


@pytest.mark.parametrize(
    ("catch_up", "wanted"),
    [
        ("all", ["13:00", "14:00", "15:00", "16:00", "17:00"]),
        ("last", ["13:00", "16:00", "17:00"]),
        ("none", ["13:00", "17:00"]),
    ],
)
async def test_ticks_that_were_missed_are_set_as_catch_up_says(
    nats: Settings, catch_up: str, wanted: list[str]
) -> None:
    app = clocked("1h", catch_up=catch_up)
    async with kept(nats, app) as (harness, stage):
        assert await stage.look() == 15.0
        await stage.look(BEGAN + 4.5 * 3600)  # nobody worked meanwhile
        await stage.look()
        other = Stage(harness, app, BEGAN + 4.5 * 3600)  # and another worker finds the same
        await other.keeper.begin()
        await other.look()

        async def all_there() -> bool:
            return await of_the_past(harness) == wanted

        await until(all_there, "the ticks")
        assert await pending(harness) == []


async def test_a_day_of_seconds_is_caught_up_with_in_parts(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "AT_ONCE", 10)
    async with kept(nats, clocked(60)) as (harness, stage):
        await stage.look()
        now = BEGAN + 45 * 60 + 1
        waits = [await stage.look(now) for _ in range(6)]
        assert waits[:4] == [0, 0, 0, 0]
        assert waits[-1] > 0
        assert len(await come(harness, 46)) == 46


async def test_a_worker_that_dies_after_its_decision_leaves_it_to_the_others(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = clocked("1h")
    async with kept(nats, app) as (harness, stage):
        table = harness.services.timers
        assert table is not None
        real, left = table.put, [2]

        async def put(*arguments: Any) -> bool:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("it died here")
            return await real(*arguments)

        monkeypatch.setattr(table, "put", put)
        await stage.look()
        with pytest.raises(Unavailable):
            await stage.look(BEGAN + 3.5 * 3600)
        monkeypatch.setattr(table, "put", real)
        await Stage(harness, app, BEGAN + 3.5 * 3600).look()
        await come(harness, 4)
        assert await of_the_past(harness) == ["13:00", "14:00", "15:00", "16:00"]


def soon(hours: float = 1.0) -> float:
    """A full hour that is to come, less so many hours."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    return (now // 3600 + 10) * 3600 - hours * 3600


async def test_what_was_decided_and_not_set_is_not_lost_though_nobody_looks_until_it_is_due(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kept(nats, clocked("1h")) as (harness, stage):

        async def dies(*_: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as patch:
            patch.setattr(stage.keeper, "_tick", dies)
            with pytest.raises(asyncio.CancelledError):
                await stage.look()
        other = Stage(harness, clocked("1h"), BEGAN + 2.5 * 3600)
        await other.keeper.begin()
        assert await other.look() == 0
        await other.look()

        async def all_there() -> bool:
            return await of_the_past(harness) == ["13:00", "14:00", "15:00"]

        await until(all_there, "the ticks")


async def test_a_deployment_changes_a_schedule_and_older_workers_stand_back(
    nats: Settings,
) -> None:
    old, new = clocked("1h"), clocked("30m")
    start = soon()
    async with kept(nats, old, start) as (harness, older):
        await older.look(start + 1)
        assert len(await pending(harness)) == 1
        newer = Stage(harness, new, start + 10)
        await newer.look(start + 11)
        (half,) = await pending(harness)
        assert half == places.moment(start + 1800)
        assert await older.look(start + 12) == 15.0
        assert await pending(harness) == [half]
        # The tick of a time that both have is one, whoever set it first.
        await newer.look(start + 1801)
        assert await pending(harness) == [half, places.moment(start + 3600)]
        # Going back is a deployment as well.
        again = Stage(harness, old, start + 1900)
        await again.look(start + 1901)
        assert await pending(harness) == [places.moment(start + 3600)]
        assert await newer.look(start + 1902) == 15.0
        assert await pending(harness) == [places.moment(start + 3600)]


async def test_a_schedule_that_nobody_keeps_any_more_is_taken_over(nats: Settings) -> None:
    """A worker of the old version is started beside new ones, and ends: they go on."""
    old, new = clocked("1h"), clocked("30m")
    start = soon()
    async with kept(nats, old, start) as (harness, older):
        await older.look(start + 1)
        newer = Stage(harness, new, start + 10)
        await newer.look(start + 11)
        last = Stage(harness, old, start + 20)
        await last.look(start + 21)
        hour = places.moment(start + 3600)
        assert await pending(harness) == [hour]
        for seconds in (30, 3600, 3660):  # it may still be kept
            assert await newer.look(start + seconds) == 15.0
        assert await newer.look(start + 3661) == 15.0
        await last.look(start + 3662)  # it is, if late
        assert await newer.look(start + 3676) == 15.0
        later = places.moment(start + 7200)
        assert later in await pending(harness)
        assert await newer.look(start + 7261) == 15.0
        await newer.look(start + 7276)
        assert places.moment(start + 9000) in await pending(harness)
        assert await last.look(start + 7277) == 15.0


async def test_a_schedule_that_is_taken_out_goes(nats: Settings) -> None:
    start = soon()
    async with kept(nats, clocked("1h"), start) as (harness, older):
        await older.look(start + 1)
        newer = Stage(harness, clocked("1h", name="other"), start + 10)
        await newer.keeper.begin()
        assert await pending(harness) == []
        assert await older.look(start + 11) == 15.0
        await newer.keeper.begin()
        assert await pending(harness) == []
        back = Stage(harness, clocked("1h"), start + 20)
        await back.look(start + 7300)
        assert await pending(harness) == [places.moment(start + 3 * 3600)]


async def test_late_ticks_are_passed_over_and_sent_back_ones_are_not(nats: Settings) -> None:
    app = clocked("1h", catch_up="last")
    async with kept(nats, app) as (harness, stage):
        await stage.look()
        await stage.look(BEGAN + 3700)
        await come(harness, 1)
        async with harness.worker():  # years later: there are newer ones
            await until(lambda: caught_up(harness), "the newest")
        found = [one.at for one in await harness.messages(Done)]
        assert len(found) == 1
        assert (datetime.datetime.now(datetime.UTC) - found[0]).total_seconds() < 7200


async def caught_up(harness: Harness) -> bool:
    return bool(await harness.messages(Done)) and await harness.lag("beat") == 0


async def test_a_tick_that_fails_is_tried_again_and_may_die(nats: Settings) -> None:
    app = App("plants")

    @app.every(1, attempts=2, backoff=SOON)
    async def beat(tick: Tick, ctx: Context) -> Done:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")
        if tick.at.timestamp() % 2:
            raise RuntimeError("never")
        return Done(tick.at, ctx.attempt)

    async with Harness(app, nats) as harness:
        async with harness.worker():
            await until(lambda: one_of_each(harness), "one of each")
        letter = (await harness.dead())[0]
        assert letter.headers["Mq-Id"].startswith("beat-")


async def one_of_each(harness: Harness) -> bool:
    return bool(await harness.messages(Done)) and bool(await harness.dead())


# --- the rule ------------------------------------------------------------------------------------

periods = st.sampled_from([1, 60, 3600, "1d"])


@given(
    periods,
    st.sampled_from(["all", "last", "none"]),
    st.lists(st.floats(0, 20_000), min_size=1, max_size=8),
)
@example(1, "all", [4 / 3, 4 / 3, 1 / 3])
def test_workers_that_look_at_any_time_set_each_tick_that_counts(
    period: Any, catch_up: Any, steps: list[float]
) -> None:
    schedule = every(period, at=None, zone=None, catch_up=catch_up, tolerance=60)
    now, found, have = BEGAN, None, set()
    for step in steps:
        now = datetime.datetime.fromtimestamp(now + step, datetime.UTC).timestamp()  # microseconds
        for _ in range(30):
            before = found
            found = ahead(found, schedule, Clock(now, BEGAN))
            assert found is not None
            have |= set(ticks(found, schedule))
            if found == before:
                break
        assert found.last > now
    began, end = (datetime.datetime.fromtimestamp(t, datetime.UTC) for t in (BEGAN, now))
    first = datetime.datetime.fromtimestamp(BEGAN + steps[0], datetime.UTC)
    wanted = set(schedule.between(first, end)) | {schedule.after(end)}
    if catch_up == "all":
        assert have == wanted
    else:
        assert have <= wanted
        assert schedule.after(end) in have
        newest = schedule.last(first, end)
        if newest is not None and (catch_up == "last" or schedule.counts(newest, end)):
            assert newest in have
    assert began <= end


def test_an_older_worker_decides_nothing() -> None:
    mine, other = (every(p, at=None, zone=None, catch_up="all", tolerance=60) for p in ("1h", "2h"))
    found = ahead(None, other, Clock(BEGAN, BEGAN))
    assert found is not None
    assert ahead(found, mine, Clock(BEGAN + 9e6, BEGAN - 1)) is None
    assert without(found, Clock(BEGAN, BEGAN - 1)) == found
    gone = without(found, Clock(BEGAN + 1, BEGAN + 1))
    assert (gone.text, gone.former) == ("", (other.mark,))
    assert ahead(gone, other, Clock(BEGAN + 9e6, BEGAN)) is None
    back = ahead(gone, other, Clock(BEGAN + 20, BEGAN + 10))
    assert back is not None
    assert back.former == ()
    assert isinstance(back, Record)


def test_a_late_tick_counts_when_a_person_sends_it_back() -> None:
    schedule = every(60, at=None, zone=None, catch_up="none", tolerance=5)
    policy = OnTime("plants", schedule, lambda: BEGAN + 6)
    due = {places.DUE: places.moment(BEGAN)}

    def admits(headers: dict[str, str]) -> bool:
        delivery: Any = SimpleNamespace(headers=headers)
        return policy.admits(delivery)

    assert not admits(due)
    assert admits({**due, "Nats-Msg-Id": "retry:dead.plants.beat:1:x"})
    assert admits({places.DUE: places.moment(BEGAN + 1)})
    assert admits({})
    assert admits({places.DUE: "soon"})


async def test_a_keeper_goes_on_after_what_stands_in_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mqinfer.timers.keeper.AGAIN", 0.001)
    monkeypatch.setattr("mqinfer.timers.keeper.LOOK", 0.001)
    app = clocked()
    table: Any = SimpleNamespace()
    keeper = Keeper("plants", {"beat": app.stages["beat"].clock}, table, Memory())  # type: ignore[dict-item]
    errors: list[Exception] = [Unavailable("away"), WiringError("refused"), Unavailable("away")]
    looked = asyncio.Event()

    async def look(stage: str) -> float:
        if errors:
            raise errors.pop()
        looked.set()
        return 60.0

    monkeypatch.setattr(keeper, "look", look)
    task = asyncio.create_task(keeper.keep("beat"))
    await looked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("wrong", ["stage", "message", "batch"])
def test_who_takes_ticks_is_declared(wrong: str) -> None:
    app = App("plants")
    if wrong == "stage":

        @app.stage
        async def beat(tick: Tick) -> None: ...

    elif wrong == "message":

        @app.cron("* * * * *")
        async def beat2(done: Done) -> None: ...

    else:

        @app.cron("* * * * *")
        async def beat3(ticks: list[Tick]) -> None: ...

    with pytest.raises(WiringError, match="a Tick is taken"):
        app.stages  # noqa: B018


def test_the_day_of_a_tick_is_told_by_its_id() -> None:
    at = datetime.datetime(2026, 5, 27, tzinfo=datetime.UTC)
    assert tick_id("s", at)[-11:] == "@2026-05-27"
    assert "-11" in BIRTH_SQL


def test_a_graph_shows_the_schedule() -> None:
    drawn = graph_of(clocked("1d", at="06:00", zone="Europe/Berlin"))
    assert drawn.nodes[0].name == "every day at 06:00:00 Europe/Berlin"
    assert len(drawn.edges) == 2


def test_a_clock_is_no_keyword_of_a_stage() -> None:
    app = App("plants")

    @app.stage(clock="06:00")  # type: ignore[call-overload,untyped-decorator]
    async def beat(done: Done) -> None: ...

    with pytest.raises(WiringError, match="clock= is no keyword"):
        app.stages  # noqa: B018


async def test_types_inside_of_a_function_are_found(nats: Settings) -> None:
    app = App("plants")

    class Local(Message):
        at: datetime.datetime

    @app.cron("* * * * *", zone="Europe/Berlin", attempts=1)
    async def beat(tick: Tick) -> Local:
        return Local(tick.at)

    async with Harness(app, nats) as harness:
        at = datetime.datetime(2026, 5, 27, tzinfo=datetime.UTC)
        await harness.tick("beat", at)
        await harness.drain()
        assert await harness.messages(Local) == [Local(at)]
        assert tick_id("beat", at) in [
            one.headers.get("Mq-Id") for one in await harness.stored(subject="plants.=tick.beat")
        ]
