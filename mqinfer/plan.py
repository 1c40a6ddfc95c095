"""Plan: which consumers a worker runs, and the names and specifications of everything. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mqinfer.backoff import Backoff
from mqinfer.errors import ConfigurationError
from mqinfer.flow.ordered.places import WINDOW, Places
from mqinfer.message import Message, Row
from mqinfer.ports import ConsumerSpec, CopyOf, StreamSpec
from mqinfer.rowpacks.which import may_come_packed, pack_consumer, pack_subject
from mqinfer.stage import Limits, Stage, Start
from mqinfer.tables.tables import DeadLetterRow

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


@dataclass(frozen=True, slots=True)
class Task:
    """One consumer to run: a stage, or the sink of a table.

    Attributes:
        name: of the stage, or `sink-<table>`.
        reads: the type of its messages.
        limits: what bounds it.
        stage: None for a sink.
        row: the row type of a sink.
        dead: it stores the app's dead letters.
    """

    name: str
    reads: type[Message]
    limits: Limits
    stage: Stage | None = None
    row: type[Row] | None = None
    dead: bool = False

    @property
    def ordered(self) -> bool:
        """Whether it handles messages in order by key, from partitions."""
        return self.stage is not None and self.reads.__mqinfer__.ordered

    @property
    def start(self) -> Start | None:
        """Where it begins when it never ran, if its declaration says so."""
        return self.stage.start if self.stage else None

    @property
    def packs(self) -> bool:
        """Whether its messages may come packed, which a consumer of its own reads."""
        return self.row is not None and not self.dead and may_come_packed(self.row)

    @property
    def writes(self) -> tuple[type[Message], ...]:
        """The types it may write."""
        return self.stage.writes if self.stage else ()


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


def upstream(app: App, chosen: Iterable[Task]) -> list[Task]:
    """The tasks of the app that something of `chosen` waits for, themselves included."""
    everything = tasks(app)
    found = {task.name: task for task in chosen}
    todo = list(found.values())
    while todo:
        reads = todo.pop().reads
        for task in everything:
            if reads in task.writes and task.name not in found:
                found[task.name] = task
                todo.append(task)
    return list(found.values())


def downstream(app: App, task: Task) -> list[Task]:
    """The tasks that read what `task` writes."""
    return [other for other in tasks(app) if other.reads in task.writes]


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
    names = {task.name for task in tasks(app) if task.reads is kind}
    if run is not None:
        names |= {f"run-{run}-{name}" for name in names}
    return frozenset(names)


def stream_spec(app: App) -> StreamSpec:
    """The app's stream."""
    return StreamSpec(
        name=app.name,
        subjects=(f"{app.name}.>",),
        max_age=app.max_age,
        max_bytes=app.max_bytes,
        replicas=app.replicas,
        duplicate_window=app.duplicate_window,
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


def dead_subject(app: App, name: str) -> str:
    """Where the dead letters of a stage or sink go."""
    return f"dead.{app.name}.{name}"


def state_bucket(app: App) -> str:
    """Where workers keep what they must know of one another."""
    return f"{app.name}-state"


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
    return f"{app.name}-dead" if task.dead else app.name


def consumer_specs(app: App, task: Task) -> list[ConsumerSpec]:
    """The durable consumers of a task: one, or one a partition named `<stage>-p<number>`.

    The sink of a table has one more, for rows that come packed: `sink-<table>-packs`.

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
            filters=(f"dead.{app.name}.>",) if task.dead else app.filters(task.reads),
            ack_wait=task.limits.ack_wait,
            start=None if task.start == "oldest" else task.start,
        )
    ]
    if task.packs:
        packs = (pack_subject(app, task.reads),)
        specs.append(replace(specs[0], name=pack_consumer(task.name), filters=packs))
    return specs
