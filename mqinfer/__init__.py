"""mqinfer: asyncio stages on NATS JetStream, batched inference on Triton, rows in ClickHouse.

Declare:   App, Message, Row, State, Blob, Column, Tensor, Index
Watch:     Label, Confidence, Input, Embedding
Handle:    Context, Died, Tick, Retry, Snooze, Reject, Rejected, Backoff
Run:       Worker, connect, Client, Request, Job, Hits, Hit, Settings
Errors:    mqinfer.errors
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mqinfer import oldnames

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mqinfer.app import App
    from mqinfer.backoff import Backoff
    from mqinfer.blob import Blob
    from mqinfer.client import Client
    from mqinfer.column import Column
    from mqinfer.completion.assemble import Died
    from mqinfer.context import Context
    from mqinfer.errors import MqinferError, Reject, Retry, Snooze
    from mqinfer.hits import Hit, Hits
    from mqinfer.index import Index
    from mqinfer.jobs.job import Job, JobRow, JobStatus
    from mqinfer.marker import Confidence, Embedding, Input, Label
    from mqinfer.message import Message, Rejected, Row
    from mqinfer.model import Answer, Model, Tensor
    from mqinfer.requests.request import Request, RequestEvent
    from mqinfer.running import Worker
    from mqinfer.settings import Settings
    from mqinfer.statetype import State
    from mqinfer.tick import Tick

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

# What runs needs the servers' clients, which what declares must not load; and a command that needs
# no app, such as `mqinfer --help`, loads not even what declares.
_MODULES = {
    "Answer": "model",
    "App": "app",
    "Backoff": "backoff",
    "Blob": "blob",
    "Client": "client",
    "Column": "column",
    "Confidence": "marker",
    "Context": "context",
    "Died": "completion.assemble",
    "Embedding": "marker",
    "Hit": "hits",
    "Hits": "hits",
    "Index": "index",
    "Input": "marker",
    "Job": "jobs.job",
    "JobRow": "jobs.job",
    "JobStatus": "jobs.job",
    "Label": "marker",
    "Message": "message",
    "Model": "model",
    "MqinferError": "errors",
    "Reject": "errors",
    "Rejected": "message",
    "Request": "requests.request",
    "RequestEvent": "requests.request",
    "Retry": "errors",
    "Row": "message",
    "Settings": "settings",
    "Snooze": "errors",
    "State": "statetype",
    "Tensor": "model",
    "Tick": "tick",
    "Worker": "running",
}


def __getattr__(name: str) -> Any:
    """Load a name's module when it is first asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mqinfer' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"mqinfer.{_MODULES[name]}"), name)
    globals()[name] = found  # and from now on it is there
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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


oldnames.connector = connect
