"""Referred: the objects that a function's code refers to by name, without running any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import CodeType
from typing import Any


def referred(function: Callable[..., Any]) -> dict[str, Any]:
    """Globals and variables of enclosing functions that a function uses, as they are now.

    A name that has no value is left out: a global that is defined later, a variable of an enclosing
    function that is not assigned yet, or was deleted (`inspect.getclosurevars` fails there). What
    functions inside of it use, and what comprehensions do, is used by it.
    """
    function = getattr(function, "__func__", function)  # of a method
    namespace = function.__globals__
    found = {
        name: namespace[name] for name in _global_names(function.__code__) if name in namespace
    }
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _global_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)
