"""The ledger: what the server's count of deliveries cannot tell, and what it then means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import DecodeError, HandlerTimeout, Reject, Retry, Snooze, Unavailable
from mqinfer.flow.outcome import Again, Dead, outcome
from mqinfer.flow.past import NOTHING, Past
from mqinfer.stage import Limits
from tests.support.flow import Flow, Number

LIMITS = Limits(attempts=3, snooze_for=60.0)


async def handler(number: Number) -> None: ...


class Untold:
    """No time, nor anything that can be told of."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def ended(error: BaseException, past: Past = NOTHING, delivery: int = 1, now: float = 1.0) -> Any:
    return outcome(error, past, delivery, LIMITS, now=now, random=0.5)


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (ValueError("x"), 1),
        (HandlerTimeout("x"), 1),
        (Retry("x"), 1),
        (Retry("x", after=1.0), 0),
        (Snooze(after=1.0), 0),
        (Snooze(after="1m"), 0),
        (Snooze(after="soon"), 1),
        (Snooze(after=1e300), 1),
        (Snooze(after=10**400), 1),
        (Snooze(after=Untold()), 1),  # type: ignore[arg-type]
        (Retry(after=float("nan")), 1),
        (Unavailable("x"), 0),
    ],
)
def test_what_an_end_spends(error: Exception, spent: int) -> None:
    found = ended(error, Past(failures=1, explained=4), delivery=9)
    assert isinstance(found, Again)
    assert (found.past.failures, found.past.explained) == (1 + spent, 9)
    last = ended(error, Past(failures=2, explained=4), delivery=9)
    assert isinstance(last, Dead) is bool(spent)


@pytest.mark.parametrize("error", [Reject("x"), DecodeError("x")])
def test_what_can_never_be_answered_ends_at_once(error: Exception) -> None:
    assert ended(error) == Dead(error)


def test_a_snooze_without_end_is_ended_by_time_alone() -> None:
    past, now = NOTHING, 1000.0
    for delivery in range(1, 8):
        found = ended(Snooze(after=10.0), past, delivery, now)
        past, now = found.past, now + 10.0
        assert past.failures == 0
    last = ended(Snooze("asleep", after=10.0), past, 8, now)
    assert "snoozed for more than 60 s (snooze_for): asleep" in str(last.error)
    # One that went wrong in between has begun anew.
    woken = ended(ValueError("x"), past, 8, now)
    assert isinstance(ended(Snooze(after=10.0), woken.past, 9, now), Again)


# --- reading and writing --------------------------------------------------------------------------

LIVES = ("failed", "snoozed", "died", "handed back", "handed back at work")


@given(st.lists(st.sampled_from(LIVES), max_size=12))
async def test_only_what_ended_without_a_word_is_unexplained(lives: list[str]) -> None:
    flow = Flow(handler, attempts=100)
    failures = unexplained = 0
    for delivery, how in enumerate(lives, 1):
        job = flow.job(attempt=delivery)
        await flow.ledger.explain([job], flow.clock)
        flow.clock.now += 1.0
        if how == "failed":
            flow.settler.failed(job, ValueError("x"))
            failures, unexplained = failures + 1, 0  # it is known to survive its handler
        elif how == "snoozed":
            flow.settler.failed(job, Snooze(after=1.0))
            unexplained = 0
        elif how.startswith("handed back"):
            if how != "handed back":
                job.started = flow.clock()
            await flow.ledger.handed_back([job])
        else:
            unexplained += 1
    job = flow.job(attempt=len(lives) + 1)
    job.received = flow.clock()
    if lives:
        await flow.ledger.explain([job], flow.clock)
        assert (job.past.failures, job.past.unexplained) == (failures, unexplained)
        assert job.context is not None
        begun = sum(how != "handed back" for how in lives)
        assert job.context.attempt == 1 + begun


async def test_one_record_tells_all_that_a_stop_hands_back() -> None:
    flow = Flow(handler)
    await flow.ledger.handed_back([flow.job(number) for number in range(1, 400)])
    assert list(flow.broker.counts.values) == ["s.back"]
    again = [flow.job(number, attempt=2) for number in (1, 399, 500)]
    await flow.ledger.explain(again, flow.clock)
    assert [job.past.unexplained for job in again] == [0, 0, 1]


async def test_a_message_that_comes_for_the_first_time_asks_nobody() -> None:
    flow = Flow(handler)
    flow.broker.counts = None
    await flow.ledger.explain([flow.job()], flow.clock)
