"""Run: the definition of one replay, and the states of its life.

A run is made once, with its range fixed; after that only its state changes:

    running ── stop ──> stopped ── resume, reopen ──> running
    running ── finish ──> done ── reopen ──> running
                          done ── promote ──> promoted ── undo ──> done
    running, stopped, done ── discard ──> discarding ── erase ──> discarded

A shadow is a run whose range has no end yet: it answers, beside the live stage and with another
version of a model, a share of what is published. Its end is fixed when somebody ends it; from then
on it is a run as any other.

`reopen`: dead letters of a run that was done are sent back to it. Every change is made under the
condition that nobody else was quicker (see `Runs.change`), so no two can be taken at once.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from mqinfer.errors import ConfigurationError

OPEN: Final = -1  # the end of the range of a shadow that goes on
LATE: Final = 30.0


class State(enum.StrEnum):
    """Where a run is in its life."""

    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    PROMOTED = "promoted"
    DISCARDING = "discarding"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Transition:
    """One thing that may happen to a run.

    Attributes:
        before: the states in which it may.
        after: the state that follows.
        word: what the run then was, for error texts.
    """

    before: tuple[State, ...]
    after: State
    word: str


STOP = Transition((State.RUNNING,), State.STOPPED, "stopped")
RESUME = Transition((State.STOPPED,), State.RUNNING, "resumed")
FINISH = Transition((State.RUNNING,), State.DONE, "finished")
REOPEN = Transition((State.DONE, State.STOPPED, State.RUNNING), State.RUNNING, "reopened")
PROMOTE = Transition((State.DONE,), State.PROMOTED, "promoted")
UNDO = Transition((State.PROMOTED,), State.DONE, "undone")
DISCARD = Transition(
    (State.RUNNING, State.STOPPED, State.DONE, State.DISCARDING), State.DISCARDING, "discarded"
)
ERASE = Transition((State.DISCARDING, State.DISCARDED), State.DISCARDED, "erased")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One replay.

    Attributes:
        name: of the run, unique in the app for ever.
        stage: that is replayed.
        start: the first sequence of the range.
        end: the last sequence of the range, fixed when the run was made.
        total: messages of the stage in the range, when the run was made.
        key: of the messages, where only one key is replayed.
        models: `name -> version` that answer in this run instead of what the app asks for.
        rate: most messages a second in each process; None is no limit.
        share: of the request slots of each model that a process may use; 1 is all of them.
        downstream: whether the stages that follow are taken along.
        stages: that were taken; what they were when it was made, whatever the app is now.
        state: of the whole run.
        created: when.
        finished: when the last message was settled.
        retries: how often dead letters of it were sent back; from the first on, the replayed stage
            reads these instead of the range, which is settled.
        order: of promotions, the latest highest; 0 when not promoted.
        applied: whether the tables show what `state` says; a command that was killed left it so.
        notes: what was said about the range when the run was made.
        token: random, so that no two definitions are the same.
        packs: whether its rows may go packed; one that an earlier version made may have workers
            of that version, which would end it while packs wait.
        beside: the share of live messages that a shadow answers beside them; None is a replay.
        late: seconds after which a shadow passes a message over.
    """

    name: str
    stage: str
    start: int
    end: int
    total: int
    key: str | None = None
    models: dict[str, str] = {}
    rate: float | None = None
    share: float = 1.0
    downstream: bool = False
    stages: tuple[str, ...] = ()
    state: State = State.RUNNING
    created: datetime.datetime
    finished: datetime.datetime | None = None
    retries: int = 0
    order: int = 0
    applied: bool = True
    notes: tuple[str, ...] = ()
    token: str = ""
    packs: bool = False
    beside: float | None = None
    late: float = LATE

    @property
    def open(self) -> bool:
        """Whether it goes on with what is published, until somebody ends it."""
        return self.end == OPEN


def may(run: Run, transition: Transition) -> bool:
    """Whether it may happen to a run now."""
    return run.state in transition.before


def moved(run: Run, transition: Transition, **changes: Any) -> Run:
    """The run after a transition.

    Args:
        run: as it is.
        transition: what happens.
        changes: of other fields.

    Raises:
        ConfigurationError: it may not happen in the state that the run is in.
    """
    if not may(run, transition):
        raise ConfigurationError(
            f"run {run.name} is {run.state}: only one that is {' or '.join(transition.before)} "
            f"can be {transition.word}"
        )
    return msgspec.structs.replace(run, state=transition.after, **changes)
