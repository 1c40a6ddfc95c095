"""Plan: which consumers a worker runs, and the names and specifications of everything. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mqinfer.backoff import Backoff
from mqinfer.completion import roots
from mqinfer.completion.waited import (
    DEADLINE,
    TRACKER,
    Settled,
    bulk_kinds,
    joins_of,
    recorded,
    waits,
)
from mqinfer.errors import ConfigurationError
from mqinfer.flow.ordered.places import WINDOW, Places
from mqinfer.jobs import places as places_of_jobs
from mqinfer.jobs.places import Driven
from mqinfer.message import Message
from mqinfer.ports import ConsumerSpec, CopyOf, StreamSpec
from mqinfer.requests import places as places_of_requests
from mqinfer.requests.places import Open
from mqinfer.rowpacks.which import pack_consumer, pack_subject
from mqinfer.schedule import Schedule
from mqinfer.stage import Limits
from mqinfer.tables.tables import DeadLetterRow
from mqinfer.task import Task as Task
from mqinfer.timers.places import stream_of as timers_stream

if TYPE_CHECKING:
    from mqinfer.app import App

DEAD_SINK = "sink-mqinfer_dead_letters"
COPY_WINDOW = 0.1  # seconds; the least that JetStream takes

# A sink works in large blocks: at most a second of age in steady state, up to this many rows
# under load. Its block waits out an outage of ClickHouse by itself, so it has no timeout.
SINK_BATCH = 50_000
SINK_WAIT = 0.8
SINK_LIMITS = Limits(
    max_in_flight=2 * SINK_BATCH,
    max_bytes=128 * 1024 * 1024,
    timeout=float("inf"),
    attempts=5,
    backoff=Backoff(initial=1.0),
    batch_size=SINK_BATCH,
    batch_wait=SINK_WAIT,
)

# Records of one root that are taken in together cost one write.
TRACKER_LIMITS = Limits(
    max_in_flight=8192,
    timeout=float("inf"),
    ack_wait=10.0,  # a tracker that died holds up joins for no longer
    concurrency=2,
    batch_size=2000,
    batch_wait=0.02,
)
# A chunk has many more records than a request, and nobody waits for it.
BULK_WAIT, BULK_BATCH = 0.1, 256
DEADLINE_LIMITS = Limits(
    max_in_flight=512, timeout=float("inf"), concurrency=2, batch_size=256, batch_wait=0.0
)
JOBS_LIMITS = Limits(
    max_in_flight=512,
    timeout=float("inf"),
    ack_wait=10.0,
    concurrency=16,  # one that writes the files of a large job must not hold up others
    batch_size=64,
    batch_wait=0.0,
)
# Open requests of an endpoint that the server remembers for a task, which was given each once.
OPEN = 50_000


def tasks(app: App, names: Sequence[str] | None = None) -> list[Task]:
    """The consumers that a worker runs.

    Args:
        app: whose stages and tables.
        names: of stages and sinks; None is all of them.

    Raises:
        ConfigurationError: a name is none of the app's; the text lists those there are.
        WiringError: the app's wiring is wrong.
    """
    known = {}
    for stage in app.stages.values():
        known[stage.name] = Task(stage.name, stage.reads, stage.limits, stage=stage)
    for table, row in app.rows.items():
        known[f"sink-{table}"] = Task(f"sink-{table}", row, SINK_LIMITS, row=row)
    if app.rows:  # who has tables wants to ask there what failed, too
        known[DEAD_SINK] = Task(DEAD_SINK, DeadLetterRow, SINK_LIMITS, row=DeadLetterRow, dead=True)
    joins = joins_of(app)
    if waits(app):
        # Somebody waits for the answer to a request, and nobody for when a join is called.
        limits = replace(TRACKER_LIMITS, batch_wait=0.0) if app.endpoints else TRACKER_LIMITS
        known[TRACKER] = Task(TRACKER, Settled, limits, tracker=True)
    for join in joins.values():
        if join.deadline is not None:
            name = DEADLINE + join.name
            known[name] = Task(name, join.root, DEADLINE_LIMITS, deadline=join)
    for endpoint in app.endpoints.values():
        name = places_of_requests.TASK + endpoint.name
        known[name] = Task(name, Open, DEADLINE_LIMITS, endpoint=endpoint)
    if app.endpoints:
        known[places_of_jobs.TASK] = Task(places_of_jobs.TASK, Driven, JOBS_LIMITS, jobs=True)
    if not known:
        raise ConfigurationError(f"app {app.name} has no stages: declare one with @app.stage")
    if names is None:
        return list(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(
            f"app {app.name} has no stage {', '.join(unknown)}; it has {', '.join(known)}"
        )
    return [known[name] for name in dict.fromkeys(names)]


def backlog(app: App, names: Sequence[str] | None = None) -> tuple[tuple[str, str], ...]:
    """Streams and consumers whose messages wait for a worker of these stages and sinks.

    Those that wait for a deadline of their own are left out: no worker would make them fewer.
    """
    return tuple(
        (spec.stream, spec.name)
        for task in tasks(app, names)
        if not task.waits
        for spec in consumer_specs(app, task)
    )


def upstream(app: App, chosen: Iterable[Task]) -> list[Task]:
    """The tasks of the app that something of `chosen` waits for, themselves included."""
    everything = tasks(app)
    feeds = _feeds(app)
    found = {task.name: task for task in chosen}
    todo = list(found.values())
    while todo:
        one = todo.pop()
        for task in everything:
            if feeds(task, one) and task.name not in found:
                found[task.name] = task
                todo.append(task)
    return list(found.values())


def _feeds(app: App) -> Callable[[Task, Task], bool]:
    """Whether what a task does gives another one messages: outputs, records, or what joins get."""
    under = recorded(app)

    def feeds(task: Task, other: Task) -> bool:
        if other.waits:
            return False
        if other.tracker:
            return task.name in under
        if task.tracker:
            return other.stage is not None and other.stage.join is not None
        return other.reads in task.writes

    return feeds


def downstream(app: App, task: Task) -> list[Task]:
    """The tasks that read what `task` writes, the tracker included."""
    feeds = _feeds(app)
    return [other for other in tasks(app) if feeds(task, other)]


def ahead(app: App, task: Task) -> list[Task]:
    """The tasks that read what `task` writes, and do not lead back to it.

    A stage that waited for one of a loop of which it is a part would wait for itself.
    """
    return [other for other in downstream(app, task) if task not in _reached(app, other)]


def _reached(app: App, task: Task) -> list[Task]:
    """All that comes of what `task` reads, itself included."""
    found = [task]
    for one in found:  # grows
        found += [other for other in downstream(app, one) if other not in found]
    return found


def readers(app: App, kind: type[Message], run: str | None = None) -> frozenset[str]:
    """What the stages and sinks that read `kind` are called in `Mq-Only`.

    Args:
        app: whose they are.
        kind: a message type.
        run: a replay run, whose consumers may read them as well.
    """
    names = {task.name for task in tasks(app) if task.reads is kind and task.deadline is None}
    if run is not None:
        names |= {f"run-{run}-{name}" for name in names}
    return frozenset(names)


def stream_spec(app: App, *, timers: bool | None = None) -> StreamSpec:
    """The app's stream; where there are timers, what comes of them is copied into it.

    Args:
        app: the app.
        timers: whether there are; None is whether a stage has any. A stream that copies goes on to
            do so when nobody asks for it any more.
    """
    stream = timers_stream(app.name)
    copies = CopyOf(stream, ((f"{stream}.*.*.fired.>", f"{app.name}.>"),))
    return StreamSpec(
        name=app.name,
        subjects=(f"{app.name}.>",),
        max_age=app.max_age,
        max_bytes=app.max_bytes,
        replicas=app.replicas,
        duplicate_window=app.duplicate_window,
        copies=copies if (uses_timers(app) if timers is None else timers) else None,
    )


def uses_timers(app: App) -> bool:
    """Whether a stage of the app sets timers, or the clock feeds one."""
    stages, _ = app.resolve()  # also of an app with mistakes, which are told elsewhere
    return any(stage.later or stage.clock is not None for stage in stages.values())


def timers_spec(app: App) -> StreamSpec:
    """The stream of the app's timers.

    What waits in it has no age. What has come, or was cancelled, is remembered for longer than the
    message can be delivered again that asked for it, and than the app's stream may be full.
    """
    name = timers_stream(app.name)
    return StreamSpec(
        name=name,
        subjects=(f"{name}.>",),
        max_age=2 * app.max_age + 3600.0 if app.max_age else 0.0,
        replicas=app.replicas,
        schedules=True,
    )


def dead_stream_spec(app: App) -> StreamSpec:
    """The stream of the app's dead letters; kept four times as long as the messages."""
    return StreamSpec(
        name=f"{app.name}-dead",
        subjects=(f"dead.{app.name}.>",),
        max_age=4 * app.max_age,
        replicas=app.replicas,
        duplicate_window=app.duplicate_window,
    )


def stream_specs(app: App) -> list[StreamSpec]:
    """The streams of an app, but for the copies of ordered types; each behind what it copies."""
    specs = [timers_spec(app)] if uses_timers(app) else []
    specs += [stream_spec(app), dead_stream_spec(app)]
    specs += [records_spec(app)] if waits(app) else []
    return [*specs, places_of_requests.events_spec(app)] if app.endpoints else specs


def records_spec(app: App) -> StreamSpec:
    """The stream of what was settled below what is waited for; see `completion.record`."""
    return StreamSpec(
        name=roots.stream(app),
        subjects=(f"settled.{app.name}.>",),
        max_age=app.max_age,
        replicas=app.replicas,
        duplicate_window=app.duplicate_window,
    )


def dead_subject(app: App, name: str) -> str:
    """Where the dead letters of a stage or sink go."""
    return f"dead.{app.name}.{name}"


def state_bucket(app: App) -> str:
    """Where workers keep what they must know of one another."""
    return f"{app.name}-state"


def workers_bucket(app: App) -> str:
    """Where workers say that they are there."""
    return f"{app.name}-workers"


def schedule_bucket(app: App) -> str:
    """Where workers keep how far each schedule is."""
    return f"{app.name}-schedules"


def clocked(app: App) -> dict[str, Schedule]:
    """The schedules of an app's stages."""
    return {name: stage.clock for name, stage in app.stages.items() if stage.clock is not None}


def memory_bucket(app: App) -> str:
    """Where the states of stages are kept."""
    return f"{app.name}-memory"


def owners_bucket(app: App) -> str:
    """Where the tokens of partitions are; nothing in it ever grows old."""
    return f"{app.name}-owners"


def token(task: Task, number: int) -> str:
    """The key of the token of a partition."""
    return f"{task.name}.{number}"


def places(app: App, task: Task) -> Places:
    """The consumers of an ordered task."""
    stream, subject = f"KV_{owners_bucket(app)}", f"$KV.{owners_bucket(app)}.{task.name}"
    return Places(
        consumer_specs(app, task),
        ConsumerSpec(task.name, stream, (f"{subject}.*",), ack_wait=task.limits.ack_wait),
        ConsumerSpec(f"{task.name}=present", stream, (subject,)),
        ConsumerSpec(f"{task.name}=wanting", stream, (subject,)),
    )


def copy_spec(app: App, kind: type[Message]) -> StreamSpec:
    """The copy of the messages of an ordered type, cut into partitions by the hash of the subject.

    A stored subject is `<partition>.<original subject>`. What has no key goes to partition 0.
    """
    subject = app.subject(kind)
    return StreamSpec(
        name=f"{app.name}-ordered-{kind.__mqinfer__.subject.replace('.', '=')}",
        subjects=(),
        max_age=app.max_age,
        replicas=app.replicas,
        # What is a repeat was decided when the original was stored.
        duplicate_window=COPY_WINDOW,
        copies=CopyOf(
            app.name,
            (
                (subject, f"0.{subject}"),
                (f"{subject}.>", f"{{{{partition({app.partitions})}}}}.{subject}.>"),
            ),
        ),
    )


def stream_of(app: App, task: Task) -> str:
    """The stream that a task reads."""
    if task.ordered:
        return copy_spec(app, task.reads).name
    if task.tracker:
        return roots.stream(app)
    if task.endpoint is not None:
        return f"KV_{places_of_requests.bucket(app)}"
    if task.jobs:
        return f"KV_{places_of_jobs.bucket(app)}"
    return f"{app.name}-dead" if task.dead else app.name


def consumer_specs(app: App, task: Task) -> list[ConsumerSpec]:
    """The durable consumers of a task: one, or one a partition named `<stage>-p<number>`.

    The sink of a table has one more, for rows that come packed: `sink-<table>-packs`; and a stage
    below an endpoint, and the tracker, for what comes of jobs: `<stage>=bulk`.

    A partition gives out a window of messages to the worker that owns it (`flow.ordered`). Workers
    of versions without owners set the window to one message, and the owner follows.
    """
    stream = stream_of(app, task)
    if task.ordered:
        return [
            ConsumerSpec(
                name=f"{task.name}-p{number}",
                stream=stream,
                filters=(f"{number}.>",),
                ack_wait=task.limits.ack_wait,
                max_ack_pending=WINDOW,
                window_kept=True,
            )
            for number in range(app.partitions)
        ]
    specs = [
        ConsumerSpec(
            name=task.name,
            stream=stream,
            filters=_filters(app, task),
            ack_wait=task.limits.ack_wait,
            start=None if task.start == "oldest" else task.start,
            # Of what waits for its deadline the server remembers no more than these.
            max_ack_pending=_remembered(task),
        )
    ]
    if task.packs:
        packs = (pack_subject(app, task.reads),)
        specs.append(replace(specs[0], name=pack_consumer(task.name), filters=packs))
    if bulk := bulk_consumer(app, task):
        filters = app.filters(task.reads, bulk=True)
        if task.tracker:
            filters = (roots.subject(app, None, bulk=True),)
        specs.append(replace(specs[0], name=bulk, filters=filters))
    return specs


def bulk_consumer(app: App, task: Task) -> str | None:
    """What a task reads of what comes of jobs by, so that nothing live waits behind it.

    None where it reads all by one consumer.
    """
    reads = task.stage is not None and app.endpoints and task.reads in bulk_kinds(app)
    if not reads and not (task.tracker and app.endpoints):
        return None
    return f"{task.name}=bulk"  # no stage is called like that


def _remembered(task: Task) -> int:
    if task.endpoint is not None:
        return OPEN
    return -1 if task.deadline is None else task.limits.max_in_flight


def _filters(app: App, task: Task) -> tuple[str, ...]:
    if task.tracker:
        return (roots.subject(app, None),)
    if task.endpoint is not None:
        return (f"$KV.{places_of_requests.bucket(app)}.{task.endpoint.name}.*",)
    if task.jobs:
        return (f"$KV.{places_of_jobs.bucket(app)}.*.*",)
    if task.deadline is not None and task.reads in bulk_kinds(app):
        return (*app.filters(task.reads), *app.filters(task.reads, bulk=True))
    return (f"dead.{app.name}.>",) if task.dead else app.filters(task.reads)
