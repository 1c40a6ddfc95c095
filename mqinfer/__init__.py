"""mqinfer: asyncio stages on NATS JetStream, batched inference on Triton, rows in ClickHouse.

Declare:   App, Message, Row, State, Blob, Column, Tensor, Index
Watch:     Label, Confidence, Input, Embedding
Handle:    Context, Died, Tick, Retry, Snooze, Reject, Rejected, Backoff
Run:       Worker, connect, Client, Request, Job, Hits, Hit, Settings
Errors:    mqinfer.errors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mqinfer.app as _app
from mqinfer.app import App
from mqinfer.backoff import Backoff
from mqinfer.blob import Blob
from mqinfer.column import Column
from mqinfer.completion.assemble import Died
from mqinfer.context import Context
from mqinfer.errors import MqinferError, Reject, Retry, Snooze
from mqinfer.hits import Hit, Hits
from mqinfer.index import Index
from mqinfer.marker import Confidence, Embedding, Input, Label
from mqinfer.message import Message, Rejected, Row
from mqinfer.model import Answer, Model, Tensor
from mqinfer.statetype import State
from mqinfer.tick import Tick

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mqinfer.client import Client, Worker
    from mqinfer.jobs.job import Job, JobRow, JobStatus
    from mqinfer.requests.request import Request, RequestEvent
    from mqinfer.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "App",
    "Backoff",
    "Blob",
    "Client",
    "Column",
    "Confidence",
    "Context",
    "Died",
    "Embedding",
    "Hit",
    "Hits",
    "Index",
    "Input",
    "Job",
    "JobRow",
    "JobStatus",
    "Label",
    "Message",
    "Model",
    "MqinferError",
    "Reject",
    "Rejected",
    "Request",
    "RequestEvent",
    "Retry",
    "Row",
    "Settings",
    "Snooze",
    "State",
    "Tensor",
    "Tick",
    "Worker",
    "connect",
]

# What runs needs the servers' clients; what declares must not load them.
_LAZY = {
    "Client": "mqinfer.client",
    "Worker": "mqinfer.client",
    "Job": "mqinfer.jobs.job",
    "JobRow": "mqinfer.jobs.job",
    "JobStatus": "mqinfer.jobs.job",
    "Request": "mqinfer.requests.request",
    "RequestEvent": "mqinfer.requests.request",
    "Settings": "mqinfer.settings",
}


def __getattr__(name: str) -> Any:
    """Load what runs when it is first asked for (PEP 562)."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mqinfer' has no attribute {name!r}")


def connect(app: App, settings: Settings | None = None) -> AbstractAsyncContextManager[Client]:
    """A client that publishes messages of an app; while it is open, its models and blobs work.

        async with mqinfer.connect(app) as client:
            await client.publish(Photo(...))

    That is so in every task of the process: a web app connects in its lifespan and awaits
    `model(x=...)` in its endpoints. Where several clients are open, `client.model(...)` says which
    one answers. The app's stream is created if it is not there.

    Args:
        app: the app.
        settings: None reads the environment.

    Raises:
        ConfigurationError: what was given is no App; a setting is wrong (when it is entered, as
            what follows).
        Unavailable: NATS does not answer.
        ConflictError: the stream exists with settings that do not fit.
    """
    from mqinfer import client
    from mqinfer.connecting import Connecting

    return Connecting(app, settings, client.connect)


# For `App.connect`, the old name: what declares must not import what runs.
_app.connector = connect
