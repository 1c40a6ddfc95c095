"""Episodes: every way through their life, and none beside it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import ConfigurationError
from mqinfer.monitor import episode as episodes
from mqinfer.monitor.episode import (
    ACCEPT,
    ACKNOWLEDGE,
    MUTE,
    RECOVER,
    UNMUTE,
    Episode,
    State,
    moved,
    muted,
    needed,
    recovered,
    ticked,
)
from mqinfer.monitor.reference import Reference

REFERENCE = Reference(("cat", "dog"), (500, 500), (0.4, 0.4), (0.6, 0.6), (1.0, 1.0))
ALL = (ACKNOWLEDGE, MUTE, UNMUTE, ACCEPT, RECOVER)


def begun(**more: Any) -> Episode:
    return Episode(
        **{
            "id": "e1", "table": "prediction", "column": "label", "model": "grader", "version": "2",
            "key": "cat", "rising": True, "before": 0.5, "after": 0.8, "began": 1_000,
            "alarmed": 1_500, "rows": 150, "evidence": 6e6, **more,
        }
    )  # fmt: skip


def test_its_life() -> None:
    one = begun()
    assert one.lasts
    assert one.stands(now=0)
    seen = moved(one, ACKNOWLEDGE, note="looking")
    assert (seen.state, seen.note) == (State.ACKNOWLEDGED, "looking")
    assert seen.stands(now=0)  # that somebody looks makes it no smaller
    silent = muted(seen, now=100.0, seconds=50.0)
    assert not silent.stands(now=149)
    assert silent.stands(now=150)
    assert ticked(silent, now=149) is silent
    assert ticked(silent, now=150) == msgspec.structs.replace(seen, state=State.OPEN)
    accepted = moved(silent, ACCEPT, ended=160)
    assert not accepted.lasts
    assert not accepted.stands(now=1e9)


@given(st.lists(st.sampled_from(ALL), max_size=8))
def test_what_is_over_stays_over(wishes: list[episodes.Transition]) -> None:
    one = begun()
    for wish in wishes:
        before = one.state
        if before in wish.before:
            one = moved(one, wish)
            assert one.state is wish.after
        else:
            with pytest.raises(ConfigurationError, match=f"is {before}: .* can be {wish.word}"):
                moved(one, wish)
        if before in (State.ACCEPTED, State.CLOSED):
            assert one.state is before


@pytest.mark.parametrize("seconds", [0, -1, float("inf")])
def test_a_mute_has_an_end(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="--for 2h"):
        muted(begun(), now=0, seconds=seconds)


def test_it_is_over_when_as_many_rows_again_are_as_they_were() -> None:
    one = begun()
    assert needed(one) == 300
    assert recovered(one, REFERENCE, (100, 100), now=9) is one  # too few to say
    assert recovered(one, REFERENCE, (240, 60), now=9) is one  # as bad as it was
    over = recovered(moved(one, ACKNOWLEDGE), REFERENCE, (170, 130), now=9)
    assert (over.state, over.ended) == (State.CLOSED, 9)
    strange = begun(key="bird")
    assert recovered(strange, REFERENCE, (170, 130), now=9) is strange


def test_it_is_kept_as_it_is() -> None:
    one = begun(note="ä", until=1.5)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Episode) == one
