"""Fake models: Python functions that answer model calls, for tests without any inference server."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mqinfer import model as handles
from mqinfer.context import current
from mqinfer.errors import BadTensor, ConfigurationError, ModelError, ModelTimeout, MqinferError
from mqinfer.inference import tensors
from mqinfer.inference.canaried import Canaried
from mqinfer.inference.inference import InferenceStatistics
from mqinfer.inference.streaming import take_stream
from mqinfer.model import Answer, Model
from mqinfer.ports import ModelInfo, TensorInfo

if TYPE_CHECKING:
    from mqinfer.model import Array

# What a fake model answers: outputs by name, or a function of the inputs that gives them; a list of
# them, or a generator, in parts; or an error that it raises.
Answering = Mapping[str, Any] | Callable[..., Any] | list[Mapping[str, Any]] | Exception


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A call of a fake model.

    Attributes:
        model: its name.
        version: that answered.
        inputs: as the handler gave them.
        error: that was raised, if one was.
    """

    model: str
    version: str
    inputs: Mapping[str, Array]
    error: Exception | None = None


class FakeModels:
    """Answers all model calls of this process while inside; no server is asked.

        def grade(leaf):
            return {"probabilities": np.eye(4, dtype=np.float32)[2]}

        with FakeModels({"grade_rust": grade, "leaf_detector": {"boxes": boxes}}) as models:
            grades = await grade_leaf(Leaf(...))                    # a handler, called by hand
            async with nats_only(folder) as settings, Harness(app, settings) as harness:
                await harness.publish(photo)                        # or stages that a worker runs
                await harness.drain()
            assert models.calls("grade_rust")[0].inputs["leaf"].shape == (96, 96, 3)

    Functions get the arrays of one item by the names of the inputs, and give outputs by name, as
    arrays or what NumPy makes one of; they may be coroutine functions. Where a handle declares its
    inputs (`app.model("m", inputs={...})`), names, dtypes and shapes are checked as a server's are.
    Calls are not gathered, and a model that raises an outage is not waited for.

    Args:
        models: answers by the model's name, for every version of it; or by `name:version`, and
            then those are the versions that there are, the last of which is the latest.
        aliases: the version that an alias names, by `name@alias`.
    """

    def __init__(
        self,
        models: Mapping[str, Answering] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
    ):
        self.aliases = dict(aliases or {})
        self._inference = _FakeInference(self.aliases)
        self._entered: list[Any] = []
        for name, answer in (models or {}).items():
            self[name] = answer

    def __setitem__(self, name: str, answer: Answering) -> None:
        """Answer so from now on: `models["grade:2"] = ...`."""
        model, _, version = name.partition(":")
        self._inference.models.setdefault(model, {})[version] = answer

    def fail(self, model: str, error: Exception | str, *, times: int = 1) -> None:
        """Have the next calls of a model fail, after those that are to fail already.

        Args:
            model: its name.
            error: that is raised; a text is a `ModelError`.
            times: how many calls.
        """
        raised = ModelError(f"model {model}: {error}") if isinstance(error, str) else error
        self._inference.errors[model].extend([raised] * times)

    def delay(self, model: str, seconds: float) -> None:
        """Have a model take so long for each answer."""
        self._inference.delays[model] = seconds

    def calls(self, model: str | None = None) -> list[ModelCall]:
        """What was asked so far, in order; of one model, or of all."""
        return [one for one in self._inference.calls if model in (None, one.model)]

    def __enter__(self) -> Self:
        self._entered.append(handles.inference.set(self._inference))
        handles.stand_ins.append(self._inference)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        handles.stand_ins.remove(self._inference)
        # A fixture may be left in another context than it was entered in.
        with suppress(ValueError):
            handles.inference.reset(self._entered.pop())


class _FakeInference:
    """What handles, clients and workers call in place of the engine's `Inference`."""

    closed = False

    def __init__(self, aliases: Mapping[str, str]):
        self.models: dict[str, dict[str, Answering]] = {}
        self.errors: defaultdict[str, deque[Exception]] = defaultdict(deque)
        self.delays: dict[str, float] = {}
        self.calls: list[ModelCall] = []
        self.canaried = Canaried({})  # there are none
        self._aliases = aliases
        self._pins: dict[str, str] = {}

    def statistics(self) -> InferenceStatistics:
        """Nothing waits: what is asked is answered at once, or when its delay has passed."""
        return InferenceStatistics(None, 0, ())

    async def ask(self, model: Model, inputs: Mapping[str, Array]) -> Answer:
        """Answer one item."""
        # As the engine: a stage's timeout bounds a handler, the handle's all others.
        seconds = model.timeout if current.get() is None else None
        try:
            async with asyncio.timeout(seconds):
                found = [part async for part in self.stream(model, inputs)]
        except TimeoutError:
            raise ModelTimeout(f"model {model.name}: no answer within {seconds:g} s") from None
        if len(found) != 1:
            raise ModelError(take_stream(model.name))
        return found[0]

    async def stream(self, model: Model, inputs: Mapping[str, Array]) -> AsyncGenerator[Answer]:
        """Answer one item in as many parts as its answer has."""
        name = model.name
        version, answer = self._answering(model)
        at, call = len(self.calls), ModelCall(name, version, dict(inputs))
        self.calls.append(call)
        try:
            _check(model, inputs)
            if delay := self.delays.get(name):
                await asyncio.sleep(delay)
            if self.errors[name]:
                raise self.errors[name].popleft()  # noqa: TRY301 - as the model would
            async for outputs in _parts(name, answer, inputs):
                # Copies: a handler may write into what it gets.
                copied = {key: np.array(value) for key, value in outputs.items()}
                yield Answer(copied, model=name, version=version)
        except Exception as error:
            self.calls[at] = replace(call, error=error)
            raise

    def _answering(self, model: Model) -> tuple[str, Answering]:
        """The version that answers, and what it answers.

        Raises:
            ConfigurationError: there is none such.
        """
        name, pin = model.name, self._pins.get(model.name)
        if (refusal := self._missing(name)) is not None:
            raise ConfigurationError(refusal)
        versions = self.models[name]
        numbered = [one for one in versions if one]
        latest = numbered[-1] if numbered else "1"
        version = pin or self._aliases.get(f"{name}@{model.alias}", model.version) or latest
        found = versions.get(version, versions.get(""))
        if found is None:
            raise ConfigurationError(
                f"FakeModels has no version {version} of {name}; it has {', '.join(numbered)}"
            )
        return version, found

    def _missing(self, model: str) -> str | None:
        """Why a model cannot be asked; None if it can."""
        if model in self.models:
            return None
        return f"FakeModels has no model {model!r}; it has {', '.join(self.models) or 'none'}"

    def pin(self, versions: Mapping[str, str]) -> None:
        """Answer with these versions, whatever a call asks for."""
        self._pins = dict(versions)

    def canary_away(self, model: str, alias: str, seconds: float) -> str | None:
        """There are no canaries."""
        del model, alias, seconds
        return None

    def beside(self) -> _FakeInference:
        """Another one of the same models, with pins of its own."""
        other = copy(self)
        other._pins = {}
        return other

    def share(self, part: float) -> None:
        """There are no slots to share."""

    def blocked(self, models: Iterable[Model]) -> str | None:
        """Nothing is ever down."""
        del models
        return None

    async def refusal(self, models: Iterable[Model]) -> str | None:
        """Why one of these models can never be called, so that a worker does not begin."""
        return next((why for one in models if (why := self._missing(one.name))), None)

    async def run(self) -> None:
        """Nothing to keep fresh; until cancelled."""
        await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def _check(model: Model, inputs: Mapping[str, Any]) -> None:
    """As the engine does with what a server declares.

    Raises:
        BadTensor: a name, dtype or shape does not fit what the handle declares.
    """
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise BadTensor(
                f"model {model.name}: input {name!r} is a {type(array).__name__}; "
                "pass a NumPy array"
            )
    if not model.inputs:
        return
    wanted = []
    for name, one in model.inputs.items():
        dtype = np.dtype(object if one.dtype in ("string", "bytes") else one.dtype)
        wanted.append(TensorInfo(name, dtype, tuple(one.shape)))
    tensors.check(ModelInfo(model.name, (), tuple(wanted), (), 0), inputs)


async def _parts(
    model: str, answer: Answering, inputs: Mapping[str, Array]
) -> AsyncGenerator[Mapping[str, Any]]:
    """The outputs of each part of an answer.

    Raises:
        BadTensor: the function does not take these inputs.
        ModelError: it failed, or gave no outputs by name.
    """
    try:
        given: Any = _called(model, answer, inputs) if callable(answer) else answer
        if inspect.isawaitable(given):
            given = await given
        if isinstance(given, Exception):
            raise given  # noqa: TRY301 - what a model answers is raised as what its code raises
        if inspect.isasyncgen(given):
            async for part in given:
                yield _outputs(model, part)
        elif isinstance(given, list) or inspect.isgenerator(given):
            for part in given:
                yield _outputs(model, part)
        else:
            yield _outputs(model, given)
    except MqinferError:
        raise
    except Exception as error:
        raise ModelError(f"model {model}: {type(error).__name__}: {error}") from error


def _called(model: str, answer: Callable[..., Any], inputs: Mapping[str, Array]) -> Any:
    try:
        with suppress(ValueError):  # some of C have no signature
            inspect.signature(answer).bind(**inputs)
    except TypeError as error:
        raise BadTensor(f"model {model}: its function does not take the inputs: {error}") from None
    return answer(**inputs)


def _outputs(model: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ModelError(
            f"model {model}: a fake answers with outputs by name, not a {type(given).__name__}"
        )
    return given
