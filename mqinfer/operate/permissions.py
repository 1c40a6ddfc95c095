"""Permissions: the least that a stage needs of NATS. Pure.

A worker with these alone runs once the stream, the consumers and the state bucket exist; making
them (the first start, `mqinfer check`) takes more, and is an operator's work. The consumers of a
replay run are the exception: its workers make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.completion import roots
from mqinfer.completion.waited import TRACKER, asked_of, bulk_kinds, joins_of, recorded, waits
from mqinfer.domain import in_domain
from mqinfer.errors import ConfigurationError
from mqinfer.inference import aliases
from mqinfer.jobs import places as places_of_jobs
from mqinfer.joinwiring import below
from mqinfer.replay import coverage, runs
from mqinfer.requests import ended, places
from mqinfer.rowpacks.which import pack_consumer, pack_subject, packed
from mqinfer.search import places as places_of_indexes
from mqinfer.state import record
from mqinfer.timers.places import stream_of as timers_stream
from mqinfer.worker import known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mqinfer.app import App
    from mqinfer.message import Message


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user must be allowed.

    Attributes:
        publish: to these.
        subscribe: to these.
        answers: whether it may answer whoever asks it, on the subject that the question names.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False

    def config(self) -> str:
        """As the `permissions` block of a nats-server user (and of `nsc edit user`)."""
        lines = ["permissions: {"]
        for name, subjects in (("publish", self.publish), ("subscribe", self.subscribe)):
            listed = "".join(f'\n      "{subject}"' for subject in subjects)
            lines.append(f"  {name}: {{\n    allow: [{listed}\n    ]\n  }}")
        if self.answers:
            lines.append("  allow_responses: true")
        return "\n".join([*lines, "}"])


def permissions(
    app: App,
    names: Sequence[str] | None = None,
    *,
    replays: Sequence[str] = (),
    inbox_prefix: str = "_INBOX",
    blob_bucket: str | None = None,
    domain: str | None = None,
) -> Permissions:
    """What a worker of these stages and sinks needs.

    Args:
        app: whose.
        names: of stages and sinks; None is all.
        replays: names of runs that it may work on as well, where they replay these stages. "*" is
            any; NATS matches whole tokens only, so that is every consumer of the app's stream.
        inbox_prefix: the worker's `MQINFER_NATS_INBOX_PREFIX`; give every user one of its own, so
            that none can read another's messages.
        blob_bucket: where blobs are kept, if that is a bucket in NATS.
        domain: of the app's JetStream, for a user of a leaf node.

    Raises:
        ConfigurationError: an unknown name, or one that cannot be a run's.
    """
    subscribe = [f"{inbox_prefix}.>"]
    publish: dict[str, None] = {}
    bucket = plan.state_bucket(app)
    for stream in (app.name, f"{app.name}-dead", f"KV_{bucket}"):
        publish[f"$JS.API.STREAM.INFO.{stream}"] = None
    publish[f"$JS.API.STREAM.MSG.GET.KV_{bucket}"] = None
    publish[f"$KV.{bucket}.{known.KEY}"] = None
    workers = plan.workers_bucket(app)
    for call in ("INFO", "MSG.GET"):
        publish[f"$JS.API.STREAM.{call}.KV_{workers}"] = None
    publish[f"$KV.{workers}.*"] = None
    if plan.uses_timers(app):
        publish[f"$JS.API.STREAM.INFO.{timers_stream(app.name)}"] = None
    tasks = plan.tasks(app, names)
    for task in tasks:
        for spec in plan.consumer_specs(app, task):
            publish[f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}"] = None
            publish[f"$JS.ACK.{spec.stream}.{spec.name}.>"] = None
        if task.ordered:
            publish.update(dict.fromkeys(_of_partitions(app, task)))
        publish[f"$KV.{bucket}.{task.name}.>"] = None
        if task.remembers is not None:
            publish.update(dict.fromkeys(_of_states(app, task.name, None)))
        if not task.dead:
            publish[plan.dead_subject(app, task.name)] = None
        for kind in task.writes:
            publish.update(dict.fromkeys(_subjects(app, kind)))
        if task.stage is not None and (task.stage.later or task.clock is not None):
            timers = timers_stream(app.name)
            publish[f"{timers}.{task.name}.>"] = None
            publish[f"$JS.API.STREAM.MSG.GET.{timers}"] = None
            publish[f"$JS.API.STREAM.PURGE.{timers}"] = None
        if task.clock is not None:
            schedules = plan.schedule_bucket(app)
            publish[f"$JS.API.STREAM.INFO.KV_{schedules}"] = None
            publish[f"$JS.API.STREAM.MSG.GET.KV_{schedules}"] = None
            publish[f"$KV.{schedules}.>"] = None  # also of those that are no more
    watched = plan.upstream(app, tasks)
    for task in tasks:
        watched += plan.downstream(app, task)
    for task in watched:  # how far they are: backpressure, lag, --drain
        for spec in plan.consumer_specs(app, task):
            publish[f"$JS.API.CONSUMER.INFO.{spec.stream}.{spec.name}"] = None
        if task.ordered:  # --drain: whether all is copied into the partitions
            publish[f"$JS.API.STREAM.INFO.{plan.stream_of(app, task)}"] = None
            publish[f"$JS.API.STREAM.MSG.GET.{app.name}"] = None
    follows = aliases.followed(app) and any(task.stage is not None for task in tasks)
    if follows or (app.models and app.rows):  # which shadows there are
        publish[f"$JS.API.STREAM.MSG.GET.KV_{aliases.bucket(app)}"] = None
    publish.update(dict.fromkeys(_of_joins(app, tasks)))
    if app.endpoints:
        publish.update(dict.fromkeys(_of_requests(app, tasks)))
        if any(task.name in asked_of(app) for task in tasks):
            subscribe.append(places.canceled(app))
    if any(task.stage is not None for task in tasks):
        publish.update(dict.fromkeys(_of_searches(app)))
    for run in replays:
        publish.update(dict.fromkeys(_of_run(app, run, tasks)))
    if blob_bucket is not None:
        publish.update(dict.fromkeys(_of_blobs(blob_bucket)))
    return _permissions(publish, subscribe, domain)


def requester(
    app: App,
    names: Sequence[str] | None = None,
    *,
    gateway: bool = False,
    inbox_prefix: str = "_INBOX",
    blob_bucket: str | None = None,
    domain: str | None = None,
) -> Permissions:
    """What a client needs that asks some endpoints, and does nothing else.

    Args:
        app: whose.
        names: of endpoints; None is all.
        gateway: whether it is one, which also asks how much waits behind them.
        inbox_prefix: as of `permissions`, and so is:
        blob_bucket: where blobs are kept, if that is a bucket in NATS.
        domain: as of `permissions`.

    Raises:
        ConfigurationError: an unknown name.
    """
    chosen = list(app.endpoints) if names is None else list(names)
    if unknown := [name for name in chosen if name not in app.endpoints]:
        raise ConfigurationError(
            f"app {app.name} has no endpoint {', '.join(unknown)}; it has "
            f"{', '.join(app.endpoints) or 'none'}"
        )
    bucket, stream, jobs = places.bucket(app), places.stream(app), places_of_jobs.bucket(app)
    publish: dict[str, None] = {}
    streams = [app.name, f"KV_{bucket}", stream, f"KV_{jobs}"]
    streams += [timers_stream(app.name)] if plan.uses_timers(app) else []
    for one in streams:  # whether they are there
        publish[f"$JS.API.STREAM.INFO.{one}"] = None
    for one in (bucket, roots.bucket(app), jobs):  # states, and progress
        publish[f"$JS.API.STREAM.MSG.GET.KV_{one}"] = None
    for call in ("DIRECT.GET", "STREAM.MSG.GET"):  # of any replica, and what one has not got yet
        publish[f"$JS.API.{call}.{stream}"] = None
    publish[f"$JS.API.DIRECT.GET.KV_{jobs}"] = None  # to list them
    subscribe = [f"{inbox_prefix}.>"]
    for name in chosen:
        publish[f"$KV.{bucket}.{name}.*"] = None
        publish[f"$KV.{jobs}.{name}.*"] = None
        publish.update(dict.fromkeys(app.filters(app.endpoints[name].reads)))
        publish[f"requests.{app.name}.cancel.{name}.*"] = None
        subscribe.append(f"requests.{app.name}.push.{name}.*.*")
        if gateway:
            fed = [stage.name for stage in below(app.stages, app.endpoints[name].reads, own=True)]
            for task in plan.tasks(app, fed):
                for spec in plan.consumer_specs(app, task):
                    publish[f"$JS.API.CONSUMER.INFO.{spec.stream}.{spec.name}"] = None
    publish.update(dict.fromkeys(_of_searches(app)))
    if blob_bucket is not None:
        publish.update(dict.fromkeys(_of_blobs(blob_bucket)))
    return _permissions(publish, subscribe, domain)


def _permissions(
    publish: Iterable[str], subscribe: Iterable[str], domain: str | None
) -> Permissions:
    return Permissions(tuple(in_domain(subject, domain) for subject in publish), tuple(subscribe))


def keeper(
    app: App,
    names: Sequence[str] | None = None,
    *,
    inbox_prefix: str = "_INBOX",
    blob_bucket: str | None = None,
) -> Permissions:
    """What a process needs that holds shards of indexes (`mqinfer index APP serve`).

    Args:
        app: whose.
        names: of indexes; None is all.
        inbox_prefix: as of `permissions`, and so is:
        blob_bucket: where snapshots are kept, if that is a bucket in NATS.

    Raises:
        ConfigurationError: an unknown name.
    """
    chosen = list(app.indexes) if names is None else list(names)
    if unknown := [name for name in chosen if name not in app.indexes]:
        raise ConfigurationError(
            f"app {app.name} has no index {', '.join(unknown)}; it has "
            f"{', '.join(app.indexes) or 'none'}"
        )
    bucket = places_of_indexes.bucket(app)
    publish: dict[str, None] = {}
    for one in (app.name, f"KV_{bucket}"):
        publish[f"$JS.API.STREAM.INFO.{one}"] = None
    publish[f"$JS.API.STREAM.MSG.GET.KV_{bucket}"] = None
    # Each process makes a consumer of its own, under a name that nobody knows before.
    for call in ("INFO", "CREATE", "MSG.NEXT"):
        publish[f"$JS.API.CONSUMER.{call}.{app.name}.*"] = None
    publish[f"$JS.ACK.{app.name}.*.>"] = None
    subscribe = [f"{inbox_prefix}.>", places_of_indexes.roll(app)]
    for name in chosen:
        publish[f"$KV.{bucket}.{name}.>"] = None
        subscribe.append(f"requests.{app.name}.search.{name}.*.*.*")
    if blob_bucket is not None:
        publish.update(dict.fromkeys(_of_blobs(blob_bucket)))
    return Permissions(tuple(publish), tuple(subscribe), answers=True)


def _of_searches(app: App) -> Iterator[str]:
    """What searching the indexes takes; holding them takes more, which `keeper` tells."""
    for index in app.indexes.values():
        yield f"$JS.API.STREAM.MSG.GET.KV_{places_of_indexes.bucket(app)}"
        for model in index.models:
            yield f"requests.{app.name}.search.{index.name}.{model}.*.*"


def _of_blobs(bucket: str) -> Iterator[str]:
    """What reading and writing blobs in NATS takes."""
    for call in ("INFO", "MSG.GET", "PURGE"):
        yield f"$JS.API.STREAM.{call}.OBJ_{bucket}"
    yield f"$O.{bucket}.>"


def _of_requests(app: App, tasks: Sequence[plan.Task]) -> Iterator[str]:
    """What tracking requests, and looking after those that are open, takes."""
    bucket = places.bucket(app)
    jobs = places_of_jobs.bucket(app)
    for stream in (places.stream(app), f"KV_{bucket}", f"KV_{jobs}"):  # whether they are there
        yield f"$JS.API.STREAM.INFO.{stream}"
    if any(task.tracker or task.jobs for task in tasks):
        yield f"$JS.API.STREAM.MSG.GET.KV_{jobs}"
        yield f"$KV.{jobs}.>"
        yield f"requests.{app.name}.cancel.*.*"
    if any(task.tracker or task.endpoint for task in tasks):
        yield f"$JS.API.STREAM.MSG.GET.KV_{bucket}"
        yield f"$KV.{bucket}.>"
        yield places.event(app)
    for task in tasks:
        if task.endpoint is not None:
            yield from app.filters(task.endpoint.reads)
            if ended.told(app):
                yield from app.filters(ended.RequestEnded)
        if task.jobs:
            yield roots.subject(app, None, bulk=True)
            for endpoint in app.endpoints.values():
                yield from _subjects(app, endpoint.reads)


def _of_partitions(app: App, task: plan.Task) -> Iterator[str]:
    """What owning partitions takes."""
    places = plan.places(app, task)
    yield f"$JS.API.STREAM.INFO.{places.tokens.stream}"
    for spec in (places.tokens, places.present, places.wanting):
        yield f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}"
        yield f"$JS.API.CONSUMER.INFO.{spec.stream}.{spec.name}"
        yield f"$JS.ACK.{spec.stream}.{spec.name}.>"
    for spec in places.partitions:  # how many messages it gives out at a time
        yield f"$JS.API.CONSUMER.CREATE.{spec.stream}.{spec.name}"


def _of_states(app: App, stage: str, run: str | None) -> Iterator[str]:
    """What a stage that remembers needs."""
    bucket = plan.memory_bucket(app)
    yield f"$JS.API.STREAM.INFO.KV_{bucket}"
    yield f"$JS.API.STREAM.MSG.GET.KV_{bucket}"
    start = f"$KV.{bucket}.{record.prefix(stage, run)}"
    yield start
    yield f"{start}.>"


def _of_run(app: App, run: str, tasks: Sequence[plan.Task]) -> Iterator[str]:
    """What `worker --run` needs beside what live work needs."""
    if run != "*" and not runs._NAME.fullmatch(run):
        raise ConfigurationError(f"a run's name is up to 40 letters, digits and _: {run!r}")
    bucket = runs.bucket(app)
    yield f"$JS.API.STREAM.INFO.KV_{bucket}"
    yield f"$JS.API.STREAM.MSG.GET.KV_{bucket}"
    yield f"$KV.{bucket}.{run}"
    written: set[type[Message]] = {kind for task in tasks for kind in task.writes}
    tables = [table for table, row in app.rows.items() if row in written]
    if tables:
        written.add(coverage.RunInput)
        tables.append(str(coverage.RunInput.__mqinfer__.table))
    stages = [task.name for task in tasks if task.stage is not None]
    for name in (*stages, runs.RETRIES, *(f"sink-{table}" for table in tables)):
        consumer = "*" if run == "*" else f"run-{run}-{name}"
        packs = run != "*" and name.startswith("sink-")
        for one in (consumer, pack_consumer(consumer)) if packs else (consumer,):
            for call in ("INFO", "CREATE", "MSG.NEXT"):
                yield f"$JS.API.CONSUMER.{call}.{app.name}.{one}"
            yield f"$JS.ACK.{app.name}.{one}.>"
        yield f"$KV.{plan.state_bucket(app)}.{consumer}.>"
        yield plan.dead_subject(app, name)
    for task in tasks:
        if task.remembers is not None:
            yield from _of_states(app, task.name, run)
    for kind in sorted(written, key=lambda kind: kind.__mqinfer__.subject):
        yield from _subjects(app, kind, run)
    yield from _of_joins(app, tasks, run)
    if any(task.tracker for task in tasks):
        stream = roots.stream(app)
        consumer = "*" if run == "*" else f"run-{run}-{TRACKER}"
        for call in ("INFO", "CREATE", "MSG.NEXT"):
            yield f"$JS.API.CONSUMER.{call}.{stream}.{consumer}"
        yield f"$JS.ACK.{stream}.{consumer}.>"


def _of_joins(app: App, tasks: Sequence[plan.Task], run: str | None = None) -> Iterator[str]:
    """What recording, and tracking, takes."""
    under = recorded(app)
    if any(task.name in under for task in tasks):
        yield roots.subject(app, run)
        if run is None and app.endpoints:
            yield roots.subject(app, None, bulk=True)
    if not waits(app):
        return
    bucket = roots.bucket(app)
    for stream in (roots.stream(app), f"KV_{bucket}"):  # whether they are there
        yield f"$JS.API.STREAM.INFO.{stream}"
    if any(task.tracker or task.waits or task.jobs for task in tasks):
        yield f"$JS.API.STREAM.MSG.GET.KV_{bucket}"
        yield f"$KV.{bucket}.>"
        for call in ("DIRECT.GET", "STREAM.MSG.GET"):
            yield f"$JS.API.{call}.{roots.stream(app)}"
        for join in joins_of(app).values():
            yield from _subjects(app, join.joined, run)


def _subjects(app: App, kind: type[Message], run: str | None = None) -> list[str]:
    """Where messages of a type are published, and packs of its rows."""
    found = list(app.filters(kind, run))
    if run is None and kind in bulk_kinds(app):
        found += app.filters(kind, bulk=True)
    if packed(app, kind):  # a row that is too large for a pack goes alone
        found.append(pack_subject(app, kind, run))
    return found
