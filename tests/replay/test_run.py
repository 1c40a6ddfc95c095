"""The life of a run: every transition from every state."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.replay import run as runs
from mqinfer.replay.run import Run, State, moved

# state -> what may happen to a run there, and the state that follows
LIFE = {
    "running": {"STOP": "stopped", "FINISH": "done", "REOPEN": "running", "DISCARD": "discarding"},
    "stopped": {"RESUME": "running", "REOPEN": "running", "DISCARD": "discarding"},
    "done": {"REOPEN": "running", "PROMOTE": "promoted", "DISCARD": "discarding"},
    "promoted": {"UNDO": "done"},
    "discarding": {"DISCARD": "discarding", "ERASE": "discarded"},
    "discarded": {"ERASE": "discarded"},
}
EVENTS = ("STOP", "RESUME", "FINISH", "REOPEN", "PROMOTE", "UNDO", "DISCARD", "ERASE")


def a_run(state: str) -> Run:
    made = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    return Run(name="r1", stage="s", start=1, end=2, total=2, created=made, state=State(state))


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", EVENTS)
def test_each_transition(state: str, event: str) -> None:
    after = LIFE[state].get(event)
    transition = getattr(runs, event)
    if after is None:
        with pytest.raises(ConfigurationError, match=rf"run r1 is {state}: only one that is"):
            moved(a_run(state), transition)
    else:
        assert moved(a_run(state), transition).state == after


def test_other_fields_change_with_it() -> None:
    done = moved(a_run("done"), runs.PROMOTE, order=3, applied=False)
    assert (done.order, done.applied, done.name) == (3, False, "r1")


def test_it_is_kept_as_its_name() -> None:
    data = msgspec.json.encode(a_run("promoted"))
    assert b'"state":"promoted"' in data
    assert msgspec.json.decode(data, type=Run).state is State.PROMOTED
