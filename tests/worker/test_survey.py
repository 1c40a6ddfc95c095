"""Where a stage begins that never ran: start=, a rename, and what is asked rather than guessed."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from mqinfer import App, Message, Settings
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.operate.check import Report, check_streams
from mqinfer.operate.rename import rename
from mqinfer.operate.status import gather, warnings
from mqinfer.ports import ConsumerSpec
from mqinfer.testing import Harness, until


class Photo(Message):
    n: int


class Leaf(Message, key="plant", ordered=True):
    plant: str
    n: int


def app_of(stage: str, seen: list[int], kind: type[Any] = Photo, **options: Any) -> App:
    """An app whose one stage notes what it is given."""
    app = App("survey", partitions=2)

    async def handler(message: Any) -> None:
        seen.append(message.n)

    handler.__annotations__["message"] = kind
    app.stage(name=stage, **options)(handler)
    return app


def photos(*numbers: int) -> list[Photo]:
    return [Photo(n) for n in numbers]


@pytest.mark.parametrize(
    ("start", "expected"), [(None, [1, 2]), ("oldest", [1, 2]), ("new", [2]), ("2h", [1, 2])]
)
async def test_a_first_start(nats: Settings, start: Any, expected: list[int]) -> None:
    seen: list[int] = []
    async with Harness(app_of("s", seen, start=start), nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain()
        await harness.publish(*photos(2))
        await harness.drain()
        assert sorted(seen) == expected


async def test_a_time_to_begin_at_counts_once(nats: Settings) -> None:
    seen: list[int] = []
    async with Harness(app_of("s", seen), nats) as harness:
        await harness.publish(*photos(1))
        (first,) = await harness.stored()
        await harness.publish(*photos(2))
        for offset in (1, 0):  # the second is without effect: the consumer is there
            moment = first.time + datetime.timedelta(microseconds=offset)
            harness_app = app_of("s", seen, start=moment)
            async with Harness(harness_app, nats) as other:
                await other.drain()
        assert seen == [2]


async def test_a_new_consumer_deleted_before_its_first_message_misses_none(nats: Settings) -> None:
    seen: list[int] = []
    async with Harness(app_of("s", seen, start="new"), nats) as harness:
        await harness.publish(*photos(1))
        async with harness.worker() as worker:
            assert worker.engine is not None
            task = worker.engine.work.tasks[0]
            assert worker.engine.work.floors["s"] == 1  # type: ignore[attr-defined]
            await harness.services.broker.delete_consumer("survey", "s")  # type: ignore[attr-defined]
            await harness.publish(*photos(2))
            await worker.engine.work.recreate(task)
        await harness.drain()
        assert set(seen) == {2}


async def test_a_rename_is_asked_about_and_goes_on_where_it_was(nats: Settings) -> None:
    seen: list[int] = []
    async with Harness(app_of("old", seen), nats) as harness:
        await harness.publish(*photos(1, 2, 3))
        await harness.drain()
        await harness.publish(*photos(4))
    app = app_of("new", seen)
    async with Harness(app, nats) as harness:
        broker: Any = harness.services.broker
        with pytest.raises(ConflictError, match=r"mqinfer rename <module>:<app> old new"):
            await harness.drain()
        report = Report()
        await check_streams(app, Scanner(broker.client), report)
        assert "stage new has no consumer, and consumer old" in str(report.problems)
        assert report.notes == [
            "consumer old of stream survey belongs to no stage; 1 messages wait for it"
        ]
        lines = "\n".join(warnings(await gather(app, Scanner(broker.client))))
        assert "stage new: never started; its consumer begins at the oldest message; 4 are" in lines
        assert "consumer old of stream survey belongs to no stage" in lines
        assert (await harness.services.broker.consumer_state("survey", "new")) is None

        done = await rename(app, "old", "new", broker)
        assert (done.waiting, done.again) == (1, 0)
        await harness.drain()
        assert seen == [1, 2, 3, 4]
        assert not (await gather(app, Scanner(broker.client))).orphans
        with pytest.raises(ConflictError, match="has no consumer old"):
            await rename(app, "old", "new", broker)


async def test_what_was_acknowledged_out_of_order_is_handled_again(nats: Settings) -> None:
    seen: list[int] = []
    app = app_of("new", seen)
    async with Harness(app, nats) as harness:
        broker: Any = harness.services.broker
        await harness.publish(*photos(1, 2, 3))
        spec = ConsumerSpec("old", "survey", ("survey.photo",))
        await broker.ensure_consumer(spec)
        got: list[Any] = []

        async def recreate() -> None: ...

        pull = await broker.pull(
            "survey",
            "old",
            on_message=got.append,
            on_released=lambda _messages, _size: None,
            recreate=recreate,
        )
        pull.request(5, 1 << 20)  # two more than there are: a worker that pulls
        await until(lambda: len(got) == 3, "the messages")
        broker.ack(got[1])  # the others stay open
        await broker.flush()
        with pytest.raises(ConflictError, match="a worker pulls from consumer old"):
            await rename(app, "old", "new", broker)
        await pull.close()
        done = await rename(app, "old", "new", broker)
        assert (done.waiting, done.again) == (3, 1)
        await harness.drain()
        assert sorted(seen) == [1, 2, 3]


async def test_a_stage_that_is_ordered_is_renamed_with_all_partitions(nats: Settings) -> None:
    seen: list[int] = []
    async with Harness(app_of("old", seen, Leaf), nats) as harness:
        await harness.publish(*(Leaf(f"p{n}", n) for n in range(6)))
        await harness.drain()
    app = app_of("new", seen, Leaf)
    async with Harness(app, nats) as harness:
        with pytest.raises(ConflictError, match="old new"):
            await harness.drain()
        await rename(app, "old", "new", harness.services.broker)  # type: ignore[arg-type]
        await harness.publish(Leaf("p1", 6))
        await harness.drain()
        assert sorted(seen) == list(range(7))


async def test_a_new_stage_beside_one_that_was_taken_out_says_where_it_begins(
    nats: Settings,
) -> None:
    seen: list[int] = []
    async with Harness(app_of("old", seen), nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain()
    async with Harness(app_of("other", seen, start="new"), nats) as harness:
        await harness.drain()
        await harness.publish(*photos(2))
        await harness.drain()
    async with Harness(app_of("third", seen, start="oldest"), nats) as harness:
        await harness.drain()
    assert sorted(seen) == [1, 1, 2, 2]


async def test_what_cannot_be_renamed(nats: Settings) -> None:
    seen: list[int] = []
    async with Harness(app_of("s", seen), nats) as harness:
        broker: Any = harness.services.broker
        with pytest.raises(ConfigurationError, match="s is a stage of app survey"):
            await rename(harness.app, "s", "s", broker)
        await broker.ensure_consumer(ConsumerSpec("foreign", "survey", ("survey.leaf",)))
        with pytest.raises(ConflictError, match=r"foreign reads survey\.leaf, and s reads"):
            await rename(harness.app, "foreign", "s", broker)
        await harness.publish(*photos(1))
        await harness.drain()
        await broker.ensure_consumer(ConsumerSpec("old", "survey", ("survey.photo",)))
        with pytest.raises(ConflictError, match="stage s has begun already"):
            await rename(harness.app, "old", "s", broker)


@pytest.mark.parametrize(
    ("start", "kind", "text"),
    [
        ("soon", Photo, "start='soon' is no time"),
        (7, Photo, "start=7 must be 'oldest', 'new', a datetime"),
        ("new", Leaf, "cannot be for Leaf, which is ordered"),
    ],
)
def test_where_a_stage_cannot_begin(start: Any, kind: type[Message], text: str) -> None:
    (problem,) = app_of("s", [], kind, start=start).resolve()[1]
    assert text in str(problem)
