"""Joins while something changes: deployments, dead letters sent back, repeats, strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mqinfer import App, Context, Message, Reject
from mqinfer.adapters.scan import Scanner
from mqinfer.completion import record
from mqinfer.completion.waited import TRACKER
from mqinfer.identity import ROOTS
from mqinfer.joins import tracking
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.replay import runs_of

DEADLINE = "mqinfer-deadline-report"


class Photo(Message):
    n: int


class Leaf(Message):
    n: int
    i: int


class Grade(Message):
    i: int
    by: str


class Report(Message):
    n: int
    grades: list[str]
    died: int
    incomplete: str
    missing: dict[str, int]


class Ordered(Message, key="n", ordered=True):
    n: int


class Foreign(Message, foreign_ids=False):
    n: int


def an_app(*, extra: bool, deadline: str | None = None) -> App:
    app = App("plants")

    @app.stage
    async def cut(photo: Photo) -> list[Leaf]:
        return [Leaf(photo.n, i) for i in range(photo.n)]

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.i, "grade")

    if extra:

        @app.stage(name="extra", start="oldest")
        async def more(leaf: Leaf) -> Grade:
            return Grade(leaf.i, "extra")

    @app.join(Photo, of=Grade, deadline=deadline)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        told = [f"{grade.i} {grade.by}" for grade in grades]
        return Report(photo.n, told, len(ctx.died), ctx.incomplete, ctx.missing)

    return app


async def reports(harness: Harness) -> list[Report]:
    return await harness.messages(Report)


async def test_a_stage_that_is_added_is_not_waited_for_by_what_was_published_before(
    nats: Settings,
) -> None:
    async with Harness(an_app(extra=False), nats) as harness:
        await harness.publish(Photo(2))
        await harness.drain("cut")
    async with Harness(an_app(extra=True), nats) as harness:
        await harness.drain("extra")  # long before the others
        await harness.drain(TRACKER)
        assert await harness.stored(subject="plants.joined.report") == []
        await harness.drain()
        assert await reports(harness) == [Report(2, ["0 grade", "1 grade"], 0, "", {})]
        await harness.publish(Photo(1))
        await harness.drain()
        assert (await reports(harness))[1:] == [Report(1, ["0 extra", "0 grade"], 0, "", {})]


async def test_a_stage_that_is_removed_is_named_when_the_deadline_has_come(
    nats: Settings,
) -> None:
    async with Harness(an_app(extra=True, deadline="5s"), nats) as harness:
        await harness.drain(DEADLINE)  # the consumer is made
        await harness.publish(Photo(2))
        await harness.drain("cut")
    async with Harness(an_app(extra=False, deadline="5s"), nats) as harness, harness.worker():
        (found,) = await until(lambda: reports(harness), "the report")
    assert found.incomplete == "late"
    assert found.missing["extra"] == 2
    assert set(found.grades) <= {"0 grade", "1 grade"}


async def test_a_dead_letter_sent_back_while_its_root_is_open_is_not_dead(nats: Settings) -> None:
    app, bad = an_app(extra=False), {True}

    @app.stage(name="picky", attempts=1)
    async def picky(leaf: Leaf) -> Grade:
        if bad:
            raise Reject("not yet")
        return Grade(leaf.i, "picky")

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain("cut", "picky")  # what grade has to do keeps the root open
        (letter,) = await harness.dead()
        bad.clear()
        scanner = Scanner(harness.services.broker.client)  # type: ignore[attr-defined]
        letters = DeadLetters(app, scanner, harness.services.broker, runs_of(harness))  # type: ignore[arg-type]
        assert (await letters.retry(Selection())).done == 1
        await harness.drain("picky")
        await harness.drain()
        assert await reports(harness) == [Report(1, ["0 grade", "0 picky"], 0, "", {})]
        assert letter.stage == "picky"


async def test_a_dead_letter_sent_back_after_the_join_was_told_changes_nothing(
    nats: Settings,
) -> None:
    app, bad = an_app(extra=False), {True}

    @app.stage(name="picky", attempts=1)
    async def picky(leaf: Leaf) -> Grade:
        if bad:
            raise Reject("not yet")
        return Grade(leaf.i, "picky")

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain()
        told = [Report(1, ["0 grade"], 1, "", {})]
        assert await reports(harness) == told
        bad.clear()
        scanner = Scanner(harness.services.broker.client)  # type: ignore[attr-defined]
        letters = DeadLetters(app, scanner, harness.services.broker, runs_of(harness))  # type: ignore[arg-type]
        assert (await letters.retry(Selection())).done == 1
        await harness.drain()
        assert {one.by for one in await harness.messages(Grade)} == {"grade", "picky"}
        assert await reports(harness) == told


async def test_a_type_that_was_not_asked_for_then_is_told_as_changed(nats: Settings) -> None:
    """Records hold what was asked for when they were written; an older worker writes such ones."""

    def app(of: Any, outputs: Any) -> App:
        app = App("plants")

        @app.stage
        async def cut(photo: Photo) -> list[Leaf]:
            return [Leaf(photo.n, i) for i in range(photo.n)]

        @app.stage
        async def grade(leaf: Leaf) -> Grade:
            return Grade(leaf.i, "grade")

        async def report(photo: Photo, found: list[Any], ctx: Context) -> Report:
            told = [type(one).__name__ for one in found]
            return Report(photo.n, told, len(ctx.died), ctx.incomplete, ctx.missing)

        report.__annotations__["found"] = outputs
        app.join(Photo, of=of)(report)
        return app

    async with Harness(app(Grade, list[Grade]), nats) as harness:
        await harness.publish(Photo(2))
        await harness.drain("cut")
    async with Harness(app((Grade, Leaf), list[Grade | Leaf]), nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain()
        found = sorted(await reports(harness), key=lambda one: one.n)
        assert found == [
            Report(1, ["Leaf", "Grade"], 0, "", {}),
            Report(2, ["Grade", "Grade"], 0, "changed", {}),
        ]


async def test_a_tracker_of_the_version_before_leaves_what_a_new_join_waits_for(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def app(*, new: bool) -> App:
        app = an_app(extra=False)

        @app.stage
        async def foreign(message: Foreign) -> Grade:
            return Grade(message.n, "foreign")

        if new:

            @app.join(Foreign, of=Grade)
            async def other(root: Foreign, grades: list[Grade]) -> Report:
                return Report(root.n, [grade.by for grade in grades], 0, "", {})

        return app

    async def taken(harness: Harness) -> bool:
        state = await harness.services.broker.consumer_state("plants-settled", TRACKER)
        return bool(await reports(harness)) and state is not None and state.waiting == 0

    monkeypatch.setattr(tracking, "ELSEWHERE", 0.5)
    async with Harness(app(new=True), nats) as harness:
        await harness.publish(Photo(1), Foreign(7))
        await harness.drain("cut", "grade", "foreign")
    async with Harness(app(new=False), nats) as harness, harness.worker(TRACKER, "report"):
        await until(lambda: taken(harness), "what the old version knows")
    async with Harness(app(new=True), nats) as harness:
        await harness.drain()
        assert sorted(one.n for one in await reports(harness)) == [1, 7]
        # Of one that is no more nothing stays for ever.
        await harness.publish(Foreign(8))
        await harness.drain("foreign")
    monkeypatch.setattr(tracking, "BESIDE", 0.0)
    async with Harness(app(new=False), nats) as harness:
        await harness.drain()
        assert await harness.lag(TRACKER) == 0


async def test_what_comes_after_the_join_was_told_calls_nothing(nats: Settings) -> None:
    app = an_app(extra=False)
    async with Harness(app, nats) as harness:
        await harness.publish(Photo(2))
        await harness.drain()
        records = await harness.stored("plants-settled")
        assert sum(len(record.decode(one.data)) for one in records) == 3
        for one in records:  # long after the duplicate window, as if delivered late
            await harness.publish_bytes(one.subject, one.data, {ROOTS: one.headers[ROOTS]})
        await harness.drain()
        assert len(await harness.stored(subject="plants.joined.report")) == 1


async def test_strangers_records_and_headers_hold_up_nobody(nats: Settings) -> None:
    app = an_app(extra=False)
    async with Harness(app, nats) as harness:
        await harness.drain()  # the streams are made
        await harness.publish_bytes("settled.plants.live.x", b"no record")
        await harness.publish_bytes("settled.plants.live.x", b"\x90", {ROOTS: "photo/" + "0" * 32})
        await harness.publish_bytes("settled.plants.live.x", b"", {ROOTS: "what is this"})
        await harness.publish(Photo(1))
        await harness.drain("cut")
        (made,) = await harness.stored(subject="plants.leaf")
        # A copy of a header puts a stranger's message below a root, and changes nothing there.
        await harness.publish_bytes(
            "plants.leaf", b'{"n": 1, "i": 77}', {ROOTS: made.headers[ROOTS]}
        )
        await harness.publish_bytes("plants.leaf", b'{"n": 1, "i": 78}', {ROOTS: "a b/c photo/"})
        await harness.drain()
        assert await reports(harness) == [Report(1, ["0 grade"], 0, "", {})]
        dead = await harness.dead()
        assert {letter.stage for letter in dead} == {TRACKER}
        assert {letter.kind for letter in dead} == {"decode"}


async def test_outputs_that_left_early_count_though_their_handler_died(nats: Settings) -> None:
    app = App("plants")
    tries: list[int] = []

    @app.stage(attempts=2, early=True, name="cut")
    async def cut(photo: Photo, ctx: Context) -> AsyncIterator[Leaf]:
        tries.append(ctx.attempt)
        yield Leaf(photo.n, 0)
        if ctx.attempt == 1:
            yield Leaf(photo.n, 1)  # the second attempt does not say it again
        raise ValueError("on the way")

    @app.stage
    async def grade(leaf: Leaf) -> Grade:
        return Grade(leaf.i, "grade")

    @app.join(Photo, of=Grade)
    async def report(photo: Photo, grades: list[Grade], ctx: Context) -> Report:
        told = [f"{grade.i} {grade.by}" for grade in grades]
        return Report(photo.n, told, len(ctx.died), ctx.incomplete, ctx.missing)

    async with Harness(app, nats) as harness:
        await harness.publish(Photo(1))
        await harness.drain()
        assert tries == [1, 2]
        assert await reports(harness) == [Report(1, ["0 grade", "1 grade"], 1, "", {})]


async def test_a_root_is_the_same_for_its_stages_and_its_deadline(nats: Settings) -> None:
    """Also where it comes through partitions, without an id, or with one that does not count."""
    app = App("plants", partitions=2)
    calls: list[str] = []

    @app.stage
    async def in_order(message: Ordered) -> Grade:
        return Grade(message.n, "ordered")

    @app.stage
    async def foreign(message: Foreign) -> Grade:
        return Grade(message.n, "foreign")

    @app.join(Ordered, of=Grade, deadline="5s")
    async def one(root: Ordered, grades: list[Grade], ctx: Context) -> None:
        calls.append(f"ordered {root.n} {len(grades)} {ctx.incomplete}")

    @app.join(Foreign, of=Grade, deadline="5s")
    async def other(root: Foreign, grades: list[Grade], ctx: Context) -> None:
        calls.append(f"foreign {root.n} {len(grades)} {ctx.incomplete}")

    async def looked_at(harness: Harness) -> bool:
        lags = [await harness.lag(f"mqinfer-deadline-{name}") for name in ("one", "other")]
        return lags == [0, 0]

    async with Harness(app, nats) as harness:
        await harness.drain()
        async with harness.worker():
            await harness.publish(Ordered(1))
            await harness.publish_bytes("plants.ordered.2", b'{"n": 2}')
            await harness.publish_bytes("plants.foreign", b'{"n": 3}', {"Nats-Msg-Id": "x"})
            await harness.publish_bytes("plants.foreign", b'{"n": 4}')
            await until(lambda: len(calls) >= 4, "the joins")
            await until(lambda: looked_at(harness), "the deadlines")
        await harness.drain()
    assert sorted(calls) == ["foreign 3 1 ", "foreign 4 1 ", "ordered 1 1 ", "ordered 2 1 "]
