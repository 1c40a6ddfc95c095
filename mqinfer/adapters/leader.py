"""Whose word about a stream counts in a cluster: its leader's.

For some seconds after a replica comes back that was cut off it answers, too, with what it had then,
and may be quicker than the leader. So it is asked again until the leader is who answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mqinfer.errors import Unavailable

T = TypeVar("T")
PATIENCE = 5.0  # seconds for which the leader is asked for
_PAUSE = 0.02  # seconds between two questions
# Nanoseconds: nats-server's minElectionTimeout. Before it is over, no replica elects another leader
# than the one that it has heard of.
_ELECTION = 4_000_000_000
# Nanoseconds after which one that hears of no other leads no more: twice lostQuorumInterval.
_GIVEN_UP = 20_000_000_000
# Seconds after which one that led a stream, was cut off and is back answers for it no more: leaders
# tell each other of themselves every second (hbInterval), and then it follows; as long again.
RETURNING = 2.0


async def found(
    info: Callable[[], Awaitable[dict[str, Any] | None]], ask: Callable[[], Awaitable[T | None]]
) -> T | None:
    """What the leader of a stream answers that does not say who it is.

    "There is none" counts from the leader alone: where another one may be who answers, it is asked
    again for as long as that may last.

    Args:
        info: asks its leader for the stream's info; None is of a stream that is not there.
        ask: asks once for what may be there, whoever says that it leads the stream.
    """
    until = time.monotonic() + RETURNING
    while True:
        now = await info()
        answer = await ask()
        if answer is not None or now is None or followed(now) or time.monotonic() > until:
            return answer
        await asyncio.sleep(5 * _PAUSE)


async def told(ask: Callable[[], Awaitable[dict[str, Any]]], what: str) -> dict[str, Any]:
    """What the leader of a stream answers.

    Args:
        ask: asks once for the stream's info.
        what: the stream, for the error.

    Raises:
        Unavailable: none that leads the stream answers.
    """
    until = time.monotonic() + PATIENCE
    while not leads(info := await ask()):
        if time.monotonic() > until:
            raise Unavailable(f"{what} has no leader now")
        await asyncio.sleep(_PAUSE)
    return info


def leads(info: dict[str, Any]) -> bool:
    """Whether the one that told this leads the stream.

    Whoever leads is not among its replicas, and with itself most of them are there: they have
    answered it within the time after which they would elect another.
    """
    if "cluster" not in info:
        return True  # a server by itself
    leader, replicas = info["cluster"].get("leader"), info["cluster"].get("replicas") or []
    if not leader or any(one["name"] == leader for one in replicas):
        return False
    heard = sum(one.get("active", 0) < _ELECTION for one in replicas)
    return bool(2 * (heard + 1) > len(replicas) + 1)


def followed(info: dict[str, Any]) -> bool:
    """Whether all replicas follow the one that told this, so that none else answers as a leader.

    A former leader that is back and does not know of it yet is not `current`. One that is away for
    long leads nothing any more, wherever it is.
    """
    replicas = info.get("cluster", {}).get("replicas") or []
    return all(
        one.get("active", 0) > _GIVEN_UP
        or (one.get("current") and one.get("active", 0) < _ELECTION)
        for one in replicas
    )
