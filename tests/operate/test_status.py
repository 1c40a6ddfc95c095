"""How far an app is, from one look at JetStream, and what someone should look at."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from mqinfer import App, Message, Settings
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import Reject
from mqinfer.operate.status import AppStatus, StreamStatus, TaskStatus, gather, rates, warnings
from mqinfer.testing import Harness, until

DAY = 86_400.0


class Photo(Message):
    n: int


class Seen(Message):
    n: int


def status(*tasks: TaskStatus, at: float = 100.0, **stream: Any) -> AppStatus:
    whole = StreamStatus("s", exists=True, messages=10, bytes=1_000, first=1, last=10)
    now = datetime.datetime.now(datetime.UTC)
    return AppStatus("s", at, now, replace(whole, **stream), tasks, dead=0)


def ago(days: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


# --- what someone should look at ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (status(exists=False), "stream s does not exist: start a worker, or publish something"),
        (status(max_bytes=1_250), "stream s is 80% full (1,000 of 1,250 bytes)"),
        (
            status(TaskStatus("grade", exists=True, waiting=1_200)),
            "stage grade: 1,200 messages wait and nobody asks for them",
        ),
        (
            status(TaskStatus("grade", exists=True, waiting=1, oldest=ago(80)), max_age=100 * DAY),
            "stage grade: its oldest message is dropped unprocessed in",
        ),
        (status(TaskStatus("grade", dead=1)), "stage grade: 1 dead letter (see: mqinfer dead"),
        (status(TaskStatus("grade", dead=1_234)), "stage grade: 1,234 dead letters (see"),
        (status(TaskStatus("grade", skipped=3)), "stage grade: 3 messages were passed over"),
        (status(TaskStatus("grade", dropped=2)), "2 messages ended without a dead letter"),
        (status(TaskStatus("grade", lapsed=5)), "5 deliveries were let go unbegun"),
    ],
)
def test_what_is_worth_a_word_has_a_line(found: AppStatus, text: str) -> None:
    assert any(text in line for line in warnings(found))


@pytest.mark.parametrize(
    "found",
    [
        status(),
        status(max_bytes=1_251),
        status(TaskStatus("grade", exists=True, waiting=5, pulling=1)),
        status(TaskStatus("grade", exists=True, waiting=5, in_flight=1)),
        status(TaskStatus("grade", exists=True, waiting=5, rate=0.5)),
        status(TaskStatus("grade", exists=False, waiting=5)),
        status(TaskStatus("grade", exists=True, pulling=1, oldest=ago(60)), max_age=100 * DAY),
        status(TaskStatus("grade", exists=True, pulling=1, oldest=ago(10_000))),  # kept for ever
        status(TaskStatus("grade", repeats=7)),
    ],
)
def test_what_is_as_it_should_be_has_none(found: AppStatus) -> None:
    assert warnings(found) == []


# --- rates --------------------------------------------------------------------------------------


def test_a_rate_is_of_what_was_settled_between_two_looks() -> None:
    before = status(TaskStatus("a", exists=True, settled=100), TaskStatus("b"), at=100.0)
    now = status(
        TaskStatus("a", exists=True, settled=150),
        TaskStatus("b", exists=True, settled=9),
        TaskStatus("c", exists=True, settled=3),
        at=110.0,
    )
    assert [task.rate for task in rates(now, before).tasks] == [5.0, None, None]
    assert [task.rate for task in rates(now, None).tasks] == [None] * 3
    # A consumer that was made anew counts from 0, and two looks at one moment say nothing.
    assert rates(replace(before, at=120.0), now).tasks[0].rate == 0.0
    assert rates(now, now) is now


# --- one look -----------------------------------------------------------------------------------


async def look(app: App, harness: Harness) -> AppStatus:
    broker: Any = harness.services.broker
    return await gather(app, Scanner(broker.client))


async def test_an_app_from_before_its_first_worker_to_its_dead_letters(nats: Settings) -> None:
    app = App("looked", max_bytes=1 << 30)

    @app.stage(attempts=1)
    async def see(photo: Photo) -> Seen:
        if photo.n == 2:
            raise Reject("no")
        return Seen(photo.n)

    @app.stage
    async def count(seen: Seen) -> None: ...

    async with Harness(app, nats) as harness:
        nowhere = App("nowhere")
        nowhere.stage(name="see")(see)
        found = await look(nowhere, harness)
        assert warnings(found) == [
            "stream nowhere does not exist: start a worker, or publish something"
        ]
        assert [(task.name, task.exists) for task in found.tasks] == [("see", False)]
        await harness.publish(*(Photo(n) for n in range(4)))
        await harness.drain()
        found = await look(app, harness)
        assert found.stream.exists
        assert (found.stream.messages, found.stream.last) == (7, 7)
        assert (found.stream.max_bytes, found.dead) == (1 << 30, 1)
        seen, counted = found.tasks
        assert (seen.name, seen.settled, seen.lag, seen.dead) == ("see", 4, 0, 1)
        assert (counted.name, counted.settled, counted.lag) == ("count", 3, 0)
        assert "1 dead letter" in warnings(found)[0]

        # The worker is gone: what comes now waits, and that is said.
        await harness.publish(Photo(8), Photo(9))

        async def waits() -> bool:
            return not (await look(app, harness)).tasks[0].pulling

        await until(waits, "nobody asks any more")
        found = await look(app, harness)
        assert found.tasks[0].lag == 2
        assert any("2 messages wait and nobody asks" in line for line in warnings(found))
        told = found.as_dict()
        assert told["stages"][0]["lag"] == 2
        assert told["stream"]["messages"] == 9
        assert told["warnings"] == warnings(found)
