"""Beside: what a handler takes beside its message, a context and a state, by their annotations."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Sequence
from typing import Any

from mqinfer.blobfields import blob_columns
from mqinfer.context import Context
from mqinfer.errors import WiringError
from mqinfer.message import Message
from mqinfer.readable import unreadable
from mqinfer.statetype import State, flaws


def holds_state(parameters: Sequence[tuple[str, Any]]) -> bool:
    """Whether one of the parameters, given with their annotations, is a state or a list of them."""
    return any(_state(hint) is not None for _, hint in parameters)


def read_beside(
    name: str, parameters: Sequence[tuple[str, Any]], reads: type[Message], *, batch: bool
) -> tuple[type[State] | None, bool, bool]:
    """What the parameters after the message are.

    Args:
        name: the stage's name, for error texts.
        parameters: with their annotations; None is none.
        reads: the type that the stage reads.
        batch: whether it takes a list of messages.

    Returns:
        The type of the state, whether there is a context, and whether the state stands before it.

    Raises:
        WiringError: what does not fit, and what to write instead.
    """
    context = list[Context] if batch else Context
    states = [state for _, hint in parameters if (state := _state(hint)) is not None]
    for _, hint in parameters:
        if _state(hint) is not None:
            _check(name, hint, reads, batch=batch)
        elif hint is not None and hint != context:
            raise WiringError(
                f"stage {name}: the {'other' if states else 'second'} parameter is the "
                f"{'list[Context] of the batch' if batch else 'Context'}, not "
                f"{getattr(hint, '__name__', hint) if isinstance(hint, type) else hint}; what else "
                "a handler needs its stage's lifespan= yields, as ctx.state"
            )
    if len(states) > 1:
        raise WiringError(
            f"stage {name}: takes {' and '.join(one.__name__ for one in states)}: a key has one "
            "state; make one State with the fields of both"
        )
    contexts = len(parameters) - len(states)
    if contexts > 1:
        raise WiringError(f"stage {name}: takes a context twice")
    first = not parameters or _state(parameters[0][1]) is not None
    return (states[0] if states else None), contexts == 1, first


def _state(hint: Any) -> type[State] | None:
    """The state type that an annotation names, alone or as a list."""
    if _listed(hint):
        (hint,) = typing.get_args(hint) or (None,)
    return hint if isinstance(hint, type) and issubclass(hint, State) else None


def _listed(hint: Any) -> bool:
    return typing.get_origin(hint) in (list, collections.abc.Sequence)


def _check(name: str, hint: Any, reads: type[Message], *, batch: bool) -> None:
    """Refuse a state that cannot be."""
    state = _state(hint)
    assert state is not None
    kind = state.__name__
    if _listed(hint) and not batch:
        raise WiringError(
            f"stage {name}: a handler of one message takes one state: {kind}, not list[{kind}]"
        )
    if batch and not _listed(hint):
        raise WiringError(
            f"stage {name}: a batch handler takes the states of its messages: list[{kind}]"
        )
    if problems := flaws(state) or unreadable(state) or _with_blobs(state):
        raise WiringError(f"stage {name}: {problems[0]}")
    if not reads.__mqinfer__.ordered:
        raise WiringError(
            f"stage {name}: takes the state {kind}, but {reads.__name__} is not in order by key: "
            "declare it with key= and ordered=True, so that a state is changed by one message at "
            "a time"
        )


def _with_blobs(state: type[State]) -> list[str]:
    """Fields that hold blobs: a store may drop those before the state goes."""
    return [
        f"{state.__name__}.{field}: a state holds no Blob: keep the blob's path, as a str"
        for field in blob_columns(state)
    ]
