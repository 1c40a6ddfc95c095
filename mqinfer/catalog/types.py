"""Types: messages made of what a packed model takes and gives, one field for each tensor.

What is asked is held against them before a model sees it, and OpenAPI shows them.
"""

from __future__ import annotations

import keyword
import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from mqinfer.errors import ConfigurationError
from mqinfer.message import Message
from mqinfer.packed.schema import Tensors

# What Python has for a tensor's type, and the bounds that its integers have by themselves.
_KINDS: Final = {"bool": bool, "string": str, "bytes": bytes}
_LONGEST = 63  # bits that messages carry of an integer

# By the name of a tensor: `ge`, `le`, `one_of`, `description`.
About = Mapping[str, Mapping[str, Any]]


def message_type(
    name: str, subject: str, tensors: Tensors, about: About, doc: str, where: str
) -> type[Message]:
    """A message type with a field for each tensor.

    Args:
        name: of the type.
        subject: of its messages.
        tensors: type and shape of each, of one item.
        about: bounds and descriptions of some of them.
        doc: what the type is.
        where: for errors, such as `models.toml: models.iris`.

    Raises:
        ConfigurationError: a tensor cannot be a field.
    """
    fields = {}
    for label, (dtype, shape) in tensors.items():
        told = f"{where}: {label!r}"
        if not label.isidentifier() or keyword.iskeyword(label) or label.startswith("_"):
            raise ConfigurationError(f"{told} cannot name a field; rename the input or output")
        fields[label] = _field(dtype, shape, about.get(label, {}), told)

    def body(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = fields
        namespace["__doc__"] = doc
        namespace["__module__"] = __name__

    made: type[Message] = types.new_class(name, (Message,), {"subject": subject}, body)
    return made


def _field(dtype: str, shape: list[int], about: Mapping[str, Any], told: str) -> Any:
    kind, meta = _value(dtype, about, told)
    words = {"description": about["description"]} if about.get("description") else {}
    if not shape:
        meta |= words
    found = Annotated[kind, Meta(**meta)] if meta else kind
    for number, side in reversed(list(enumerate(shape))):
        sides = {"min_length": side, "max_length": side} if side >= 0 else {}
        of = sides if number else sides | words
        found = Annotated[list[found], Meta(**of)] if of else list[found]  # type: ignore[valid-type]
    return found


def _value(dtype: str, about: Mapping[str, Any], told: str) -> tuple[Any, dict[str, Any]]:
    """The type of one value, and its bounds."""
    bounds = {word: about[word] for word in ("ge", "le") if about.get(word) is not None}
    number = dtype not in _KINDS
    if bounds and not number:
        raise ConfigurationError(f"{told} is {dtype}, which has no ge= and le=")
    if one_of := about.get("one_of"):
        if bounds or dtype.startswith("float") or dtype in ("bool", "bytes"):
            raise ConfigurationError(
                f"{told}: one_of= is of texts or integers, without ge= and le="
            )
        wanted = str if dtype == "string" else int
        if wrong := [one for one in one_of if type(one) is not wanted]:
            raise ConfigurationError(f"{told} is {dtype}, and one_of= has {wrong[0]!r}")
        return Literal[tuple(one_of)], {}
    if not number:
        return _KINDS[dtype], {}
    if dtype.startswith("float"):
        return float, bounds
    least, most = _range(dtype)
    if any(int(one) != one for one in bounds.values()):
        raise ConfigurationError(f"{told} is {dtype}: ge= and le= are integers")
    return int, {"ge": int(max(least, bounds.get("ge", least))),
                 "le": int(min(most, bounds.get("le", most)))}  # fmt: skip


def _range(dtype: str) -> tuple[int, int]:
    """The least and the most of an integer type, as far as messages carry it."""
    bits = int(dtype.lstrip("uint"))
    if dtype.startswith("u"):
        return 0, 2 ** min(bits, _LONGEST) - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
