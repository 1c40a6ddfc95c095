"""Calls: what a lane keeps of a caller and of a request, and what others may see of a lane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mqinfer.context import Context
from mqinfer.errors import ModelUnavailable
from mqinfer.inference import tensors
from mqinfer.inference.batcher import BatcherStatistics, Entry
from mqinfer.inference.limits import LimitStatistics
from mqinfer.model import Answer
from mqinfer.ports import ModelInfo

if TYPE_CHECKING:
    from mqinfer.model import Array


class ModelDied(ModelUnavailable):
    """A model's process died, perhaps of what was in the request; the server may not notice.

    Never seen by handlers: their calls wait, or end in a `ModelError` when they are at fault.
    """


class InferenceObserver(Protocol):
    """What wants to know of every request, for metrics; it must not raise or block."""

    def request(self, model: str, version: str, items: int, seconds: float) -> None:
        """A request was answered."""

    def failed(self, model: str, version: str) -> None:
        """A request was refused, or not answered."""


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """A look at a lane.

    Attributes:
        model: its name.
        version: None where the latest is followed.
        blocked: why nothing is sent now, or None.
        calls: callers that wait.
        at_door: those of them for whom there was no room in the batcher.
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
    at_door: int
    requests: int
    items: int
    refused: int
    resent: int
    batcher: BatcherStatistics
    limit: LimitStatistics


class Call:
    """One caller waiting for one item."""

    __slots__ = (
        "context",
        "entry",
        "future",
        "info",
        "inputs",
        "lost",
        "lost_since",
        "paused",
        "request",
        "sign_of_life",
        "size",
    )

    def __init__(self, info: ModelInfo, inputs: dict[str, Array], context: Context | None):
        self.info = info
        self.inputs = inputs
        self.context = context
        self.size = tensors.size(inputs)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.entry: Entry[Call] | None = None
        self.request: Request | None = None
        # How often, and since when, no answer came although it was alone; and the last sign of
        # life of the model then.
        self.lost = 0
        self.lost_since = 0.0
        self.sign_of_life: object = None
        self.paused = False

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if the caller still waits."""
        if not self.future.done():
            self.future.set_exception(error)


Part = list[Entry[Call]]


class Request:
    """One slot at work: a request, and those it is split into when it is refused."""

    __slots__ = ("alive", "open", "task")

    def __init__(self, part: Part, task: asyncio.Task[None] | None):
        # Entries that did not go back to the queue; their room is given up with the slot.
        self.open = dict.fromkeys(part)
        # Callers that were not cancelled; without any the request is.
        self.alive = len(part)
        self.task = task
