"""Change: one difference, and what comes of it. Inert."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a difference does."""

    BEGIN = "begin"  # something runs, or is made, that was not there
    SCALE = "scale"  # more or fewer processes; none that goes on is touched
    RESTART = "restart"  # processes are replaced, one by one; nothing is lost
    SWITCH = "switch"  # what answers changes, while all processes go on
    BUILD = "build"  # vectors are laid anew, beside those that are searched
    CHANGE = "change"  # something on a server is altered in place
    DROP = "drop"  # data goes
    REMOVE = "remove"  # something runs no more; its data stays
    REFUSED = "refused"  # it cannot be; nothing is applied


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        kind: what it does.
        where: what it is about: a group, a stage, the stream.
        what: is another: `batch_size 8 -> 16`.
        consequence: what comes of it.
    """

    kind: Kind
    where: str
    what: str
    consequence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.consequence}"


def arrow(before: object, after: object) -> str:
    """`before -> after`, as people read it."""
    return f"{'none' if before is None else before} -> {'none' if after is None else after}"
