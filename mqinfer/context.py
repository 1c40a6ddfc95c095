"""Context: what a handler may know about the message it is handling.

A `ContextVar` carries the current one, so that a model call made anywhere below the handler,
also in a thread, is recorded on what the handler writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from mqinfer.blob import BlobStore


class Context:
    """The message being handled, seen from inside the handler.

    Attributes:
        id: identity of the message; outputs derive theirs from it.
        stage: name of the stage.
        run: name of the replay run, or None for live work.
        attempt: 1 for the first delivery.
        sequence: place in the stream, from 1.
        subject: what it was published on.
        headers: its NATS headers.
        published: when the stream stored it, in seconds since the epoch.
        state: what the stage's lifespan yielded.
        models: `name -> version` of the models that answered so far, ancestors' included.
        blobs: the blob store.
        log: a structlog logger bound to stage, id, sequence and attempt.
    """

    __slots__ = (
        "_log",
        "_progress",
        "attempt",
        "blobs",
        "headers",
        "id",
        "models",
        "published",
        "run",
        "sequence",
        "stage",
        "state",
        "subject",
        "waited",
        "waiting_since",
    )

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the word users know
        stage: str,
        sequence: int,
        attempt: int = 1,
        run: str | None = None,
        subject: str = "",
        headers: Mapping[str, str] | None = None,
        published: float = 0.0,
        state: Any = None,
        models: dict[str, str] | None = None,
        blobs: BlobStore | None = None,
    ):
        self.id = id
        self.stage = stage
        self.run = run
        self.attempt = attempt
        self.sequence = sequence
        self.subject = subject
        self.headers = headers or {}
        self.published = published
        self.state = state
        self.models = models if models is not None else {}
        self.blobs = blobs
        # Seconds spent waiting for a server that is down: the timeout does not count them.
        self.waited = 0.0
        self.waiting_since: float | None = None
        self._progress = False
        self._log: FilteringBoundLogger | None = None

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names the stage and the message."""
        if self._log is None:
            import structlog

            self._log = structlog.get_logger("mqinfer.handler").bind(
                stage=self.stage, id=self.id, sequence=self.sequence, attempt=self.attempt
            )
        return self._log

    def progress(self) -> None:
        """Say that the work advances: the stage's timeout starts anew."""
        self._progress = True

    def take_progress(self) -> bool:
        """Whether `progress()` was called since the last look; for the engine."""
        seen, self._progress = self._progress, False
        return seen


current: ContextVar[Context | None] = ContextVar("mqinfer_context", default=None)
