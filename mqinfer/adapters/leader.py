"""Whose word about a stream counts in a cluster: its leader's.

For some seconds after a replica comes back that was cut off it answers, too, with what it had then,
and may be quicker than the leader. So it is asked again until the leader is who answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mqinfer.errors import Unavailable

PATIENCE = 5.0  # seconds for which the leader is asked for
_PAUSE = 0.02  # seconds between two questions
# Nanoseconds: nats-server's minElectionTimeout. Before it is over, no replica elects another leader
# than the one that it has heard of.
_ELECTION = 4_000_000_000


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
