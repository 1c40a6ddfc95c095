"""The work of a replay: a bounded stretch of the stream through a stage again, beside the live one.

What a run writes goes to `<app>.run.<run>.<subject>`, which no live consumer's filter matches, and
its rows go to the same tables, invisible (promise 6). Everything that holds for live work holds
here: it is the same runner, with a policy that ends it at a sequence and has it write down what it
covered.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from mqinfer.choice import chosen, root_of_delivery
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.flow.intime import TooLate
from mqinfer.flow.policy import Policy
from mqinfer.replay.consumers import consumers, settled
from mqinfer.replay.coverage import RunInput, row_types
from mqinfer.replay.rate import RatedSlots
from mqinfer.replay.run import State
from mqinfer.replay.runs import retry_subject
from mqinfer.state.states import ensure_states
from mqinfer.worker.work import Aside, Binding, Running

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.flow.job import Job
    from mqinfer.message import Message
    from mqinfer.plan import Task
    from mqinfer.ports import Delivery
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs
    from mqinfer.worker.services import Services

log = structlog.get_logger("mqinfer.replay")

LOOK = 0.25  # seconds between looks at the run's state and its consumers
_LOOK_BESIDE = 1.0  # the same of a shadow, which goes on for days
_REASON = 200  # characters of why a message was passed over


class Replayed(Policy):
    """The replayed stage ends at a sequence, and writes down what it has answered.

    Args:
        app: name of the app.
        run: the run.
        end: the last sequence; infinity for what was sent back.
        covers: whether anybody will ask what was covered.
    """

    def __init__(self, app: str, run: Run, end: float, *, covers: bool):
        self._app = app
        self._run = run
        self._end = end
        self._covers = covers

    def admits(self, delivery: Delivery) -> bool:
        """Whether it lies in the range."""
        return delivery.sequence <= self._end

    def after_answer(self, job: Job, outputs: int) -> Sequence[Message]:
        """The coverage: whatever the outputs of two attempts, it is one."""
        return (self.record(job, outputs),) if self._covers else ()

    def record(self, job: Job, outputs: int, skipped: str = "") -> RunInput:
        """What is written down of a message."""
        return RunInput(
            app=self._app,
            run=self._run.name,
            stage=self._run.stage,
            input=job.id,
            sequence=job.delivery.sequence,
            outputs=outputs,
            skipped=skipped,
        )


class Beside(Replayed):
    """The stage of a shadow takes its share of what comes, and says what it passes over.

    Args:
        app: name of the app.
        run: the shadow.
        end: the last sequence; infinity while it goes on.
        foreign_ids: whether headers say who a message is.
    """

    def __init__(self, app: str, run: Run, end: float, *, foreign_ids: bool):
        super().__init__(app, run, end, covers=True)
        self._foreign_ids = foreign_ids

    def admits(self, delivery: Delivery) -> bool:
        """Whether it lies in the range, and in the share."""
        share = self._run.beside
        if share is None or not super().admits(delivery):
            return False
        root = root_of_delivery(
            delivery.headers, delivery.stream, delivery.sequence, foreign_ids=self._foreign_ids
        )
        return chosen(root, share)

    def instead(self, job: Job, error: BaseException) -> Sequence[Message]:
        """The record that it was passed over, under the id that the answer's record would have."""
        # A name and a line: enough to tell kinds apart, and small where every message fails.
        text = str(error).partition("\n")[0][:_REASON]
        told = text if isinstance(error, TooLate) else f"{type(error).__name__}: {text}"
        return (self.record(job, 0, told),)


class RunWork:
    """A run, to be worked on until it is done or stopped; see `mqinfer.worker.work.Work`.

    Args:
        app: the app.
        services: connections; their inference answers with the run's model versions from now on,
            in the run's share of the slots, and their metrics have its name.
        run: its definition.
        store: the runs of the app.
        only: which of its tasks are worked on here; None is all of them.
        busy: of a shadow, whether something live is being worked on in this process.

    Raises:
        ConfigurationError: the run names models, and there is no inference.
    """

    def __init__(
        self,
        app: App,
        services: Services,
        run: Run,
        store: Runs,
        *,
        only: Callable[[Task], bool] | None = None,
        busy: Callable[[], bool] = lambda: False,
    ):
        self.app = app
        self.run = run
        self.run_name = run.name
        self.waiting: dict[str, int] = {}
        self.lag: dict[str, int] = {}
        self.packs: dict[str, int] = {}
        self._broker = services.broker
        self._runs = store
        self._consumers = {consumer.task.name: consumer for consumer in consumers(app, run)}
        self.tasks = [
            consumer.task
            for consumer in self._consumers.values()
            if only is None or only(consumer.task)
        ]
        self._busy = busy
        self._stages = frozenset(
            name for name, one in self._consumers.items() if one.task.stage is not None
        )
        services.metrics.run = run.name
        if services.inference is not None:
            services.inference.pin(run.models)
            services.inference.share(run.share)
        elif run.models:
            raise ConfigurationError(f"run {run.name} names models, and there is no inference")

    async def survey(self) -> None:
        """A run begins where its definition says."""

    async def ensure(self, task: Task) -> None:
        """Make a consumer; where it is gone since the run was stopped or discarded, end."""
        await ensure_states(self.app, task, self._broker)
        await self.recreate(task)

    async def recreate(self, task: Task) -> None:
        """Make a consumer, unless the run was stopped or discarded meanwhile: `watch` ends then."""
        if (await self._runs.get(self.run.name)).state is State.RUNNING:
            for spec in self._consumers[task.name].specs:
                await self._broker.ensure_consumer(spec)

    def binding(self, task: Task, clock: Callable[[], float]) -> Binding:
        """The run's consumer; the replayed stage keeps to its range, its rate, and its coverage."""
        app, run = self.app, self.run
        consumer = self._consumers[task.name]
        stream, name = consumer.spec.stream, consumer.spec.name
        packs = consumer.packs.name if consumer.packs else None
        live = app.subject(task.reads)
        subjects = (app.subject(task.reads, run.name), live, retry_subject(app, run.name, live))
        if task.name != run.stage:
            return Binding(
                stream,
                name,
                self._broker,
                task.writes,
                run.name,
                pack=run.packs,
                packs=packs,
                among=self._stages,
                subjects=subjects,
            )
        aside = None if run.beside is None else Aside(run.late, self._busy)
        covers = bool(row_types(app, run))
        rate, limits = run.rate, task.limits

        def rated(largest: int, waiting: int) -> RatedSlots:
            assert rate is not None
            return RatedSlots(
                limits.max_in_flight,
                limits.max_bytes,
                largest,
                rate=rate,
                clock=clock,
                max_unhandled=waiting,
            )

        return Binding(
            stream,
            name,
            self._broker,
            (*task.writes, RunInput) if covers else task.writes,
            run.name,
            policy=_policy(app, run, task, math.inf if consumer.end is None else consumer.end),
            slots=rated if rate else None,
            pack=run.packs,
            among=self._stages,
            subjects=subjects,
            aside=aside,
        )

    # --- the end --------------------------------------------------------------------------------

    async def watch(self, worker: Running) -> None:
        """Stop when the run is over, or is not running any more."""
        quiet = 0
        while not worker.stopping:
            try:
                run = await self._runs.get(self.run.name)
                # Once dead letters came back, the replayed stage reads another consumer.
                other = bool(run.retries) != bool(self.run.retries) or run.end != self.run.end
                if run.state is not State.RUNNING or other:
                    log.info("the run is over", run=run.name, state=run.state)
                    worker.stop()
                    return
                if run.open:
                    await self._all_settled()  # for whoever asks how much waits
                    quiet = 0
                    await asyncio.sleep(_LOOK_BESIDE)
                    continue
                # Twice, since stages may write to one another in a circle.
                quiet = quiet + 1 if worker.complete and await self._all_settled() else 0
                if quiet >= 2:
                    await self._runs.finish(run)
                    continue
            except Unavailable as error:
                log.info("the run cannot be looked at", reason=str(error))
            await asyncio.sleep(LOOK)

    async def _all_settled(self) -> bool:
        """Whether every consumer is settled; in the order in which one feeds the other."""
        done = True
        for name, consumer in self._consumers.items():
            waiting = lag = 0
            for spec in consumer.specs:
                state = await self._broker.consumer_state(spec.stream, spec.name)
                more = 0 if state is None else state.waiting
                waiting += more
                lag += 0 if state is None else state.lag
                if spec is consumer.packs:
                    self.packs[name] = more
                done = done and settled(consumer, state)
            self.waiting[name], self.lag[name] = waiting, lag
        return done


def _policy(app: App, run: Run, task: Task, end: float) -> Replayed:
    """Of the replayed stage."""
    if run.beside is not None:
        return Beside(app.name, run, end, foreign_ids=task.reads.__mqinfer__.foreign_ids)
    return Replayed(app.name, run, end, covers=bool(row_types(app, run)))
