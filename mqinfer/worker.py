"""Worker: runs the runners of one process, and stops them in order.

The order of a stop (promise 5): runners stop pulling, finish, publish, acknowledge and hand back;
then inference ends, then the connections. Everything runs in task groups: a side task that dies
stops the worker, and no task outlives it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer import plan
from mqinfer.codec import Codec
from mqinfer.errors import Unavailable
from mqinfer.flow import ordered
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.handling import Handling, InBatches, OneByOne
from mqinfer.flow.job import Job
from mqinfer.flow.ordered import OneEach, OrderedRunner, OrderedSettler, Partitions
from mqinfer.flow.runner import Runner
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots
from mqinfer.flow.suspects import Suspects
from mqinfer.identity import CONTENT_TYPE
from mqinfer.model import inference as current_inference
from mqinfer.tables.intotable import IntoTable, dead_letter_row
from mqinfer.tables.sink import Sink

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.inference.inference import Inference
    from mqinfer.message import Message
    from mqinfer.observe import Metrics
    from mqinfer.ports import Broker, ConsumerSpec, Database, Delivery, Feed

log = structlog.get_logger("mqinfer.worker")

LAG_EVERY = 1.0  # seconds between looks at how far consumers are
HEADERS_ROOM = 64 * 1024  # what subject and headers may add to the largest payload


@dataclass(frozen=True, slots=True)
class Services:
    """The outside world, handed in.

    `database` and `inference` may be None when the chosen stages use neither.
    """

    broker: Broker
    store: BlobStore | None
    inference: Inference | None
    database: Database | None
    metrics: Metrics
    inline_limit: int = 65536


class Worker:
    """Stages of one app in one process.

    Args:
        app: the app.
        services: connections.
        stages: names of stages and sinks; None is all.
        grace: seconds that handlers may take to finish when it stops.
        drain: stop by itself when nothing is left to do.
    """

    def __init__(
        self,
        app: App,
        services: Services,
        *,
        stages: Sequence[str] | None = None,
        grace: float = 25.0,
        drain: bool = False,
    ):
        self.app = app
        self.tasks = plan.tasks(app, stages)
        self.runners: list[Runner] = []
        self._services = services
        self._grace = grace
        self._drain = drain
        self._stop = asyncio.Event()
        self._codec = Codec(services.store)
        self._waiting: dict[str, int] = {}  # consumer -> messages that wait for it
        self._floors: dict[str, int] = {}  # consumer -> all up to this sequence is done
        self._created: dict[str, str | None] = {}  # stream -> when it was made
        self._beginning: dict[str, Callable[[], str | None]] = {}  # task -> what it waits for
        self._lane = asyncio.Lock()  # one suspect at a time
        self._started = False

    def stop(self) -> None:
        """Begin an orderly stop; does nothing the second time."""
        self._stop.set()

    def not_ready(self) -> list[str]:
        """Why the worker cannot pull and publish now, a line each; empty when it can."""
        if not self._started:
            return ["starting"]
        broker = self._services.broker.blocked
        reasons = [f"broker: {broker}"] if broker else []
        reasons += [
            f"stage {name}: {reason() or 'it is being prepared'}"
            for name, reason in self._beginning.items()
        ]
        return reasons + [
            f"stage {runner.name}: {runner.blocked}" for runner in self.runners if runner.blocked
        ]

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop` (or, with `drain`, until nothing is left).

        Raises:
            ConflictError: the stream or a consumer exists with settings that do not fit.
            Unavailable: the broker cannot be reached at the start.
            ExceptionGroup: a part of the worker failed.
        """
        broker = self._services.broker
        for stream in (plan.stream_spec(self.app), plan.dead_stream_spec(self.app)):
            await broker.ensure_stream(stream)
            self._created[stream.name] = await broker.stream_created(stream.name)
        await broker.ensure_bucket(
            plan.state_bucket(self.app), max_age=self.app.max_age, replicas=self.app.replicas
        )
        async with self.app.lifespan() if self.app.lifespan else nullcontext():
            current_inference.set(self._services.inference)
            async with asyncio.TaskGroup() as beside:
                helpers = self._start_beside(beside)
                try:
                    await self._work()
                finally:
                    for helper in helpers:
                        helper.cancel()
        try:
            await broker.flush()
        except Unavailable as error:
            # What the broker did not hear it delivers again, and repeats are dropped.
            log.warning("stopped without the broker", app=self.app.name, reason=str(error))
        else:
            log.info("stopped", app=self.app.name)

    def _start_beside(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        helpers = [group.create_task(self._watch_lag(), name="lag")]
        if self._services.inference is not None:
            helpers.append(group.create_task(self._services.inference.run(), name="inference"))
        return helpers

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(self._lost(), name="connection")
            self._beginning = {task.name: lambda: None for task in self.tasks}
            for task in self.tasks:
                # Each makes its own consumer and table, so that one that waits for ClickHouse
                # does not hold up the others.
                group.create_task(self._run_task(task), name=task.name)
            self._started = True
            log.info("started", app=self.app.name, stages=[task.name for task in self.tasks])
            await self._stop.wait()
            lost.cancel()

    async def _lost(self) -> None:
        await self._services.broker.lost()
        raise Unavailable(
            self._services.broker.blocked or "the connection to NATS is closed for good"
        )

    async def _run_task(self, task: plan.Task) -> None:
        await self._ensure(task)
        sink = None
        if task.row is not None:
            assert self._services.database is not None
            sink = table = Sink(self._services.database, task.row)
            self._beginning[task.name] = lambda: table.blocked
            if not await self._unless_stopped(sink.prepare()):
                return
        lifespan = task.stage.lifespan if task.stage else None
        async with lifespan() if lifespan else nullcontext() as state:
            runner = self._runner(task, sink, state)
            self.runners.append(runner)
            del self._beginning[task.name]
            await runner.run(self._stop, self._grace)

    async def _ensure(self, task: plan.Task) -> None:
        if task.ordered:
            await ordered.ensure(self.app, task, self._services.broker)
            return
        await self._recreate(task)

    async def _recreate(self, task: plan.Task) -> None:
        """Make what an operator deleted (or nobody made yet), from where it last was.

        It may as well be there: a pull that hears nothing asks for it too.
        """
        for spec in plan.consumer_specs(self.app, task):
            floor = self._floors.get(spec.name, 0)
            if floor and await self._is_gone(spec):
                spec = replace(spec, start_sequence=floor + 1)
            await self._services.broker.ensure_consumer(spec)

    async def _is_gone(self, spec: ConsumerSpec) -> bool:
        """Whether the consumer was deleted, and not its whole stream, whose numbers begin anew."""
        broker = self._services.broker
        if await broker.consumer_state(spec.stream, spec.name) is not None:
            return False
        return await broker.stream_created(spec.stream) == self._created.get(spec.stream)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await `work`; False if the worker was stopped first."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            stopped = group.create_task(self._stop.wait())
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            done = task.done()
            task.cancel()
            stopped.cancel()
        return done

    def _runner(self, task: plan.Task, sink: Sink | None, state: object) -> Runner:
        app, services = self.app, self._services
        metrics = services.metrics.stage(task.name)
        largest = services.broker.max_payload + HEADERS_ROOM
        slots = (
            OneEach(app.partitions, largest)
            if task.ordered
            else Slots(task.limits.max_in_flight, task.limits.max_bytes, largest)
        )
        emitter = Emitter(
            app,
            task.name,
            task.writes,
            run=None,
            codec=self._codec,
            store=services.store,
            inline_limit=services.inline_limit,
            broker=services.broker,
        )
        loop = asyncio.get_running_loop()

        def released(job: Job) -> None:
            runner.released(job)

        settler = (OrderedSettler if task.ordered else Settler)(
            task.name,
            task.limits,
            broker=services.broker,
            emitter=emitter,
            dead_subject=None if task.dead else plan.dead_subject(app, task.name),
            metrics=metrics,
            released=released,
            clock=loop.time,
        )
        broker: Feed = services.broker
        if task.ordered:
            names = [spec.name for spec in plan.consumer_specs(app, task)]
            broker = Partitions(services.broker, names, task.limits.ack_wait, loop.time)
        handling = handling_of(task, settler, sink, services.metrics)
        runner = (OrderedRunner if task.ordered else Runner)(
            task.name,
            stream=plan.stream_of(app, task),
            consumer=task.name,
            decode=self._decoder(task),
            limits=task.limits,
            handling=handling,
            settler=settler,
            slots=slots,
            broker=broker,
            gates=self._gates(task, handling),
            recreate=lambda: self._recreate(task),
            metrics=metrics,
            suspects=Suspects(
                task.name,
                bucket=plan.state_bucket(app),
                broker=services.broker,
                limits=task.limits,
                lane=self._lane,
            ),
            state=state,
            blobs=services.store,
            clock=loop.time,
        )
        metrics.watch(slots, lambda: self._waiting.get(task.name), lambda: runner.blocked)
        return runner

    def _decoder(self, task: plan.Task) -> Callable[[Delivery], Message]:
        if task.dead:
            return lambda delivery: dead_letter_row(self.app.name, delivery)
        decode, kind = self._codec.decode, task.reads
        return lambda delivery: decode(kind, delivery.data, delivery.headers.get(CONTENT_TYPE))

    def _gates(self, task: plan.Task, handling: Handling) -> list[Callable[[], str | None]]:
        """What may keep a task from pulling."""
        broker, inference = self._services.broker, self._services.inference
        gates: list[Callable[[], str | None]] = [lambda: broker.blocked]
        if isinstance(handling, IntoTable):
            gates.append(lambda: handling.blocked)
        if task.stage is not None and task.stage.models and inference is not None:
            models = task.stage.models
            gates.append(lambda: inference.blocked(models))
        limit = task.limits.max_downstream
        readers = [other.name for other in plan.downstream(self.app, task)]
        if limit is not None and readers:

            def behind() -> str | None:
                for reader in readers:
                    waiting = self._waiting.get(reader, 0)
                    if waiting > limit:
                        return f"{waiting:,} messages wait for {reader} (max_downstream={limit:,})"
                return None

            gates.append(behind)
        return gates

    # --- how far everything is ------------------------------------------------------------------

    async def _watch_lag(self) -> None:
        """Keep the lag of the consumers that matter here, and end a drain."""
        watched = {task.name: task for task in plan.upstream(self.app, self.tasks)}
        for task in self.tasks:
            watched.update({other.name: other for other in plan.downstream(self.app, task)})
        upstream = [task.name for task in plan.upstream(self.app, self.tasks)]
        quiet = 0
        while not self._stop.is_set():
            try:
                lags = {name: await self._lag(task) for name, task in watched.items()}
            except Unavailable:
                quiet = 0
            else:
                done = not any(lags[name] for name in upstream)
                ready = len(self.runners) == len(self.tasks)
                idle = ready and not any(runner.jobs for runner in self.runners)
                quiet = quiet + 1 if done and idle else 0
                if self._drain and quiet >= 2:
                    log.info("nothing is left to do", app=self.app.name)
                    self._stop.set()
            await asyncio.sleep(LAG_EVERY if not self._drain else LAG_EVERY / 4)

    async def _lag(self, task: plan.Task) -> int:
        broker = self._services.broker
        found = [
            await broker.consumer_state(spec.stream, spec.name)
            for spec in plan.consumer_specs(self.app, task)
        ]
        states = [state for state in found if state is not None]
        for state in states:
            floor = max(self._floors.get(state.name, 0), state.acknowledged_floor)
            self._floors[state.name] = floor
        self._waiting[task.name] = sum(state.waiting for state in states)
        lag = sum(state.lag for state in states)
        if self._drain and task.ordered and not lag:
            # What is published is not in a partition yet, but it is left to do.
            lag = int(await broker.uncopied(plan.copy_spec(self.app, task.reads)))
        return lag


def handling_of(task: plan.Task, settler: Settler, sink: Sink | None, metrics: Metrics) -> Handling:
    """What is done with the messages of a task."""
    if sink is not None:
        return IntoTable(sink, settler, task.limits, metrics.sink(sink.schema.name))
    assert task.stage is not None
    return (InBatches if task.stage.signature.batch else OneByOne)(task.stage, settler)


def stop_on_signals(stop: Callable[[], None], abort: Callable[[], None]) -> None:
    """SIGTERM or SIGINT: `stop`; a second one: `abort`."""
    loop = asyncio.get_running_loop()
    seen = 0

    def received() -> None:
        nonlocal seen
        seen += 1
        (stop if seen == 1 else abort)()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)
