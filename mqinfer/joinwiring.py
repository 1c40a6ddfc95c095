"""Wiring of joins: their annotations, what is below their roots, and what could never be. Pure.

The first parameter of a join's handler is the root, the second a list of outputs.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mqinfer.context import Context
from mqinfer.errors import WiringError
from mqinfer.message import Message, MessageInfo, Row
from mqinfer.signature import Signature, handler_kind, read_hints, written
from mqinfer.stage import Stage


def read_join(
    name: str,
    handler: Callable[..., Any],
    root: object,
    of: object,
    scope: Mapping[str, Any],
    joined: type[Message],
) -> tuple[Signature, type[Message], tuple[type[Message], ...]]:
    """The wiring of a join.

    Args:
        name: of the join, for error texts.
        handler: the function.
        root: the first argument of `app.join`.
        of: its `of=`.
        scope: names that annotations may refer to besides the handler's module.
        joined: what its stage reads.

    Returns:
        The signature of its stage, the type of the root, and those of the outputs.

    Raises:
        WiringError: what does not fit, and what to write instead.
    """
    kind = _message(name, root, "the first argument", "@app.join(Root, of=Out)")
    if issubclass(kind, Row):
        raise WiringError(
            f"join {name}: {kind.__name__} is a Row, which ends in its table; join on the message "
            "that led to it, with the row in of="
        )
    given = of if isinstance(of, tuple) else (of,)
    outputs = tuple(
        dict.fromkeys(_message(name, one, "of=", "a type, or a tuple of types") for one in given)
    )
    if not outputs:
        raise WiringError(f"join {name}: of= names no type")
    hints = read_hints(f"join {name}", handler, scope)
    parameters = list(inspect.signature(handler).parameters.values())
    wanted = " | ".join(one.__name__ for one in outputs)
    shape = f"async def {name}(root: {kind.__name__}, outputs: list[{wanted}], ctx: Context) -> ..."
    if not 2 <= len(parameters) <= 3 or any(
        parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    ):
        raise WiringError(
            f"join {name}: a handler takes the root, the list of its outputs and, if it likes, a "
            f"context: {shape}"
        )
    if hints.get(parameters[0].name) is not kind:
        raise WiringError(
            f"join {name}: annotate {parameters[0].name!r} with {kind.__name__}: {shape}"
        )
    if set(_items(hints.get(parameters[1].name))) != set(outputs):
        raise WiringError(
            f"join {name}: annotate {parameters[1].name!r} with list[{wanted}]: {shape}"
        )
    if len(parameters) == 3 and hints.get(parameters[2].name, Context) is not Context:
        raise WiringError(f"join {name}: the third parameter is the Context: {shape}")
    calls = handler_kind(handler)
    if calls not in ("coroutine", "async_generator"):
        raise WiringError(f"join {name}: its handler is an `async def`: {shape}")
    if "return" not in hints:
        raise WiringError(
            f"join {name}: annotate what it returns (-> Out, Out | None, AsyncIterator[Out], None)"
        )
    signature = Signature(
        reads=joined,
        writes=tuple(dict.fromkeys(written(f"join {name}", hints["return"]))),
        batch=False,
        wants_context=len(parameters) == 3,
        kind=calls,
    )
    return signature, kind, outputs


def _message(name: str, given: object, what: str, wanted: str) -> type[Message]:
    info: MessageInfo | None = getattr(given, "__mqinfer__", None)
    if not (isinstance(given, type) and issubclass(given, Message)) or info is None:
        told = getattr(given, "__name__", None) or repr(given)
        raise WiringError(f"join {name}: {what} is {told}, which is no message type: {wanted}")
    return given


def _items(hint: Any) -> Iterator[Any]:
    """The types in `list[A | B]`; none for what is no list."""
    if typing.get_origin(hint) not in (list, collections.abc.Sequence):
        return
    (item,) = typing.get_args(hint)
    if typing.get_origin(item) in (typing.Union, types.UnionType):
        yield from typing.get_args(item)
    else:
        yield item


def below(stages: Mapping[str, Stage], root: type[Message], *, own: bool = False) -> list[Stage]:
    """The stages that handle `root` and all that comes of it, as far as it is waited for.

    Args:
        stages: of the app.
        root: the type.
        own: whether what joins of `root` itself write is waited for, as a request does. Those joins
            do not; what a join of another root below it writes they wait for.
    """
    found: dict[str, Stage] = {}
    kinds = [root]
    for kind in kinds:  # grows
        for stage in stages.values():
            joined = (
                stage.join is not None and stage.join.root is kind and (own or kind is not root)
            )
            if (stage.reads is kind or joined) and stage.name not in found:
                found[stage.name] = stage
                kinds += [one for one in stage.writes if one not in kinds]
    return list(found.values())


def misjoined(stages: Mapping[str, Stage]) -> Iterator[WiringError]:
    """Joins that could never be called, or never be given what they ask for."""
    for stage in stages.values():
        join = stage.join
        if join is None:
            continue
        name, root = join.root.__name__, join.root
        if not any(other.reads is root for other in stages.values()):
            yield WiringError(
                f"join {join.name}: no stage reads {name}, so nothing ever comes of one; "
                "join on a type that a stage reads"
            )
            continue
        under = below(stages, root)
        writes = {kind for other in under for kind in other.writes}
        for kind in join.of:
            if kind not in writes:
                told = ", ".join(sorted(one.__name__ for one in writes)) or "nothing"
                yield WiringError(
                    f"join {join.name}: of={kind.__name__}, which nothing below {name} writes; "
                    f"what comes of it is {told}"
                )
        if root in writes:
            yield WiringError(
                f"join {join.name}: {name} leads back to itself, so that one is below the other "
                "without an end; join on the type that the loop begins with"
            )


def roots(stages: Mapping[str, Stage]) -> Sequence[type[Message]]:
    """The types that joins wait for, each once."""
    return tuple(dict.fromkeys(stage.join.root for stage in stages.values() if stage.join))
