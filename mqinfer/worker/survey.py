"""Survey: consumers that no stage has, and stages that have no consumer.

A stage without a consumer may be one of a new app, one that nobody has run yet, a new one of an app
that ran before, one that was renamed, or one whose consumer was deleted. Where that leaves it open
whether it should handle what the stream keeps, a worker asks (`refusal`) rather than guesses.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer import plan
from mqinfer.completion.waited import DEADLINE
from mqinfer.ports import ConsumerSpec

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.worker.known import Known

_PARTITION = re.compile(r"-p\d+$")
_MAX_NAMED = 5


class Server(Protocol):
    """What a survey asks; a `Broker` and `Streams` have it. Both raise `Unavailable`."""

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Configuration and state of every consumer of a stream; none if there is no stream."""

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; 0 if there is no stream."""

    async def stream_created(self, stream: str) -> str | None:
        """When the stream was made."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A consumer, or those of all partitions, that no stage of the app has.

    Attributes:
        name: of the consumer; without the partition.
        stream: that it reads.
        filters: subjects that it reads.
        waiting: messages that it was not given yet, or that were not acknowledged.
        used: whether it was ever given a message.
        pulling: requests for messages that wait on the server: somebody uses it now.
    """

    name: str
    stream: str
    filters: tuple[str, ...]
    waiting: int
    used: bool
    pulling: int

    def __str__(self) -> str:
        return (
            f"consumer {self.name} of stream {self.stream} belongs to no stage; "
            f"{self.waiting:,} messages wait for it"
        )


@dataclass(frozen=True, slots=True)
class Beginning:
    """A stage or sink that has no consumer.

    Attributes:
        task: the stage or sink.
        messages: that it would begin with.
        renamed: consumers that it may have been called before.
        late: it is new in an app that ran before, or where it was cannot be told any more.
        resumes: its consumer is gone, and is made again where it was.
    """

    task: plan.Task
    messages: int
    renamed: tuple[Orphan, ...] = ()
    late: bool = False
    resumes: bool = False

    @property
    def name(self) -> str:
        """Of the stage or sink."""
        return self.task.name

    @property
    def doubtful(self) -> bool:
        """Whether a worker must not guess where it begins."""
        said = self.task.start is not None
        return bool(self.messages and not said and (self.late or self.renamed))

    def __str__(self) -> str:
        start = self.task.start
        if self.resumes:
            return f"its consumer is gone, and goes on where it was; {self.messages:,} wait for it"
        if start == "new":
            where = "with what is published from then on"
        elif start in (None, "oldest"):
            where = f"at the oldest message; {self.messages:,} are kept for it"
        else:
            where = f"at {start:%Y-%m-%d %H:%M:%S} UTC; {self.messages:,} are kept for it"
        return f"never started; its consumer begins {where}"


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at the consumers of an app.

    Attributes:
        orphans: consumers that no stage has.
        beginnings: stages and sinks without a consumer.
    """

    orphans: tuple[Orphan, ...]
    beginnings: tuple[Beginning, ...]

    def refusal(self, app: App, names: Collection[str] | None = None) -> str | None:
        """Why a worker does not begin, and what to do; None if nothing speaks against it.

        Args:
            app: whose stages they are.
            names: of the stages and sinks that it would run; None is all.
        """
        doubtful = [
            one for one in self.beginnings if one.doubtful and (names is None or one.name in names)
        ]
        if not doubtful:
            return None
        return "; ".join(_question(app, one) for one in doubtful[:_MAX_NAMED])


def _question(app: App, one: Beginning) -> str:
    what, name = "stage" if one.task.stage else "sink", one.name
    begin = f"`mqinfer begin <module>:<app> {name} {'oldest' if one.task.ordered else 'new'}`"
    if one.task.stage is None:
        choices = begin
    elif one.task.ordered:
        choices = f'start="oldest", or {begin}'
    else:
        choices = f'start="new" or start="oldest", or {begin} (or oldest, or 2h)'
    kept = f"{one.messages:,} messages that the stream keeps"
    if not one.renamed:
        return (
            f"{what} {name} is new in app {app.name}, which ran before, and would handle {kept}. "
            f"Say where it begins: {choices}"
        )
    old = " or ".join(orphan.name for orphan in one.renamed)
    return (
        f"{what} {name} has no consumer, and consumer {old}, which no stage has any more, has "
        f"read the same messages. If it was renamed: `mqinfer rename <module>:<app> "
        f"{one.renamed[0].name} {name}` goes on where it was (app {app.name}). If it is new, it "
        f"would handle {kept}: say where it begins: {choices}"
    )


async def survey(app: App, server: Server, recall: Callable[[], Awaitable[Known | None]]) -> Survey:
    """Look at the consumers of the app's streams. Changes nothing.

    Args:
        app: whose.
        server: that is asked.
        recall: gives the stages that the app is known to have had; None if it never ran.

    Raises:
        Unavailable: NATS does not answer.
        PermissionDenied: these credentials may not ask.
    """
    specs = {task.name: plan.consumer_specs(app, task) for task in plan.tasks(app)}
    names: dict[str, set[str]] = {}
    for spec in itertools.chain.from_iterable(specs.values()):
        names.setdefault(spec.stream, set()).add(spec.name)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    orphans: list[Orphan] = []
    for stream, known in names.items():
        found[stream] = await _consumers(server, stream)
        orphans += _orphans(stream, found[stream], known)
    # After the consumers: whoever makes the first one has written down its stages before.
    before = await recall()
    ran = before is not None or any(names[stream] & set(found[stream]) for stream in names)

    def without() -> list[plan.Task]:
        return [
            task
            for task in plan.tasks(app)
            if not any(spec.name in found[spec.stream] for spec in specs[task.name])
        ]

    if ran:
        # A cluster may take seconds for one list: workers that started beside this one have made
        # theirs since, and written that down.
        for stream in {specs[task.name][0].stream for task in without()}:
            found[stream] = await _consumers(server, stream)
    beginnings = [
        await _beginning(app, task, server, orphans, before, ran=ran) for task in without()
    ]
    return Survey(tuple(orphans), tuple(beginnings))


async def _consumers(server: Server, stream: str) -> dict[str, dict[str, Any]]:
    return {info["name"]: info for info in await server.consumers(stream)}


async def _beginning(
    app: App,
    task: plan.Task,
    server: Server,
    orphans: Sequence[Orphan],
    known: Known | None,
    *,
    ran: bool,
) -> Beginning:
    specs = plan.consumer_specs(app, task)
    place = known.stages.get(task.name) if known else None
    if place is not None and place.floors:
        floors = [place.floors.get(spec.name) for spec in specs]
        there = place.created == await server.stream_created(specs[0].stream)
        # An earlier version knew of no packs and no jobs: there were none, and all there are count.
        if there and None not in (floors if task.ordered else floors[:1]):
            specs = [
                replace(spec, start=None, start_sequence=(floor or 0) + 1)
                for spec, floor in zip(specs, floors, strict=True)
            ]
            return Beginning(task, await _pending(server, specs), resumes=True)
        place = None
    # The dead letters of an app are its record: a table of them wants them all.
    asked = place is None and task.declared
    renamed = tuple(
        orphan
        for orphan in orphans
        if asked
        and orphan.used
        and not orphan.name.startswith(DEADLINE)
        and orphan.stream == specs[0].stream
        and _same(orphan, task, specs)
    )
    if task.ordered:  # the copy may not be there yet, and will have what the app's stream has
        specs = [ConsumerSpec(task.name, app.name, app.filters(task.reads))]
    return Beginning(task, await _pending(server, specs), renamed, late=asked and ran)


async def _pending(server: Server, specs: Sequence[ConsumerSpec]) -> int:
    return sum([await server.pending(spec) for spec in specs])


def _same(orphan: Orphan, task: plan.Task, specs: Sequence[ConsumerSpec]) -> bool:
    # The stream of partitions holds the messages of one type.
    return task.ordered or set(orphan.filters) == set(specs[0].filters)


def _orphans(stream: str, infos: Mapping[str, Mapping[str, Any]], known: set[str]) -> list[Orphan]:
    found: dict[str, Orphan] = {}
    for name, info in infos.items():
        config = info["config"]
        # A replay's are its own; what is no durable one with acknowledgements was never a stage's.
        if (
            name in known
            or name.startswith("run-")
            or not config.get("durable_name")
            or config.get("ack_policy") != "explicit"
        ):
            continue
        one = Orphan(
            name=_PARTITION.sub("", name) if stream.partition("-ordered-")[1] else name,
            stream=stream,
            filters=filters_of(config),
            waiting=info.get("num_pending", 0) + info.get("num_ack_pending", 0),
            used=info.get("delivered", {}).get("consumer_seq", 0) > 0,
            pulling=info.get("num_waiting", 0),
        )
        other = found.get(one.name)
        if other is not None:
            one = replace(
                one,
                waiting=one.waiting + other.waiting,
                used=one.used or other.used,
                pulling=one.pulling + other.pulling,
            )
        found[one.name] = one
    return list(found.values())


def filters_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The subjects that a consumer reads, of its configuration."""
    single = config.get("filter_subject")
    return (single,) if single else tuple(config.get("filter_subjects") or ())
