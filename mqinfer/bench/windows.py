"""Windows: a worker in this process, watched for a while, and what the engine counted meanwhile."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mqinfer import plan, wiring
from mqinfer.adapters import admin
from mqinfer.adapters.scan import Scanner
from mqinfer.bench.feed import Feeder, Template
from mqinfer.bench.machine import Busy
from mqinfer.bench.source import Overlay
from mqinfer.bench.timed import TimedInference, Times, timed_stage
from mqinfer.client import Client
from mqinfer.counts import Histogram
from mqinfer.identity import CONTENT_TYPE
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.which import pack_subject, packed, row_subject
from mqinfer.worker.live import LiveWork
from mqinfer.worker.worker import Worker

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.message import Message
    from mqinfer.metrics import StageMetrics
    from mqinfer.settings import Settings
    from mqinfer.streams import Stored
    from mqinfer.worker.services import Services

LOOK = 0.01  # seconds between looks
ASK = 0.1  # seconds between questions to the stream
READY = 120.0  # seconds that a worker may take to begin: a model may have to be loaded
PATIENCE = 60.0  # seconds that a stage may take to its first message
GRACE = 10.0  # seconds that handlers may take to end
TEMPLATES = 1000  # messages of a type that are copied
_BYTES = 32 * 1024 * 1024  # of them, for packs of rows may be large
# Fine enough to read quantiles from: each bound is a twentieth above the one before.
FINE = tuple(1e-4 * 1.05**step for step in range(320))


@dataclass
class Counted:
    """What was counted of one stage, since its worker began or in a window; times in seconds.

    Attributes:
        done: messages answered; a pack of rows is one.
        dead: that ended as dead letters.
        handling: from the start of handlers to the acknowledgement.
        own: processor time of the handler's code on the event loop.
        threads: and in threads.
        wall: from the beginning of handlers to their end.
        inserting: of a sink.
        rows: that a sink stored.
        models: that handlers waited for each model.
        waiting: share of the looks at which there was nothing to handle.
    """

    done: int = 0
    dead: int = 0
    handling: float = 0.0
    own: float = 0.0
    threads: float = 0.0
    wall: float = 0.0
    inserting: float = 0.0
    rows: int = 0
    models: dict[str, float] = field(default_factory=dict)
    waiting: float = 0.0

    def since(self, before: Counted) -> Counted:
        """What came since then."""
        return Counted(
            self.done - before.done,
            self.dead - before.dead,
            self.handling - before.handling,
            self.own - before.own,
            self.threads - before.threads,
            self.wall - before.wall,
            self.inserting - before.inserting,
            self.rows - before.rows,
            {name: of - before.models.get(name, 0.0) for name, of in self.models.items()},
        )


@dataclass
class Window:
    """What a worker did for a while; times in seconds.

    Attributes:
        seconds: that it took, to the last message.
        stages: what was counted of each.
        ages: of each stage, from the stream's time of a message to the acknowledgement.
        loop: processor time of the event loop.
        process: processor time of the whole process.
        machine: share of all cores that was busy.
        batches: items in the average request of each model, since the worker began.
    """

    seconds: float = 0.0
    stages: dict[str, Counted] = field(default_factory=dict)
    ages: dict[str, Histogram] = field(default_factory=dict)
    loop: float = 0.0
    process: float = 0.0
    machine: float = 0.0
    batches: dict[str, float] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """Messages a second of a stage."""
        return self.stages[name].done / self.seconds if self.seconds else 0.0


class Room:
    """The app on servers of its own.

    Args:
        app: as the user wrote it.
        settings: of those servers.
        live: the blobs that messages refer to, only read.
        feeder: publishes.
    """

    def __init__(self, app: App, settings: Settings, live: BlobStore | None, feeder: Feeder):
        self.times = {name: Times() for name in app.stages}
        self.app = copy.copy(app)
        self.app._stages = {
            name: timed_stage(stage, self.times[name]) for name, stage in app.stages.items()
        }
        self._settings = settings
        self._live = live
        self._feeder = feeder
        self._fed = 0

    # --- messages -------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages, and store their blobs."""
        async with self._services(()) as services:
            await services.broker.ensure_stream(plan.stream_spec(self.app))
            await Client(self.app, services).publish_all(messages)

    async def templates(self, kind: type[Message]) -> list[Template]:
        """Messages of a type that lie in the stream; of rows that travel packed the packs."""
        found: list[Template] = []
        size = 0
        subjects = self.app.filters(kind)
        if packed(self.app, kind):
            subjects = (pack_subject(self.app, kind), *subjects)
        async with self.broker() as broker:
            scanner = Scanner(broker.client)
            for subject in subjects:
                async for one in scanner.messages(self.app.name, subject):
                    content_type = one.headers.get(CONTENT_TYPE, "")
                    found.append(Template(one.subject, content_type, one.data, _rows_in(one)))
                    size += len(one.data)
                    if len(found) >= TEMPLATES or size >= _BYTES:
                        return found
        return found

    async def counts(self, broker: JetStream) -> dict[type[Message], int]:
        """How many messages of each type lie in the stream, asked over a connection there is.

        A pack of rows is one.
        """
        found: dict[type[Message], int] = {}
        for subject, count in (await Scanner(broker.client).subjects(self.app.name)).items():
            kind = self.app.kind_of(row_subject(subject) or subject)
            if kind is not None:
                found[kind] = found.get(kind, 0) + count
        return found

    async def stored(self) -> dict[type[Message], int]:
        """How many messages of each type lie in the stream, and of rows how many rows."""
        async with self.broker() as broker:
            found = await self.counts(broker)
            scanner = Scanner(broker.client)
            for kind in found:
                if packed(self.app, kind):
                    subject = pack_subject(self.app, kind)
                    async for pack in scanner.messages(self.app.name, subject):
                        found[kind] += _rows_in(pack) - 1
        return found

    async def reason(self) -> str:
        """Why the newest dead letter failed; "" where there is none."""
        text = ""
        async with self.broker() as broker:
            async for one in Scanner(broker.client).messages(f"{self.app.name}-dead"):
                text = one.headers.get("Mq-Dead-Reason", "")
        return text

    async def purge(self) -> None:
        """Take all messages away; consumers stay."""
        async with self.broker() as broker:
            client = broker.client
            names = {self.app.name, f"{self.app.name}-dead"}
            names |= {plan.stream_of(self.app, task) for task in plan.tasks(self.app)}
            for name in sorted(names):
                if await admin.stream_info(client, name) is not None:
                    await admin.ask(client, f"STREAM.PURGE.{name}", {}, f"stream {name}")

    async def feed(self, templates: Sequence[Template], count: int, rate: float = 0.0) -> None:
        """Publish copies; return when all is stored."""
        self._fed += 1
        await self._feeder.feed(templates, count, f"bench-{self._fed}", rate)

    # --- work -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def working(self, names: Sequence[str]) -> AsyncIterator[Working]:
        """A worker on these stages and sinks, stopped in order at the end."""
        tasks = plan.tasks(self.app, names)
        async with self._services(tasks) as services:
            worker = Worker(
                services, LiveWork(self.app, services.broker, stages=names), grace=GRACE
            )
            running = asyncio.create_task(worker.run())
            try:
                await _ready(worker, running)
                yield Working(self, services, [task for task in tasks if task.declared])
            finally:
                worker.stop()
                await running

    def broker(self) -> JetStream:
        """A connection to the bench's own server."""
        return wiring.jetstream(self.app, self._settings, "bench")

    @asynccontextmanager
    async def _services(self, tasks: Sequence[plan.Task]) -> AsyncIterator[Services]:
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(
                wiring.services(self.app, self._settings, "bench", tasks)
            )
            assert services.store is not None
            changed = {"store": Overlay(services.store, self._live)}
            if services.inference is not None:
                changed["inference"] = TimedInference(services.inference, self.times)  # type: ignore[assignment]
            yield replace(services, **changed)  # type: ignore[arg-type]


class Working:
    """A worker at work, measured from window to window.

    Args:
        room: whose app it works on.
        services: its own.
        tasks: that it works on.
    """

    def __init__(self, room: Room, services: Services, tasks: Sequence[plan.Task]):
        self._room = room
        self._services = services
        self._tasks = tasks
        self._metrics: dict[str, StageMetrics] = {
            task.name: services.metrics.stage(task.name) for task in tasks
        }

    async def until_done(self, name: str, count: int, seconds: float) -> Window:
        """Until a stage has handled so many messages since the worker began, or for so long.

        A stage that handled none by then has until its first, for a while: where others keep the
        machine busy, or a block of rows is large, that is what can be told of it.
        """
        return await self._until(lambda: self._handled(name) >= count, seconds, [name])

    async def until_settled(
        self, seconds: float, feeding: asyncio.Task[None], busy: Sequence[str] = ()
    ) -> Window:
        """Until all is published and handled that a stage reads, or for so long.

        Those that are `busy`, which get some of what is published, have until their first as well.
        """
        settled = over = False

        async def ask() -> None:
            nonlocal settled
            await asyncio.wait([feeding])
            async with self._room.broker() as broker:
                while not (settled or over):
                    # Counted first: what is handled by then has its outputs in the stream.
                    handled = {task.name: self._handled(task.name) for task in self._tasks}
                    counts = await self._room.counts(broker)
                    settled = all(
                        handled[task.name] >= counts.get(task.reads, 0) for task in self._tasks
                    )
                    await asyncio.sleep(ASK)

        asking = asyncio.create_task(ask())
        try:
            return await self._until(lambda: settled or asking.done(), seconds, busy)
        finally:
            over = True  # not cancelled: a question half way would be answered to the next
            await asking
            await feeding

    def _handled(self, name: str) -> int:
        of = self._count(name)
        return of.done + of.dead

    async def _until(
        self, done: Callable[[], bool], seconds: float, first: Sequence[str]
    ) -> Window:
        before = {name: self._count(name) for name in self._metrics}
        handled = {name: of.done + of.dead for name, of in before.items()}
        for each in self._metrics.values():
            each.ages = Histogram(FINE, unit=1e9)
        window = Window(ages={name: each.ages for name, each in self._metrics.items()})
        idle, looks = dict.fromkeys(self._metrics, 0), 0
        busy, began = Busy(), time.perf_counter()
        loop, process = time.thread_time(), time.process_time()
        while True:
            passed = time.perf_counter() - began
            over = done() or passed >= max(seconds, PATIENCE)
            if passed >= seconds and not over:
                over = all(self._handled(name) > handled[name] for name in first)
            for name, each in self._metrics.items():
                idle[name] += not each.gauges().get("in_flight")
            looks += 1
            if over:
                break
            await asyncio.sleep(LOOK)
        window.seconds = time.perf_counter() - began
        window.loop = time.thread_time() - loop
        window.process = time.process_time() - process
        window.machine = busy.share()
        for name in self._metrics:
            window.stages[name] = self._count(name).since(before[name])
            window.stages[name].waiting = idle[name] / looks
        for (model, _), of in self._services.metrics.models.items():
            window.batches[model] = of.items / of.requests if of.requests else 0.0
        return window

    def _count(self, name: str) -> Counted:
        of, times = self._metrics[name], self._room.times.get(name) or Times()
        inserting, rows = 0.0, 0
        if name.startswith("sink-"):
            table = self._services.metrics.sink(name.removeprefix("sink-"))
            inserting, rows = table.seconds.sum, table.rows
        return Counted(
            of.completed,
            sum(of.deaths.values()),
            of.handling.sum,
            times.own,
            times.threads,
            times.wall,
            inserting,
            rows,
            dict(times.models),
        )


def _rows_in(stored: Stored) -> int:
    return 1 if row_subject(stored.subject) is None else layout.count(stored.data)


async def _ready(worker: Worker, running: asyncio.Task[None]) -> None:
    """Return when a worker can pull.

    Raises:
        RuntimeError: it cannot in time.
    """
    until = time.monotonic() + READY
    while reasons := worker.not_ready():
        if running.done():
            await running
        if time.monotonic() > until:
            raise RuntimeError(f"the worker did not begin: {'; '.join(reasons)}")
        await asyncio.sleep(LOOK)


def quantile(histogram: Histogram, share: float) -> float | None:
    """The value below which this share lies, in seconds; None of nothing."""
    wanted, seen = share * sum(histogram.counts), 0
    if not wanted:
        return None
    bounds = [bound / histogram.unit for bound in histogram.bounds]
    for place, count in enumerate(histogram.counts):
        if seen + count >= wanted:
            low = bounds[place - 1] if place else 0.0
            high = bounds[place] if place < len(bounds) else low
            return low + (high - low) * (wanted - seen) / max(count, 1)
        seen += count
    return math.inf
