"""Episodes follow from counts and what people said, the same for whoever looks."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.detector import Budget
from mqinfer.monitor.episode import State, Word
from mqinfer.monitor.follow import Saying, Series, follow, heard, said
from mqinfer.monitor.reference import STEP, reference_of

SERIES = Series("prediction", "label", "grader", "2")
LIMIT = Budget().threshold()
Steps = list[tuple[int, Mapping[str, int]]]


def steps(first: int, count: int, cats: float, seed: int = 1) -> Steps:
    chance = random.Random(f"{first} {seed}")
    found: Steps = []
    for number in range(first, first + count):
        rows = sum(chance.random() < cats for _ in range(5))
        found.append((number, {"cat": rows, "dog": 5 - rows}))
    return found


REFERENCE = reference_of(steps(0, 2_000, 0.3))


def test_a_change_is_one_episode_until_it_is_over() -> None:
    made = [*steps(10_000, 500, 0.3), *steps(10_500, 800, 0.6)]
    (one,) = follow(SERIES, REFERENCE, made, LIMIT).episodes
    assert one.lasts
    assert (one.key, one.rising, one.model, one.version) in {
        ("cat", True, "grader", "2"), ("dog", False, "grader", "2"),
    }  # fmt: skip
    assert abs(one.began / STEP - 10_500) < 20
    assert 10_500 < one.alarmed / STEP < 10_600
    assert one.rows == pytest.approx(5 * (one.alarmed - one.began) / STEP)
    assert one.before == pytest.approx(REFERENCE.counts[REFERENCE.keys.index(one.key)] / 10_000)
    assert one.again > 2  # it goes on alarming, and stays one
    made += steps(11_300, 600, 0.3)
    (over,) = follow(SERIES, REFERENCE, made, LIMIT).episodes
    assert (over.id, over.state) == (one.id, State.CLOSED)
    assert 11_300 < over.ended / STEP < 11_500
    made += steps(11_900, 300, 0.6)
    found = follow(SERIES, REFERENCE, made, LIMIT).episodes
    assert [episode.state for episode in found] == [State.CLOSED, State.OPEN]


def test_what_is_stable_has_none() -> None:
    found = follow(SERIES, REFERENCE, steps(10_000, 5_000, 0.3), LIMIT)
    assert found.episodes == ()
    assert 0 <= found.evidence < LIMIT
    assert follow(SERIES, REFERENCE, [], LIMIT).episodes == ()


def test_steps_that_come_late_correct_it() -> None:
    made = [*steps(10_000, 500, 0.3), *steps(10_500, 300, 0.6)]
    late = [step for step in made if step[0] % 2 == 0]
    before = follow(SERIES, REFERENCE, late, LIMIT).episodes
    after = follow(SERIES, REFERENCE, made, LIMIT).episodes
    assert len(before) == len(after) == 1
    assert after[0].alarmed <= before[0].alarmed


def test_what_people_say_is_heard() -> None:
    made = [*steps(10_000, 500, 0.3), *steps(10_500, 800, 0.6)]
    (one,) = follow(SERIES, REFERENCE, made, LIMIT).episodes
    at = float(one.alarmed)
    looks = Saying(episode=one.id, word=Word.ACKNOWLEDGE, said=at + 1, note="looking")
    silent = Saying(episode=one.id, word=Word.MUTE, said=at + 2, seconds=60)
    other = Saying(episode="other", word=Word.MUTE, said=at + 3, seconds=1e6)

    def state(*sayings: Saying, now: float, accepted: float | None = None) -> State:
        (found,) = heard([one], sayings, accepted, now)
        return found.state

    assert state(now=at) is State.OPEN
    assert state(looks, looks, now=at + 9) is State.ACKNOWLEDGED
    assert state(silent, looks, other, now=at + 9) is State.MUTED
    assert state(silent, looks, now=at + 62) is State.OPEN
    assert state(looks, now=at + 9, accepted=at + 8) is State.ACCEPTED
    with pytest.raises(ConfigurationError, match="is acknowledged: only one that is open"):
        said(said(one, looks), looks)
    (over,) = follow(SERIES, REFERENCE, [*made, *steps(11_300, 600, 0.3)], LIMIT).episodes
    assert heard([over], [looks, silent], at + 9, at + 9) == (over,)
