"""Suspects: marks are there before the handler runs, halve what may be at work, and count alone."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.backoff import Backoff
from mqinfer.errors import Unavailable
from mqinfer.flow import suspects as module
from mqinfer.flow.lane import WIDE, Lane, Suspect
from mqinfer.flow.past import Past
from mqinfer.flow.suspects import Suspects
from mqinfer.stage import Limits
from tests.test_bucket import Memory

KEY = "stage.suspect.7"


class Job:
    """A message of which no earlier delivery is explained."""

    def __init__(self, sequence: int, unexplained: int):
        self.delivery = SimpleNamespace(sequence=sequence)
        self.past = Past(unexplained=unexplained)


def a_job(attempt: int = 3, sequence: int = 7) -> Any:
    return Job(sequence, attempt - 1)


class Worker:
    """What one worker has; all of them share the bucket."""

    def __init__(self, bucket: Memory, attempts: int = 3, handlers: int = 1000):
        self.turn: list[Any] = []
        self.suspects = Suspects(
            "stage",
            bucket=bucket,
            limits=Limits(attempts=attempts),
            lane=Lane(gather=1000.0),
            handlers=handlers,
        )

    async def arrives(self, job: Any) -> Suspect | None:
        """It is put aside until its turn; None when it is given up."""
        suspect = await self.suspects.weigh(job, self.turn.append)
        if suspect is not None:
            self.suspects.wait(suspect)
        return suspect

    async def begins(self) -> list[Suspect]:
        """Those whose turn has come."""
        self.suspects.lane.gathered()
        turns = self.suspects.turns(self.turn)
        self.turn.clear()
        await self.suspects.begin(turns)
        return turns


async def dies_alone(bucket: Memory, attempt: int, attempts: int = 3) -> bool:
    """A worker that had but this one; whether it began."""
    worker = Worker(bucket, attempts)
    await worker.arrives(a_job(attempt))
    return bool(await worker.begins())


def test_one_that_died_twice_without_a_word_is_a_suspect() -> None:
    found = Worker(Memory(), attempts=5).suspects
    assert [found.suspects(a_job(n)) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert Worker(Memory(), attempts=1).suspects.suspects(a_job(2))


@pytest.mark.parametrize(("attempts", "deaths"), [(1, 3), (2, 5), (3, 5), (5, 7)])
async def test_one_that_was_alone_at_each_death_is_given_up(attempts: int, deaths: int) -> None:
    """Those as one of many, and `attempts` alone: one more than another's first ones can be."""
    bucket = Memory()
    plain = min(2, attempts)
    for death in range(plain, deaths):
        assert await dies_alone(bucket, death + 1, attempts)
    assert not await dies_alone(bucket, deaths + 1, attempts)


async def test_half_as_many_are_at_work_after_each_death() -> None:
    bucket, widths = Memory(), []
    left: list[int] = list(range(50))
    for attempt in range(3, 12):
        worker = Worker(bucket)
        for sequence in left:
            await worker.arrives(a_job(attempt, sequence))
        left = [one.job.delivery.sequence for one in await worker.begins()]
        widths.append(len(left))
    assert widths == [50, 32, 16, 8, 4, 2, 1, 1, 1]
    assert await Worker(bucket).arrives(a_job(12, left[0])) is None


async def test_one_that_ends_is_as_good_as_new() -> None:
    bucket = Memory()
    assert await dies_alone(bucket, 3)
    assert await dies_alone(bucket, 4)
    worker = Worker(bucket)
    suspect = await worker.arrives(a_job(5))
    assert suspect is not None
    assert (suspect.width, suspect.alone) == (1, 2)
    await worker.suspects.ended(await worker.begins())
    assert not bucket.values[KEY][0]
    suspect = await Worker(bucket).arrives(a_job(9))
    assert suspect is not None
    assert (suspect.width, suspect.alone) == (WIDE, 0)


async def test_one_that_did_not_begin_keeps_what_was_known() -> None:
    bucket = Memory()
    assert await dies_alone(bucket, 3)
    before = bucket.values[KEY]
    worker = Worker(bucket)
    await worker.arrives(a_job(4))
    worker.suspects.lane.gathered()
    assert worker.suspects.give_up() == []  # its turn had come: it is in the mailbox
    assert bucket.values[KEY] == before
    assert repr(worker.suspects.lane) == "Lane(0 at work, 0 wait)"


async def test_a_mark_that_outlived_an_ended_delivery_is_no_death_alone() -> None:
    bucket = Memory()
    for attempt in (3, 4, 5):
        assert await dies_alone(bucket, attempt)
    # Since then a failure was written down, and two deaths: only these can have been alone.
    assert await Worker(bucket).arrives(a_job(3))


async def test_stops_let_go_of_all_that_has_not_begun() -> None:
    worker = Worker(Memory(), handlers=2)
    jobs = [a_job(3, sequence) for sequence in range(5)]
    for one in jobs:
        await worker.arrives(one)
    begun = await worker.begins()
    assert worker.suspects.aside == 3
    assert set(worker.suspects.give_up()) == set(jobs[2:])
    assert repr(worker.suspects.lane) == "Lane(2 at work, 0 wait)"
    await worker.suspects.ended(begun)
    assert repr(worker.suspects.lane) == "Lane(0 at work, 0 wait)"


async def test_two_workers_that_hold_one_message_blame_it_for_nothing() -> None:
    bucket = Memory()
    one, other = Worker(bucket), Worker(bucket)
    await one.arrives(a_job())
    first = await one.begins()
    await other.arrives(a_job(4))
    second = await other.begins()
    assert second[0].alone == 1  # as far as it can know the first one died
    await one.suspects.ended(first)
    assert bucket.values[KEY][0]  # the other may die yet
    third = await Worker(bucket).arrives(a_job(5))
    assert third is not None
    assert third.alone == 1
    await other.suspects.ended(second)
    assert not bucket.values[KEY][0]


async def test_one_that_another_joins_was_not_alone() -> None:
    bucket = Memory()
    worker = Worker(bucket)
    await worker.arrives(a_job(3, 1))
    await worker.begins()
    await worker.arrives(a_job(3, 2))
    await worker.begins()
    again = await Worker(bucket).arrives(a_job(4, 1))
    assert again is not None
    assert (again.width, again.alone) == (1, 0)


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
    assert await dies_alone(bucket, 3)
    bucket.outages = 3
    assert await dies_alone(bucket, 4)
    assert b'"alone":1' in bucket.values[KEY][0]


async def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGIVE", 0.05)
    bucket = Away(0)
    worker = Worker(bucket)
    await worker.arrives(a_job())
    begun = await worker.begins()
    bucket.outages = 1_000_000
    await worker.suspects.ended(begun)
    assert bucket.values[KEY][0]
    assert repr(worker.suspects.lane) == "Lane(0 at work, 0 wait)"


async def test_a_bad_night_blames_nobody() -> None:
    """Each worker is killed before anything has ended; what was at work before waits longest."""
    bucket, at_work = Memory(), []
    for death in range(2, 62):
        worker = Worker(bucket)
        for sequence in range(64):
            assert await worker.arrives(a_job(death + 1, sequence))
        at_work.append(len(await worker.begins()))
    assert at_work == [64] + 2 * [32] + 4 * [16] + 8 * [8] + 16 * [4] + 29 * [2]


# --- whole lives ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    count=st.integers(1, 64),
    killers=st.sets(st.integers(0, 63), max_size=3),
    attempts=st.integers(1, 4),
    kills=st.integers(0, 3),
    handlers=st.sampled_from([1, 8, 1000]),
    seed=st.integers(0, 1 << 16),
)
async def test_killers_are_found_and_nobody_else(
    count: int, killers: set[int], attempts: int, kills: int, handlers: int, seed: int
) -> None:
    """Lives of a worker that ends when a killer ends, or is killed some times from outside."""
    chance = random.Random(seed)
    bucket, killers = Memory(), {killer for killer in killers if killer < count}
    alone = max(attempts, min(2, attempts) + 1)
    kills = min(kills, alone - 1)  # a message of which each worker is killed is no innocent
    left = dict.fromkeys(range(count), min(2, attempts))  # sequence -> deaths
    found, deaths = set(), 0
    while left:
        worker = Worker(bucket, attempts, handlers)
        arrivals = list(left)
        chance.shuffle(arrivals)
        for sequence in arrivals:
            if await worker.arrives(a_job(left[sequence] + 1, sequence)) is None:
                found.add(sequence)
                del left[sequence]
        at_work: list[Suspect] = []
        outside = chance.randrange(count) if kills else -1
        for ends in range(count):
            at_work += await worker.begins()
            if not at_work:
                break
            one = at_work.pop(chance.randrange(len(at_work)))
            sequence = one.job.delivery.sequence
            if sequence in killers or ends == outside:
                kills -= ends == outside
                deaths += 1
                left = {number: died + 1 for number, died in left.items()}
                break
            await worker.suspects.ended([one])
            del left[sequence]
    assert found == killers
    halvings = math.ceil(math.log2(count)) + 1 if count > 1 else 1
    assert deaths <= len(killers) * (halvings + alone) + 3
