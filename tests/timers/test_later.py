"""Timers of handlers on a real nats-server: when they come, and which of two counts."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace

import pytest

from mqinfer import App, Context, Message, Worker, connect, plan
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.natsclient import LeanClient
from mqinfer.adapters.scan import Scanner
from mqinfer.backoff import Backoff
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.operate import check
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.streams import Stored
from mqinfer.testing import Harness, until
from mqinfer.timers import places
from tests.support.replay import runs_of, work

SOON = Backoff(initial=0.01, maximum=0.05)


class Grade(Message, key="position"):
    position: str
    number: int
    after: float = 0.3
    ask: str = "set"


class Reminder(Message, key="position"):
    position: str
    number: int


class Reminded(Message):
    number: int


def plants(**stage: object) -> App:
    app = App("plants")

    @app.stage(later=Reminder, backoff=SOON, **stage)
    async def watch(grade: Grade, ctx: Context) -> Reminded | None:
        if grade.ask == "cancel":
            await ctx.cancel("check")
        elif grade.ask == "set":
            await ctx.later(Reminder(grade.position, grade.number), after=grade.after, name="check")
        elif grade.ask == "many":
            for number in range(grade.number):
                ctx.later(Reminder(grade.position, number), after=grade.after)
        elif grade.ask == "twice":
            await ctx.later(Reminder(grade.position, -1), after=grade.after, name="check")
            await ctx.later(Reminder(grade.position, grade.number), after=0.1, name="check")
        elif grade.ask == "fail once":
            await ctx.later(Reminder(grade.position, ctx.attempt), after=grade.after)
            if ctx.attempt == 1:
                raise RuntimeError("not yet")
        elif grade.ask == "fail":
            await ctx.later(Reminder(grade.position, grade.number), after=0)
            raise RuntimeError("never")
        return None

    @app.stage
    async def remind(reminder: Reminder) -> Reminded:
        return Reminded(reminder.number)

    return app


def lateness(stored: Stored) -> float:
    due = datetime.datetime.fromisoformat(stored.headers[places.DUE])
    return (stored.time - due).total_seconds()


async def come(harness: Harness, count: int) -> list[Stored]:
    """The reminders, once there are so many."""

    async def there() -> list[Stored]:
        found = await harness.stored(subject="plants.reminder.>")
        return found if len(found) >= count else []

    return await until(there, f"{count} timers")


async def waiting(harness: Harness) -> list[Stored]:
    return await harness.stored("plants=timers", "plants=timers.*.*.at.>")


async def test_a_timer_comes_when_it_is_time_and_never_before(nats: Settings) -> None:
    async with Harness(plants(), nats) as harness, harness.worker():
        asked = time.time()
        await harness.publish(
            *(Grade(f"p{n}", n, after=0.05 + n * 0.07) for n in range(20)),
            ids=[f"g{n}" for n in range(20)],
        )
        found = await come(harness, 20)
        assert all(one.time.timestamp() >= asked + 0.05 for one in found)
        late = [lateness(one) for one in found]
        assert min(late) >= 0
        answers = await until_reminded(harness, 20)
        assert sorted(one.number for one in answers) == list(range(20))
        first = next(one for one in found if one.subject == "plants.reminder.p3")
        assert first.headers["Mq-Ancestors"] == "g3"
        assert first.headers["Mq-Stage"] == "watch"
        assert await waiting(harness) == []


async def until_reminded(harness: Harness, count: int) -> list[Reminded]:
    async def there() -> list[Reminded]:
        found = await harness.messages(Reminded)
        return found if len(found) >= count else []

    return await until(there, f"{count} answers")


async def test_a_name_replaces_and_cancels_by_key(nats: Settings) -> None:
    async with Harness(plants(), nats) as harness:
        await harness.publish(
            Grade("a", 1, after=3600),
            Grade("a", 2, after=0.2),
            Grade("b", 3, after=3600),
            Grade("b", 4, ask="cancel"),
            Grade("c", 5, after=3600),
            Grade("d", 6, after=3600, ask="twice"),
            Grade("e", 0, ask="cancel"),
        )
        await harness.drain("watch")
        found = await come(harness, 2)
        assert {one.subject for one in found} == {"plants.reminder.a", "plants.reminder.d"}
        assert {one.number for one in await harness.messages(Reminder)} == {2, 6}
        (left,) = await waiting(harness)
        assert left.headers[places.KEY] == "c"
        assert left.headers[places.NAME] == "check"


async def test_an_attempt_that_fails_sets_none(nats: Settings) -> None:
    async with Harness(plants(attempts=2), nats) as harness:
        await harness.publish(Grade("a", 1, ask="fail once", after=0), Grade("b", 2, ask="fail"))
        await harness.drain("watch")
        assert len(await harness.dead()) == 1
        (one,) = await come(harness, 1)
        assert one.subject == "plants.reminder.a"
        assert [one.number for one in await harness.messages(Reminder)] == [2]  # the attempt
        assert await waiting(harness) == []


class Asked(Message, key="position"):
    position: str
    number: int


@pytest.mark.parametrize("then", ["nothing", "replaced", "cancelled", "come"])
async def test_a_message_that_is_delivered_again_sets_its_timer_no_second_time(
    nats: Settings, then: str
) -> None:
    """As after a death between the timer and the acknowledgement: the consumer begins anew."""
    async with Harness(plants(), nats) as harness:
        await harness.publish(Grade("a", 1, after=0.1 if then == "come" else 3600), ids=["m1"])
        await harness.drain("watch")
        if then == "replaced":
            await harness.publish(Grade("a", 2, after=7200), ids=["m2"])
        elif then == "cancelled":
            await harness.publish(Grade("a", 2, ask="cancel"), ids=["m2"])
        elif then == "come":
            await come(harness, 1)
        await harness.drain("watch")
        before = await harness.stored("plants=timers")
        await again_from_the_beginning(harness)
        assert [one.sequence for one in await harness.stored("plants=timers")] == [
            one.sequence for one in before
        ]
        wanted = {"nothing": [1], "replaced": [2], "cancelled": [], "come": []}[then]
        assert [await number(harness, one) for one in await waiting(harness)] == wanted
        assert len(await harness.stored(subject="plants.reminder.>")) == (then == "come")


async def number(harness: Harness, stored: Stored) -> int:
    found: int = Codec(harness.services.store).decode(Reminder, stored.data, None).number
    return found


async def again(harness: Harness) -> None:
    """Make the consumer of `watch` at the beginning, so that all is delivered again."""
    spec = plan.consumer_specs(harness.app, plan.tasks(harness.app, ["watch"])[0])[0]
    await harness.services.broker.ensure_consumer(replace(spec, start_sequence=1))


async def test_clients_set_replace_repeat_and_cancel(nats: Settings) -> None:
    async with connect(plants(), nats) as client, Harness(plants(), nats) as harness:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        await client.later(Reminder("a", 1), at=at, name="x", key="a")
        await client.later(Reminder("a", 2), after="2h", name="x", key="a")
        await client.later(Reminder("b", 3), after="2h", name="x", key="b")
        assert await client.later(Reminder("c", 4), after="1h", id="mine") == "mine"
        await client.later(Reminder("c", 5), after=0, id="mine")  # asked for before
        assert [await number(harness, one) for one in await waiting(harness)] == [2, 3, 4]
        assert await client.cancel("x", key="a")
        assert not await client.cancel("x", key="a")
        assert not await client.cancel("x")
        await client.later(Reminder("a", 6), after=-0.0, name="x", key="a")
        await client.later(Reminder("d", 7), after=0, id="d1")
        found = await come(harness, 2)
        ids = {one.subject: one.headers["Mq-Id"] for one in found}
        assert ids["plants.reminder.d"] == "d1"
        await harness.publish(Grade("q", 8, after=3600))
        await harness.drain("watch")
        assert await client.cancel("check", key="q", stage="watch")
        await again_from_the_beginning(harness)
        assert [await number(harness, one) for one in await waiting(harness)] == [3, 4]


async def again_from_the_beginning(harness: Harness) -> None:
    broker = harness.services.broker
    assert isinstance(broker, JetStream)
    await broker.delete_consumer("plants", "watch")
    await again(harness)
    await harness.drain("watch")


async def test_batches_and_threads_set_timers_for_each_message(nats: Settings) -> None:
    app = App("plants")

    @app.stage(later=[Reminder], batch_size=4, backoff=SOON)
    async def batch(grades: list[Grade], contexts: list[Context]) -> None:
        for grade, context in zip(grades, contexts, strict=True):
            await context.later(Reminder(grade.position, grade.number), after=0)
        if len(grades) > 1:
            raise RuntimeError("one by one")  # what was asked for so far is forgotten

    @app.stage(later=Asked)
    def thread(grade: Grade, ctx: Context) -> Reminded:
        ctx.later(Asked(grade.position, grade.number), after=0)
        return Reminded(grade.number)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Grade("p", n) for n in range(6)))
        await harness.drain()
        await come(harness, 6)
        assert sorted(one.number for one in await harness.messages(Reminder)) == list(range(6))
        await until(lambda: all_asked(harness), "the others")


async def all_asked(harness: Harness) -> bool:
    return sorted(one.number for one in await harness.messages(Asked)) == list(range(6))


async def test_many_in_one_handling_have_ids_of_their_own(nats: Settings) -> None:
    async with Harness(plants(), nats) as harness:
        await harness.publish(Grade("a", 300, ask="many", after=3600))
        await harness.drain("watch")
        before = await waiting(harness)
        assert len({one.headers["Mq-Id"] for one in before}) == 300
        await again_from_the_beginning(harness)
        assert await waiting(harness) == before


async def test_an_undeclared_type_fails_its_message_with_a_text(nats: Settings) -> None:
    app = App("plants")

    @app.stage(later=Asked, attempts=1)
    async def watch(grade: Grade, ctx: Context) -> None:
        await ctx.later(Reminder(grade.position, 1), after=0)

    async with Harness(app, nats) as harness:
        await harness.publish(Grade("a", 1))
        await harness.drain()
        (letter,) = await harness.dead()
        assert "@app.stage(later=Reminder)" in letter.reason


async def test_a_server_that_is_too_old_is_told_at_the_start(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the server's greeting is faked: there is no old server here."""
    monkeypatch.setattr(LeanClient, "server_version", "2.10.22")
    with pytest.raises(ConfigurationError, match=r"2\.14 or later, and this one is 2\.10\.22"):
        await Worker(plants(), settings=nats, drain=True).run()
    plain = App("plain")

    @plain.stage
    async def read(grade: Grade) -> None: ...

    await Worker(plain, settings=nats, drain=True).run()
    async with connect(plain, nats) as client:
        with pytest.raises(ConfigurationError, match="upgrade"):
            await client.later(Grade("a", 1), after=1)


async def test_a_stream_that_ran_before_gets_timers(nats: Settings) -> None:
    """And a worker of the version before, beside it, takes nothing from it."""
    old = App("plants")

    @old.stage
    async def watch(grade: Grade) -> None: ...

    async with Harness(old, nats) as harness:
        await harness.publish(Grade("a", 1))
        await harness.drain()
    async with Harness(plants(), nats) as harness:
        await harness.publish(Grade("b", 2, after=0))
        await harness.drain("watch")
        await Worker(old, settings=nats, drain=True).run()
        (one,) = await come(harness, 1)
        assert one.subject == "plants.reminder.b"


def test_what_cannot_be_declared_is_refused() -> None:
    app = App("plants")

    @app.stage(later="reminder")
    async def watch(grade: Grade) -> None: ...

    with pytest.raises(WiringError, match="later= names the message types"):
        app.stages  # noqa: B018


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "one of the two"),
        ({"after": 1, "at": datetime.datetime.now(datetime.UTC)}, "one of the two"),
        ({"at": datetime.datetime(2026, 1, 1)}, "with a zone"),
        ({"after": -1}, "after="),
        ({"after": "soon"}, "after="),
        ({"after": float("nan")}, "after="),
        ({"after": "99999d"}, "hundred years"),
        ({"after": 1, "name": ""}, "name"),
        ({"after": 1, "name": "a\nb"}, "name"),
        ({"after": 1, "key": "k"}, "give a name"),
    ],
)
def test_what_cannot_be_a_timer_is_refused_where_it_is_asked_for(
    given: dict[str, object], says: str
) -> None:
    context = Context(id="x", stage="s", sequence=1)
    with pytest.raises(ValueError, match=says):
        context.later(Grade("a", 1), **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        context.later("text", after=1)  # type: ignore[arg-type]


async def test_a_handler_called_by_hand_shows_what_it_asked_for() -> None:
    context = Context(id="x", stage="s", sequence=1)
    await context.later(Grade("a", 1), after=60, name="check")
    await context.cancel("check", key=3)
    first, second = context.timers or ()
    assert first.message == Grade("a", 1)
    assert 50 < first.due - time.time() <= 60
    assert (second.message, second.name, second.key) == (None, "check", "3")


async def test_a_stage_that_declares_none_and_a_handling_that_is_over_are_told(
    nats: Settings,
) -> None:
    app, told = App("plants"), []
    contexts: list[Context] = []

    @app.stage
    async def plain(grade: Grade, ctx: Context) -> None:
        with pytest.raises(RuntimeError, match="later="):
            ctx.later(Reminder(grade.position, 1), after=0)
        with pytest.raises(RuntimeError, match="later="):
            ctx.cancel("check")
        told.append("plain")

    @app.stage(later=Reminder)
    async def done(grade: Grade, ctx: Context) -> None:
        contexts.append(ctx)

    async with Harness(app, nats) as harness:
        await harness.publish(Grade("a", 1))
        await harness.drain()
    assert told == ["plain"]
    with pytest.raises(RuntimeError, match="while it runs"):
        contexts[0].later(Reminder("a", 1), after=0)


class Ordered(Message, key="position", ordered=True):
    position: str
    number: int


async def test_what_comes_may_be_ordered_and_sets_timers_itself(nats: Settings) -> None:
    """From the stream of timers into the app's, and from there into the partitions."""
    app = App("plants", partitions=2)
    seen: list[tuple[str, int, str]] = []

    @app.stage(later=Ordered)
    async def watch(grade: Grade, ctx: Context) -> None:
        await ctx.later(Ordered(grade.position, 3), after=0, name="next")

    @app.stage(later=Ordered)
    async def count(message: Ordered, ctx: Context) -> None:
        seen.append((message.position, message.number, ctx.subject))
        if message.number:
            await ctx.later(Ordered(message.position, message.number - 1), after=0, name="next")

    async with Harness(app, nats) as harness, harness.worker():
        await harness.publish(Grade("a", 1), Grade("b", 2))
        await until(lambda: len(seen) == 8, "all")
        for position in "ab":
            subject = f"plants.ordered.{position}"
            assert [one for one in seen if one[0] == position] == [
                (position, number, subject) for number in (3, 2, 1, 0)
            ]


async def test_a_run_sets_no_timers_and_handles_what_came_of_them(nats: Settings) -> None:
    async with Harness(plants(), nats) as harness:
        await harness.publish(Grade("a", 1, after=0), Grade("b", 2, after=3600))
        await harness.drain("watch")
        await come(harness, 1)
        before = await harness.stored("plants=timers")
        runs = runs_of(harness)
        await runs.create(stage="watch", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        await runs.create(stage="remind", wanted=Wanted(), name="r2")
        await work(harness, "r2")
        assert await harness.stored("plants=timers") == before
        assert len(await harness.stored(subject="plants.reminder.>")) == 1
        assert len(await harness.stored(subject="plants.run.r2.reminded")) == 1


async def test_check_knows_the_timers_of_an_app_with_mistakes(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Harness(plants(), nats) as harness:
        broker = harness.services.broker
        assert isinstance(broker, JetStream)
        report = check.Report()
        await check.check_streams(plants(), Scanner(broker.client), report)
        assert report.problems == []
        monkeypatch.setattr(LeanClient, "server_version", "2.11.4")
        wrong = plants()

        @wrong.stage
        async def nothing(grade: int) -> None: ...

        await check.check_streams(wrong, Scanner(broker.client), report)
        assert any("2.14 or later, and this one is 2.11.4" in one for one in report.problems)
