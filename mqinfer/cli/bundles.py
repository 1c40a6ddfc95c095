"""Options that go together: a command takes a dataclass of them as one parameter.

Typer knows one parameter for one option, so what several commands share would stand in each of them
again; here it stands once, and `unfolded` gives Typer what it knows.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import Any


def unfolded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of a dataclass in place of each parameter that is one."""
    hints = typing.get_type_hints(command, include_extras=True)
    bundles: dict[str, Any] = {
        name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in bundles:
            parameters += _fields(bundles[name])
        else:
            parameters.append(_parameter(name, parameter.default, hints[name]))

    @wraps(command)
    def call(**given: Any) -> None:
        for name, bundle in bundles.items():
            names = [field.name for field in dataclasses.fields(bundle)]
            given[name] = bundle(**{one: given.pop(one) for one in names})
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _fields(bundle: Any) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(bundle, include_extras=True)
    return [
        _parameter(
            field.name,
            inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            hints[field.name],
        )
        for field in dataclasses.fields(bundle)
    ]


def _parameter(name: str, default: Any, hint: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
