"""Begin: a person says where a stage begins that has no consumer, and its consumer is made there.

It counts once, as `start=` does: a worker takes the consumer as it is. For a sink, and for a stage
whose place was lost with its consumer, it is the only way to say it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer import plan
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.stage import read_start
from mqinfer.worker import known
from mqinfer.worker.known import Place
from mqinfer.worker.survey import Server, survey

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.bucket import Bucket
    from mqinfer.ports import ConsumerSpec, ConsumerState, StreamSpec


class Beginner(Server, Protocol):
    """What it needs of JetStream; a `Broker` has it. All raise `Unavailable`."""

    async def consumer_state(self, stream: str, consumer: str) -> ConsumerState | None:
        """How far a consumer is; None if there is none."""

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create a stream."""

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """Create a consumer."""

    def bucket(self, name: str, *, max_age: float = 0.0, replicas: int = 1) -> Bucket:
        """A key-value bucket."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What was done.

    Attributes:
        name: of the stage or sink.
        waiting: messages that wait for it.
    """

    name: str
    waiting: int


async def begin(app: App, name: str, where: Any, server: Beginner) -> Begun:
    """Make the consumer of a stage or sink.

    Args:
        app: whose it is.
        name: of it.
        where: "oldest", "new", a time, or how long ago ("2h"); for an ordered type "oldest" alone.
        server: that holds the app's stream.

    Raises:
        ConfigurationError: there is no such stage or place.
        ConflictError: it has a consumer, or the app has no stream yet.
        Unavailable: NATS does not answer.
    """
    (task,) = plan.tasks(app, [name])
    start = read_start(name, where, task.reads)
    if start is None:
        raise ConfigurationError("say where: oldest, new, a time, or how long ago, such as 2h")
    created = await server.stream_created(app.name)
    if created is None:
        raise ConflictError(
            f"app {app.name} has no stream yet: its first worker begins with all that is published"
        )
    specs = [
        replace(spec, start=None if start == "oldest" else start)
        for spec in plan.consumer_specs(app, task)
    ]
    for spec in specs:
        if await server.consumer_state(spec.stream, spec.name) is not None:
            raise ConflictError(
                f"{name} has begun, and goes on where it is. If nothing of that counts, stop its "
                f"workers, delete consumer {spec.name} of stream {spec.stream}, and begin again"
            )
    bucket = server.bucket(plan.state_bucket(app), max_age=app.max_age, replicas=app.replicas)
    await bucket.ensure()
    # The others, or they would be new in an app that ran once this one has its consumer.
    found = await survey(app, server, partial(known.load, bucket, created))
    asked = {name, *(one.name for one in found.beginnings if one.doubtful)}
    others = [other.name for other in plan.tasks(app) if other.name not in asked]
    await known.add(bucket, created, others, {})
    if task.ordered:
        await server.ensure_stream(plan.copy_spec(app, task.reads))
    states = [await server.ensure_consumer(spec) for spec in specs]
    await known.add(bucket, created, (), {name: Place()})  # where it was counts no more
    return Begun(name, sum(state.waiting for state in states))
