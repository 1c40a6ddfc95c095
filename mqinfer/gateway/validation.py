"""Validation: everything that is wrong with a body, not only the first thing, each with its place.

msgspec decodes, and says no more than that something is wrong; only then is the body held against
the schema, which is slower and finds everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from mqinfer.gateway import schemas
from mqinfer.gateway.problems import Fault, Problem, invalid

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, ValidationError

    from mqinfer.app import App

MOST: Final = 100  # faults that are told of one body
_LONG = 300  # characters of what is told of one: it may quote what was sent
_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")


class Validation:
    """The schemas of an app's endpoints.

    Args:
        app: whose.
    """

    def __init__(self, app: App):
        from jsonschema_rs import Draft202012Validator

        refs, named = schemas.components(app)
        self._validators: dict[str, Draft202012Validator] = {}
        for name, endpoint in app.endpoints.items():
            whole = {**schemas.asked(endpoint, refs), "components": {"schemas": named}}
            self._validators[name] = Draft202012Validator(whole, validate_formats=True)

    def problem(self, endpoint: str, data: object, error: Exception, where: str = "") -> Problem:
        """What a client is told of a body that was not decoded.

        Args:
            endpoint: that was asked.
            data: the body, as JSON has it.
            error: of the decoder.
            where: the pointer to what was decoded.
        """
        faults = self.faults(endpoint, data)
        # What no schema can say: a blob's base64 that is broken, a check of the type's own.
        return invalid(faults or [of_decoder(error, where)])

    def faults(self, endpoint: str, data: object) -> list[Fault]:
        """All that is wrong with a body, as JSON has it."""
        return found(self._validators[endpoint], data)


def found(validator: Draft202012Validator, data: object) -> list[Fault]:
    """All that is wrong with a body by a schema."""
    try:
        faults = list(_told(validator.iter_errors(data)))
    except (RecursionError, ValueError):  # nested more deeply than anything is meant to be
        return []
    return list(dict.fromkeys(faults))[:MOST]


def of_decoder(error: Exception, where: str = "") -> Fault:
    """What msgspec says, with its place as a pointer."""
    text = str(error)
    found = _PLACE.search(text)
    if found is None:
        return Fault(where, _short(text))
    steps = [name or index for name, index in _STEP.findall(found[1])]
    return Fault(where + pointer(steps), _short(text[: found.start()]))


def pointer(steps: Iterable[str | int]) -> str:
    """Names and indices as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(one).replace("~", "~0").replace("/", "~1") for one in steps)


def malformed(error: Exception) -> Problem:
    """A body that is no JSON at all."""
    return Problem(400, "malformed", f"the body is no JSON: {_short(str(error))}")


def json(body: bytes) -> Any:
    """A body, as JSON has it.

    Raises:
        Problem: it is none.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise malformed(error) from None


def _told(errors: Iterable[ValidationError]) -> Iterator[Fault]:
    for number, error in enumerate(errors):
        if number >= MOST:
            return
        yield from _one(error)


def _one(error: ValidationError) -> Iterator[Fault]:
    where, kind = pointer(error.instance_path), _name(error)
    told: Any = error.kind
    if kind == "Required":
        yield Fault(where + pointer([told.property]), "is missing")
    elif kind == "AdditionalProperties":
        for name in told.unexpected:
            yield Fault(where + pointer([name]), "is not known here")
    elif kind == "AnyOf" and (branch := _meant(error)) is not None:
        yield from _told(branch)
    else:
        yield Fault(where, _short(error.message))


def _meant(error: ValidationError) -> list[ValidationError] | None:
    """Of the errors of each alternative those of the one that was meant: it is of its JSON type."""
    depth, told = len(error.instance_path), cast("Any", error.kind)
    close: list[list[ValidationError]] = [
        branch
        for branch in told.context
        if not any(
            _name(one) in ("Type", "Constant", "Enum") and len(one.instance_path) <= depth
            for one in branch
        )
    ]
    return close[0] if len(close) == 1 else None


def _name(error: ValidationError) -> str:
    return type(error.kind).__name__.rpartition("_")[2]


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 2] + " …"
