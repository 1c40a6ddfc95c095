"""Fields: a table of a `deploy.toml`, whose values are read one by one, and what is wrong kept.

A reader of values raises `ValueError` or `TypeError` with what to write instead; the table says of
which key that is, and goes on with the default, so that all errors are told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from mqinfer.errors import ConfigurationError
from mqinfer.supervise.scaling import parse_processes
from mqinfer.times import parse_duration, parse_size

T = TypeVar("T")
NONE: tuple[str, ...] = ()


class Table:
    """A table of the file: values by key, and what is wrong with them.

    Args:
        values: of the table, as TOML has it.
        place: its name in the file; "" is the top.
        problems: takes a line for each error.
        keys: that it may have; None is any.
    """

    def __init__(
        self, values: Any, place: str, problems: list[str], keys: Iterable[str] | None = None
    ):
        self.place = place
        self.problems = problems
        self._values: Mapping[str, Any] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            self.wrong("", f"is a table: write [{place}] above its keys")
        elif keys is not None:
            known = list(keys)
            for key in values:
                if key not in known:
                    near = difflib.get_close_matches(key, known, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                    self.wrong(key, f"is no key here: {hint}")

    def wrong(self, key: str, text: str) -> None:
        """Keep what is wrong with a key."""
        name = ".".join(filter(None, (self.place, key)))
        self.problems.append(f"{name} {text}")

    def get(self, key: str, parse: Callable[[Any], T], default: T) -> T:
        """The value of a key; the default where there is none, or none that can be read."""
        if key not in self._values:
            return default
        try:
            return parse(self._values[key])
        except (ConfigurationError, ValueError, TypeError) as error:
            self.wrong(key, f"= {self._values[key]!r}: {error}")
            return default

    def table(self, key: str, keys: Iterable[str] | None = None) -> Table | None:
        """The table of a key; None where there is none."""
        if key not in self._values:
            return None
        place = ".".join(filter(None, (self.place, key)))
        return Table(self._values[key], place, self.problems, keys)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values


# --- values -------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """Text."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is text in quotes")
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError("is true or false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError('is a list of texts, such as ["crop"]')
    return tuple(value)


def whole(least: int, most: float = float("inf")) -> Callable[[Any], int]:
    """Reads whole numbers of a range."""

    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            above = "" if most == float("inf") else f" to {most:.0f}"
            raise ValueError(f"is a whole number from {least}{above}")
        return value

    return parse


def optional(parse: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Reads the same; for a key whose default is None."""
    return parse


def seconds(value: Any) -> float:
    """A duration."""
    found = parse_duration(value)
    if not found:
        raise ValueError("must be more than nothing, such as 30s")
    return found


def size(value: Any) -> int:
    """Bytes."""
    found = parse_size(value)
    if not found:
        raise ValueError("must be more than nothing, such as 2GB")
    return found


def cpu(value: Any) -> float:
    """Processors."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
        raise ValueError("is a number of processors, such as 2 or 0.5")
    return float(value)


def processes(value: Any) -> tuple[int, int]:
    """The least and the most processes of a group."""
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise TypeError('write 4, or "1..8" for as many as the backlog needs')
    return parse_processes(str(value))


def part(value: Any) -> float:
    """A part of a whole."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError("is a part of all, more than 0 and at most 1, such as 0.1")
    return float(value)


def choice(known: Sequence[str]) -> Callable[[Any], str]:
    """Reads one of several words."""

    def parse(value: Any) -> str:
        if value not in known:
            raise ValueError(f"is one of {', '.join(known)}")
        return str(value)

    return parse


def labels(value: Any) -> dict[str, str]:
    """Labels by name."""
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError('is a table of texts, such as { team = "fields" }')
    return dict(value)


def weights(value: Any) -> dict[str, float]:
    """Weights by model."""
    if not isinstance(value, dict):
        raise TypeError("is a table of numbers, such as { lite0 = 2 }")
    for one in value.values():
        if (
            not isinstance(one, (int, float))
            or isinstance(one, bool)
            or not 0 <= one < float("inf")
        ):
            raise ValueError("is a table of numbers of 0 or more, such as { lite0 = 2 }")
    return {name: float(one) for name, one in value.items()}
