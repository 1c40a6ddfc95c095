"""Model: a handle on a model of the inference server, declared once and awaited in handlers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from msgspec import Struct

from mqinfer.context import current
from mqinfer.errors import NotConnected
from mqinfer.opened import Open, Opened

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[Any]]  # Any: handlers compute with it

Priority = Literal["live", "bulk"]


class Tensor(Struct, frozen=True):
    """What a handler says it sends as one input: dtype and the shape of one item.

    -1 in the shape is any size. `mqinfer check` compares it with what the server wants.

    The rest is for model classes of a `models.toml` (see `mqinfer.catalog`), whose messages are
    held against it before a model sees them.

    Attributes:
        dtype: NumPy's name, "string" or "bytes".
        shape: of one item; () is one value.
        ge: the least that a number may be.
        le: the most.
        one_of: all that a text or an integer may be.
        description: for people, such as the unit.
    """

    dtype: str
    shape: tuple[int, ...]
    ge: float | None = None
    le: float | None = None
    one_of: tuple[str | int, ...] = ()
    description: str = ""


class Answer(dict[str, "Array"]):
    """The outputs of one item by name, and which model and version they came from."""

    __slots__ = ("model", "version")

    def __init__(self, outputs: Mapping[str, Array], *, model: str, version: str):
        super().__init__(outputs)
        self.model = model
        self.version = version

    def __missing__(self, name: str) -> Array:
        """Say which outputs there are.

        Raises:
            KeyError: the model has no such output.
        """
        there = ", ".join(map(repr, self)) or "none"
        raise KeyError(f"model {self.model} has no output {name!r}; it has {there}")


Pad = tuple[tuple[str, bool | float | str | bytes], ...]  # the input, and what it is padded with


class Together(NamedTuple):
    """How the calls of a handle may go together in one request.

    Attributes:
        max_batch: the most of them; None is the model's own bound.
        pad: inputs that are made equally long, and with what.
    """

    max_batch: int | None = None
    pad: Pad = ()


FREELY = Together()


class Target(NamedTuple):
    """Which model and version is to answer; calls that say the same go together.

    Attributes:
        name: the model's.
        version: None takes the latest that the server serves.
        alias: takes the version that it names, if it is set, rather than `version`.
        together: how calls may share a request.
    """

    name: str
    version: str | None = None
    alias: str | None = None
    together: Together = FREELY


class Inference(Protocol):
    """What a model handle needs of the process it runs in; the engine's `Inference`."""

    @property
    def closed(self) -> bool:
        """Whether it answers no more."""

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """Run one item; waits while the model is unavailable."""

    def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncGenerator[Answer]:
        """Run one item of a model that answers it in parts."""


# Of the worker, or of the `async with mqinfer.connect(app)`, that the task was started in.
inference: ContextVar[Inference | None] = ContextVar("mqinfer_inference", default=None)
# Of the clients that are open, for every other task.
clients: Opened[Inference] = Opened()
# Of tests (`mqinfer.testing.FakeModels`): what answers instead of a server, the last one first.
stand_ins: list[Inference] = []


@contextmanager
def entered(service: Inference) -> Iterator[None]:
    """Let this task, and those it starts meanwhile, call models with `service`."""
    token = inference.set(service)
    try:
        yield
    finally:
        # Where another task closes it, as some frameworks do, the variable ends with its task.
        with suppress(ValueError):
            inference.reset(token)


class ClientInference:
    """The inference of one client, called from any task, event loop and thread."""

    closed = False  # one that was closed says so itself

    def __init__(self, opened: Open[Inference]):
        self._opened = opened

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """Run one item."""
        return await self._opened.run(lambda service: service.ask(model, inputs))

    async def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncGenerator[Answer]:
        """Run one item of a model that answers it in parts."""
        parts = self._opened.service.stream(model, inputs)
        try:
            while (part := await self._opened.run(lambda _: _next(parts))) is not None:
                yield part
        finally:
            await self._opened.run(lambda _: _close(parts))


async def _next(parts: AsyncGenerator[Answer]) -> Answer | None:
    return await anext(parts, None)


async def _close(parts: AsyncGenerator[Answer]) -> None:
    await parts.aclose()


class Model:
    """A model by name; awaiting a call gives the outputs of one item.

    It is called in the handlers of a worker, and anywhere in a process while one client is open
    (`mqinfer.connect`): several of them are told apart by the app that declared the model, or by
    `client.model(...)`.

    Args:
        name: the model's name on the server.
        version: pin one version; None takes the newest that the server serves.
        alias: answer with the version that this alias names (`mqinfer models --set`); while it is
            not set, `version` says who answers.
        inputs: what handlers send, for `mqinfer check`.
        timeout: seconds a call may take outside of a handler, outages included; None is ten
            minutes. In a handler its stage's timeout bounds it.
        priority: "bulk" lets the live calls of this process go before, as those of a replay do.
        max_batch: the most items of one request; None is the model's own bound.
        pad: inputs to make equally long, so that items of different lengths go together, and the
            value they are filled up with (see `mqinfer.inference.padding`).
    """

    __slots__ = (
        "app",
        "caller",
        "client",
        "inputs",
        "priority",
        "target",
        "timeout",
    )

    def __init__(
        self,
        name: str,
        *,
        version: str | None = None,
        alias: str | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        timeout: float | None = None,
        priority: Priority = "live",
        max_batch: int | None = None,
        pad: Mapping[str, bool | float | str | bytes] | None = None,
    ):
        self.target = Target(name, version, alias, Together(max_batch, tuple((pad or {}).items())))
        self.inputs = dict(inputs or {})
        self.timeout = timeout
        self.priority = priority
        self.app: object = None  # that declared it
        self.client: Inference | None = None  # that always answers it, `client.model`
        self.caller = object()  # who takes turns with others, the same for its copies

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.target.name

    @property
    def version(self) -> str | None:
        """The version that answers; None is the newest that the server serves."""
        return self.target.version

    @property
    def alias(self) -> str | None:
        """The alias that names the version, if one does."""
        return self.target.alias

    async def __call__(self, **inputs: Array) -> Answer:
        """Run the model on one item, batched with every other call in flight.

        Args:
            inputs: NumPy arrays by the model's input names, without the batch dimension.

        Returns:
            Arrays by output name, without the batch dimension; `.version` says who answered.

        Raises:
            BadTensor: a name, dtype or shape does not fit the model.
            ModelError: the server refused this item, or the model answers in parts (`stream`).
            ModelTimeout: no answer came in time, outside of a handler.
            NotConnected: neither is a handler's worker around it, nor is a client open; or several
                clients are, and it does not follow whose it is.
        """
        answer = await self._run().ask(self, inputs)
        context = current.get()
        if context is not None:
            context.models[answer.model] = answer.version
        return answer

    async def stream(self, **inputs: Array) -> AsyncGenerator[Answer]:
        """Run a model that answers one item in parts (a decoupled one of Triton), as they come.

            async for part in llm.stream(prompt=prompt):
                text += part["text"].item()
            parts = [part async for part in llm.stream(prompt=prompt)]

        Leaving the loop early ends the request on the server. Any other model gives one part.
        The timeout of the handler's stage bounds the whole of it; outside of a handler the
        handle's `timeout` bounds each part.

        Args:
            inputs: NumPy arrays by the model's input names, without the batch dimension.

        Yields:
            The outputs of each part, those it has, without the batch dimension.

        Raises:
            BadTensor: as for a call; so for the others.
            ModelError: the server refused this item, or ended its answer with an error.
            ModelTimeout: a part did not come in time, outside of a handler.
            NotConnected: as for a call.
            Unavailable: server or model went down after the first part (before it, the call
                waits). A handler lets it pass: its message comes again, and spends no attempt.
        """
        context = current.get()
        parts = self._run().stream(self, inputs)
        async with aclosing(parts):
            async for part in parts:
                if context is not None:
                    context.models[part.model] = part.version
                yield part

    def _run(self) -> Inference:
        """What runs its calls here and now."""
        run = self.client or inference.get()
        return self._open(run) if run is None or run.closed else run

    def _open(self, closed: Inference | None) -> Inference:
        """The inference of the client that is open; else what is closed says why itself."""
        found = clients.of(self.app)
        if len(found) == 1:
            return ClientInference(found[0])
        if found:
            raise NotConnected(
                f"model {self.name}: {len(found)} clients are open; say which one is to answer: "
                f"`await client.model({self.name!r})(...)`"
            )
        if stand_ins:
            return stand_ins[-1]
        if closed is not None:
            return closed
        raise NotConnected(
            f"model {self.name}: call it inside a handler that a worker runs, or while a client is "
            "open: inside `async with mqinfer.connect(app)`, which a web app's lifespan may hold"
        )

    def __repr__(self) -> str:
        alias = "" if self.alias is None else f", alias={self.alias!r}"
        return f"Model({self.name!r}, version={self.version!r}{alias})"
