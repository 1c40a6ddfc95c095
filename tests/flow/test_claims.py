"""What a stage holds while the loop stands still: what is renewed, and what is let go after it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from mqinfer.flow.beat import Beat
from mqinfer.flow.claims import HOLD
from mqinfer.flow.job import HANDLING, WAITING
from tests.support.flow import Begun, Flow, Number, Owned, turns

ACK_WAIT = 30.0


def stage(begun: Begun, **options: Any) -> tuple[Flow, Beat]:
    """A stage whose handlers wait, and the beat of its loop, which the test moves."""
    beat = Beat()

    async def handler(number: Number) -> None:
        await begun.begin(number.value)

    flow = Flow(handler, beat=beat, ack_wait=ACK_WAIT, timeout=1e9, **options)
    beat._clock = flow.clock
    beat.last = beat.sent_after = flow.clock.now
    return flow, beat


def stand_still(flow: Flow, beat: Beat, seconds: float) -> None:
    flow.clock.now += seconds
    beat.last = flow.clock.now
    flow.runner.turned(seconds, ())


@pytest.mark.parametrize("age", [0.1, 0.7, 0.81, 3.0])
async def test_what_lay_in_the_socket_for_too_long_is_let_go_and_explained(age: float) -> None:
    begun = Begun()
    begun.hang = {1, 2} if age < HOLD else set()
    flow, beat = stage(begun)
    with capture_logs() as logs:
        async with flow.running():
            flow.clock.now += age * ACK_WAIT
            beat.last = flow.clock.now
            flow.deliver(1)
            flow.deliver(1, attempt=2)  # the server gave it out again: once is enough
            flow.deliver(2)
            await turns()
            if age < HOLD:
                assert sorted(begun.calls) == [[1], [2]]
                flow.runner.tick(flow.clock.now)
                assert flow.broker.renewed == ([1, 2] if age > 1 / 3 else [])
                begun.let_go()
                return
            assert begun.calls == []
            beat.sent_after = flow.clock.now  # all is read
            flow.deliver(1, attempt=3)
            await turns()
            assert begun.calls == [[1]]
    assert flow.broker.heard() == [("ack", 1)]
    assert flow.metrics.lapses == 3
    assert flow.slots.in_flight == 0
    (line,) = (line for line in logs if line["event"].startswith("let go"))
    assert (line["stage"], line["messages"], line["sequences"]) == ("s", 3, [1, 1, 2])
    written = msgspec.json.decode(flow.broker.counts.values["s.back"][0])
    assert written == {"1": [1, 2], "2": [1]}


async def test_when_the_loop_turns_what_was_begun_stays_and_what_waits_must_be_ours() -> None:
    begun = Begun()
    begun.hang = {1}
    flow, beat = stage(begun, concurrency=1)
    async with flow.running():
        for sequence in (1, 2, 3):
            flow.deliver(sequence)
        await turns()
        first, second, _ = flow.runner.jobs.values()
        assert [first.state, second.state] == [HANDLING, WAITING]
        stand_still(flow, beat, 0.9 * ACK_WAIT)
        assert list(flow.runner.jobs) == [1]
        await turns()
        beat.sent_after = flow.clock.now  # all is read
        flow.deliver(4)
        begun.let_go()
        await turns()
        assert begun.calls == [[1], [4]]
    assert flow.broker.heard() == [("ack", 1), ("ack", 4)]
    assert flow.metrics.lapses == 2


async def test_what_a_thread_renewed_is_kept() -> None:
    begun = Begun()
    begun.hang = {1}
    flow, beat = stage(begun, concurrency=1)
    claims = flow.runner.claims
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)
        await turns()
        start = flow.clock.now
        for part in range(1, 10):
            now = start + part * ACK_WAIT / 3
            due = claims.due(now)
            assert [job.delivery.sequence for job in due] == [1, 2]
            assert claims.due(now - 0.1) == []
            for job in due:
                claims.renewed(job, now)
        stand_still(flow, beat, 3 * ACK_WAIT)
        begun.let_go()
        await turns()
    assert begun.calls == [[1], [2]]
    assert flow.metrics.lapses == 0


async def test_what_ran_out_and_what_is_anothers_is_not_renewed() -> None:
    begun, owned = Begun(), Owned()
    begun.hang = {1, 2, 3}
    flow, _ = stage(begun, policy=owned)
    async with flow.running():
        for sequence in (1, 2, 3):
            flow.deliver(sequence)
        await turns()
        owned.lost.add(2)
        now = flow.clock.now + 0.9 * ACK_WAIT
        assert [job.delivery.sequence for job in flow.runner.claims.due(now)] == [1, 3]
        assert flow.runner.claims.due(now + 0.1 * ACK_WAIT) == []
        begun.let_go()


async def test_who_could_do_nothing_about_it_has_the_time_that_another_blocked() -> None:
    begun = Begun()
    begun.hang = {1, 2}
    flow, _ = stage(begun)
    async with flow.running():
        flow.deliver(1)
        flow.deliver(2)
        await turns()
        first, second = flow.runner.jobs.values()
        start = flow.clock.now
        assert first.started == second.started == start
        flow.clock.now += 50.0
        assert first.task is not None
        flow.runner.turned(50.0, {first.task})
        assert (first.started, second.started) == (start, start + 50.0)
        flow.runner.turned(50.0, ())  # nobody knows who
        assert second.started == start + 50.0
        begun.let_go()


async def test_no_handler_begins_before_the_loop_has_turned() -> None:
    begun = Begun()
    flow, beat = stage(begun)
    async with flow.running():
        flow.clock.now += 1.0  # somebody blocks
        flow.deliver(1)
        await turns()
        assert begun.calls == []
        beat.last = flow.clock.now
        beat._next.set()
        await turns()
        assert begun.calls == [[1]]
