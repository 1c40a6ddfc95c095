"""Making: the streams and buckets of an app, by whoever comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqinfer import plan
from mqinfer.completion import roots
from mqinfer.completion.waited import waits
from mqinfer.jobs.jobs import bucket_of as bucket_of_jobs
from mqinfer.requests.kept import bucket_of

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker
    from mqinfer.timers.table import Table


async def make_streams(app: App, broker: Broker, timers: Table | None) -> None:
    """Make what there is not, and change streams to what the app says now.

    Args:
        app: whose they are.
        broker: that keeps them.
        timers: of the app; None makes none.

    Raises:
        ConflictError: one exists with settings that do not fit.
        Unavailable: NATS does not answer.
    """
    for stream in plan.stream_specs(app):
        if not stream.schedules:
            await broker.ensure_stream(stream)
        elif timers is not None:
            await timers.ensure(stream)
    if waits(app):
        await broker.bucket(roots.bucket(app), max_age=app.max_age, replicas=app.replicas).ensure()
    if app.endpoints:
        await bucket_of(app, broker).ensure()
        await bucket_of_jobs(app, broker).ensure()
    await broker.bucket(plan.state_bucket(app), max_age=app.max_age, replicas=app.replicas).ensure()
