"""Calls: what a queue keeps of a caller and of a request, and what others may see of a queue."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mqinfer.context import Context
from mqinfer.errors import ModelUnavailable, Unavailable
from mqinfer.inference import tensors
from mqinfer.inference.batcher import BatcherStatistics, Entry
from mqinfer.inference.limits import LimitStatistics
from mqinfer.inference.turns import Place
from mqinfer.model import Answer
from mqinfer.ports import ModelInfo

if TYPE_CHECKING:
    from mqinfer.model import Array
    from mqinfer.tracing.spans import Span

# So often, and for so long, may an item that is alone bring the server or the model down until it
# counts as at fault. A loss counts when there was a sign of life since the one before: a model
# that stays down is nobody's fault, and one that died of another item takes seconds to start.
_LOST_TIMES = 3
_LOST_SECONDS = 5.0


class ModelDied(ModelUnavailable):
    """A model's process died, perhaps of what was in the request; the server may not notice.

    Never seen by handlers: their calls wait, or end in a `ModelError` when they are at fault.
    """


class ServerLost(Unavailable):
    """One of several servers gave no answer, and others can: what was asked of it goes to them.

    Never seen by handlers. What it was asked is suspect, as after any loss: an item that brings
    down one server must not go on to bring down the next with all its neighbours.

    Args:
        reason: why there is none.
        signs_of_life: of all servers until now; more of them later say that they live.
    """

    def __init__(self, reason: str, signs_of_life: int):
        super().__init__(reason)
        self.signs_of_life = signs_of_life


class InferenceObserver(Protocol):
    """What wants to know of every request, for metrics; it must not raise or block."""

    def request(self, model: str, version: str, items: int, seconds: float) -> None:
        """A request was answered."""

    def failed(self, model: str, version: str) -> None:
        """A request was refused, or not answered."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A look at the queue of a model.

    Attributes:
        model: its name.
        version: None where the latest is followed.
        blocked: why nothing is sent now, or None.
        calls: callers that wait.
        waiting_for_room: those of them for whom there was no room in the batcher.
        requests: that were answered since the start.
        items: that were answered with a result.
        refused: items that were answered with an error.
        resent: items that had to be sent again, since no answer came.
        batcher: a look at it.
        limit: a look at it.
    """

    model: str
    version: str | None
    blocked: str | None
    calls: int
    waiting_for_room: int
    requests: int
    items: int
    refused: int
    resent: int
    batcher: BatcherStatistics
    limit: LimitStatistics


class Stand(enum.Enum):
    """Where a call stands, and so whether the clock of its handler runs."""

    QUEUED = "behind others: the clock stops, unless another call of its message is under way"
    SENT = "the model is asked: the clock runs"
    BLOCKED = "the server or the model is down: the clock stops"
    OVER = "it has not begun, or has its answer"


QUEUED, SENT, BLOCKED, OVER = Stand


class Losses:
    """How often an item got no answer although it was alone in its request.

    Attributes:
        count: of them.
    """

    __slots__ = ("_sign_of_life", "_since", "count")

    def __init__(self) -> None:
        self.count = 0
        self._since = 0.0
        self._sign_of_life: object = None

    def again(self, sign_of_life: object, now: float) -> bool:
        """It happened again; says whether the item is at fault by now.

        Args:
            sign_of_life: of the model; one that equals the last says that nothing was heard since.
            now: by the clock of the other calls.
        """
        if self._sign_of_life == sign_of_life:
            return False
        self._sign_of_life = sign_of_life
        if not self.count:
            self._since = now
        self.count += 1
        return self.count >= _LOST_TIMES and now - self._since >= _LOST_SECONDS


class Call:
    """One caller waiting for one item.

    Attributes:
        caller: whose turn it is: a stage, or a handle.
        place: the turn.
        given: parts of its answer that it was given, if it takes them one by one.
        until: when its bound is over, by the loop's clock; infinite where it has none.
        seconds: the bound.
        losses: None until it was lost while it was alone.
        span: that goes on where it was made, if that is traced.
    """

    # Whether its request can have brought nothing down.
    innocent = False

    __slots__ = (
        "_stand",
        "bulk",
        "caller",
        "context",
        "entry",
        "future",
        "given",
        "info",
        "inputs",
        "losses",
        "place",
        "request",
        "seconds",
        "size",
        "span",
        "until",
    )

    def __init__(
        self,
        info: ModelInfo,
        inputs: dict[str, Array],
        context: Context | None,
        bulk: bool = False,
        caller: Hashable = None,
    ):
        self.bulk = bulk
        self.caller = caller
        self.place: Place = (0, 0)
        self.info = info
        self.inputs = inputs
        self.context = context
        self.size = tensors.size(inputs)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.entry: Entry[Call] | None = None
        self.request: Request | None = None
        self.given = 0
        self.until = math.inf
        self.seconds = math.inf
        self.losses: Losses | None = None
        self.span: Span | None = None
        self._stand = OVER

    def succeed(self, answer: Answer) -> None:
        """Answer it, if the caller still waits."""
        self.request = None
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if the caller still waits."""
        if not self.future.done():
            self.future.set_exception(error)

    def stands(self, stand: Stand, now: float) -> None:
        """Say where it stands from now on."""
        before, context = self._stand, self.context
        if context is None or before is stand:
            return
        self._stand = stand
        if stand is BLOCKED:
            context.pause(now)
        if before is QUEUED:
            context.model_calls(now, -1, stand is SENT)
        elif before is SENT:
            context.model_calls(now, stand is QUEUED, -1)
        else:
            context.model_calls(now, stand is QUEUED, stand is SENT)
        if before is BLOCKED:
            context.resume(now)

    def broke_off(self, error: Unavailable) -> None:
        """No answer came; it waits, and is sent again."""


Batch = list[Entry[Call]]


class Request:
    """One slot at work: a request, and those it is split into when it is refused."""

    __slots__ = ("alive", "began", "open", "task")

    def __init__(self, batch: Batch, task: asyncio.Task[None] | None, began: float):
        # Entries that did not go back to the queue; their room is given up with the slot.
        self.open = dict.fromkeys(batch)
        # Callers that were not cancelled; without any the request is.
        self.alive = len(batch)
        self.task = task
        self.began = began
