"""The faults of the requests half, each applied by a coroutine of its own."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from mqinfer.errors import MqinferError
from tests.faults import blows

from .app import ACK_WAIT
from .process import STEP

if TYPE_CHECKING:
    from tests.faults.processes import Slot

    from .run import Run

log = structlog.get_logger("faults")

ROLES = ("gateway", "worker", "tracker", "driver")
# Kinds of fault and how often each is drawn.
SINGLE = {
    "SIGKILL of a gateway": 5,
    f"SIGKILL of a gateway {STEP}": 8,
    "SIGKILL of a worker": 3,
    f"SIGKILL of a worker {STEP}": 8,
    "SIGKILL of a tracker": 4,
    f"SIGKILL of a tracker {STEP}": 12,
    "SIGKILL of a driver": 2,
    f"SIGKILL of a driver {STEP}": 6,
    "SIGKILL of all gateways": 2,
    "SIGKILL of all trackers": 2,
    "SIGTERM of a gateway": 4,
    "SIGTERM of a worker": 3,
    "SIGTERM of a tracker": 3,
    "SIGTERM of a driver": 1,
    "SIGSTOP of a gateway": 3,
    "SIGSTOP of a worker past ack_wait": 3,
    "SIGSTOP of a tracker past ack_wait": 4,
    "SIGSTOP of a driver past ack_wait": 2,
    "SIGSTOP for a moment": 3,
    "SIGKILL of nats-server": 9,
    "SIGSTOP of nats-server": 4,
    "half-open connections": 4,
    "connections cut": 4,
    "consumer deleted": 3,
}
CLUSTER = {
    "SIGKILL of a leader": 12,
    f"SIGKILL of a gateway {STEP}": 2,
    f"SIGKILL of a worker {STEP}": 2,
    f"SIGKILL of a tracker {STEP}": 3,
    f"SIGKILL of a driver {STEP}": 1,
    "SIGSTOP of nats-server": 2,
}


class Faults:
    """Applies faults to a run and counts them.

    Args:
        run: the processes and servers.
        rng: decides whom and how long.
    """

    def __init__(self, run: Run, rng: random.Random):
        self.applied: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # that did not come about
        self._run = run
        self._rng = rng

    async def apply(self, kind: str) -> None:
        """Let one fault happen and, where it has an end, wait for the end."""
        log.info("fault", kind=kind, number=sum(self.applied.values()) + 1)
        how, _, what = kind.partition(" of ")
        if kind in self._others:
            happened = await self._others[kind](self)
        elif what.startswith("all "):
            happened = self._kill_all(what.removeprefix("all ").removesuffix("s"))
        else:
            role, _, when = what.removeprefix("a ").partition(" ")
            happened = await self._one(how, role, when)
        (self.applied if happened else self.missed)[kind] += 1

    # --- processes ------------------------------------------------------------------------------

    async def _some(self, roles: Sequence[str]) -> Slot:
        """Some process of these roles that is at work."""
        async with asyncio.timeout(120):
            while True:
                slots = [
                    slot
                    for role in roles
                    for slot in self._run.slots[role]
                    if slot.ready and not slot.held.locked()
                ]
                if slots:
                    return self._rng.choice(slots)
                await asyncio.sleep(0.05)

    async def _one(self, how: str, role: str, when: str) -> bool:
        slot = await self._some([role])
        if how == "SIGTERM":
            return await blows.terminate(slot)
        if how == "SIGSTOP":
            return await blows.stand_still(slot, ACK_WAIT * self._rng.uniform(1.3, 2.5))
        if when == STEP:
            # Few enough that there is work for them in this part of the run.
            most = min(60 if role == "driver" else 300, max(10, len(self._run.told) // 8))
            passage = self._rng.randint(1, most)
            return await blows.die_at(slot, STEP, passage, self._run.release)
        return slot.signal(signal.SIGKILL)

    def _kill_all(self, role: str) -> bool:
        killed = [slot.signal(signal.SIGKILL) for slot in self._run.slots[role]]
        return all(killed)

    async def _hesitate(self) -> bool:
        return await blows.stand_still(await self._some(ROLES), self._rng.uniform(0.1, 1.5))

    # --- the server, and the way to it ----------------------------------------------------------

    async def _kill_nats(self) -> bool:
        await blows.restart(self._rng.choice(self._run.nats), self._rng.uniform(0.0, 4.0))
        return True

    async def _kill_leader(self) -> bool:
        """Of a stream, or a bucket, of the app."""
        try:
            name = await self._run.leader(self._rng)
        except MqinferError:
            return False  # an election
        server = next((one for one in self._run.nats if one.server_name == name), None)
        if server is None:
            return False
        await blows.restart(server, self._rng.uniform(2.0, 6.0))
        return True

    async def _freeze_nats(self) -> bool:
        return await blows.freeze(self._rng.choice(self._run.nats), self._rng.uniform(1.0, 7.0))

    async def _half_open(self) -> bool:
        return await blows.half_open(self._run.proxy, ACK_WAIT * self._rng.uniform(1.5, 2.5))

    async def _cut(self) -> bool:
        return await blows.half_open(self._run.proxy, 0.0)

    async def _delete_consumer(self) -> bool:
        stream, name = self._rng.choice(self._run.consumers)
        try:
            return await self._run.delete_consumer(stream, name)
        except MqinferError:
            return False

    _others: ClassVar[dict[str, Callable[[Faults], Coroutine[Any, Any, bool]]]] = {
        "SIGSTOP for a moment": _hesitate,
        "SIGKILL of nats-server": _kill_nats,
        "SIGKILL of a leader": _kill_leader,
        "SIGSTOP of nats-server": _freeze_nats,
        "half-open connections": _half_open,
        "connections cut": _cut,
        "consumer deleted": _delete_consumer,
    }
