"""The faults of a run: drawn from a seed, each applied by a coroutine of its own."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from mqinfer import plan
from mqinfer.errors import Unavailable

from . import blows, model
from .ordinary import ACK_WAIT
from .pipeline import PATIENCE, app
from .worker import HANDLERS, POINTS, SINKS

if TYPE_CHECKING:
    from .harness import Run
    from .processes import Slot

log = structlog.get_logger("faults")

STAGES = (*HANDLERS, *SINKS)
# Durable ones: a sink has a second one, for packs of rows.
CONSUMERS = tuple(
    spec.name for task in plan.tasks(app, STAGES) for spec in plan.consumer_specs(app, task)
)

# Kinds of fault and how often each is drawn; those of ordinary life, beside the deployments that go
# on all the time, and what `ordinary` has in store for a message.
ORDINARY = {
    "SIGSTOP for a moment": 2,
    "SIGKILL of the model's process": 3,
    "a model that is 20 times slower": 2,
    "a model slower than its timeout": 2,
}
SINGLE = {
    **{f"SIGKILL {point}": 3 for point in POINTS},
    "SIGKILL of a worker": 6,
    "SIGTERM of a worker": 4,
    "SIGSTOP past ack_wait": 3,
    "SIGKILL of the producer": 2,
    "SIGKILL of nats-server": 4,
    "SIGKILL of Triton": 3,
    "SIGKILL of ClickHouse": 4,
    "SIGSTOP of a server": 3,
    "consumer deleted": 2,
    "half-open connection": 2,
    "stream full": 2,
    **ORDINARY,
}
CLUSTER = {
    "SIGKILL of a leader": 12,
    "SIGKILL of a worker": 3,
    "SIGKILL between publish and ack": 2,
    "SIGKILL between insert and ack": 2,
    "SIGTERM of a worker": 1,
    "SIGSTOP of a server": 2,
    "consumer deleted": 1,
    **dict.fromkeys(ORDINARY, 1),
}


def draw(rng: random.Random, count: int, weights: dict[str, int]) -> list[str]:
    """`count` kinds of fault in random order; each kind occurs about as often as its weight says.

    Every kind comes at least once where `count` allows it.
    """
    total = sum(weights.values())
    exact = {kind: count * weight / total for kind, weight in weights.items()}
    kinds = [kind for kind, share in exact.items() for _ in range(max(1, int(share)))]
    rest = [kind for kind, weight in weights.items() for _ in range(weight)]
    rng.shuffle(kinds)
    while len(kinds) < count:
        kinds.insert(rng.randrange(len(kinds) + 1), rng.choice(rest))
    return kinds[:count]


class Faults:
    """Applies faults to a run and counts them.

    Args:
        run: the processes and servers.
        rng: decides whom and how long.
    """

    def __init__(self, run: Run, rng: random.Random):
        self.applied: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # whose point was not passed in time
        self._run = run
        self._rng = rng

    async def apply(self, kind: str) -> None:
        """Let one fault happen and, where it has an end, wait for the end."""
        log.info("fault", kind=kind, number=sum(self.applied.values()) + 1)
        if kind.startswith("SIGKILL ") and (point := kind.removeprefix("SIGKILL ")) in POINTS:
            happened = await self._at_point(point)
        else:
            happened = await self._others[kind](self)
        (self.applied if happened else self.missed)[kind] += 1

    # --- processes ------------------------------------------------------------------------------

    async def _worker(self, stages: Sequence[str] = STAGES) -> Slot:
        """Some worker that runs one of the stages and is at work."""
        while True:
            slots = [
                slot
                for slot in self._run.workers
                if slot.ready
                and not (slot.steady or slot.held.locked())
                and set(self._run.stages[slot.name]) & set(stages)
            ]
            if slots:
                return self._rng.choice(slots)
            await asyncio.sleep(0.05)

    async def _at_point(self, point: str) -> bool:
        slot = await self._worker(POINTS[point])
        # Few batches hold what many single messages do.
        batches = "of a batch" in point or "insert" in point
        passage = self._rng.randint(1, 3 if batches else 40)
        return await blows.die_at(slot, point, passage, self._run.release)

    async def _kill(self) -> bool:
        return (await self._worker()).signal(signal.SIGKILL)

    async def _terminate(self) -> bool:
        return await blows.terminate(await self._worker())

    async def _freeze(self) -> bool:
        slot = await self._worker()
        return await blows.stand_still(slot, ACK_WAIT * self._rng.uniform(1.3, 2.0))

    async def _hesitate(self) -> bool:
        return await blows.stand_still(await self._worker(), self._rng.uniform(0.1, 1.0))

    async def _kill_producer(self) -> bool:
        return self._run.producer.signal(signal.SIGKILL)

    # --- servers --------------------------------------------------------------------------------

    async def _kill_nats(self) -> bool:
        servers = self._run.servers
        await blows.restart(self._rng.choice(servers.nats), self._rng.uniform(0.0, 4.0))
        return True

    async def _kill_triton(self) -> bool:
        await blows.restart(self._run.servers.triton, self._rng.uniform(0.0, 3.0))
        return True

    async def _kill_clickhouse(self) -> bool:
        await blows.restart(self._run.servers.clickhouse, self._rng.uniform(0.0, 3.0))
        return True

    async def _kill_leader(self) -> bool:
        run = self._run

        async def leader() -> str:
            name = await run.observer.leader(self._rng)
            if name is None:
                raise Unavailable("nobody leads")
            return name

        name = await run.observer.patiently(leader)
        server = next((s for s in run.servers.nats if s.server_name == name), None)
        if server is None:
            return False
        await blows.restart(server, self._rng.uniform(2.0, 8.0))
        return True

    async def _freeze_server(self) -> bool:
        server = self._rng.choice(self._run.servers.every)
        return await blows.freeze(server, ACK_WAIT * self._rng.uniform(1.3, 2.5))

    # --- a model ------------------------------------------------------------------------------

    async def _kill_model(self) -> bool:
        return await model.kill(self._run.servers.triton)

    async def _slow_model(self) -> bool:
        return await self._slow(20 * model.USUAL, self._rng.uniform(3.0, 8.0))

    async def _hanging_model(self) -> bool:
        return await self._slow(1.3 * PATIENCE, PATIENCE * self._rng.uniform(1.0, 2.0))

    async def _slow(self, pace: float, seconds: float) -> bool:
        servers = self._run.servers
        servers.pace.set(pace)
        try:
            await asyncio.sleep(seconds)
        finally:
            servers.pace.set(model.USUAL)
        return True

    # --- an operator, a network, a disk ---------------------------------------------------------

    async def _delete_consumer(self) -> bool:
        name = self._rng.choice(CONSUMERS)
        observer = self._run.observer
        answer = await observer.patiently(
            lambda: observer.api(f"CONSUMER.DELETE.{app.name}.{name}")
        )
        return bool(answer.get("success"))

    async def _half_open(self) -> bool:
        proxy = self._run.proxy
        if proxy is None:
            return False
        return await blows.half_open(proxy, ACK_WAIT * self._rng.uniform(1.5, 2.5))

    async def _fill_stream(self) -> bool:
        observer = self._run.observer
        await observer.patiently(lambda: observer.limit_stream(1024))
        await asyncio.sleep(self._rng.uniform(1.0, 4.0))
        await observer.patiently(lambda: observer.limit_stream(-1))
        return True

    _others: ClassVar[dict[str, Callable[[Faults], Coroutine[Any, Any, bool]]]] = {
        "SIGKILL of a worker": _kill,
        "SIGTERM of a worker": _terminate,
        "SIGSTOP past ack_wait": _freeze,
        "SIGSTOP for a moment": _hesitate,
        "SIGKILL of the model's process": _kill_model,
        "a model that is 20 times slower": _slow_model,
        "a model slower than its timeout": _hanging_model,
        "SIGKILL of the producer": _kill_producer,
        "SIGKILL of nats-server": _kill_nats,
        "SIGKILL of Triton": _kill_triton,
        "SIGKILL of ClickHouse": _kill_clickhouse,
        "SIGKILL of a leader": _kill_leader,
        "SIGSTOP of a server": _freeze_server,
        "consumer deleted": _delete_consumer,
        "half-open connection": _half_open,
        "stream full": _fill_stream,
    }
