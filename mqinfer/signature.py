"""Signature: the annotations of a handler are the wiring.

The first parameter says what the stage reads, the return annotation what it writes, and beside the
message stand a context and a state.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mqinfer.beside import holds_state, read_beside
from mqinfer.errors import WiringError
from mqinfer.message import Message, Rejected
from mqinfer.statetype import State

_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    list,
    tuple,
    collections.abc.Sequence,
)
_LISTS = (list, tuple, collections.abc.Sequence)


@dataclass(frozen=True, slots=True)
class Signature:
    """What the annotations of a handler say.

    Attributes:
        reads: the type of its messages.
        writes: the types that it may write.
        batch: whether it takes a list of messages.
        wants_context: whether it takes a context.
        kind: how it is called.
        state: the type of what it remembers of each key, if it does.
        state_first: whether the state stands before the context, where it takes both.
        many: whether it may write several messages for one.
    """

    reads: type[Message]
    writes: tuple[type[Message], ...]
    batch: bool
    wants_context: bool
    kind: Literal["coroutine", "async_generator", "function", "generator"]
    state: type[State] | None = None
    state_first: bool = True
    many: bool = field(default=False, compare=False)

    def with_state(self, message: object, context: object, state: object) -> tuple[object, ...]:
        """The arguments of a handler that takes a state."""
        if not self.wants_context:
            return (message, state)
        return (message, state, context) if self.state_first else (message, context, state)


def read_signature(
    name: str, handler: Callable[..., Any], scope: Mapping[str, Any] | None = None
) -> Signature:
    """The wiring in a handler's annotations.

    Args:
        name: the stage's name, for error texts.
        handler: the function.
        scope: names that annotations may refer to besides the handler's module.

    Raises:
        WiringError: what does not fit, and what to write instead.
    """
    hints = read_hints(f"stage {name}", handler, scope)
    parameters = list(inspect.signature(handler).parameters.values())
    beside = [(one.name, hints.get(one.name)) for one in parameters[1:]]
    if not 1 <= len(parameters) <= 2 + holds_state(beside) or any(
        parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    ):
        raise WiringError(
            f"stage {name}: a handler takes a message and, if it likes, a context, and a state of "
            "its key: (message: In) or (message: In, state: Kept, ctx: Context)"
        )
    reads, batch = _reads(name, parameters[0].name, hints.get(parameters[0].name))
    state, wants_context, state_first = read_beside(name, beside, reads, batch=batch)
    kind = handler_kind(handler)
    if batch and kind not in ("coroutine", "function"):
        raise WiringError(f"stage {name}: a batch handler returns a list; it cannot yield")
    if "return" not in hints:
        raise WiringError(
            f"stage {name}: annotate what it returns (-> Out, Out | None, AsyncIterator[Out], None)"
        )
    writes = written(f"stage {name}", hints["return"])
    if batch and writes and typing.get_origin(hints["return"]) not in _LISTS:
        raise WiringError(
            f"stage {name}: a batch handler returns a list with one entry for each message: "
            "-> list[Out | Rejected]"
        )
    return Signature(
        reads=reads,
        writes=tuple(dict.fromkeys(writes)),
        batch=batch,
        wants_context=wants_context,
        kind=kind,
        state=state,
        state_first=state_first,
        many=not batch and _many(hints["return"]),
    )


def _many(hint: Any) -> bool:
    """Whether an annotation of what is returned has a list, or the like, in it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(map(_many, typing.get_args(hint)))
    return origin in _STREAMS


def read_hints(
    what: str, handler: Callable[..., Any], scope: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The annotations of a handler.

    Args:
        what: it is of, for error texts.
        handler: the function.
        scope: names that annotations may refer to besides the handler's module.

    Raises:
        WiringError: they cannot be read.
    """
    from mqinfer.context import Context

    if not inspect.isroutine(handler):
        raise WiringError(
            f"{what}: a handler is a function (def or async def), not a {type(handler).__name__}"
        )
    try:
        # The context's type is looked up by name, so that user modules need not import it.
        return typing.get_type_hints(handler, localns={"Context": Context, **(scope or {})})
    except NameError as error:
        raise WiringError(
            f"{what}: an annotation names {error.name!r}, which is not defined"
        ) from None
    except (TypeError, AttributeError, SyntaxError) as error:
        raise WiringError(f"{what}: an annotation cannot be read: {error}") from None


def handler_kind(
    handler: Callable[..., Any],
) -> Literal["coroutine", "async_generator", "function", "generator"]:
    """What calling a handler gives."""
    if inspect.isasyncgenfunction(handler):
        return "async_generator"
    if inspect.iscoroutinefunction(handler):
        return "coroutine"
    if inspect.isgeneratorfunction(handler):
        return "generator"
    return "function"


def _reads(name: str, parameter: str, hint: Any) -> tuple[type[Message], bool]:
    batch = typing.get_origin(hint) in (list, collections.abc.Sequence)
    if batch:
        (hint,) = typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, State):
        raise WiringError(
            f"stage {name}: {hint.__name__} is a State, which stands beside the message: "
            f"(message: In, {parameter}: {hint.__name__})"
        )
    if not (isinstance(hint, type) and issubclass(hint, Message)):
        raise WiringError(
            f"stage {name}: annotate {parameter!r} with the Message it reads, "
            f"not with {_no_message(hint)}"
        )
    if getattr(hint, "__mqinfer__", None) is None:
        raise WiringError(f"stage {name}: reads {hint.__name__} itself; derive a type from it")
    return hint, batch


def _no_message(hint: Any) -> str:
    if hint is None:
        return "nothing"
    if isinstance(hint, type) and hint.__module__ != "builtins":
        return f"{_name(hint)}, which is none: `class {_name(hint)}(Message)` makes it one"
    return _name(hint)


def written(what: str, hint: Any) -> list[type[Message]]:
    """Flatten `A | B | None`, `AsyncIterator[A]`, `list[A | Rejected]`, ... to message types."""
    if hint is None or hint is type(None) or hint is Rejected:
        return []
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [out for part in typing.get_args(hint) for out in written(what, part)]
    if origin in _STREAMS:
        # Only the first argument of a generator is what it yields.
        arguments = typing.get_args(hint)
        if not arguments:
            raise WiringError(f"{what}: say what {_name(hint)} is of: {_name(hint)}[Out]")
        items = arguments[:1] if origin is not tuple else [a for a in arguments if a is not ...]
        return [out for part in items for out in written(what, part)]
    if isinstance(hint, type) and issubclass(hint, Message):
        if getattr(hint, "__mqinfer__", None) is None:
            raise WiringError(f"{what}: returns {hint.__name__} itself; derive a type from it")
        return [hint]
    if isinstance(hint, type) and issubclass(hint, State):
        raise WiringError(
            f"{what}: returns {hint.__name__}, which is a State: change it in place, and "
            "return messages"
        )
    raise WiringError(
        f"{what}: returns {_name(hint)}, which is no Message or Row; "
        "declare it as one, or return None"
    )


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)
