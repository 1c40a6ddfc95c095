"""Rename: the consumer of a stage that was renamed goes on under the new name.

JetStream cannot rename a consumer. The new one begins right after the last message up to which
the old one had all acknowledged, so nothing is lost; what was acknowledged beyond that is handled
again, and its outputs are new ones, since the stage's name is part of their ids. What the stage
remembers goes along, and is changed by nothing twice. Killed half way, it can be run again: the old
consumer is deleted last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer import plan
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.state import moving
from mqinfer.worker import known
from mqinfer.worker.survey import Server, filters_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.ports import ConsumerSpec, ConsumerState


class Renamer(Server, Protocol):
    """What a rename needs of JetStream."""

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Configuration and state of a consumer, or None."""

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """Create a consumer."""

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer, if it is there."""

    def bucket(self, name: str) -> Bucket:
        """A key-value bucket."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did.

    Attributes:
        old: name of the stage that was.
        new: its name now.
        waiting: messages that the new consumer begins with.
        again: of them, those that the old one had acknowledged already.
    """

    old: str
    new: str
    waiting: int
    again: int


@dataclass(frozen=True, slots=True)
class _Move:
    """One consumer: where it was, and the one that takes over."""

    old: dict[str, Any]
    spec: ConsumerSpec
    exists: bool


async def rename(app: App, old: str, new: str, server: Renamer) -> Renamed:
    """Let the stage `new` go on where `old`, which it was called before, is.

    Raises:
        ConfigurationError: there is no stage `new`, or `old` is one still.
        ConflictError: there is no consumer of `old`, it reads other messages, `new` has begun
            already, or a worker pulls from either.
        Unavailable: NATS does not answer.
    """
    (task,) = plan.tasks(app, [new])
    if any(old == other.name for other in plan.tasks(app)):
        raise ConfigurationError(f"{old} is a stage of app {app.name}: take it out, or rename it")
    specs = plan.consumer_specs(app, task)
    # Of an earlier version, which had no packs, and none for what comes of jobs: those there are
    # begin anew.
    if (
        len(specs) == 2
        and not task.ordered
        and not await server.consumer_info(specs[1].stream, specs[1].name.replace(new, old, 1))
    ):
        del specs[1]
    moves = [await _move(server, old, new, spec.name.replace(new, old, 1), spec) for spec in specs]
    if task.remembers is not None:
        memory = server.bucket(plan.memory_bucket(app))
        await moving.move(old, new, memory, task.remembers.__mqinfer__.ttl)
    waiting = again = 0
    for move in moves:
        if move.exists:
            await server.delete_consumer(move.spec.stream, move.spec.name)
        begins = await server.pending(move.spec)
        waiting += begins
        again += max(0, begins - move.old["num_pending"] - move.old["num_ack_pending"])
        await server.ensure_consumer(move.spec)
    created = await server.stream_created(app.name)
    if created is not None:
        await known.forget(server.bucket(plan.state_bucket(app)), created, old)
    for move in moves:
        await server.delete_consumer(move.spec.stream, move.old["name"])
    return Renamed(old, new, waiting, again)


async def _move(server: Renamer, old: str, new: str, name: str, spec: ConsumerSpec) -> _Move:
    found = await server.consumer_info(spec.stream, name)
    if found is None:
        raise ConflictError(f"stream {spec.stream} has no consumer {name}: nothing to take over")
    theirs = filters_of(found["config"])
    if set(theirs) != set(spec.filters):
        raise ConflictError(
            f"{old} reads {', '.join(theirs)}, and {new} reads {', '.join(spec.filters)}: "
            "where it was says nothing there"
        )
    ours = await server.consumer_info(spec.stream, spec.name)
    if ours is not None and ours["delivered"]["consumer_seq"]:
        raise ConflictError(
            f"stage {new} has begun already: it goes on where it is. If nothing of that counts, "
            f"delete consumer {spec.name} of stream {spec.stream}, and rename again"
        )
    for info in (found, ours):
        if info is not None and info.get("num_waiting", 0):
            raise ConflictError(
                f"a worker pulls from consumer {info['name']}: stop it, and rename again"
            )
    floor = found["ack_floor"]["stream_seq"]
    return _Move(found, replace(spec, start=None, start_sequence=floor + 1), ours is not None)
