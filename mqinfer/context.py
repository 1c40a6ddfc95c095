"""Context: what a handler may know about the message it is handling.

A `ContextVar` carries the current one, so that a model call made anywhere below the handler,
also in a thread, is recorded on what the handler writes.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer.later import Later, cancelled, later

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from mqinfer.blob import BlobStore
    from mqinfer.completion.assemble import Died
    from mqinfer.message import Message


class Sent:
    """Can be awaited, and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        """Nothing is waited for."""
        yield from ()


SENT = Sent()


class Tells(Protocol):
    """Who compares how messages end that different versions of a model answered."""

    asked: dict[Any, Any]

    def ended(self, context: Context, error: BaseException | None) -> None:
        """The handling of a message ended: it is answered (None), or failed by this error."""


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
        died: of a join, what came of its root and was dead-lettered.
        incomplete: of a join, "late", "too many" or "changed" where it is not given all, or "".
        missing: of a join, by stage, how many messages it had not settled then.
        emitted: what `emit` was given, outside a worker: for tests of handlers.
        timers: what `later` and `cancel` were given, in their order; None where that is nothing.
        log: a structlog logger bound to stage, id, sequence and attempt.
        trial: who is told how it ends, while a model that it asked has a canary; for the engine.
    """

    __slots__ = (
        "_joined",
        "_log",
        "_progress",
        "_queued",
        "_sent",
        "_waits",
        "attempt",
        "blobs",
        "emitted",
        "headers",
        "id",
        "models",
        "published",
        "run",
        "sequence",
        "stage",
        "state",
        "subject",
        "timers",
        "trial",
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
        died: Sequence[Died] = (),
        incomplete: str = "",
        missing: Mapping[str, int] | None = None,
    ):
        self._joined = (tuple(died), incomplete, dict(missing or {}))
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
        self.emitted: list[Message] = []
        self.timers: list[Later] | None = None
        # Seconds spent waiting for a server that is down, or for the turn of a model call: the
        # timeout does not count them. Waits may overlap (several model calls at once); the time
        # passes once for all of them.
        self.waited = 0.0
        self.waiting_since: float | None = None
        self._waits = self._queued = self._sent = 0
        self._progress = False
        self.trial: Tells | None = None
        self._log: FilteringBoundLogger | None = None

    def join_told(self, died: tuple[Died, ...], incomplete: str, missing: dict[str, int]) -> None:
        """It is a join's; for the engine."""
        self._joined = (died, incomplete, missing)

    @property
    def died(self) -> tuple[Died, ...]:
        """What was dead-lettered."""
        return self._of_join[0]

    @property
    def incomplete(self) -> str:
        """Why a join is not given all, or ""."""
        return self._of_join[1]

    @property
    def missing(self) -> dict[str, int]:
        """By stage, messages that were not settled."""
        return self._of_join[2]

    @property
    def _of_join(self) -> tuple[tuple[Died, ...], str, dict[str, int]]:
        # Missing for most: one is made for every message, and few are of a join.
        return getattr(self, "_joined", None) or ((), "", {})

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

    def emit(self, output: Message) -> Awaitable[None]:
        """Send an output now, rather than when the handler is done.

        It stays on the stream whatever becomes of the handler. Its id follows from how many were
        emitted before: an attempt that emits the same again makes no second one.

            await ctx.emit(Token(n))

        In the thread of a plain `def` it waits by itself, and need not be awaited.

        Args:
            output: of a type that the handler's return annotation names.

        Raises:
            TypeError: it names no such type.
            RuntimeError: the handler is done, or it handles a batch.
            BlobError: a blob in it cannot be stored.
        """
        self.emitted.append(output)
        return SENT

    def later(
        self,
        message: Message,
        *,
        after: float | str | datetime.timedelta | None = None,
        at: datetime.datetime | None = None,
        name: str | None = None,
        key: object = None,
    ) -> Awaitable[None]:
        """Have a message published when it is time, and never before.

            await ctx.later(Reminder(position), after="1h", name="check")

        It is set when the handler has succeeded and its outputs are stored; an attempt that fails
        sets none. A redelivery sets it no second time. See docs/timers.md.

        Args:
            message: of a type that the stage was declared with: `@app.stage(later=Reminder)`.
            after: from now, in seconds or as text ("1h", "2d").
            at: a datetime with a zone; one that is past is now.
            name: the next timer that this stage sets under the same name and key replaces this one,
                and `cancel` ends it. None: nothing does.
            key: tells timers of one name apart; None is the key of the message that is handled, if
                its type has one.

        Raises:
            TypeError: it is no message.
            ValueError: the time, the name or the key cannot be used.
        """
        return self._wish(later(message, after=after, at=at, name=name, key=key))

    def cancel(self, name: str, *, key: object = None) -> Awaitable[None]:
        """Let the timer that this stage set under a name never come; nothing where there is none.

        It counts when the handler has succeeded, as `later` does.

        Args:
            name: of the timer.
            key: as in `later`.

        Raises:
            ValueError: the name or the key cannot be used.
        """
        return self._wish(cancelled(name, key))

    def _wish(self, wish: Later) -> Awaitable[None]:
        if self.timers is None:
            self.timers = []
        self.timers.append(wish)
        return SENT

    def take_progress(self, now: float) -> bool:
        """Whether `progress()` was called since the last look; for the engine.

        The timeout starts anew then, and with it what was waited and a wait that goes on.

        Args:
            now: monotonic seconds, by the clock that the stage is timed by.
        """
        seen, self._progress = self._progress, False
        if seen:
            self.waited = 0.0
            if self.waiting_since is not None:
                self.waiting_since = now
        return seen

    def pause(self, now: float) -> None:
        """Something of this message waits for a server that is down; for the engine.

        Args:
            now: monotonic seconds, by the clock of all these methods.
        """
        self._waits += 1
        self._turn(now)

    def resume(self, now: float) -> None:
        """What `pause` told of waits no more; without a pause before, nothing happens.

        Args:
            now: monotonic seconds.
        """
        if self._waits == 0:
            return
        self._waits -= 1
        self._turn(now)

    def model_calls(self, now: float, queued: int, sent: int) -> None:
        """So many more of its model calls stand behind others, or are under way; for the engine.

        One that stands behind others waits as for a server that is down, but only while no other
        call of this message is under way: what a message asks for itself is its own time, and so a
        model that never answers is bounded by the stage's timeout.

        Args:
            now: monotonic seconds.
            queued: calls that wait for their turn, more than before or (negative) fewer.
            sent: calls that a model is asked now; so for those.
        """
        self._queued += queued
        self._sent += sent
        if self._queued or self.waiting_since is not None:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Stop or start the clock of the stage's timeout."""
        if self._waits or (self._queued and not self._sent):
            if self.waiting_since is None:
                self.waiting_since = now
        elif self.waiting_since is not None:
            self.waited += now - self.waiting_since
            self.waiting_since = None

    def waited_by(self, now: float) -> float:
        """Seconds spent waiting until now, the wait that goes on included."""
        return self.waited + (0.0 if self.waiting_since is None else now - self.waiting_since)


current: ContextVar[Context | None] = ContextVar("mqinfer_context", default=None)
