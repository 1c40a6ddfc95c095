"""Survey: consumers that no stage has, and stages that have no consumer yet.

A consumer is called as its stage is. So a stage that was renamed begins anew, at the oldest message
that retention kept, and handles everything again, while its old consumer lies there: from outside
that looks like a stage that was taken out and another that was added. Where the old consumer has
handled messages that the new stage would begin with, a worker asks (`refusal`) rather than guesses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer import plan

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import ConsumerSpec
    from mqinfer.stage import Start

_PARTITION = re.compile(r"-p\d+$")
_MAX_NAMED = 5


class Server(Protocol):
    """What a survey asks; a `Broker` and `Streams` have it. Both raise `Unavailable`."""

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Configuration and state of every consumer of a stream; none if there is no stream."""

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; 0 if there is no stream."""


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
    """A stage or sink that has no consumer yet.

    Attributes:
        name: of it.
        messages: that it would begin with.
        start: where, if its declaration says so.
        renamed: consumers that it may have been called before.
    """

    name: str
    messages: int
    start: Start | None
    renamed: tuple[Orphan, ...]

    @property
    def doubtful(self) -> bool:
        """Whether a worker must not guess where it begins."""
        return bool(self.messages and self.start is None and self.renamed)

    def __str__(self) -> str:
        if self.start == "new":
            where = "with what is published from then on"
        elif self.start in (None, "oldest"):
            where = f"at the oldest message; {self.messages:,} are kept for it"
        else:
            where = f"at {self.start:%Y-%m-%d %H:%M:%S} UTC; {self.messages:,} are kept for it"
        return f"never started; its consumer begins {where}"


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at the consumers of an app."""

    orphans: tuple[Orphan, ...]
    beginnings: tuple[Beginning, ...]

    def refusal(self, app: App) -> str | None:
        """Why a worker does not begin, and what to do; None if nothing speaks against it."""
        doubtful = [one for one in self.beginnings if one.doubtful]
        if not doubtful:
            return None
        return "; ".join(_question(app, one) for one in doubtful[:_MAX_NAMED])


def _question(app: App, one: Beginning) -> str:
    old = " or ".join(orphan.name for orphan in one.renamed)
    return (
        f"stage {one.name} has no consumer, and consumer {old}, which no stage has any more, has "
        f"read the same messages. If the stage was renamed: `mqinfer rename <module>:<app> "
        f"{one.renamed[0].name} {one.name}` goes on where it was (app {app.name}). If it is new, "
        f'say where it begins: start="new", or start="oldest" for the {one.messages:,} messages '
        "that the stream keeps"
    )


async def survey(app: App, tasks: Sequence[plan.Task], server: Server) -> Survey:
    """Look at the consumers of the streams that `tasks` read. Changes nothing.

    Raises:
        Unavailable: NATS does not answer.
        PermissionDenied: these credentials may not ask.
    """
    known: dict[str, set[str]] = {}
    for task in plan.tasks(app):
        for spec in plan.consumer_specs(app, task):
            known.setdefault(spec.stream, set()).add(spec.name)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    orphans: list[Orphan] = []
    for stream in dict.fromkeys(plan.stream_of(app, task) for task in tasks):
        infos = {info["name"]: info for info in await server.consumers(stream)}
        found[stream] = infos
        orphans += _orphans(stream, infos, known[stream])
    beginnings = []
    for task in tasks:
        specs = plan.consumer_specs(app, task)
        if any(spec.name in found[spec.stream] for spec in specs):
            continue
        renamed = tuple(
            orphan
            for orphan in orphans
            if orphan.used and orphan.stream == specs[0].stream and _same(orphan, task, specs)
        )
        messages = sum([await server.pending(spec) for spec in specs])
        beginnings.append(Beginning(task.name, messages, task.start, renamed))
    return Survey(tuple(orphans), tuple(beginnings))


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
