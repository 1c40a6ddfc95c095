"""Suspects: starts are counted before the handler runs, and no worker undoes another's count."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer.backoff import Backoff
from mqinfer.errors import Unavailable
from mqinfer.flow import suspects as module
from mqinfer.flow.past import Past
from mqinfer.flow.suspects import Suspects
from mqinfer.stage import Limits
from tests.support.bucket import Memory

KEY = "stage.7"


def job(attempt: int) -> Any:
    """A message of which no earlier delivery is explained."""
    past = Past(unexplained=attempt - 1)
    return SimpleNamespace(delivery=SimpleNamespace(sequence=7), past=past)


def worker(bucket: Memory, attempts: int = 3) -> Suspects:
    """What one worker has; all of them share the bucket."""
    return Suspects("stage", bucket=bucket, limits=Limits(attempts=attempts), lane=asyncio.Lock())


def count(bucket: Memory) -> int:
    return int(bucket.values[KEY][0])


def test_one_that_died_twice_without_a_word_is_a_suspect() -> None:
    found = worker(Memory(), attempts=5)
    assert [found.suspects(job(attempt)) for attempt in (1, 2, 3, 4)] == [False, False, True, True]
    assert worker(Memory(), attempts=1).suspects(job(2))


async def test_one_that_was_alone_at_each_death_is_given_up() -> None:
    bucket = Memory()
    assert await worker(bucket, attempts=4).may_run(job(3))
    assert await worker(bucket, attempts=4).may_run(job(4))
    assert count(bucket) == 2
    assert not await worker(bucket, attempts=4).may_run(job(5))
    assert count(bucket) == 2


async def test_one_that_survives_begins_anew() -> None:
    bucket = Memory()
    assert await worker(bucket).may_run(job(3))  # and dies
    again = worker(bucket)
    assert await again.may_run(job(3))
    await again.survived(job(3))
    assert count(bucket) == 0
    assert await worker(bucket).may_run(job(9))


async def test_two_workers_that_hold_one_message_lose_no_count() -> None:
    bucket = Memory()
    one, other = worker(bucket), worker(bucket)
    assert await one.may_run(job(3))
    assert await other.may_run(job(3))
    assert count(bucket) == 2
    await one.survived(job(3))
    assert count(bucket) == 1  # the other may die yet
    await other.survived(job(3))
    assert count(bucket) == 0


async def test_another_that_is_quicker_is_counted_too() -> None:
    bucket = Memory(quicker=1)
    assert await worker(bucket, attempts=200).may_run(job(3))
    assert count(bucket) == 101


class Away(Memory):
    """A bucket that does not answer at first."""

    def __init__(self, outages: int):
        super().__init__()
        self.outages = outages

    async def load(self, key: str) -> tuple[bytes, int] | None:
        if self.outages:
            self.outages -= 1
            raise Unavailable("NATS is away")
        return await super().load(key)


async def test_an_outage_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT", Backoff(initial=0.0))
    bucket = Away(3)
    assert await worker(bucket).may_run(job(3))
    assert count(bucket) == 1


async def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGIVE", 0.05)
    bucket = Away(0)
    found = worker(bucket)
    assert await found.may_run(job(3))
    bucket.outages = 1_000_000
    await found.survived(job(3))
    assert count(bucket) == 1
