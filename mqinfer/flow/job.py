"""Job: one message in flight in one stage, and the four states of its life.

              begin               handled               settle
    WAITING ─────────> HANDLING ───────────> STORING ───────────> SETTLED
       │                 │   └── begin again: of a batch that        ^ ^
       │                 │       hung, each is handled alone         │ │
       │                 └── settle: nothing to store, or it failed ─┘ │
       └── settle: handed back, for another consumer, no message at all ┘

A job is settled once, whoever is first: it is acknowledged, given back or dead-lettered, or it is
let go because it is another worker's by now. Outputs that JetStream has not acknowledged hold it in
STORING (or in HANDLING, where a generator publishes on the way).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from mqinfer.context import Context
from mqinfer.flow.past import NOTHING, Past
from mqinfer.identity import ANCESTORS, MODELS, input_id, parse_ancestors, parse_models

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.later import Later
    from mqinfer.message import Message
    from mqinfer.ports import Delivery


class Emits(Protocol):
    """Sends outputs of a handler that still runs; `flow.early.Early` does."""

    def emit(self, output: Message) -> Awaitable[None]:
        """Send one."""


class Remembers(Protocol):
    """What a stage remembers beside one message; `mqinfer.state` makes it."""

    @property
    def key(self) -> str:
        """Tells it from others of the stage."""

    def begin(self) -> object:
        """The state for a handler that begins, as it was before whatever an earlier one did."""

    def seal(self) -> None:
        """The handler is done; raises what keeps its state from being written."""

    @property
    def void(self) -> bool:
        """Whether it began from a state that is not to be."""

    def keep(self, then: Callable[[BaseException | None], None]) -> None:
        """Write the state; `then` is called once, when it is written, or with why it is not."""

    def drop(self, error: BaseException, then: Callable[[BaseException | None], None]) -> None:
        """The message failed; `then` is called once with why, when those before it are written."""

    def leave(self) -> None:
        """The message is no longer this worker's."""


class DeliveryContext(Context):
    """The context of a delivery; what few handlers ask for is made when it is asked for.

    Attributes:
        early: sends outputs while the handler runs; where it cannot, it is None or missing.
    """

    __slots__ = ("_delivery", "_models", "early", "past")

    early: Emits | None

    def __init__(
        self,
        delivery: Delivery,
        headers: Mapping[str, str],
        stage: str,
        state: object,
        blobs: BlobStore | None,
        run: str | None,
    ):
        # Not Context.__init__: this runs for every message, and half of that would be unused.
        self._delivery = delivery
        self._models: dict[str, str] | None = None
        self.past = NOTHING  # what is known of its earlier deliveries
        self.id = input_id(headers, delivery.stream, delivery.sequence)
        self.run = run  # never what a header says: rows of a run are hidden
        self.stage = stage
        self.headers = headers
        self.state = state
        self.blobs = blobs
        self.waited = 0.0
        self.waiting_since = None
        self._waits = self._queued = self._sent = 0
        self._progress = False
        self.trial = None
        self._log = None

    def emit(self, output: Message) -> Awaitable[None]:
        """Send an output now."""
        early: Emits | None = getattr(self, "early", None)
        if early is None:
            raise RuntimeError(
                f"stage {self.stage}: ctx.emit is for the handler of one message, while it runs: a "
                "batch handler returns its outputs, and one that is done can send no more"
            )
        return early.emit(output)

    def _wish(self, wish: Later) -> Awaitable[None]:
        del wish
        raise RuntimeError(
            f"stage {self.stage} sets no timers: say of which types it does with "
            "@app.stage(later=...)"
        )

    @property
    def models(self) -> dict[str, str]:  # type: ignore[override]
        """Models that answered so far, ancestors' included."""
        if self._models is None:
            told = self.headers.get(MODELS)
            self._models = parse_models(told) if told else {}
        return self._models

    @property
    def attempt(self) -> int:  # type: ignore[override]
        """1 for the first; a delivery that ended without a word counts as if it was one."""
        return self.past.attempt

    @property
    def sequence(self) -> int:  # type: ignore[override]
        """Place in the stream, from 1."""
        return self._delivery.sequence

    @property
    def subject(self) -> str:  # type: ignore[override]
        """What it was published on."""
        return self._delivery.subject

    @property
    def published(self) -> float:  # type: ignore[override]
        """When the stream stored it, in seconds since the epoch."""
        return self._delivery.published / 1e9


class TimedContext(DeliveryContext):
    """Of a stage that sets timers.

    Attributes:
        over: the handling is, and what it asked for was taken.
    """

    __slots__ = ("over",)

    def __init__(
        self,
        delivery: Delivery,
        headers: Mapping[str, str],
        stage: str,
        state: object,
        blobs: BlobStore | None,
        run: str | None,
    ):
        super().__init__(delivery, headers, stage, state, blobs, run)
        self.timers = None
        self.over = False

    def _wish(self, wish: Later) -> Awaitable[None]:
        if self.over:
            raise RuntimeError(
                f"stage {self.stage}: ctx.later and ctx.cancel are for a handler while it runs"
            )
        return Context._wish(self, wish)  # past the class between, which refuses


class State(enum.Enum):
    """Where a job is in its life."""

    WAITING = "waiting for a handler"
    HANDLING = "being handled"
    STORING = "its outputs are being stored"
    SETTLED = "settled"


class Interruption(enum.Enum):
    """Why a handler was cancelled, other than for a stop; the last two: its request is so."""

    LATE = "a shadow passes over what has waited for too long"
    TIMEOUT = "it ran past its stage's timeout"
    NOT_OURS = "its message is another worker's by now"
    CANCELED = "canceled"
    EXPIRED = "expired"


WAITING, HANDLING, STORING, SETTLED = State


class Job(Struct, eq=False):  # a Struct: one is made for every message
    """A delivery, what was decoded from it, and how far its answer is.

    Attributes:
        delivery: as the stream gave it.
        state: of its life; see the module.
        message: decoded; None until then.
        context: what the handler sees.
        ancestors: ids of what it was made from.
        received: monotonic seconds; `pulsed` when the server last heard that it is worked on.
        started: when its handler began; None while it waits for one.
        task: that runs the handler now, perhaps for a whole batch.
        interrupted: why the runner cancelled that task, or None.
        unpublished: outputs that JetStream has not acknowledged.
        problem: why an output could not be published.
        noted: outputs and their numbers, where somebody waits for all that comes of it.
        recorded: whether these are, or are about to be.
        after: called when no output is on its way, of a message that failed or died.
        memory: the state of its key, until that is being written; None where nothing is remembered.
    """

    delivery: Delivery
    received: float
    pulsed: float
    state: State = WAITING
    message: Message | None = None
    context: DeliveryContext | None = None
    ancestors: tuple[str, ...] = ()
    started: float | None = None
    task: asyncio.Task[object] | None = None
    interrupted: Interruption | None = None
    unpublished: int = 0
    problem: Exception | None = None
    noted: list[tuple[int, Message]] | None = None
    recorded: bool = False
    after: Callable[[], None] | None = None
    memory: Remembers | None = None

    def open(
        self,
        stage: str,
        state: object,
        blobs: BlobStore | None,
        run: str | None = None,
        kind: type[DeliveryContext] = DeliveryContext,
    ) -> DeliveryContext:
        """Read the headers and make the context; once, when the message's turn has come."""
        headers = self.delivery.headers
        if headers and (ancestors := headers.get(ANCESTORS)):
            self.ancestors = parse_ancestors(ancestors)
        self.context = kind(self.delivery, headers, stage, state, blobs, run)
        return self.context

    # --- transitions ----------------------------------------------------------------------------

    def begin(self, task: asyncio.Task[object], now: float) -> None:
        """A handler begins with it, or begins again."""
        self.state = HANDLING
        self.task = task
        self.started = now
        self.interrupted = None
        if self.context is not None:
            self.context.waited = 0.0  # what it waited before has lengthened that beginning

    def handled(self) -> bool:
        """The handler is done with it: it waits for JetStream alone. False if it is settled."""
        if self.state is SETTLED:
            return False
        self.state = STORING
        return True

    def settle(self) -> State:
        """Its end; gives the state it was in. Nothing is to be said about it any more."""
        before, self.state = self.state, SETTLED
        return before

    def tell(self, error: BaseException | None) -> None:
        """Say how its handling ended, where versions of a model are compared by that.

        Args:
            error: that it failed by; None: it is answered.
        """
        if self.context is not None and self.context.trial is not None:
            trial, self.context.trial = self.context.trial, None
            trial.ended(self.context, error)

    # --- looking --------------------------------------------------------------------------------

    @property
    def past(self) -> Past:
        """What is known of its earlier deliveries; nothing before it was opened and explained."""
        return NOTHING if self.context is None else self.context.past

    @property
    def id(self) -> str:
        """Identity of the message."""
        if self.context is not None:
            return self.context.id
        delivery = self.delivery
        return input_id(delivery.headers, delivery.stream, delivery.sequence)

    def busy(self, now: float) -> float:
        """Seconds that the handler has worked, without those it waited for a server."""
        if self.started is None or self.context is None:
            return 0.0
        return now - self.started - self.context.waited_by(now)

    def __repr__(self) -> str:
        return f"Job({self.delivery!r}, {self.state.value}, unpublished={self.unpublished})"
