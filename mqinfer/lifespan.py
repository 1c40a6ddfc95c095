"""Lifespan: what an app or a stage opens once a process; refused where it could not be entered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from mqinfer.errors import WiringError

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_HOW = "write @contextlib.asynccontextmanager above `async def {name}():` with one `yield`"
# What is called, but not entered, when the decorator was forgotten.
_BARE = inspect.isasyncgenfunction, inspect.isgeneratorfunction, inspect.iscoroutinefunction


def misused(where: str, lifespan: object) -> Iterator[WiringError]:
    """What is wrong with a `lifespan=`, and what to write; nothing if it can be entered.

    Args:
        where: it was given, for the text: "app plants", "stage crop".
        lifespan: what was given; None is none.
    """
    if lifespan is None:
        return
    # A context manager made by the decorator can be called, too: as a decorator.
    if isinstance(lifespan, AbstractAsyncContextManager) or not callable(lifespan):
        yield WiringError(
            f"{where}: lifespan= is a function, not a {type(lifespan).__name__}: give it without "
            "calling it"
        )
        return
    name = getattr(lifespan, "__name__", "lifespan")
    how = _HOW.format(name=name)
    plain = inspect.unwrap(lifespan)
    if plain is lifespan and any(kind(lifespan) for kind in _BARE):
        yield WiringError(f"{where}: lifespan {name} makes no context manager: {how}")
    elif plain is not lifespan and inspect.isgeneratorfunction(plain):
        yield WiringError(f"{where}: lifespan {name} is no asynchronous one: {how}")
    elif wanted := _wanted(lifespan):
        yield WiringError(
            f"{where}: lifespan {name} is called without arguments, and wants "
            f"{', '.join(wanted)}: write `async def {name}():`, and name the app itself in it"
        )


def _wanted(function: Callable[..., Any]) -> list[str]:
    """Parameters that have to be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a callable that does not tell
        return []
    more = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in more]
