"""Status: how far an app is, read from JetStream, and what someone should look at.

Gathering asks the server and changes nothing; `warnings` and `rates` are pure.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from mqinfer import plan
from mqinfer.times import span
from mqinfer.worker import known, tally
from mqinfer.worker.survey import Beginning, Orphan, survey

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import ConsumerSpec
    from mqinfer.streams import Streams

# Parts of a limit from which on it is worth a word.
_NEAR_AGE = 0.7
_NEAR_BYTES = 0.8
_ASKED = "; a worker asks before it does (see: mqinfer check)"


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The app's stream.

    Attributes:
        exists: whether there is one; all else is 0 if not.
        messages: that it holds.
        bytes: that they take.
        max_bytes: its limit, or None.
        max_age: seconds that a message is kept, or None.
        first: sequence of the oldest message.
        last: sequence of the newest.
        oldest: when the oldest was published.
    """

    name: str
    exists: bool = False
    messages: int = 0
    bytes: int = 0
    max_bytes: int | None = None
    max_age: float | None = None
    first: int = 0
    last: int = 0
    oldest: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One stage or sink.

    Attributes:
        name: of the stage, or `sink-<table>`.
        exists: whether its consumer does.
        waiting: messages that were not delivered yet; a pack of rows is one.
        in_flight: delivered and not acknowledged.
        redelivered: of those, the ones delivered more than once.
        pulling: requests for messages that wait on the server; 0 while nobody asks for more.
        settled: deliveries that have ended since the consumer was made.
        rate: of them a second, once there are two looks.
        dead: dead letters that are kept.
        skipped: messages passed over for another consumer; this and the next three are counted by
            workers for as long as the app keeps messages, and forgotten when nothing is added.
        repeats: outputs that the stream had already.
        dropped: messages that ended with a line in the log alone.
        lapsed: deliveries that a worker let go, since its event loop stood still for too long.
        oldest: when the oldest message that is not done was published, if that matters.
    """

    name: str
    exists: bool = False
    waiting: int = 0
    in_flight: int = 0
    redelivered: int = 0
    pulling: int = 0
    settled: int = 0
    rate: float | None = None
    dead: int = 0
    skipped: int = 0
    repeats: int = 0
    dropped: int = 0
    lapsed: int = 0
    oldest: datetime.datetime | None = None

    @property
    def lag(self) -> int:
        """Messages that are not done."""
        return self.waiting + self.in_flight


@dataclass(frozen=True, slots=True)
class AppStatus:
    """One look at an app.

    Attributes:
        app: its name.
        at: when, in monotonic seconds.
        time: when, by the clock.
        stream: of messages.
        tasks: stages and sinks.
        dead: all dead letters, also those of stages that are no more.
        orphans: consumers that no stage has.
        beginnings: stages that have no consumer yet.
        states: where stages keep them, if any does: a message is the state of a key.
    """

    app: str
    at: float
    time: datetime.datetime
    stream: StreamStatus
    tasks: tuple[TaskStatus, ...]
    dead: int
    orphans: tuple[Orphan, ...] = ()
    beginnings: tuple[Beginning, ...] = ()
    states: StreamStatus | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        stream = {name: getattr(self.stream, name) for name in StreamStatus.__slots__}
        tasks = []
        for task in self.tasks:
            tasks.append({name: getattr(task, name) for name in TaskStatus.__slots__})
            tasks[-1] |= {"lag": task.lag}
        return {
            "app": self.app,
            "time": self.time,
            "stream": stream,
            "stages": tasks,
            "dead": self.dead,
            "orphans": [
                {"consumer": one.name, "stream": one.stream, "waiting": one.waiting}
                for one in self.orphans
            ],
            "states": self.states and {"keys": self.states.messages, "bytes": self.states.bytes},
            "beginnings": {one.name: one.messages for one in self.beginnings},
            "warnings": warnings(self),
        }


async def gather(app: App, streams: Streams) -> AppStatus:
    """One look at `app`.

    Raises:
        Unavailable: NATS does not answer.
        ConfigurationError: the wiring is wrong.
    """
    tasks = plan.tasks(app)
    dead_stream = plan.dead_stream_spec(app).name
    stream = await _stream(app.name, streams)
    dead = await streams.subjects(dead_stream)
    counts = await _counts(app, streams)
    found = await survey(app, streams, partial(known.look, app, streams))
    states = []
    for task in tasks:
        state = TaskStatus(
            task.name,
            dead=dead.get(plan.dead_subject(app, task.name), 0),
            **msgspec.structs.asdict(counts.get(task.name, tally.Counts())),
        )
        if stream.exists:
            state = await _task(app, streams, task, state, stream)
        states.append(state)
    now = datetime.datetime.now(datetime.UTC)
    return AppStatus(
        app.name,
        time.monotonic(),
        now,
        stream,
        tuple(states),
        sum(dead.values()),
        found.orphans,
        found.beginnings,
        await _states(app, tasks, streams),
    )


async def _states(app: App, tasks: Sequence[plan.Task], streams: Streams) -> StreamStatus | None:
    if not any(task.remembers for task in tasks):
        return None
    return await _stream(f"KV_{plan.memory_bucket(app)}", streams)


async def _counts(app: App, streams: Streams) -> dict[str, tally.Counts]:
    """What workers counted, by consumer."""
    bucket = plan.state_bucket(app)
    prefix, suffix = f"$KV.{bucket}.", f".{tally.KEY}"
    return {
        stored.subject.removeprefix(prefix).removesuffix(suffix): tally.read(stored.data)
        async for stored in streams.messages(f"KV_{bucket}", f"{prefix}*{suffix}")
    }


async def _stream(name: str, streams: Streams) -> StreamStatus:
    info = await streams.stream_info(name)
    if info is None:
        return StreamStatus(name)
    config, state = info["config"], info["state"]
    max_bytes, max_age = config.get("max_bytes", -1), config.get("max_age", 0)
    return StreamStatus(
        name,
        exists=True,
        messages=state["messages"],
        bytes=state["bytes"],
        max_bytes=max_bytes if max_bytes > 0 else None,
        max_age=max_age / 1e9 if max_age else None,
        first=state["first_seq"],
        last=state["last_seq"],
        oldest=datetime.datetime.fromisoformat(state["first_ts"]) if state["messages"] else None,
    )


async def _task(
    app: App, streams: Streams, task: plan.Task, status: TaskStatus, stream: StreamStatus
) -> TaskStatus:
    parts = [
        await _consumer(streams, spec, status, stream, kept=not task.dead)
        for spec in plan.consumer_specs(app, task)
    ]
    counted = ("waiting", "in_flight", "redelivered", "pulling", "settled")
    return replace(
        status,
        # A sink of an earlier version has no consumer of packs yet.
        exists=all(part.exists for part in (parts[:1] if task.packs else parts)),
        oldest=min((part.oldest for part in parts if part.oldest), default=None),
        **{name: sum(getattr(part, name) for part in parts) for name in counted},
    )


async def _consumer(
    streams: Streams, spec: ConsumerSpec, status: TaskStatus, stream: StreamStatus, *, kept: bool
) -> TaskStatus:
    """The status of one consumer; `kept`: its messages are dropped with those of the stream."""
    info = await streams.consumer_info(spec.stream, spec.name)
    if info is None:
        return status
    in_flight = info.get("num_ack_pending", 0)
    status = replace(
        status,
        exists=True,
        waiting=info.get("num_pending", 0),
        in_flight=in_flight,
        redelivered=info.get("num_redelivered", 0),
        pulling=info.get("num_waiting", 0),
        settled=info.get("delivered", {}).get("consumer_seq", 0) - in_flight,
    )
    if status.lag and kept and _age(stream.oldest, stream.max_age) >= _NEAR_AGE:
        # Only now is it worth a request: nothing is older than the stream's first message.
        first = info.get("ack_floor", {}).get("stream_seq", 0) + 1
        found = [
            message
            for subject in spec.filters
            if (message := await streams.message(spec.stream, first, subject=subject)) is not None
        ]
        status = replace(status, oldest=min((m.time for m in found), default=None))
    return status


def rates(now: AppStatus, before: AppStatus | None) -> AppStatus:
    """`now` with the rates since `before`."""
    if before is None or now.at <= before.at:
        return now
    then = {task.name: task for task in before.tasks if task.exists}
    seconds = now.at - before.at
    tasks = (
        replace(task, rate=max(0.0, task.settled - then[task.name].settled) / seconds)
        if task.name in then
        else task
        for task in now.tasks
    )
    return replace(now, tasks=tuple(tasks))


def warnings(status: AppStatus) -> list[str]:
    """What someone should look at, a line each."""
    stream = status.stream
    if not stream.exists:
        return [f"stream {stream.name} does not exist: start a worker, or publish something"]
    found = []
    if stream.max_bytes and stream.bytes >= _NEAR_BYTES * stream.max_bytes:
        found.append(
            f"stream {stream.name} is {stream.bytes / stream.max_bytes:.0%} full "
            f"({stream.bytes:,} of {stream.max_bytes:,} bytes): then publishers wait; raise the "
            "app's max_bytes or lower its max_age"
        )
    for task in status.tasks:
        found.extend(_task_warnings(task, stream))
    found += [f"stage {one.name}: {one}{_ASKED * one.doubtful}" for one in status.beginnings]
    found += [
        f"{orphan}: `mqinfer rename` if a stage goes on as another, else delete it"
        for orphan in status.orphans
    ]
    return found


def _task_warnings(task: TaskStatus, stream: StreamStatus) -> list[str]:
    found = []
    if task.exists and task.waiting and not task.pulling and not task.rate and task.in_flight == 0:
        found.append(
            f"stage {task.name}: {task.waiting:,} messages wait and nobody asks for them: no "
            "worker runs it, or a server that it needs is down (see /readyz)"
        )
    if (part := _age(task.oldest, stream.max_age)) >= _NEAR_AGE and stream.max_age:
        left = max(0.0, (1 - part) * stream.max_age)
        found.append(
            f"stage {task.name}: its oldest message is dropped unprocessed in {span(left)} "
            "(max_age): start more workers, or raise the app's max_age"
        )
    if task.skipped:
        found.append(
            f"stage {task.name}: {task.skipped:,} messages were passed over, for they were sent "
            "back to another stage (the log names them)"
        )
    if task.dropped:
        found.append(
            f"stage {task.name}: {task.dropped:,} messages ended without a dead letter, for they "
            "are none themselves (the log says why)"
        )
    if task.lapsed:
        found.append(
            f"stage {task.name}: {task.lapsed:,} deliveries were let go unbegun, to be handled by "
            "another worker: the event loop was blocked for too long (the log names by whom)"
        )
    if task.dead:
        letters = "dead letter" if task.dead == 1 else "dead letters"
        found.append(f"stage {task.name}: {task.dead:,} {letters} (see: mqinfer dead list)")
    return found


def _age(moment: datetime.datetime | None, max_age: float | None) -> float:
    """The age of a moment as a part of `max_age`."""
    if moment is None or not max_age:
        return 0.0
    return (datetime.datetime.now(datetime.UTC) - moment).total_seconds() / max_age
