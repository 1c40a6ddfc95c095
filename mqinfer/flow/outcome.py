"""Outcome: what becomes of a message whose handling raised: another delivery, or its end. Pure.

| raised | spends an attempt | comes again after |
|---|---|---|
| `Reject` (and what cannot be decoded) | - | never: it is dead-lettered |
| `Unavailable` | no | the stage's backoff |
| `Snooze`, and `Retry` with `after` | no | what it says; never after `snooze_for` |
| `Retry` | one | the stage's backoff |
| anything else, `HandlerTimeout` | one | the stage's backoff |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.errors import Reject, Retry, Snooze, SnoozedTooLong, Unavailable
from mqinfer.flow.past import Past
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from mqinfer.stage import Limits


@dataclass(frozen=True, slots=True)
class Again:
    """It is delivered again.

    Attributes:
        past: what is then known of it.
        delay: seconds.
        snoozed: nothing went wrong.
    """

    past: Past
    delay: float
    snoozed: bool


@dataclass(frozen=True, slots=True)
class Dead:
    """It ends as a dead letter.

    Attributes:
        error: why.
    """

    error: BaseException


def outcome(
    error: BaseException, past: Past, delivery: int, limits: Limits, *, now: float, random: float
) -> Again | Dead:
    """What becomes of a message.

    Args:
        error: that was raised.
        past: of the message.
        delivery: its number, by the server's count.
        limits: of the stage.
        now: seconds since the epoch.
        random: in [0, 1), for the jitter.
    """
    if isinstance(error, Reject):
        return Dead(error)
    if isinstance(error, Unavailable):
        # No fault of the message: it comes back until the server does, however often that is.
        kept = Past(failures=past.failures, tries=past.attempt, explained=delivery)
        return Again(kept, limits.backoff.delay(delivery, random), snoozed=False)
    after = error.after if isinstance(error, (Retry, Snooze)) else None
    if after is not None:
        try:
            after = parse_duration(after)
        except Exception as wrong:  # noqa: BLE001 - the handler's value and its mistake, as any other
            error, after = wrong, None
    if after is not None:
        since = past.snoozed or now
        if now - since > limits.snooze_for:
            text = f"snoozed for more than {limits.snooze_for:g} s (snooze_for): {error}"
            return Dead(SnoozedTooLong(text))
        kept = Past(past.failures, past.attempt, delivery, since)
        return Again(kept, after, snoozed=True)
    failures = past.failures + 1
    if failures >= limits.attempts:
        return Dead(error)
    kept = Past(failures=failures, tries=past.attempt, explained=delivery)
    return Again(kept, limits.backoff.delay(failures, random), snoozed=False)
