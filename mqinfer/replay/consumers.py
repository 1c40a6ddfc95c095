"""Consumers of a run: where each begins and ends, and how far it is.

`run-<run>-<stage>` begins at the run's first sequence and reads what the live stage read. The end
is exact: a message behind it is acknowledged without being handled, so the consumer has settled the
range when its acknowledged floor has reached the end, or when it has nothing left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mqinfer import plan
from mqinfer.completion import roots
from mqinfer.completion.waited import TRACKER
from mqinfer.ports import ConsumerSpec, ConsumerState
from mqinfer.replay import runs
from mqinfer.replay.coverage import RunInput, row_types
from mqinfer.replay.run import State
from mqinfer.rowpacks.which import pack_consumer, pack_subject

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.replay.run import Run
    from mqinfer.replay.runs import Runs


@dataclass(frozen=True, slots=True)
class RunConsumer:
    """One consumer of a run.

    Attributes:
        task: the stage or sink.
        spec: its consumer.
        end: the last sequence, for the replayed stage alone, and while it reads its range.
        packs: a sink's other consumer, for rows that come packed.
    """

    task: plan.Task
    spec: ConsumerSpec
    end: int | None = None
    packs: ConsumerSpec | None = None

    @property
    def specs(self) -> tuple[ConsumerSpec, ...]:
        """All of its consumers."""
        return (self.spec,) if self.packs is None else (self.spec, self.packs)


def consumers(app: App, run: Run) -> list[RunConsumer]:
    """The consumers of a run, each after those whose outputs it reads."""
    taken = runs.taken(app, run)
    found = [_consumer(app, run, task) for task in taken]
    if any(task.stage is not None and task.stage.join is not None for task in taken[1:]):
        found.append(_tracker(app, run))
    rows = row_types(app, run)
    for table, row in (rows | {"mqinfer_run_inputs": RunInput} if rows else {}).items():
        found.append(
            _consumer(app, run, plan.Task(f"sink-{table}", row, plan.SINK_LIMITS, row=row))
        )
    return found


def _tracker(app: App, run: Run) -> RunConsumer:
    """The tracker of the run's own joins."""
    (task,) = plan.tasks(app, [TRACKER])
    spec = plan.consumer_specs(app, task)[0]
    filters = (roots.subject(app, run.name),)
    return RunConsumer(task, replace(spec, name=consumer_prefix(run) + TRACKER, filters=filters))


def consumer_prefix(run: Run) -> str:
    """What the names of the run's consumers begin with."""
    return f"run-{run.name}-"


def _consumer(app: App, run: Run, task: plan.Task) -> RunConsumer:
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
    packs = None
    if task.packs:
        filters = (pack_subject(app, task.reads, run.name),)
        packs = replace(spec, name=pack_consumer(spec.name), filters=filters)
    return RunConsumer(task, spec, run.end if ranged and not run.open else None, packs)


def settled(consumer: RunConsumer, state: ConsumerState | None) -> bool:
    """Whether a consumer has nothing left to do. Pure."""
    if state is None:
        return False
    if consumer.end is not None and state.acknowledged_floor >= consumer.end:
        return True
    return state.lag == 0


async def progress(app: App, run: Run, broker: Any, store: Runs) -> int:
    """How many messages of the range are settled, by all workers together.

    Raises:
        Unavailable: the server does not answer.
    """
    first = consumers(app, run)[0]
    spec = first.spec
    state: ConsumerState | None = await broker.consumer_state(spec.stream, spec.name)
    if run.retries and run.state in (State.RUNNING, State.STOPPED):
        if state is not None:
            return max(0, run.total - state.lag)
        back = await store.store.waiting_after(app.name, spec.filters, 0)
        return max(0, run.total - back)
    if run.open:
        return max(0, state.acknowledged_floor + 1 - run.start) if state is not None else 0
    if state is None:
        return run.total if run.state in (State.DONE, State.PROMOTED) else 0
    if settled(first, state):
        return run.total
    waiting = 0
    if state.delivered < run.end:
        behind = await store.store.waiting_after(app.name, spec.filters, run.end)
        waiting = max(0, state.waiting - behind)
    return max(0, run.total - waiting - state.unacknowledged)
