"""A run: a server, processes of every role, clients that ask them, jobs, and faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp

from mqinfer import App, plan, testing
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings
from mqinfer.stack.ports import free_port
from mqinfer.testing import Harness
from tests.faults import schedule as schedules
from tests.faults.processes import Proxy, Slot, until
from tests.faults.progress import Progress
from tests.faults.servers import nats_servers
from tests.support.cluster import has_leader

from . import app as served
from . import bulk
from .account import Account
from .client import Client, Told
from .hooks import Hooks
from .kept import Ends, histories, kept, letters, still_open
from .schedule import CLUSTER, SINGLE, Faults
from .tenants import SECRET
from .tenants import write as write_tenants
from .wishes import wish

GATEWAYS = 3
PACE = 150  # clients that begin in a second, at most
BESIDE = 3  # steps between faults whose clients may be at work at once
GRACE = 5.0


class Run:
    """One run, from the start of its server to its account.

    Args:
        folder: for everything it writes.
        requests: clients that ask.
        jobs: that are submitted.
        rows: of each.
        faults: how many.
        seed: of all that is drawn.
        cluster: how many NATS servers.
        kinds: of faults to draw from; None is all.
        patience: seconds without any progress after which the run is given up.
        progress: is told how far it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        requests: int,
        jobs: int,
        rows: int,
        faults: int,
        seed: int,
        cluster: int = 1,
        kinds: Sequence[str] | None = None,
        patience: float = 120.0,
        progress: Progress | None = None,
    ):
        self.nats = nats_servers(folder, cluster)
        self.slots: dict[str, list[Slot]] = {}
        self.proxy: Proxy
        self.account = Account(
            title="one nats-server" if cluster == 1 else f"{cluster} nats-servers, R{cluster}",
            seed=seed,
            requests=requests,
        )
        self.told = [Told(wish(number, seed)) for number in range(requests)]
        self.jobs = [bulk.bulk(number, rows, seed) for number in range(jobs)]
        self._app: App = served.app if cluster == 1 else served.cluster
        self._name = "tests.faults.asking.app:" + ("app" if cluster == 1 else "cluster")
        self._folder = folder
        self._rng = random.Random(seed)
        weights = SINGLE if cluster == 1 else CLUSTER
        weights = {kind: w for kind, w in weights.items() if kinds is None or kind in kinds}
        self._schedule = schedules.draw(self._rng, faults, weights) if faults else []
        self._faults = Faults(self, self._rng)
        self._patience = patience
        self._progress = progress
        self._ports = [free_port() for _ in range(GATEWAYS)]
        self._gateways = [f"http://127.0.0.1:{port}" for port in self._ports]
        self._http: aiohttp.ClientSession
        self._limit = self._begun = self._ended = 0
        self._doing = "the start"
        self._harness: Harness
        self._hooks: Hooks

    async def __call__(self) -> Account:
        """Run it.

        Raises:
            AssertionError: it makes no progress any more; the text says where it stands.
        """
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            ends = await stack.enter_async_context(Ends.heard(self._app, self._harness))
            async with asyncio.TaskGroup() as group:
                slots = [slot for slots in self.slots.values() for slot in slots]
                tasks = [group.create_task(slot.run(), name=slot.name) for slot in slots]
                tasks.append(group.create_task(self._clients(), name="clients"))
                tasks.append(group.create_task(self._submit(), name="jobs"))
                try:
                    await self._work()
                    await self._stop(slots)
                except TimeoutError:
                    raise AssertionError(await self._story()) from None
                finally:
                    for task in tasks:
                        task.cancel()
            # What nobody has told of is told now, or never.
            await self._harness.drain()
            await self._settle(ends)
        self.account.seconds = time.monotonic() - started
        return self.account

    # --- the scene ------------------------------------------------------------------------------

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        for server in self.nats:
            stack.push_async_callback(server.stop)
        await asyncio.gather(*(server.start() for server in self.nats))
        await asyncio.gather(*(server.wait_ready(120) for server in self.nats))
        # For the worker in this process that looks for what is left at the end.
        stack.enter_context(mock.patch.dict(os.environ, {"MQINFER_REQUEST_SECRET": SECRET}))
        self._hooks = await stack.enter_async_context(Hooks.served())
        settings = self._settings(",".join(server.url for server in self.nats))
        if len(self.nats) > 1:
            await testing.until(lambda: has_leader(settings), "a leader of the cluster", 120)
        self.proxy = await stack.enter_async_context(Proxy(self.nats[0].port))
        self._harness = await stack.enter_async_context(Harness(self._app, settings))
        await self._harness.client.requests()
        await self._harness.client.bulk()
        connector = aiohttp.TCPConnector(limit=0)
        self._http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, read_bufsize=2**20)
        )
        through = settings
        if len(self.nats) == 1:
            through = self._settings(f"nats://127.0.0.1:{self.proxy.port}")
        keys = ("--keys", str(write_tenants(self._folder / "keys.toml")), "--private")
        for number, port in enumerate(self._ports):
            command = ("gateway", self._name, "--http", str(port), *keys)
            self._add("gateway", command, through if number else settings)
        roles = {"worker": served.WORKER, "tracker": served.TRACKER, "driver": served.DRIVER}
        for role, stages in roles.items():
            command = ("worker", self._name, *(f"--stage={stage}" for stage in stages))
            self._add(role, command, settings)
            self._add(role, command, through)

    def _settings(self, url: str) -> Settings:
        return Settings.load({}, nats_url=url, blobs=str(self._folder / "blobs"), grace=GRACE)

    def _add(self, role: str, command: Sequence[str], settings: Settings) -> None:
        slots = self.slots.setdefault(role, [])
        arguments = [*command, f"--folder={self._folder}"]
        name = f"{role}-{len(slots)}"
        slots.append(Slot(name, "asking.process", arguments, self._folder, _environ(settings)))

    # --- clients and jobs -----------------------------------------------------------------------

    async def _clients(self) -> None:
        """Let clients begin, up to the limit."""
        async with asyncio.TaskGroup() as group:
            for told in self.told:
                await self._changed(lambda: self._begun < self._limit)
                rng = random.Random(f"client {self.account.seed} {told.wish.number}")
                hook = self._hooks.url(told.wish.number)
                client = Client(told, self._http, self._gateways, rng, hook)
                group.create_task(self._client(client))
                self._begun += 1
                await asyncio.sleep(1 / PACE)

    async def _changed(self, condition: Callable[[], bool]) -> None:
        """Wait for a state of this run, for as long as that takes."""
        while not condition():  # noqa: ASYNC110 - many things change it
            await asyncio.sleep(0.02)

    async def _client(self, client: Client) -> None:
        await client.run()
        self._ended += 1

    async def _submit(self) -> None:
        """Let jobs begin, spread over the run."""
        scene = bulk.Scene(
            client=self._harness.client,
            folder=self._folder,
            app=self._name,
            environ={**os.environ, **_environ(self._harness.settings)},
            http=self._http,
            gateways=self._gateways,
            seed=self.account.seed,
        )
        async with asyncio.TaskGroup() as group:
            for job in self.jobs:
                due = job.number * len(self.told) // len(self.jobs)
                await self._changed(lambda due=due: self._ended >= due)
                group.create_task(bulk.through(job, scene))

    # --- the faults -----------------------------------------------------------------------------

    def release(self) -> None:
        """For a fault that needs work to be done: a little of what later steps would bring."""
        steps = len(self._schedule) + 1
        self._let_in(self._limit + 1 + len(self.told) // steps // 4)

    def _let_in(self, limit: int) -> None:
        self._limit = min(max(limit, self._limit), len(self.told))

    async def _work(self) -> None:
        """Let clients in step by step, with a fault at every step, and wait for their ends."""
        count, every = len(self._schedule), len(self.told)
        slots = [slot for slots in self.slots.values() for slot in slots]
        await self._until(lambda: all(slot.ready for slot in slots))
        for number, kind in enumerate(self._schedule):
            self._let_in(every * (number + 1) // (count + 1))
            # Somewhere within the work of this step, and of what earlier faults held up.
            await asyncio.sleep(self._rng.uniform(0.0, 1.5))
            self._show(kind)
            await self._faults.apply(kind)
            reached = every * (number + 1 - BESIDE) // (count + 1)
            await self._until(lambda reached=reached: self._ended >= reached)
        self._let_in(every)
        self._show("the last clients")
        await self._until(lambda: self._ended >= every)
        self._show("the last jobs")
        await self._until(lambda: all(job.done for job in self.jobs))
        self._show("what nobody waits for")
        await self._all_end()
        self._show("the last webhooks")
        await self._all_told()

    async def _all_end(self) -> None:
        """Wait until no request is open, whoever has asked for it."""
        left, deadline = -1, time.monotonic() + self._patience
        while left and time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                now = await still_open(self._app, self._harness)
                if now != left:
                    left, deadline = now, time.monotonic() + self._patience
            await asyncio.sleep(0.3)
        # What is left open is found in the account, with its history.

    async def _all_told(self) -> None:
        """Wait until the end of each request that wishes it was told at its address."""
        due = [one for one in self.told if one.wish.hook and one.ids]
        left, deadline = -1, time.monotonic() + self._patience
        while left and time.monotonic() < deadline:
            now = sum(one.wish.number not in self._hooks.heard for one in due)
            if now != left:
                left, deadline = now, time.monotonic() + self._patience
            await asyncio.sleep(0.3)

    def _show(self, doing: str) -> None:
        self._doing = doing
        if self._progress is not None:
            self._progress.show(self._ended, sum(self._faults.applied.values()), doing)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something, for as long as there is progress."""
        while not condition():
            ended = self._far()
            self._show(self._doing)
            await until(lambda ended=ended: condition() or self._far() > ended, self._patience)
            if any(slot.exits[1] > 20 for slots in self.slots.values() for slot in slots):
                raise TimeoutError  # they cannot even begin

    def _far(self) -> int:
        return self._ended + sum(job.done for job in self.jobs)

    async def _stop(self, slots: Sequence[Slot]) -> None:
        """Stop everything in order."""
        # One that came a moment ago has no signal handlers yet, and would die of the signal.
        await self._until(lambda: all(slot.ready for slot in slots))
        codes = await asyncio.gather(*(slot.stop(60.0) for slot in slots))
        for slot, code in zip(slots, codes, strict=True):
            if code:
                self.account.unclean.append(f"{slot.name} ({code})")
                self.account.examples.append(f"{slot.name}:\n{slot.tail()}")

    # --- what a fault does to the server --------------------------------------------------------

    @property
    def consumers(self) -> list[tuple[str, str]]:
        """Stream and name of each durable consumer."""
        every = plan.tasks(self._app, (*served.WORKER, *served.TRACKER, *served.DRIVER))
        specs = [spec for task in every for spec in plan.consumer_specs(self._app, task)]
        return [(spec.stream, spec.name) for spec in specs]

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """Delete a consumer, as an operator might by mistake.

        Raises:
            Unavailable: NATS does not answer.
        """
        answer = await self._api(f"CONSUMER.DELETE.{stream}.{name}")
        return bool(answer.get("success"))

    async def leader(self, rng: random.Random) -> str:
        """The server that leads some stream or bucket of the app; "" where none does.

        Raises:
            Unavailable: NATS does not answer.
        """
        streams = {stream for stream, _ in self.consumers} | {f"KV_{self._app.name}-roots"}
        answer = await self._api(f"STREAM.INFO.{rng.choice(sorted(streams))}")
        return str(answer.get("cluster", {}).get("leader") or "")

    async def _api(self, subject: str) -> dict[str, Any]:
        broker: Any = self._harness.services.broker
        found: dict[str, Any] = await broker.client.api(f"$JS.API.{subject}", timeout=2.0)
        return found

    # --- the account ----------------------------------------------------------------------------

    async def _settle(self, ends: Ends) -> None:
        account, harness = self.account, self._harness
        found = await kept(self._app, harness, self.told, ends)
        account.settle(self.told, found, self.jobs)
        account.hooks(self.told, found, self._hooks.heard, self._hooks.odd)
        account.refused = self._hooks.refused
        there = {one.id for one in found}
        paths = (self._folder / "blobs" / "requests").glob("*/*.json")
        account.strays = sum(path.name.partition(".")[0] not in there for path in paths)
        account.dead(await letters(harness))
        account.faults, account.missed = dict(self._faults.applied), dict(self._faults.missed)
        exits: Counter[int] = Counter()
        for slots in self.slots.values():
            for slot in slots:
                exits.update(slot.exits)
        account.exits = {str(code): count for code, count in exits.items()}
        await histories(self._app, harness, account, self.told, self._folder)

    async def _story(self) -> str:
        """Where the run stands, for one that does not end."""
        waits = [one for one in self.told[: self._begun] if not one.ended]
        jobs = [(job.number, sorted(job.ids), job.odd) for job in self.jobs if not job.done]
        lines = [
            f"{self._ended} of {self._begun} clients have ended; {self._doing}; {len(waits)} wait",
            f"jobs: {jobs}",
        ]
        for one in waits[:10]:
            lines += [f"--- {one.wish}", *(f"{at:8.2f} {what}" for at, what in one.history[-15:])]
        for slots in self.slots.values():
            lines += [
                f"--- {slot.name} (pid {slot.pid}, exits {dict(slot.exits)})\n{slot.tail()}"
                for slot in slots
            ]
        return "\n".join(lines)


def _environ(settings: Settings) -> dict[str, str]:
    names = ("nats_url", "blobs", "grace")
    told = {f"MQINFER_{name.upper()}": str(getattr(settings, name)) for name in names}
    return {**told, "MQINFER_LOG_FORMAT": "console", "MQINFER_REQUEST_SECRET": SECRET}
