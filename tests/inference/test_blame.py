"""The item that brings a model down is found among its neighbours, and nobody else is blamed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from mqinfer.errors import ModelError, Unavailable
from mqinfer.inference.batcher import Batcher
from mqinfer.inference.blame import Blame
from mqinfer.inference.calls import Call, ServerLost
from tests.support.inference import DOUBLE, x

SECONDS = 5.0  # that pass from the first loss to the verdict, at least


class Model:
    """Dies of some values; starts again, which is a sign of life, in `start` seconds."""

    def __init__(self, *deadly: float, starts: bool = True):
        self.deadly = set(deadly)
        self.starts = starts
        self.now = 100.0
        self.lives = 0
        self.sent: list[list[float]] = []
        self.blame = Blame("m", lambda: self.lives, lambda: self.now)
        self.batcher: Batcher[Call] = Batcher(max_batch=16)

    def call(self, value: float, given: int = 0) -> Call:
        call = Call(DOUBLE, {"x": x(value)}, None)
        call.given = given
        self.blame.recall(call)
        entry = self.batcher.add("alike", call, call.size, self.now)
        assert entry is not None
        if call.losses is not None:
            entry.batch_limit = 1
        call.entry = entry
        return call

    def turn(self, seconds: float = 3.0) -> bool:
        """A request, whose calls are answered or lost; False: nobody waits."""
        batch = self.batcher.take(1)
        if not batch:
            return False
        values = [float(entry.item.inputs["x"][0]) for entry in batch]
        self.sent.append(values)
        self.now += seconds
        if self.deadly & set(values):
            if self.blame.lost(batch, Unavailable("the model died")):
                self.batcher.done(batch[0])
            else:
                self.batcher.put_back(batch)
            self.lives += self.starts
        else:
            for entry in batch:
                self.blame.answered(entry.item)
                entry.item.future.set_result({})
                self.batcher.done(entry)
        self.batcher.finish()
        return True


@pytest.mark.parametrize("deadly", [(3.0,), (3.0, 4.0), (0.0, 15.0), tuple(map(float, range(16)))])
async def test_only_those_at_fault_fail(deadly: tuple[float, ...]) -> None:
    model = Model(*deadly)
    values = [float(value) for value in range(16)]
    random.shuffle(values)
    calls = {value: model.call(value) for value in values}
    for _ in range(500):
        if not model.turn():
            break
    for value, call in calls.items():
        error = call.future.exception()
        if value in deadly:
            assert isinstance(error, ModelError)
            assert "3 times no answer came while this item was alone" in str(error)
        else:
            assert error is None
            # A neighbour is lost with it in ever smaller requests, and no more often.
            assert sum(value in sent for sent in model.sent) <= 6
    # A suspect is never beside one that came later.
    late = model.call(99.0)
    assert model.turn()
    assert late.future.result() == {}


async def test_a_model_that_stays_down_is_nobodys_fault() -> None:
    model = Model(1.0, starts=False)
    call = model.call(1.0)
    for _ in range(50):
        assert model.turn(seconds=100.0)
    assert not call.future.done()
    model.deadly.clear()
    model.turn()
    assert call.future.result() == {}


async def test_losses_within_a_moment_are_one_outage() -> None:
    """As when its server is started again and again: three in a row prove nothing."""
    model = Model(1.0)
    call = model.call(1.0)
    for _ in range(40):
        model.turn(seconds=SECONDS / 100)
    assert not call.future.done()
    model.turn(seconds=SECONDS)
    assert isinstance(call.future.exception(), ModelError)


async def test_another_of_several_servers_that_lives_is_a_sign_of_life() -> None:
    model = Model(starts=False)
    call = model.call(1.0)
    for signs in range(3):
        (entry,) = model.batcher.take(1)
        at_fault = model.blame.lost([entry], ServerLost("one is gone", signs_of_life=signs))
        assert at_fault is (signs == 2)
        model.batcher.put_back([entry])
        model.batcher.finish()
        model.now += 3.0
    assert "one is gone" in str(call.future.exception())


async def test_an_item_whose_answer_broke_off_is_known_when_it_comes_again() -> None:
    model = Model(1.0)
    for attempt in range(3):
        # Its caller was given a part, so that it comes as another call, beside others.
        call, beside = model.call(1.0, given=1), model.call(2.0)
        assert (call.losses is not None) is (attempt > 0)
        for _ in range(1 if attempt else 2):  # at first both are lost, then it alone
            model.turn()
        if not call.future.done():
            assert model.batcher.remove(call.entry)
        while model.turn():
            pass
        assert beside.future.result() == {}
    assert isinstance(call.future.exception(), ModelError)


async def test_one_that_is_answered_is_forgotten() -> None:
    model = Model(1.0)
    first = model.call(1.0, given=1)
    model.turn()
    model.deadly.clear()
    model.turn()
    assert first.future.result() == {}
    assert model.call(1.0).losses is None


async def test_what_is_known_is_bounded_and_told_apart_by_content() -> None:
    model = Model()
    for value in range(1_000):
        call = model.call(float(value), given=1)
        model.blame.lost([call.entry], Unavailable("it broke off"))  # type: ignore[list-item]
    assert len(model.blame._known) == 256
    again: Any = [model.call(float(value)) for value in (0, 743, 744, 999)]
    assert [call.losses is not None for call in again] == [False, False, True, True]
    # The same bytes in another shape, or as another type, are another item.
    for array in (np.full((1, 1), 999, np.float32), np.full(1, 999, np.float32).view(np.int32)):
        other = Call(DOUBLE, {"x": array}, None)
        model.blame.recall(other)
        assert other.losses is None
