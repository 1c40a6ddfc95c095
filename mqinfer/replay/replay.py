"""Replay: a bounded stretch of the stream through a stage again, beside the live one.

A run is a worker of its own consumers: `run-<run>-<stage>` begins at the run's first sequence and
reads what the live stage read; what it writes goes to `<app>.run.<run>.<subject>`, which no live
consumer's filter matches, and rows go to the same tables, invisible (promise 6). Everything that
holds for live work holds here: it is the same runner.

The end is exact. A message behind the end is acknowledged without being handled, so the consumer
has settled the range when its acknowledged floor has reached the end, or when it has nothing left.

For every message that it answered, the replayed stage also writes a `RunInput`, in the same step
as its outputs: the run's word for what it covered, also where it had nothing to say.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from mqinfer import plan
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.flow.emitter import Emitter, blobs_in
from mqinfer.flow.job import Job
from mqinfer.flow.runner import Runner
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots
from mqinfer.flow.suspects import Suspects
from mqinfer.identity import output_id
from mqinfer.message import Message, Row
from mqinfer.ports import ConsumerSpec, ConsumerState, Delivery
from mqinfer.replay import runs
from mqinfer.replay.rate import RatedSlots
from mqinfer.tables.sink import Sink
from mqinfer.worker import HEADERS_ROOM, Services, Worker, handling_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.runs import Run, Runs

log = structlog.get_logger("mqinfer.replay")

LOOK = 0.25  # seconds between looks at the run's state and its consumers
COVERAGE = -1  # the index of a `RunInput` among the outputs of a message


class RunInput(
    Row, frozen=True, table="mqinfer_run_inputs", order_by=("app", "run"), subject="mqinfer-input"
):
    """One message that a run has answered, whether or not anything came of it.

    Attributes:
        app: whose run.
        run: its name.
        stage: that was replayed.
        input: identity of the message.
        sequence: of the message as the run read it; one that was sent back has a new one.
        outputs: how many it led to.
    """

    app: str
    run: str
    stage: str
    input: str
    sequence: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Part:
    """One consumer of a run.

    Attributes:
        task: the stage or sink.
        spec: its consumer.
        end: the last sequence, for the replayed stage alone, and while it reads its range.
    """

    task: plan.Task
    spec: ConsumerSpec
    end: int | None = None


def parts(app: App, run: Run) -> list[Part]:
    """The consumers of a run, each after those whose outputs it reads."""
    stages = runs.taken(app, run)
    found = [_part(app, run, task) for task in stages]
    rows = row_types(app, run)
    for table, row in (rows | {"mqinfer_run_inputs": RunInput} if rows else {}).items():
        found.append(_part(app, run, plan.Task(f"sink-{table}", row, plan.SINK_LIMITS, row=row)))
    return found


def row_types(app: App, run: Run) -> dict[str, type[Row]]:
    """The tables that a run writes to."""
    written = {kind for task in runs.taken(app, run) for kind in task.writes}
    return {table: row for table, row in app.rows.items() if row in written}


def consumer_prefix(run: Run) -> str:
    """What the names of the run's consumers begin with."""
    return f"run-{run.name}-"


def _part(app: App, run: Run, task: plan.Task) -> Part:
    replayed = task.name == run.stage
    # What comes back is read from the beginning by a consumer of its own: the one of the range is
    # past it, or would have to pass over everything live on its way there.
    ranged = replayed and not run.retries
    spec = ConsumerSpec(
        name=consumer_prefix(run) + (runs.RETRIES if replayed and run.retries else task.name),
        stream=app.name,
        filters=runs.filters(app, run) if replayed else app.filters(task.reads, run.name),
        ack_wait=task.limits.ack_wait,
        start_sequence=run.start if ranged else None,
    )
    if task.ordered:  # the order by key is kept by taking one message at a time
        spec = replace(spec, max_ack_pending=1)
    return Part(task, spec, run.end if ranged else None)


def settled(part: Part, state: ConsumerState | None) -> bool:
    """Whether a part has nothing left to do. Pure."""
    if state is None:
        return False
    if part.end is not None and state.acknowledged_floor >= part.end:
        return True
    return state.lag == 0


class RunEmitter(Emitter):
    """An emitter that keeps a run's blobs apart, and a `RunInput` from the outputs."""

    async def prepare(self, outputs: Sequence[Message]) -> None:
        """As `Emitter.prepare`; a path that the handler chose is one below the run's folder."""
        for output in outputs:
            for blob in blobs_in(output):
                blob.keep_under(f"runs/{self._run}")
        await super().prepare(outputs)

    def make(
        self, job: Job, outputs: Sequence[Message], first: int = 0
    ) -> list[tuple[bytes, bytes, bytes]]:
        """As `Emitter.make`; whatever the outputs of two attempts, their coverage is one."""
        made = super().make(job, [one for one in outputs if type(one) is not RunInput], first)
        context = job.context
        assert context is not None
        for output in outputs:
            if type(output) is RunInput:
                outlet = self._outlets[RunInput]
                identity = output_id(context.id, self._stage, self._run, COVERAGE)
                header = (outlet.head + identity + self._tail(job)).encode(
                    "utf-8", "surrogateescape"
                )
                made.append((outlet.subject, header, self._codec.encode(output)))
        return made


class CoveringSettler(Settler):
    """A settler that writes down what the replayed stage has answered."""

    covers: tuple[str, str] = ("", "")  # app and run

    def answered(self, job: Job, outputs: Sequence[Message], first: int = 0) -> None:
        """Publish the outputs and the coverage, then acknowledge."""
        app, run = self.covers
        covered = RunInput(
            app=app,
            run=run,
            stage=self._stage,
            input=job.id,
            sequence=job.delivery.sequence,
            outputs=first + len(outputs),
        )
        super().answered(job, [*outputs, covered], first)


class RunRunner(Runner):
    """A runner that ends at a sequence and tells its handlers which run they are in."""

    end: float = math.inf
    run_name: str = ""
    pass_over: Callable[[Delivery], None]

    def _arrived(self, delivery: Delivery) -> None:
        if delivery.sequence <= self.end:
            super()._arrived(delivery)
            return
        self.slots.arrive(delivery.size)
        self.slots.release(delivery.size)
        self.pass_over(delivery)
        self._ask_soon()

    def _open(self, job: Job) -> bool:
        opened = super()._open(job)
        if job.context is not None:
            job.context.run = self.run_name
        return opened


class RunWorker(Worker):
    """One process that works on a run until the run is done or stopped.

    Args:
        app: the app.
        services: connections; their inference answers with the run's model versions from now on,
            in the run's share of the slots.
        run: its definition.
        store: the runs of the app.
        grace: seconds that handlers may take to finish when it stops.
    """

    def __init__(self, app: App, services: Services, run: Run, store: Runs, *, grace: float = 25.0):
        super().__init__(app, services, grace=grace)
        self.definition = run
        self._runs = store
        self._parts = {part.task.name: part for part in parts(app, run)}
        self.tasks = [part.task for part in self._parts.values()]
        if run.models:
            if services.inference is None:
                raise ConfigurationError(f"run {run.name} names models, and there is no inference")
            services.inference.pin(run.models)
        if services.inference is not None:
            services.inference.share(run.share)

    async def _ensure(self, task: plan.Task) -> None:
        await self._recreate(task)

    async def _recreate(self, task: plan.Task) -> None:
        """Make a consumer, unless the run was stopped or discarded meanwhile."""
        if (await self._runs.get(self.definition.name)).state == "running":
            await self._services.broker.ensure_consumer(self._parts[task.name].spec)
        else:
            self.stop()

    def _runner(self, task: plan.Task, sink: Sink | None, state: object) -> Runner:
        app, services, run = self.app, self._services, self.definition
        part = self._parts[task.name]
        replayed = task.name == run.stage
        covers = replayed and "sink-mqinfer_run_inputs" in self._parts
        metrics = services.metrics.stage(task.name)
        loop = asyncio.get_running_loop()
        bounds = (
            task.limits.max_in_flight,
            task.limits.max_bytes,
            services.broker.max_payload + HEADERS_ROOM,
        )
        slots = (
            RatedSlots(*bounds, rate=run.rate, clock=loop.time)
            if replayed and run.rate
            else Slots(*bounds)
        )
        emitter = RunEmitter(
            app,
            task.name,
            (*task.writes, RunInput) if covers else task.writes,
            run=run.name,
            codec=self._codec,
            store=services.store,
            inline_limit=services.inline_limit,
            broker=services.broker,
        )

        def released(job: Job) -> None:
            runner.released(job)

        settler = (CoveringSettler if covers else Settler)(
            task.name,
            task.limits,
            broker=services.broker,
            emitter=emitter,
            dead_subject=plan.dead_subject(app, task.name),
            metrics=metrics,
            released=released,
            clock=loop.time,
            run=run.name,
        )
        if isinstance(settler, CoveringSettler):
            settler.covers = (app.name, run.name)
        handling = handling_of(task, settler, sink, services.metrics)
        runner = RunRunner(
            task.name,
            stream=part.spec.stream,
            consumer=part.spec.name,
            decode=self._decoder(task),
            limits=task.limits,
            handling=handling,
            settler=settler,
            slots=slots,
            broker=services.broker,
            gates=self._gates(task, handling),
            recreate=lambda: self._recreate(task),
            metrics=metrics,
            suspects=Suspects(
                part.spec.name,
                bucket=plan.state_bucket(app),
                broker=services.broker,
                limits=task.limits,
                lane=self._lane,
            ),
            state=state,
            blobs=services.store,
            clock=loop.time,
        )
        runner.run_name = run.name
        runner.pass_over = services.broker.ack
        if part.end is not None:
            runner.end = part.end
        metrics.watch(slots, lambda: self._waiting.get(task.name), lambda: runner.blocked)
        return runner

    # --- the end --------------------------------------------------------------------------------

    async def _watch_lag(self) -> None:
        """Stop when the run is over, or is not running any more."""
        quiet = 0
        while not self._stop.is_set():
            try:
                run = await self._runs.get(self.definition.name)
                # Once dead letters came back, the replayed stage reads another consumer.
                other = bool(run.retries) != bool(self.definition.retries)
                if run.state != "running" or other:
                    log.info("the run is over", run=run.name, state=run.state)
                    self.stop()
                    return
                ready = len(self.runners) == len(self.tasks)
                # Twice, since stages may write to one another in a circle.
                quiet = quiet + 1 if ready and await self._all_settled() else 0
                if quiet >= 2:
                    await self._runs.finish(run)
                    continue
            except Unavailable as error:
                log.info("the run cannot be looked at", reason=str(error))
            await asyncio.sleep(LOOK)

    async def _all_settled(self) -> bool:
        """Whether every part is settled; looked at in the order in which one feeds the other."""
        done = True
        for name, part in self._parts.items():
            state = await self._services.broker.consumer_state(part.spec.stream, part.spec.name)
            self._waiting[name] = 0 if state is None else state.waiting
            done = done and settled(part, state)
        return done


async def progress(app: App, run: Run, broker: Any, store: Runs) -> int:
    """How many messages of the range are settled, by all workers together.

    Raises:
        Unavailable: the server does not answer.
    """
    part = parts(app, run)[0]
    state: ConsumerState | None = await broker.consumer_state(part.spec.stream, part.spec.name)
    if run.retries and run.state in ("running", "stopped"):
        if state is not None:
            return max(0, run.total - state.lag)
        back = await store.store.waiting_after(app.name, part.spec.filters, 0)
        return max(0, run.total - back)
    if state is None:
        return run.total if run.state in ("done", "promoted") else 0
    if settled(part, state):
        return run.total
    waiting = 0
    if state.delivered < run.end:
        behind = await store.store.waiting_after(app.name, part.spec.filters, run.end)
        waiting = max(0, state.waiting - behind)
    return max(0, run.total - waiting - state.unacknowledged)
