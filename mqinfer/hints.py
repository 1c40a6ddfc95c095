"""What a name of a type stands for: a `NewType`, or `type X = ...`, also with parameters."""

from __future__ import annotations

import typing
from typing import Any


def seen_through(hint: Any) -> Any:
    """The annotation that `hint` is a name of; itself if it is none.

    `type Vector[T] = list[T]` makes `Vector[int]` an object whose origin is the alias: it stands
    for the value of the alias with the parameters put in. So does `NDArray[np.float32]` since
    NumPy 2.5.
    """
    while True:
        alias = typing.get_origin(hint)
        if hasattr(alias, "__value__") and hasattr(alias, "__type_params__"):
            value = alias.__value__
            given = dict(zip(alias.__type_params__, typing.get_args(hint), strict=False))
            wanted = tuple(given.get(name, name) for name in getattr(value, "__parameters__", ()))
            hint = value[wanted] if wanted else value
        elif named := getattr(hint, "__supertype__", None) or (
            alias is None and getattr(hint, "__value__", None)
        ):
            hint = named
        else:
            return hint
