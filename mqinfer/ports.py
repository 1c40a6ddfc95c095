"""What the rooms need of the outside world; the adapters are handed in as these."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mqinfer.bucket import Bucket
from mqinfer.core import Core as Core
from mqinfer.core import Heard as Heard
from mqinfer.specs import ConsumerSpec as ConsumerSpec
from mqinfer.specs import ConsumerState as ConsumerState
from mqinfer.specs import CopyOf as CopyOf
from mqinfer.specs import StreamSpec as StreamSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

# --- inference ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model as its server declares it.

    Attributes:
        name: of the tensor.
        dtype: NumPy dtype (object for BYTES).
        shape: of one item, without the batch dimension; -1 is any size.
        optional: whether a call may leave this input out.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as its server declares it.

    Attributes:
        name: of the model.
        versions: that are ready now, oldest first.
        inputs: tensors to send.
        outputs: tensors that come back.
        max_batch_size: the most items a request may hold; 0: it takes no batch dimension.
        instances: requests that it runs at once; 0 is not known.
        decoupled: whether it answers an item in any number of parts.
        refusal: why it cannot be called, and what to do; None: it can.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch_size: int
    instances: int = 0
    decoupled: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model in the server's repository.

    Attributes:
        model: its name.
        version: "" where no version of the model was loaded.
        ready: whether it answers; `reason` says why not.
    """

    model: str
    version: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The outputs of one request, with the batch dimension if the model has one."""

    outputs: Mapping[str, Array]
    version: str


class InferenceServer(Protocol):
    """One shared inference server (Triton)."""

    async def describe(self, model: str, version: str | None = None) -> ModelInfo:
        """The model's metadata.

        Raises:
            ModelUnavailable: not served, not loaded, or its version is not there.
            Unavailable: the server does not answer.
        """

    async def infer(
        self, model: str, version: str | None, inputs: Mapping[str, Array], *, timeout: float | None
    ) -> ModelReply:
        """Run one request; the arrays carry the batch dimension if the model has one.

        A cancelled call cancels the request on the server, as far as the server does so. A
        connection that died is noticed also without a timeout.

        Raises:
            ModelError: the server refused this request for what is in it.
            ModelUnavailable: the model is not ready (unloaded, unknown version).
            Unavailable: the server does not answer, or not within `timeout` seconds (if given).
        """

    def stream(
        self, model: str, version: str | None, inputs: Mapping[str, Array]
    ) -> AsyncGenerator[ModelReply]:
        """Run one request with any number of replies; raises as `infer`, closing it cancels."""

    async def ready(self) -> None:
        """Return if the server is ready, or raise `Unavailable`, which says why not."""

    async def reload(self, model: str) -> None:
        """Load a model anew, whose process died; return when that is done.

        Raises:
            ConfigurationError: the server does not allow it.
            ModelError: it does not load.
            Unavailable: the server does not answer.
        """

    async def close(self) -> None:
        """Release the connection."""


# --- tables -------------------------------------------------------------------------------------

# Raises BadRows if the table as it is now would refuse these columns.
Rehearse = Callable[[Sequence[Sequence[Any]]], Awaitable[None]]


class Database(Protocol):
    """ClickHouse.

    Attributes:
        cluster: on whose servers tables are made; None is on one alone.
    """

    cluster: str | None

    async def ping(self) -> None:
        """Return if the server takes statements, or raise `Unavailable`, which says why not."""

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run a statement that gives no rows; or raises TableError (refused) or Unavailable."""

    async def settle(self, table: str) -> None:
        """Return when this server has the rows of a table that other replicas had acknowledged."""

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries; `{name:Type}` in the SQL takes a parameter."""

    async def insert(
        self,
        table: str,
        columns: Sequence[str],
        types: Sequence[str],
        data: Sequence[Sequence[Any]],
        *,
        token: str,
    ) -> None:
        """Insert a block of rows, column by column; durable when it returns.

        Args:
            table: its name.
            columns: their names.
            types: their ClickHouse types.
            data: one sequence of values a column, all of one length.
            token: `insert_deduplication_token`: the same block again is not stored twice.

        Raises:
            BadRows: the data was refused.
            TableError: the statement was refused (no table, no such column).
            PermissionDenied: these credentials may not insert there.
            Unavailable: no answer, or no room now; the block may have been stored.
        """

    def load(self) -> None:
        """Import what inserts need; the event loop stands still, so before it is watched."""

    def rehearsal(
        self, table: str, columns: Sequence[str], types: Sequence[str]
    ) -> AbstractAsyncContextManager[Rehearse]:
        """Inserts into a likeness of a table that keeps nothing; raises what `insert` does."""

    async def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row comes from: the framework's own columns.

    Attributes:
        id: identity of the row's message (unique for one answer).
        ancestors: ids of the messages it was made from, the first input first, its parent last.
        stage: that made it ("" when it was published from outside).
        run: the replay run, "" for live.
        models: `name -> version` of every model that answered on the way.
        sequence: of the row's message in the stream.
        published: nanoseconds since the epoch, the stream's time of the row's message.
    """

    id: str
    ancestors: tuple[str, ...] = ()
    stage: str = ""
    run: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
    published: int = 0


# --- messages -----------------------------------------------------------------------------------


class Delivery(Protocol):
    """One message as the stream delivered it."""

    data: bytes
    reply: bytes
    stream: str
    sequence: int
    attempt: int
    pending: int
    published: int
    size: int

    @property
    def subject(self) -> str:
        """What it was published on."""

    @property
    def headers(self) -> dict[str, str]:
        """NATS headers; parsed when first asked for."""


# Why a publish failed (None: it is stored), and whether the stream had it already.
PublishDone = Callable[[Exception | None, bool], None]


class Pull(Protocol):
    """A continuous pull from one durable consumer."""

    def request(self, messages: int, max_bytes: int) -> None:
        """Ask for more; what is not delivered when the request ends is given to `released`."""

    @property
    def paused(self) -> bool:
        """Whether to wait before the next request, since the last one ended badly."""

    @property
    def requests(self) -> int:
        """Requests that are open."""

    async def close(self) -> None:
        """Stop taking messages; those that still arrive are handed back at once."""


class Feed(Protocol):
    """Where a runner gets its messages from."""

    async def pull(
        self,
        stream: str,
        consumer: str,
        *,
        on_message: Callable[[Delivery], None],
        on_released: Callable[[int, int], None],
        recreate: Callable[[], Awaitable[object]],
        expires: float | None = None,
    ) -> Pull:
        """Begin to pull.

        Args:
            stream: the stream's name.
            consumer: the durable's name.
            on_message: called on the event loop for every message; must not raise or block.
            on_released: called with the messages and bytes of a request that ended unfilled.
            recreate: called when an operator deleted the consumer.
            expires: seconds that a request waits at most, and so that one of a worker that stands
                still may take messages; None is the longest.
        """

    def progress(self, delivery: Delivery, heard: Callable[[], None] | None = None) -> None:
        """Say that it is being worked on: `ack_wait` starts anew.

        `heard` is called when the server says that it knows; without it, nobody asks.
        """


class Broker(Feed, Protocol):
    """JetStream."""

    @property
    def max_payload(self) -> int:
        """The most bytes that payload and headers of one message may have together."""

    @property
    def blocked(self) -> str | None:
        """Why nothing can be pulled or published now, or None."""

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream, or change it to match where JetStream allows that.

        Raises:
            ConflictError: it differs in what cannot be changed.
        """

    async def stream_created(self, stream: str) -> str | None:
        """When the stream was made, which tells it from a later one of the same name.

        Raises:
            Unavailable: the server does not answer.
        """

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """Create the consumer, or change it to match where JetStream allows that.

        Raises:
            ConflictError: it differs in what cannot be changed.
        """

    async def consumer_state(self, stream: str, consumer: str) -> ConsumerState | None:
        """How far a consumer is; None if there is none; or raises Unavailable."""

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Configuration and state of every consumer of a stream; or raises Unavailable."""

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; or raises Unavailable."""

    async def uncopied(self, spec: StreamSpec) -> bool:
        """Whether the stream that `spec` copies holds messages that the copy does not have yet.

        Raises:
            Unavailable: the server does not answer.
        """

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
    ) -> None:
        """Publish and call `done` once: None when stored (or a repeat), else the error.

        Outages and a full stream are waited out under the same message id, for `timeout` seconds
        or for ever. `header` is a block that `mqinfer.identity.header_block` made.
        """

    async def room(self) -> None:
        """Return once there is room for another publish."""

    @property
    def full(self) -> bool:
        """Whether a polite caller waits for `room`."""

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge."""

    def nak(self, delivery: Delivery, delay: float) -> None:
        """Give back, to be delivered again after `delay` seconds (0 is at once)."""

    def term(self, delivery: Delivery, reason: str) -> None:
        """Never deliver again."""

    def confirm(self, delivery: Delivery, done: Callable[[], None]) -> None:
        """Call `done` when the server has read that a delivery was acknowledged, or ended.

        What the connection lost on the way is said again.
        """

    def bucket(
        self,
        name: str,
        *,
        max_age: float = 0.0,
        replicas: int = 1,
        ttls: bool = False,
        pushed: str | None = None,
    ) -> Bucket:
        """A key-value bucket; nothing is asked of the server yet.

        One that is made keeps values for `max_age` seconds (0 is for ever), in so many replicas;
        with `ttls` each may have a time of its own; and what is stored under a key of two tokens is
        published where `pushed` says, for those who listen at that moment.
        """

    async def lost(self) -> None:
        """Return when the connection is closed for good, which only a new one mends."""

    async def flush(self) -> None:
        """Return once the server has processed all that was sent.

        Raises:
            Unavailable: it does not answer.
        """

    async def close(self) -> None:
        """Close the connection."""
