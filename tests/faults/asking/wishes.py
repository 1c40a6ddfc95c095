"""What is asked, by whom and how, and what must come of it: all follows from a number. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

ENDPOINTS = ("grade", "survey", "slow", "once")
NO = "no picture of a plant"
DARK = "too dark"
HELD = 600.0  # seconds of a handler that nobody waits for as long
OTHER = 100  # the number of a grade that came another way begins there
ROWS = 1_000_000  # the number of the first row of the first job

# Of 100 who ask, so many do it like that; the rest wait for the result by long poll.
_EVENTS, _SYNC, _LEAVE = 30, 25, 5
Way = Literal["events", "sync", "poll", "leave"]


@dataclass(frozen=True)
class Wish:
    """What one client asks, and how.

    Attributes:
        number: of the client.
        endpoint: that it asks.
        fields: of the input.
        way: how it waits: on a stream of events, in the call that asks, by long poll, not at all.
        key: whether it asks under a key, and again under the same where it heard nothing.
        twice: whether it asks two gateways at once under its key.
        cancel: seconds after which it cancels, or None.
        malformed: whether the input is none.
        again: whether it looks at the end once more, a little later.
        hook: whether its address is told the end.
        delete: seconds after which it deletes its request, or None.
    """

    number: int
    endpoint: str
    fields: Mapping[str, Any]
    way: Way
    key: bool = False
    twice: bool = False
    cancel: float | None = None
    malformed: bool = False
    again: bool = False
    hook: bool = False
    delete: float | None = None

    @property
    def anew(self) -> Mapping[str, Any]:
        """What it asks under its key once that is free."""
        return {**self.fields, "fan": (self.fields["fan"] + 1) % 51}


@dataclass(frozen=True)
class Truth:
    """What must come of it, unless it is canceled, or its deadline comes first.

    Attributes:
        status: its end.
        answers: in their order.
        errors: kind and reason of each, in their order.
        expires: whether its deadline may come first.
        must: whether it has to.
    """

    status: str
    answers: tuple[Mapping[str, Any], ...]
    errors: tuple[tuple[str, str], ...] = ()
    expires: bool = False
    must: bool = False


# --- what the app does ---------------------------------------------------------------------------


def refused(n: int) -> bool:
    """Whether the first stage rejects the whole of it."""
    return n % 37 == 5


def rejected(n: int, i: int) -> bool:
    """Whether a stage rejects a leaf."""
    return (n + i) % 29 == 4


def broken(n: int, i: int) -> bool:
    """Whether a stage fails on a leaf, however often it tries."""
    return (n + 3 * i) % 149 == 7


def shaped(n: int, i: int) -> bool:
    """Whether another grade comes of a leaf."""
    return i % 5 == 2 and n % 2 == 0


def note(size: int) -> str:
    """What makes a grade large."""
    return "x" * size


def fan(rng: random.Random) -> int:
    """How many leaves come of one: 0 to 50, of most few; 5 on the average."""
    chance = rng.random()
    if chance < 0.60:
        return rng.randint(0, 2)
    if chance < 0.90:
        return rng.randint(3, 10)
    if chance < 0.98:
        return rng.randint(11, 30)
    return rng.randint(31, 50)


# --- what is asked -------------------------------------------------------------------------------


def wish(number: int, seed: int) -> Wish:
    """What the client with this number asks."""
    rng = random.Random(f"{seed} {number}")
    leaves = fan(rng)
    kind, how = rng.random(), rng.randrange(100)
    key, again = rng.random() < 0.5, rng.random() < 0.1
    way: Way = "poll"
    if how < _EVENTS:
        way = "events"
    elif how < _EVENTS + _SYNC:
        way = "sync"
    elif how < _EVENTS + _SYNC + _LEAVE:
        way = "leave"
    twice = key and rng.random() < 0.1
    cancel = rng.uniform(0.0, 1.0) if way != "leave" and rng.random() < 0.08 else None
    fields: dict[str, Any] = {"n": number, "fan": leaves}
    hook = rng.random() < 0.15
    delete = rng.uniform(0.0, 1.5) if rng.random() < 0.05 else None
    if kind < 0.03:
        return Wish(number, "grade", {"n": number, "fan": "many"}, "poll", key, malformed=True)
    if kind < 0.08:
        held = HELD if rng.random() < 0.5 else 0.0
        return Wish(
            number,
            "slow",
            {"n": number, "hold": held},
            way,
            key,
            twice,
            None,
            again=again,
            hook=hook,
        )
    endpoint = "survey" if kind < 0.18 else "once" if kind < 0.4 else "grade"
    if delete is not None:
        if leaves >= 8 and endpoint != "survey":
            fields["size"] = 9_000
        return Wish(number, endpoint, fields, "poll", key, delete=delete)
    if endpoint == "survey":
        return Wish(number, "survey", fields, way, key, twice, cancel, again=again, hook=hook)
    if leaves >= 8 and rng.random() < 0.1:
        fields["size"] = 9_000  # together more than is kept with the request
    return Wish(number, endpoint, fields, way, key, twice, cancel, again=again, hook=hook)


def row(number: int, seed: int) -> tuple[str, str]:
    """The cells of one row of a job: its number and its fan, a few of which are none."""
    rng = random.Random(f"row {seed} {number}")
    return str(number), "many" if rng.random() < 0.02 else str(rng.randint(0, 4))


# --- what must come of it ------------------------------------------------------------------------


def truth(endpoint: str, fields: Mapping[str, Any]) -> Truth:
    """What must come of what is asked."""
    n = int(fields["n"])
    if endpoint == "slow":
        done = tuple({"n": n, "i": i} for i in range(2))
        held = fields["hold"] > 0
        return Truth("succeeded", done[:1] if held else done, (), expires=True, must=held)
    if endpoint in ("grade", "once") and refused(n):
        return Truth("failed", (), (("rejected", NO),))
    if endpoint == "once":
        size = fields.get("size", 0)
        every = tuple({"n": n, "i": i, "note": note(size)} for i in range(int(fields["fan"])))
        return Truth("succeeded", every)
    answers: list[Mapping[str, Any]] = []
    errors: list[tuple[str, str]] = []
    for i in range(int(fields["fan"])):
        if shaped(n, i):
            answers.append({"n": n, "i": OTHER + i, "note": ""})
        if rejected(n, i):
            errors.append(("rejected", DARK))
        elif broken(n, i):
            errors.append(("internal", ""))
        else:
            answers.append({"n": n, "i": i, "note": note(fields.get("size", 0))})
    if endpoint == "survey":
        grades = [one["i"] for one in answers]
        answers = [{"n": n, "grades": grades, "died": len(errors)}]
    status = "succeeded" if not errors else "partial" if answers else "failed"
    return Truth(status, tuple(answers), tuple(errors))


OPEN: Final = ("open", "queued", "running")


def wrong(
    wished: Wish,
    status: str,
    answers: Sequence[Mapping[str, Any]],
    errors: Sequence[Mapping[str, str]],
) -> str | None:
    """What is not as it must be at the end of a request; None: it is as it must be."""
    expected = truth(wished.endpoint, wished.fields)
    if status in OPEN:
        return f"it has not ended: {status}"
    if status == "canceled":
        if wished.cancel is None:
            return "it was canceled, and nobody wished that"
        return "it was canceled, and has answers" if answers else None
    if status == "expired":
        if not expected.expires:
            return "it expired"
        return None if _among(answers, expected.answers) else f"it expired with {list(answers)}"
    if expected.must:
        return f"it should have expired, and is {status}"
    if status != expected.status:
        return f"it is {status}, not {expected.status}"
    if list(answers) != list(expected.answers):
        return f"its answers are {_short(answers)}, not {_short(expected.answers)}"
    found = tuple((one["kind"], one["reason"] * (one["kind"] != "internal")) for one in errors)
    if found != expected.errors:
        return f"its errors are {found}, not {expected.errors}"
    return None


def _among(some: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are some of those, in their order."""
    rest = iter(every)
    return all(any(one == other for other in rest) for one in some)


def _short(answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Answers without what only makes them large."""
    return [{k: v for k, v in one.items() if k != "note"} for one in answers]
