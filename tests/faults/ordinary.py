"""Ordinary life: handlers that fail at first, ask for more time or take long; pure.

What befalls a message follows from its stage, number and index alone, so that every one has a known
end: all are answered at last, and none may become a dead letter for it.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mqinfer import Retry, Snooze

ACK_WAIT = float(os.environ.get("FAULTS_ACK_WAIT", "3"))
# Seconds of a slow handler: its message must be renewed, or another worker gets it, too.
SLOW = 1.3 * ACK_WAIT

# Of 1,000 messages of a stage, so many meet each way. A thread is taken by a slow one; a batch that
# waits for one message waits as a whole, so there none is slow and none asks for a plain retry,
# which would spend an attempt of its neighbours.
_WAYS = {
    "split": {"retry": 8, "retry after": 8, "snooze": 8, "fail": 8, "slow": 3},
    "square": {"retry": 8, "retry after": 8, "snooze": 8, "fail": 8, "slow": 3},
    "cube": {"retry": 8, "retry after": 8, "snooze": 8, "fail": 8, "slow": 0.3},
    "score": {"retry": 8, "retry after": 8, "snooze": 8, "fail": 8, "slow": 3},
    "judge": {"retry after": 0.5, "snooze": 0.5, "fail": 2},
    "carry": {"retry": 20, "snooze": 20, "fail": 20, "slow": 5},
    "speak": {"fail": 100, "snooze": 20},
    "note": {"fail": 100, "retry": 50},
}
# How often at most. A stage has five attempts unless it says otherwise: where four fail, one more
# that a restart, an outage or a neighbour spends makes an unexpected dead letter.
_MOST = {"retry": 4, "fail": 1, "retry after": 3, "snooze": 3}


class Way(NamedTuple):
    """What befalls a message: it fails in a way at its first `times` attempts, or it is slow."""

    name: str
    times: int


def way_of(stage: str, number: int, index: int) -> Way | None:
    """What befalls a message in a stage; None for most."""
    chance = zlib.crc32(f"{stage} {number} {index}".encode())
    place = chance % 10_000 / 10
    for name, share in _WAYS[stage].items():
        place -= share
        if place < 0:
            return Way(name, 1 + chance // 10_000 % _MOST.get(name, 1))
    return None


def live(stage: str, attempt: int, number: int, index: int = 0) -> float:
    """What befalls a message at an attempt, from 1.

    Returns:
        seconds that its handler has to take.

    Raises:
        Retry, Snooze, RuntimeError: what the handler fails with.
    """
    way = way_of(stage, number, index)
    if way is None:
        return 0.0
    if way.name == "slow":
        return SLOW
    if attempt > way.times:
        return 0.0
    match way.name:
        case "retry":
            raise Retry("a neighbour was busy")
        case "retry after":
            raise Retry("429", after=0.4)
        case "snooze":
            raise Snooze("not yet", after=0.6)
    raise RuntimeError("as happens at first")


def told(messages: Iterable[tuple[str, int, int]]) -> dict[str, int]:
    """How many of the messages (stage, number, index) meet each way."""
    return dict(Counter(_names(messages)))


def _names(messages: Iterable[tuple[str, int, int]]) -> Iterator[str]:
    for stage, number, index in messages:
        if (way := way_of(stage, number, index)) is not None:
            yield way.name
