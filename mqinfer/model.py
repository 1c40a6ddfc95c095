"""Model: a handle on a model of the inference server, declared once and awaited in handlers."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from mqinfer.context import current
from mqinfer.errors import NotConnected

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]  # Any: handlers compute with it

Priority = Literal["live", "bulk"]


class Tensor(Struct, frozen=True):
    """What a handler says it sends as one input: dtype and the shape of one item.

    -1 in the shape is any size. `mqinfer check` compares it with what the server wants.
    """

    dtype: str
    shape: tuple[int, ...]


class Answer(dict[str, "Array"]):
    """The outputs of one item by name, and which model and version they came from."""

    __slots__ = ("model", "version")

    def __init__(self, outputs: Mapping[str, Array], *, model: str, version: str):
        super().__init__(outputs)
        self.model = model
        self.version = version


class Inference(Protocol):
    """What a model handle needs of the process it runs in; the engine's `Inference`."""

    async def __call__(
        self,
        model: str,
        version: str | None,
        inputs: Mapping[str, Array],
        alias: str | None = None,
        *,
        timeout: float | None = None,
        bulk: bool = False,
    ) -> Answer:
        """Run one item; waits while the model is unavailable."""


inference: ContextVar[Inference | None] = ContextVar("mqinfer_inference", default=None)


class Model:
    """A model by name; awaiting a call gives the outputs of one item.

    Args:
        name: the model's name on the server.
        version: pin one version; None takes the newest that the server serves.
        alias: answer with the version that this alias names (`mqinfer models --set`); while it is
            not set, `version` says who answers.
        inputs: what handlers send, for `mqinfer check`.
        timeout: seconds a call may take outside of a handler, outages included; None is ten
            minutes. In a handler its stage's timeout bounds it.
        priority: "bulk" lets the live calls of this process go before, as those of a replay do.
    """

    __slots__ = ("alias", "inputs", "name", "priority", "timeout", "version")

    def __init__(
        self,
        name: str,
        *,
        version: str | None = None,
        alias: str | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        timeout: float | None = None,
        priority: Priority = "live",
    ):
        self.name = name
        self.version = version
        self.alias = alias
        self.inputs = dict(inputs or {})
        self.timeout = timeout
        self.priority = priority

    async def __call__(self, **inputs: Array) -> Answer:
        """Run the model on one item, batched with every other call in flight.

        Args:
            inputs: NumPy arrays by the model's input names, without the batch dimension.

        Returns:
            Arrays by output name, without the batch dimension; `.version` says who answered.

        Raises:
            BadTensor: a name, dtype or shape does not fit the model.
            ModelError: the server refused this item.
            ModelTimeout: no answer came in time, outside of a handler.
            NotConnected: called outside a worker and outside `mqinfer.connect(app)`.
        """
        run = inference.get()
        if run is None:
            raise NotConnected(
                f"model {self.name}: call it inside a handler that a worker runs, "
                "or inside `async with mqinfer.connect(app)`"
            )
        bulk = self.priority == "bulk"
        answer = await run(
            self.name, self.version, inputs, self.alias, timeout=self.timeout, bulk=bulk
        )
        context = current.get()
        if context is not None:
            context.models[answer.model] = answer.version
        return answer

    def __repr__(self) -> str:
        alias = "" if self.alias is None else f", alias={self.alias!r}"
        return f"Model({self.name!r}, version={self.version!r}{alias})"
