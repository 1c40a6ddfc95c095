"""Worker: runs the runners of one process, and stops them in order.

The order of a stop (promise 5): runners stop pulling, finish, publish, acknowledge and hand back;
then inference ends, then the connections. Everything runs in task groups: a side task that dies
stops the worker, and no task outlives it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from mqinfer import plan
from mqinfer.completion.waited import asked_of
from mqinfer.errors import ConfigurationError, HandlerHangs, Unavailable
from mqinfer.flow.beat import EVERY, Beat
from mqinfer.flow.runner import Runner
from mqinfer.model import inference as current_inference
from mqinfer.monitor.sealing import keep_counts
from mqinfer.monitor.watched import watched
from mqinfer.requests.sweeping import sweep
from mqinfer.starting import unless
from mqinfer.tables.sink import Sink
from mqinfer.tables.upkeep import keep_up
from mqinfer.worker.assembly import Assembly
from mqinfer.worker.making import make_streams
from mqinfer.worker.presence import Presence
from mqinfer.worker.renewals import Renewals
from mqinfer.worker.tally import Tally
from mqinfer.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from mqinfer.observe import StageMetrics
    from mqinfer.plan import Task
    from mqinfer.stage import Stage
    from mqinfer.tables.tables import TableSchema
    from mqinfer.worker.services import Services
    from mqinfer.worker.work import Work

log = structlog.get_logger("mqinfer.worker")

QUEUEING = 2.0  # seconds from which on a model's calls wait for the model, and not to be gathered
BEATS = 16  # in the shortest ack_wait, at least


class Worker:
    """Works on the tasks of one work in one process.

    Args:
        services: connections.
        work: live messages, or a replay run.
        grace: seconds that handlers may take to finish when it stops.
        around: the worker in whose process this one works on a shadow; what its lifespans yielded
            serves here, too, and it keeps the tables up.

    Attributes:
        states: of the stages that run here, what their lifespans yielded.
    """

    def __init__(
        self, services: Services, work: Work, *, grace: float = 25.0, around: Worker | None = None
    ):
        self.app = work.app
        self.states: dict[str, object] = {}
        self._around = around
        self.work = work
        self.runners: list[Runner] = []
        self._services = services
        shortest = min((task.limits.ack_wait for task in work.tasks), default=math.inf)
        self.beat = Beat(
            min(EVERY, shortest / BEATS), turned=self._turned, catch_up=services.broker.flush
        )
        self._assembly = Assembly(services, work, self.beat)
        self._grace = grace
        self._stop = asyncio.Event()
        self._beginning: dict[str, Callable[[], str | None]] = {}  # task -> what it waits for
        self._started = False
        self._renewals = services.lines and Renewals(
            services.lines,
            lambda: tuple(self.runners),
            self.beat,
            lambda: self.watchdog.given_up,
        )
        self._sinks: list[Sink] = []
        self._refusal: ConfigurationError | None = None
        self.watchdog = Watchdog(
            lambda: tuple(self.runners),
            [task.name for task in work.tasks],
            services.metrics,
            self.beat,
            also=self._renewals.look if self._renewals else lambda: None,
        )

    def stop(self) -> None:
        """Begin an orderly stop; does nothing the second time."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @property
    def complete(self) -> bool:
        """Whether every task has its runner."""
        return len({runner.name for runner in self.runners}) == len(self.work.tasks)

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not any(runner.jobs for runner in self.runners)

    def not_ready(self) -> list[str]:
        """Why the worker cannot pull and publish now, a line each; empty when it can."""
        blocked = self.watchdog.blocked
        if not self._started:
            return [blocked or self._services.patience.reason or "starting"]
        broker = self._services.broker.blocked
        reasons = [f"broker: {broker}"] if broker else []
        if blocked:
            reasons.append(blocked)
        reasons += [
            f"stage {name}: {reason() or 'it is being prepared'}"
            for name, reason in list(self._beginning.items())
        ]
        reasons += [
            f"stage {runner.name}: {runner.blocked}" for runner in self.runners if runner.blocked
        ]
        return list(dict.fromkeys(reasons))  # a sink has two runners

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop`, or until the work ends by itself.

        Raises:
            ConflictError: the stream or a consumer exists with settings that do not fit.
            ConfigurationError: a stage uses a model that no call fits.
            Unavailable: the broker does not answer and is not waited for, or closed the
                connection for good.
            HandlerHangs: it was stopped, and a handler did not end.
            ExceptionGroup: a part of the worker failed.
        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self.beat.beating())
            if self._renewals:
                stack.callback(self._renewals.end)
            stack.enter_context(self.watchdog.watching())
            async with unless(self._stop):
                await self._services.patience.answer(self._ensure_streams)
                if self.app.lifespan and self._around is None:
                    await stack.enter_async_context(self.app.lifespan())
            if self._stop.is_set():
                log.info("stopped", app=self.app.name)
                return
            token = current_inference.set(self._services.inference)
            try:
                await self._work_beside()
            finally:
                current_inference.reset(token)
        try:
            await self._services.broker.flush()
        except Unavailable as error:
            # What the broker did not hear it delivers again, and repeats are dropped.
            log.warning("stopped without the broker", app=self.app.name, reason=str(error))
        else:
            log.info("stopped", app=self.app.name)
        if hanging := [where for runner in self.runners for where in runner.hanging]:
            raise HandlerHangs(
                f"handlers did not end when they were cancelled: {', '.join(hanging)}; what they "
                "had is given to others"
            )

    def _turned(self, seconds: float) -> None:
        """The event loop turns again."""
        blamed = frozenset(self.watchdog.blamed)
        handling = {job.task for runner in self.runners for job in runner.jobs.values()}
        if not blamed <= handling:
            blamed = frozenset()  # a task that somebody started: nobody knows for which message
        for runner in self.runners:
            runner.turned(seconds, blamed)

    async def _ensure_streams(self) -> None:
        await make_streams(self.app, self._services.broker, self._services.timers)
        await self.work.survey()

    async def _work_beside(self) -> None:
        async with asyncio.TaskGroup() as beside:
            bucket = self._services.broker.bucket(plan.state_bucket(self.app))
            tally = Tally(bucket, self._counted)
            presence = Presence(self.work, self._services.broker, self._present)
            helpers = self._start_beside(beside, tally, presence)
            try:
                await self._work()
                await tally.end()
                await presence.end()
            finally:
                for helper in helpers:
                    helper.cancel()
                for setter in self._assembly.setters:
                    await setter.close()
        if self._refusal is not None:
            raise self._refusal

    def _counted(self) -> Iterator[tuple[str, StageMetrics]]:
        told = set()
        for runner in self.runners:
            if runner.name not in told:  # a sink has two, with one account
                told.add(runner.name)
                yield runner.source.consumer, self._services.metrics.stage(runner.name)

    def _present(self) -> tuple[list[str], int, str]:
        in_flight = sum(len(runner.jobs) for runner in self.runners)
        return self.not_ready(), in_flight, self._queueing()

    def _queueing(self) -> str:
        """A model whose calls have waited for longer than batching takes; "" if there is none."""
        if self._services.inference is None:
            return ""
        queues = self._services.inference.statistics().queues
        found = next((one.model for one in queues if one.batcher.oldest > QUEUEING), "")
        self._services.metrics.queueing = bool(found)
        return found

    @property
    def handled(self) -> int:
        """Messages that ended here since the start, by an answer or a dead letter."""
        accounts = [metrics for _, metrics in self._counted()]
        return sum(one.completed + sum(one.deaths.values()) for one in accounts)

    def _start_beside(
        self, group: asyncio.TaskGroup, tally: Tally, presence: Presence
    ) -> list[asyncio.Task[None]]:
        helpers = [
            group.create_task(self.work.watch(self), name="how far"),
            group.create_task(tally.run(), name="tally"),
            group.create_task(presence.run(), name="presence"),
        ]
        core, under = self._services.core, asked_of(self.app) if self.app.endpoints else {}
        if core is not None and any(task.name in under for task in self.work.tasks):
            hearing = self._assembly.canceled.listen(self.app, core)
            helpers.append(group.create_task(hearing, name="canceled requests"))
        store = self._services.store
        if store is not None and any(task.endpoint is not None for task in self.work.tasks):
            helpers.append(group.create_task(sweep(store), name="large answers"))
        database = self._services.database if self._around is None else None
        if database is not None and any(task.row is not None for task in self.work.tasks):
            helpers.append(group.create_task(keep_up(database, self._tables), name="upkeep"))
            rows = {task.row for task in self.work.tasks}
            counted = [one for one in watched(self.app)[0] if one.row in rows]
            if counted:
                counting = keep_counts(database, counted, self.app.name)
                helpers.append(group.create_task(counting, name="counting"))
        if self._services.inference is not None:
            helpers.append(group.create_task(self._services.inference.run(), name="inference"))
            helpers += [
                group.create_task(self._refuse(task.stage), name=f"models of {task.name}")
                for task in self.work.tasks
                if task.stage is not None and task.stage.models
            ]
        return helpers

    def _tables(self) -> list[TableSchema]:
        return [sink.schema for sink in self._sinks]

    async def _refuse(self, stage: Stage) -> None:
        """Stop, in order, when a stage's model turns out to be one that no call fits."""
        assert self._services.inference is not None
        if refusal := await self._services.inference.refusal(stage.models):
            self._refusal = ConfigurationError(f"stage {stage.name}: {refusal}")
            self.stop()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(self._lost(), name="connection")
            patience = self._services.patience
            self._beginning = {task.name: lambda: patience.reason for task in self.work.tasks}
            for task in self.work.tasks:
                # Each makes its own consumer and table, so that one that waits for ClickHouse
                # does not hold up the others.
                group.create_task(self._run_task(task), name=task.name)
            self._started = True
            log.info("started", app=self.app.name, stages=[task.name for task in self.work.tasks])
            await self._stop.wait()
            lost.cancel()

    async def _lost(self) -> None:
        await self._services.broker.lost()
        raise Unavailable(
            self._services.broker.blocked or "the connection to NATS is closed for good"
        )

    async def _run_task(self, task: Task) -> None:
        sink = state = None
        async with AsyncExitStack() as stack:
            async with unless(self._stop):
                await self._services.patience.answer(lambda: self.work.ensure(task))
                if task.row is not None:
                    assert self._services.database is not None
                    sink = table = Sink(
                        self._services.database,
                        task.row,
                        app=self.app.name,
                        metrics=self._services.metrics,
                    )
                    self._beginning[task.name] = lambda: table.blocked
                    await sink.prepare()
                    self._sinks.append(sink)
                if task.stage and self._around is not None:
                    state = self._around.states[task.name]
                elif task.stage and task.stage.lifespan:
                    state = await stack.enter_async_context(task.stage.lifespan())
                    # A client that it opened would answer the handlers, too, which know no pins.
                    current_inference.set(self._services.inference)
            if self._stop.is_set():
                return
            self.states[task.name] = state
            runners = self._assembly.runners(task, sink, state)
            self.runners += runners
            del self._beginning[task.name]
            async with asyncio.TaskGroup() as group:
                for beside in runners[1:]:
                    group.create_task(beside.run(self._stop, self._grace), name=task.name)
                await runners[0].run(self._stop, self._grace)
