"""Canaries: who is asked, that all of one input agrees, what ends one, and that it goes back."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import pytest

from mqinfer import App, Label, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.choice import chosen
from mqinfer.context import Context, current
from mqinfer.errors import ConfigurationError, ModelError, Snooze, Unavailable
from mqinfer.identity import ANCESTORS
from mqinfer.inference.aliases import Aliases, FollowedAliases
from mqinfer.inference.canaried import Tried
from mqinfer.inference.inference import Inference
from mqinfer.monitor import counting
from mqinfer.monitor.follow import Series
from mqinfer.monitor.looking import Monitor
from mqinfer.shadow.canary import Canaries
from mqinfer.shadow.failing import fails_more, read
from mqinfer.shadow.guard import Guard
from tests.support.bucket import Memory
from tests.support.inference import Server, inference_on, until, x

SHARE = 0.3


class Sheet(Message):
    path: str


class Graded(Row, table="canaried", kw_only=True):
    label: Annotated[str, Label()]


app = App("canaries")
double = app.model("double", alias="live")


@app.stage(models=[double])
async def grade(sheet: Sheet) -> Graded:
    raise NotImplementedError


async def ask(inference: Inference, root: str, *, part: str = "", run: str | None = None) -> str:
    """The version that answers for a message, or for a part of what came of one."""
    headers = {ANCESTORS: root} if part else {}
    token = current.set(
        Context(id=part or root, stage="grade", sequence=1, run=run, headers=headers)
    )
    try:
        return (await inference.ask(double, {"x": x(1.0)})).version
    finally:
        current.reset(token)


@asynccontextmanager
async def at() -> AsyncIterator[tuple[Canaries, Inference, Server]]:
    """Version 1 is live, in a process that looks for changes only when it is told to."""
    bucket, server = Memory(), Server()
    aliases = Aliases(app, bucket)
    await aliases.set("double", "live", "1")
    followed = FollowedAliases(bucket, [("double", "live")])
    await followed.load()
    async with inference_on(server, aliases=followed, refresh=3600.0) as inference:
        yield Canaries(app, aliases), inference, server


async def test_its_share_is_the_same_for_everybody() -> None:
    roots = [f"photo-{number}" for number in range(60)]
    async with at() as (canaries, inference, _):
        assert {await ask(inference, root) for root in roots} == {"1"}
        await canaries.let_in("double", "2", SHARE)
        await inference._look_again()
        for root in roots:
            version = "2" if chosen(root, SHARE) else "1"
            # Again, as a redelivery or a retry; and the parts of what came of it.
            assert await ask(inference, root) == await ask(inference, root) == version
            parts = [await ask(inference, root, part=f"{root}/{number}") for number in range(3)]
            assert parts == [version] * 3
            # A replay asks what it was told to, or what the alias names.
            assert await ask(inference, root, run="may") == "1"
        assert {chosen(root, SHARE) for root in roots} == {True, False}
        # Outside of a handler there is nothing to choose by.
        assert (await inference.ask(double, {"x": x(1.0)})).version == "1"

        widened = await canaries.let_in("double@live", "2", 0.6)
        await inference._look_again()
        assert widened.canary is not None
        for root in roots:
            assert await ask(inference, root) == ("2" if chosen(root, 0.6) else "1")
        assert await canaries.take_back("double", "live")
        await inference._look_again()
        assert {await ask(inference, root) for root in roots} == {"1"}
        assert not await canaries.take_back("double", "live")


async def test_one_that_does_not_answer_holds_up_nothing() -> None:
    root = next(f"n{number}" for number in range(99) if chosen(f"n{number}", SHARE))
    async with at() as (canaries, inference, server):
        await canaries.let_in("double", "9", SHARE)
        await inference._look_again()
        # The first one waits, since nobody knows yet.
        waiting = asyncio.create_task(ask(inference, root))
        await until(lambda: any(queue.blocked for queue in inference.statistics().queues))
        assert await ask(inference, root) == "1"
        assert inference.canary_away("double", "live", 0.0) is not None
        assert inference.canary_away("double", "live", 3600.0) is None
        guard = Guard(canaries, None, inference)
        await guard.look()  # for too short a time yet
        assert not waiting.done()
        server.down = "the server is away"  # then nothing is known of its version
        inference._link.down("away")
        assert inference.canary_away("double", "live", 0.0) is None
        server.down = None
        await until(lambda: inference._link.availability.reason is None)
        assert await canaries.take_back("double", "live")
        await inference._look_again()
        assert await waiting == "1"


async def test_what_ends_it_is_one_write() -> None:
    async with at() as (canaries, _, _server):
        await canaries.let_in("double", "2", SHARE)
        found = await canaries.aliases.find("double", "live")
        assert found is not None
        seen = found.canary
        # Whoever moves the alias ends it.
        await canaries.aliases.set("double", "live", "3")
        found = await canaries.aliases.find("double", "live")
        assert found is not None
        assert (found.version, found.canary) == ("3", None)
        await canaries.let_in("double", "4", SHARE)
        assert not await canaries.take_back("double", "live", "late", seen=seen)
        assert (await canaries.promote("double")).version == "4"
        found = await canaries.aliases.find("double", "live")
        assert found is not None
        assert (found.version, found.canary, found.back) == ("4", None, "")


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """An alias, as versions read and write it that know of no canaries."""

    model: str
    alias: str
    version: str
    set: datetime.datetime


async def test_workers_of_an_earlier_version_read_the_alias_alone() -> None:
    """As in a rolling restart: what they answer is by the alias's version, and they say so."""
    bucket = Memory()
    canaries = Canaries(app, Aliases(app, bucket))
    await canaries.aliases.set("double", "live", "1")
    await canaries.let_in("double", "2", SHARE)
    ((key, (value, revision)),) = bucket.values.items()
    before = msgspec.json.decode(value, type=Earlier)
    assert before.version == "1"
    # The command of an earlier version moves it: that ends the canary, as any move does.
    moved = msgspec.structs.replace(before, version="3")
    assert await bucket.save(key, msgspec.json.encode(moved), revision)
    found = await canaries.aliases.find("double", "live")
    assert found is not None
    assert (found.version, found.canary) == ("3", None)


async def test_what_cannot_be_is_refused() -> None:
    async with at() as (canaries, _, _server):
        with pytest.raises(ConfigurationError, match="less than 1, not 1: all of it is --set"):
            await canaries.let_in("double", "2", 1.0)
        with pytest.raises(ConfigurationError, match="double@live is version 1 already"):
            await canaries.let_in("double", "1", SHARE)
        with pytest.raises(ConfigurationError, match="asks other by an alias"):
            await canaries.let_in("other", "1", SHARE)
        with pytest.raises(ConfigurationError, match="double@live has no canary"):
            await canaries.promote("double")
        await canaries.aliases.unset("double", "live")
        with pytest.raises(ConfigurationError, match="double@live is not set"):
            await canaries.let_in("double", "2", SHARE)


# --- what fails ---------------------------------------------------------------------------------


async def ends(
    inference: Inference, root: str, error: Exception | None, *, part: str = "", attempt: int = 1
) -> None:
    """A message asks, and its handling ends."""
    context = Context(
        id=part or root,
        stage="grade",
        sequence=1,
        attempt=attempt,
        headers={ANCESTORS: root} if part else {},
    )
    token = current.set(context)
    try:
        await inference.ask(double, {"x": x(1.0)})
    finally:
        current.reset(token)
    assert context.trial is not None
    context.trial.ended(context, error)


@pytest.mark.parametrize(
    ("asked", "failed", "others", "others_failed", "rings"),
    [
        (19, 19, 400, 0, False),  # too few
        (20, 20, 400, 0, True),
        (20, 20, 0, 0, False),  # beside nothing
        (200, 3, 4000, 0, False),  # a few among many
        (200, 30, 4000, 0, True),
        (200, 30, 4000, 600, False),  # as those beside it
        (10_000, 250, 90_000, 900, False),  # more, but not by much
        (10_000, 600, 90_000, 900, True),
    ],
)
def test_failing_is_a_test_of_two_proportions(
    asked: int, failed: int, others: int, others_failed: int, *, rings: bool
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    counts = Tried(
        version="2",
        began=now,
        asked=asked,
        failed=failed,
        others=others,
        others_failed=others_failed,
    )
    assert fails_more(counts) is rings


async def test_one_that_fails_goes_back() -> None:
    """As all workers have counted together, and each first input once."""
    roots = [f"photo-{number}" for number in range(200)]
    bucket = Memory()
    async with at() as (canaries, inference, _):
        await canaries.let_in("double", "2", SHARE)
        await inference._look_again()
        mine = [root for root in roots if chosen(root, SHARE)]
        guard = Guard(canaries, None, inference, bucket)
        other = Guard(canaries, None, inference, bucket)
        # Many parts of one that is bad, a retry, an outage, a snooze: no fault of the version.
        for number in range(50):
            await ends(inference, mine[0], ModelError("bad"), part=f"{mine[0]}/{number}")
        for root in roots:
            await ends(inference, root, None)
            await ends(inference, root, ModelError("no"), attempt=2)
            await ends(inference, root, Unavailable("away"))
            await ends(inference, root, Snooze(after=1.0))
        await guard.look()
        await other.look()
        (key,) = bucket.values
        assert key == "grade.canary.double.live"
        held = read(bucket.values[key][0])
        assert held is not None
        assert (held.asked, held.failed) == (len(mine), 1)
        assert (held.others, held.others_failed) == (len(roots) - len(mine), 0)

        # Another one is let in, and nothing of the last counts.
        await canaries.take_back("double", "live")
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        canaries = Canaries(app, canaries.aliases, now=lambda: later)
        await canaries.let_in("double", "2", SHARE)
        await inference._look_again()
        for root in roots:
            await ends(inference, root, ModelError("bad") if chosen(root, SHARE) else None)
            await (guard if len(root) % 2 else other).look()
            await inference._look_again()
            found = await canaries.aliases.find("double", "live")
            assert found is not None
            if found.canary is None:
                break
        assert found.canary is None
        assert found.back.startswith("stage grade fails for 2")
        assert found.back.endswith("ModelError: bad")
        # It went back well before all were tried.
        assert root != roots[-1]


# --- the alarm ----------------------------------------------------------------------------------


async def counted(
    db: ClickHouse, since: float, until: float, cats: float, version: str, run: str = ""
) -> None:
    """Ten rows in every ten seconds, as the live view would count them."""
    first, last = int(since) // 10, int(until) // 10
    for key, share in (("cat", cats), ("dog", 1 - cats)):
        n = f"toUInt64(floor((number + 1) * {10 * share}) - floor(number * {10 * share}))"
        await db.command(
            f"INSERT INTO {counting.COUNTS} SELECT 's', 'canaried', 'label', 'label', 'double', "
            f"'{version}', '{run}', toDateTime(({first} + number) * 10, 'UTC') AS step, '{key}', "
            f"{n} AS n, 0, 0, 0 FROM numbers({last - first}) WHERE n > 0"
        )
    await db.command(
        f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) SELECT DISTINCT 'canaried', "
        f"toStartOfHour(toDateTime(({first} + number) * 10, 'UTC')), 's', now64(3), [] "
        f"FROM numbers({last - first})"
    )


@pytest.mark.parametrize("own", [True, False], ids=["of its shadow", "of the live version"])
async def test_it_goes_back_when_its_alarm_rings(db: ClickHouse, own: bool) -> None:
    now = float(int(time.time()) // 10 * 10)
    monitor = Monitor(app, db)
    await monitor.ensure()
    aliases = Aliases(app, Memory())
    await aliases.set("double", "live", "1")
    canaries = Canaries(app, aliases)
    # What the shadow said differs from what is live, and it is that which counts.
    await counted(db, now - 90_000, now - 3600, 0.3 if own else 0.7, "2", run="shadowed")
    await counted(db, now - 90_000, now - 3600, 0.7 if own else 0.3, "1")
    if own:
        await monitor.adopt("shadowed", now - 3600)
    await monitor.accept(["double 1"], now - 90_000, now - 3600)
    (held,) = (await monitor.references_of("double", "2", "1")).items()
    series, accepted = held
    assert series == Series("canaried", "label", "double", "2")
    assert accepted.source.startswith("run shadowed" if own else "window")

    await canaries.let_in("double", "2", SHARE)
    looks = Guard(canaries, db, None, clock=lambda: now + 7200)
    await counted(db, now + 10, now + 3600, 0.3, "2")
    await looks.look()
    found = await aliases.find("double", "live")
    assert found is not None
    assert found.canary is not None
    await counted(db, now + 3600, now + 7000, 0.6, "2")
    await looks.look()
    found = await aliases.find("double", "live")
    assert found is not None
    assert (found.version, found.canary) == ("1", None)
    # Cats rose, or dogs fell: whichever was seen first.
    assert "canaried.label (double 2): " in found.back
    assert accepted.source in found.back
    # Another one is let in, and what was said of the last is forgotten.
    assert (await canaries.let_in("double", "3", SHARE)).back == ""
