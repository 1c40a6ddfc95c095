"""State: what a stage remembers of each key; an inert declaration, as messages are.

The machinery that keeps states is in `mqinfer.state`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack, dataclass_transform

import msgspec
from msgspec import Struct, StructMeta, field

from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.message import StructKeywords, Wire, snake
from mqinfer.times import parse_duration

_LEAST = 1.0  # seconds; the server's own unit


class StateInfo(Struct, frozen=True):
    """What the class keywords of a state type say.

    Attributes:
        name: what people are told it is called.
        ttl: seconds after its last change for which a state is kept; None for ever.
        wire: how it is encoded, which is the same for all.
    """

    name: str
    ttl: float | None = None
    wire: Wire = "msgpack"


class StateMeta(StructMeta):
    """`StructMeta` refuses keywords it does not know: take ours, pass the rest on."""

    def __new__(
        mcls: type[StateMeta],
        cls_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
        ttl: float | str | None = None,
        **config: Unpack[StructKeywords],
    ) -> Any:
        """Make the type and keep what its keywords say."""
        cls: Any = super().__new__(mcls, cls_name, bases, namespace, **config)
        if "__is_state__" not in namespace:  # State itself
            seconds = None if ttl is None else _kept(cls_name, ttl)
            cls.__mqinfer__ = StateInfo(name or snake(cls_name), seconds)
        return cls


def _kept(name: str, ttl: float | str) -> float:
    try:
        seconds = parse_duration(ttl)
    except ConfigurationError as error:
        raise WiringError(f"{name}: ttl= {error}") from None
    if seconds < _LEAST:
        raise WiringError(f"{name}: ttl={ttl!r} must be a second at least")
    return seconds


@dataclass_transform(field_specifiers=(field,))
class State(Struct, metaclass=StateMeta):
    """Base of what a stage remembers of each key; every field has a default.

        class Health(State, ttl="90d"):
            worst: int = 0

    A handler of an ordered type takes one beside its message and changes it in place. Class
    keywords: `ttl=` (seconds or "90d" after its last change, when it begins anew; default: kept for
    ever), `name=` (default: the class name in snake case), and any keyword of `msgspec.Struct`.
    """

    __is_state__: ClassVar[bool] = True
    __mqinfer__: ClassVar[StateInfo]


def flaws(kind: type[State]) -> list[str]:
    """Why a type cannot be a state, a line each; none if it can."""
    name = kind.__name__
    if getattr(kind, "__mqinfer__", None) is None:
        return [f"it takes {name} itself; derive a type from it"]
    found = []
    if kind.__struct_config__.frozen:
        found.append(f"{name} is frozen, and a state is changed in place: leave out frozen=True")
    try:
        fields = msgspec.structs.fields(kind)
    except Exception:  # noqa: BLE001 - said where its fields are read
        return found
    found += [
        f"{name}.{one.name} needs a default: a state begins as {name}()"
        for one in fields
        if one.required
    ]
    return found
