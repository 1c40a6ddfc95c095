"""A run: servers, worker processes and a producer under a seeded schedule of faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from mqinfer.errors import MqinferError

from . import ordinary, pipeline, shown
from .account import Account
from .counters import Counters
from .deploy import Deployments
from .memory import Memory
from .processes import Proxy, Slot, until
from .progress import Progress
from .schedule import CLUSTER, CONSUMERS, SINGLE, Faults, draw
from .servers import Observer, Servers
from .worker import SINKS

log = structlog.get_logger("faults")

# Which stages run together; every group runs in two processes.
GROUPS = {
    "first": ("split", "square", "cube", "carry"),
    "second": ("score", "judge", "speak", "note"),
    "sink": SINKS,
}


class Run:
    """One run, from the start of its servers to its account.

    Args:
        folder: for everything it writes.
        inputs: to publish.
        faults: how many.
        seed: of the schedule.
        cluster: how many NATS servers.
        kinds: of faults to draw from; None is all.
        patience: seconds without any progress after which the run is given up.
        steady: one more worker, of all stages, that only ever loses its servers, so that its memory
            over a long time tells something.
        progress: is told how far it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        inputs: int,
        faults: int,
        seed: int,
        cluster: int = 1,
        kinds: Sequence[str] | None = None,
        patience: float = 120.0,
        steady: bool = False,
        progress: Progress | None = None,
    ):
        self.servers = Servers(folder, cluster=cluster)
        self.workers: list[Slot] = []
        self.stages: dict[str, tuple[str, ...]] = {}
        self.proxy: Proxy | None = None
        self.producer: Slot
        self.observer: Observer
        self.release: Callable[[], None]
        self.account = Account(
            title="one nats-server" if cluster == 1 else f"{cluster} nats-servers, R{cluster}",
            seed=seed,
            inputs=inputs,
        )
        self._folder = folder
        self._rng = random.Random(seed)
        weights = SINGLE if cluster == 1 else CLUSTER
        weights = {kind: w for kind, w in weights.items() if kinds is None or kind in kinds}
        self._schedule = draw(self._rng, faults, weights)
        self._faults = Faults(self, self._rng)
        self._patience = patience
        self._steady = steady
        self._progress = progress
        self.memory = Memory(self._processes)

    async def __call__(self) -> Account:
        """Run it.

        Raises:
            AssertionError: it makes no progress any more; the text says where it stands.
        """
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.servers)
            if len(self.servers.nats) == 1:
                self.proxy = await stack.enter_async_context(Proxy(self.servers.nats[0].port))
            self.observer = Observer(self.servers.settings())
            await self.observer.patiently(self.observer.__aenter__)
            stack.push_async_exit(self.observer.__aexit__)
            self._make_slots()
            self._deployments = Deployments(
                [slot for slot in self.workers if not slot.steady],
                random.Random(self.account.seed),
            )
            async with asyncio.TaskGroup() as group:
                slots = [*self.workers, self.producer]
                tasks = [group.create_task(slot.run(), name=slot.name) for slot in slots]
                tasks.append(group.create_task(self.memory.run()))
                rolling = group.create_task(self._deployments.run())
                tasks.append(rolling)
                try:
                    await self._work()
                    await self._settle()
                    self._deployments.stop()
                    await rolling
                    await self._stop()
                except TimeoutError:
                    raise AssertionError(await self._story()) from None
                finally:
                    for task in tasks:
                        task.cancel()
            self._sum_up()
        self.account.seconds = time.monotonic() - started
        return self.account

    def _make_slots(self) -> None:
        environ = self.servers.environ()
        through = environ
        if self.proxy is not None:
            through = self.servers.environ(f"nats://127.0.0.1:{self.proxy.port}")
        for group, stages in GROUPS.items():
            # One of the two may be cut off.
            self._add_worker(f"{group}-0", stages, environ)
            self._add_worker(f"{group}-1", stages, through)
        if self._steady:
            every = tuple(stage for stages in GROUPS.values() for stage in stages)
            self._add_worker("steady", every, {**environ, "FAULTS_ROOM": "16"}, steady=True)
        arguments = [f"--folder={self._folder}", f"--inputs={self.account.inputs}"]
        self.producer = Slot("producer", "producer", arguments, self._folder, environ)

    def _add_worker(
        self,
        name: str,
        stages: tuple[str, ...],
        environ: Mapping[str, str],
        *,
        steady: bool = False,
    ) -> None:
        arguments = [f"--folder={self._folder}", *(f"--stage={stage}" for stage in stages)]
        self.stages[name] = stages
        self.workers.append(Slot(name, "worker", arguments, self._folder, environ, steady=steady))

    def _processes(self) -> dict[str, int | None]:
        """All that has memory, by what it is called."""
        servers = self.servers
        return {
            **{f"worker {slot.name}": slot.pid for slot in self.workers},
            "producer": self.producer.pid,
            **{f"nats-server {server.server_name}": server.pid for server in servers.nats},
            "Triton": servers.triton.pid,
            "ClickHouse": servers.clickhouse.pid,
        }

    async def _work(self) -> None:
        """Let inputs in step by step, with a fault at every step."""
        counters = Counters(self._folder / "producer.counters")
        inputs, count = self.account.inputs, len(self._schedule)

        def let_in(limit: int) -> None:
            counters.set("limit", min(max(limit, counters.get("limit")), inputs))

        # For a fault that needs work to be done: a little of what later steps would bring.
        self.release = lambda: let_in(counters.get("limit") + 1 + inputs // count // 8)
        await self._until(lambda: all(slot.ready for slot in self.workers))
        for number, kind in enumerate(self._schedule):
            let_in(inputs * (number + 1) // (count + 1))
            # Somewhere within the work of this step, and of what earlier faults held up.
            await asyncio.sleep(self._rng.uniform(0.0, 1.5))
            let_in(inputs * (number + 2) // (count + 1))
            self._show(kind)
            await self._faults.apply(kind)
            reached = inputs * (number + 1) // (count + 1)
            await self._until(lambda reached=reached: counters.get("published") >= reached)
        let_in(inputs)
        self._show("the last inputs")
        await self._until(lambda: counters.get("published") >= inputs)
        counters.close()

    def _show(self, doing: str) -> None:
        if self._progress is not None:
            published = self.producer.counted("published")
            self._progress.show(published, sum(self._faults.applied.values()), doing)

    async def _settle(self) -> None:
        """Wait until nothing is left to do, for as long as there is progress."""
        quiet = 0
        lags: dict[str, int] = {}
        deadline = time.monotonic() + self._patience
        while quiet < 3:
            with contextlib.suppress(MqinferError):
                now = await self.observer.lags(CONSUMERS)
                if now != lags:
                    lags, deadline = now, time.monotonic() + self._patience
                self._show(f"{sum(max(0, lag) for lag in now.values()):,} messages are left")
                quiet = quiet + 1 if not any(now.values()) else 0
            if time.monotonic() > deadline:
                raise TimeoutError
            await asyncio.sleep(0.3)

    async def _stop(self) -> None:
        # One that came a moment ago has no signal handlers yet, and would die of the signal.
        await self._until(lambda: all(slot.ready for slot in self.workers))
        codes = await asyncio.gather(*(slot.stop(90.0) for slot in self.workers))
        for slot, code in zip(self.workers, codes, strict=True):
            if code != 0:
                self.account.unclean.append(f"{slot.name} ({code})")
                self.account.examples.append(f"{slot.name}:\n{slot.tail()}")
        account = self.account
        account.unclean += self._deployments.unclean
        account.examples += [f"{n}:\n{t}" for n, t in self._deployments.unclean.items()]
        rows = [row async for row in shown.rows(self.observer, account.inputs)]
        dead = await self.observer.dead_letters()
        account.settle(pipeline.expected(range(account.inputs)), rows, dead)
        if account.unexpected:
            account.examples += [
                str(letter) for letter in dead if letter["Mq-Dead-Kind"] != "rejected"
            ][:5]

    def _sum_up(self) -> None:
        account = self.account
        account.faults = dict(self._faults.applied)
        account.missed = dict(self._faults.missed)
        account.replaced = {
            f"by version {version}": count for version, count in self._deployments.replaced.items()
        }
        account.befell = ordinary.told(pipeline.messages(range(account.inputs)))
        exits: Counter[int] = Counter()
        inserted = 0
        for slot in (*self.workers, self.producer):
            exits.update(slot.exits)
            account.redeliveries += slot.counted("redelivered")
            account.duplicate_publishes += slot.counted("duplicates")
            inserted += slot.counted("inserted")
        # Inserts that were killed before they were counted are missing.
        account.duplicate_rows = max(0, inserted - account.rows)
        account.exits = {str(code): count for code, count in exits.items()}

    async def _until(self, condition: Callable[[], bool]) -> None:
        def done() -> bool:
            if any(slot.exits[1] > 20 for slot in self.workers):
                raise TimeoutError  # they cannot even begin
            return condition()

        await until(done, self._patience)

    async def _story(self) -> str:
        """Where the run stands, for one that does not end."""
        self._sum_up()
        counters = Counters(self._folder / "producer.counters")
        lines = [
            self.account.table(),
            f"published {counters.get('published')} of {counters.get('limit')}",
        ]
        for consumer in CONSUMERS:
            with contextlib.suppress(MqinferError):
                answer = await self.observer.api(f"CONSUMER.INFO.{pipeline.app.name}.{consumer}")
                lines.append(f"{consumer}: {answer}")
        lines += [
            f"--- {slot.name} (pid {slot.pid}, exits {dict(slot.exits)})\n{slot.tail()}"
            for slot in (*self.workers, self.producer)
        ]
        return "\n".join(lines)
