"""Live: what runs and what there is now, seen without changing it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.search.roll import called
from mqinfer.worker import known, presence
from mqinfer.worker.presence import Present
from mqinfer.worker.survey import Beginning, Orphan, survey

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.index import Index
    from mqinfer.inference.aliases import Alias
    from mqinfer.ports import Core
    from mqinfer.search.generations import Generation, Generations, Held
    from mqinfer.search.roll import Roll
    from mqinfer.streams import Streams


@dataclass(frozen=True, slots=True)
class LiveStream:
    """The app's stream.

    Attributes:
        max_age: seconds; 0 is for ever.
        max_bytes: None is no limit.
        replicas: copies.
        duplicate_window: seconds.
        messages: that it holds.
        bytes: that they take.
        expiring: messages older than the app's max_age, where that is shorter than the stream's.
    """

    max_age: float
    max_bytes: int | None
    replicas: int
    duplicate_window: float
    messages: int
    bytes: int
    expiring: int = 0


@dataclass(frozen=True, slots=True)
class LiveModel:
    """The generations of one model of an index.

    Attributes:
        current: number of the one that is searched; 0: there is none.
        all: by number.
        ready: those whose every shard is held, and read.
        replicas: of the shard that has the fewest, of the one that is searched.
        vectors: of the same.
        nbytes: that these take.
    """

    current: int = 0
    all: Mapping[int, Generation] = field(default_factory=dict)
    ready: frozenset[int] = frozenset()
    replicas: int = 0
    vectors: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class LiveIndex:
    """An index.

    Attributes:
        models: by name.
        weights: of these.
    """

    models: Mapping[str, LiveModel]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Servers:
    """What ClickHouse and Triton have, as far as they were asked and answered.

    Attributes:
        conflicts: why rows of a table could not be stored, by table.
        served: versions that answer, by model; None is not known.
        silent: who did not answer, and why, a line each.
    """

    conflicts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    served: Mapping[str, Sequence[str]] | None = None
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """One look.

    Attributes:
        stream: None where there is none yet.
        partitions: copies of ordered types are cut into; None where there are none.
        waiting: messages that are not done, by stage or sink.
        known: stages that the app is known to have had: whose consumers are none of these is a
            stranger's.
        orphans: consumers that no stage has.
        beginnings: stages that have no consumer.
        aliases: versions by `model@alias`.
        workers: that are there.
        indexes: by name.
        servers: what others have.
    """

    stream: LiveStream | None = None
    partitions: int | None = None
    waiting: Mapping[str, int] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    orphans: tuple[Orphan, ...] = ()
    beginnings: tuple[Beginning, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    workers: tuple[Present, ...] = ()
    indexes: Mapping[str, LiveIndex] = field(default_factory=dict)
    servers: Servers = field(default_factory=Servers)


async def look(
    app: App,
    streams: Streams,
    aliases: Mapping[tuple[str, str], Alias],
    indexes: Mapping[str, LiveIndex],
    servers: Servers | None = None,
) -> Live:
    """Look at an app's streams, consumers, aliases and workers.

    Args:
        app: as its code is now.
        streams: of the server.
        aliases: that are set.
        indexes: as they are; see `look_at_indexes`.
        servers: what others have; None: they were not asked.

    Raises:
        Unavailable: NATS does not answer.
    """
    found = await survey(app, streams, partial(known.look, app, streams))
    waiting: dict[str, int] = {}
    partitions = None
    for task in plan.tasks(app):
        for spec in plan.consumer_specs(app, task):
            info = await streams.consumer_info(spec.stream, spec.name)
            if info is not None:
                lag = info.get("num_pending", 0) + info.get("num_ack_pending", 0)
                waiting[task.name] = waiting.get(task.name, 0) + lag
        if task.ordered and partitions is None:
            consumers = await streams.consumers(plan.stream_of(app, task))
            own = [one for one in consumers if one["name"].startswith(f"{task.name}-p")]
            partitions = len(own) or None
    before = await known.look(app, streams)
    workers, now = await presence.seen(app, streams)
    return Live(
        stream=await _stream(app, streams),
        partitions=partitions,
        waiting=waiting,
        known=frozenset(before.stages if before else ()),
        orphans=found.orphans,
        beginnings=found.beginnings,
        aliases={f"{model}@{name}": one.version for (model, name), one in aliases.items()},
        workers=tuple(one for one in workers if not one.lost(now) and not one.run),
        indexes=indexes,
        servers=servers or Servers(),
    )


async def look_at_indexes(app: App, generations: Generations, core: Core) -> dict[str, LiveIndex]:
    """Look at an app's indexes; makes nothing.

    Raises:
        Unavailable: NATS does not answer.
    """
    if not app.indexes:
        return {}
    roll = await called(app, core)
    found: dict[str, LiveIndex] = {}
    for name, index in app.indexes.items():
        models = {}
        for model in index.models:
            held = await generations.held(index, model)
            models[model] = _model(index, model, held, roll)
        found[name] = LiveIndex(models, await generations.weights(index))
    return found


def _model(index: Index, model: str, held: Held, roll: Roll) -> LiveModel:
    ready = {n for n, one in held.all.items() if not roll.unready(index, model, one)}
    shards = []
    if (current := held.all.get(held.current)) is not None:
        shards = [
            roll.replicas(index.name, model, current.number, shard)
            for shard in range(current.shards)
        ]
    return LiveModel(
        current=held.current,
        all=held.all,
        ready=frozenset(ready),
        replicas=min((len(replicas) for replicas in shards), default=0),
        vectors=sum(max((one.count for one in replicas), default=0) for replicas in shards),
        nbytes=sum(max((one.nbytes for one in replicas), default=0) for replicas in shards),
    )


async def _stream(app: App, streams: Streams) -> LiveStream | None:
    info = await streams.stream_info(app.name)
    if info is None:
        return None
    config, state = info["config"], info["state"]
    max_age = config.get("max_age", 0) / 1e9
    expiring = 0
    if app.max_age and (not max_age or app.max_age < max_age) and state["messages"]:
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=app.max_age)
        expiring = state["messages"]
        async for stored in streams.messages(app.name, since=since):
            expiring = max(0, stored.sequence - state["first_seq"])
            break
    limit = config.get("max_bytes", -1)
    return LiveStream(
        max_age=max_age,
        max_bytes=limit if limit > 0 else None,
        replicas=config.get("num_replicas", 1),
        duplicate_window=config.get("duplicate_window", 0) / 1e9,
        messages=state["messages"],
        bytes=state["bytes"],
        expiring=expiring,
    )
