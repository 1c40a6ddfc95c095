"""Episode: one alarm from its beginning to its end, and what a person says of it; pure.

    open ── acknowledge ──> acknowledged
    open, acknowledged ── mute until ──> muted ── its time is over, or unmute ──> open
    open, acknowledged, muted ── accept ──> accepted     (what is now becomes the reference)
    open, acknowledged, muted ── recover ──> closed      (what is now is allowed again)

`accepted` and `closed` are the end: what comes later is an episode of its own. As long as one
lasts, further alarms of its series belong to it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mqinfer.errors import ConfigurationError
from mqinfer.monitor.reference import Reference


class State(enum.StrEnum):
    """Where an episode is in its life."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    MUTED = "muted"
    ACCEPTED = "accepted"
    CLOSED = "closed"


class Word(enum.StrEnum):
    """What a person may say of an episode."""

    ACKNOWLEDGE = "acknowledge"
    MUTE = "mute"


_LASTING: Final = (State.OPEN, State.ACKNOWLEDGED, State.MUTED)


@dataclass(frozen=True, slots=True)
class Transition:
    """One thing that may happen to an episode.

    Attributes:
        before: the states in which it may.
        after: the state that follows.
        word: what the episode then was, for error texts.
    """

    before: tuple[State, ...]
    after: State
    word: str


ACKNOWLEDGE = Transition((State.OPEN,), State.ACKNOWLEDGED, "acknowledged")
MUTE = Transition((State.OPEN, State.ACKNOWLEDGED, State.MUTED), State.MUTED, "muted")
UNMUTE = Transition((State.MUTED,), State.OPEN, "unmuted")
ACCEPT = Transition(_LASTING, State.ACCEPTED, "accepted")
RECOVER = Transition(_LASTING, State.CLOSED, "closed")


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm of one series.

    Attributes:
        id: of the episode.
        table: of the rows.
        column: that is watched.
        model: that answered; "" where none did.
        version: of the model.
        key: whose share left what is allowed.
        rising: whether it is more than allowed, or less.
        before: its share in the reference.
        after: its share since it began to change.
        began: the step from which on the evidence was gathered, seconds since the epoch.
        alarmed: the step after which it was enough.
        rows: that it took from the one to the other.
        evidence: when it alarmed.
        again: alarms that followed.
        state: of the episode.
        until: when a mute ends, seconds since the epoch; 0 where it is none.
        ended: seconds since the epoch; 0 while it lasts.
        note: what a person wrote last.
    """

    id: str
    table: str
    column: str
    model: str
    version: str
    key: str
    rising: bool
    before: float
    after: float
    began: int
    alarmed: int
    rows: int
    evidence: float
    again: int = 0
    state: State = State.OPEN
    until: float = 0.0
    ended: float = 0.0
    note: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it is not over."""
        return self.state in _LASTING

    def stands(self, now: float) -> bool:
        """Whether it is an alarm to whoever asks: it lasts, and is not muted (or no longer)."""
        return self.lasts and not (self.state is State.MUTED and now < self.until)


def moved(episode: Episode, transition: Transition, **changes: Any) -> Episode:
    """The episode after a transition.

    Args:
        episode: as it is.
        transition: what happens.
        changes: of other fields.

    Raises:
        ConfigurationError: it may not happen in the state that the episode is in.
    """
    if episode.state not in transition.before:
        raise ConfigurationError(
            f"episode {episode.id} is {episode.state}: only one that is "
            f"{' or '.join(transition.before)} can be {transition.word}"
        )
    return msgspec.structs.replace(episode, state=transition.after, **changes)


def muted(episode: Episode, now: float, seconds: float, note: str = "") -> Episode:
    """The episode, told to be silent for a time.

    Raises:
        ConfigurationError: it is over, or the time is none.
    """
    if not 0 < seconds < float("inf"):
        raise ConfigurationError("a mute has an end: --for 2h, --for 7d")
    return moved(episode, MUTE, until=now + seconds, note=note or episode.note)


def ticked(episode: Episode, now: float) -> Episode:
    """The episode as the clock leaves it: a mute that is over is open again."""
    if episode.state is State.MUTED and now >= episode.until:
        return moved(episode, UNMUTE, until=0.0)
    return episode


def needed(episode: Episode) -> int:
    """Rows after which one looks whether all is well again: twice as many as the alarm took."""
    return max(2 * episode.rows, 200)


def recovered(
    episode: Episode, reference: Reference, counts: tuple[int, ...], now: float
) -> Episode:
    """The episode, closed if its key's share is allowed again.

    Args:
        episode: that lasts.
        reference: of the series.
        counts: since the last alarm, as the reference has keys, of `needed` rows or more.
        now: seconds since the epoch.
    """
    rows = sum(counts)
    if rows < needed(episode) or episode.key not in reference.keys:
        return episode
    place = reference.keys.index(episode.key)
    share = counts[place] / rows
    if reference.low[place] <= share <= reference.high[place]:
        return moved(episode, RECOVER, ended=now)
    return episode
