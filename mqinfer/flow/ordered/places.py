"""Places: the consumers of an ordered stage, and how many messages they give out at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.ports import ConsumerSpec

# Messages that may be unacknowledged in a partition with an owner; what a worker's limits leave it
# is less.
WINDOW = 1024
SINGLE = 1  # the same where others may pull as well: then the server alone keeps the order


@dataclass(frozen=True, slots=True)
class Quota:
    """What a worker may hold of one partition.

    Attributes:
        messages: at most.
        size: of them, in bytes.
        largest: the largest message there can be, in bytes.
    """

    messages: int
    size: int
    largest: int


@dataclass(frozen=True, slots=True)
class Places:
    """The consumers of an ordered stage.

    Attributes:
        partitions: one a partition, in the order of their numbers.
        tokens: gives out the tokens.
        present: never has a message: its requests tell how many workers there are.
        wanting: the same for workers that own too few partitions.
    """

    partitions: Sequence[ConsumerSpec]
    tokens: ConsumerSpec
    present: ConsumerSpec
    wanting: ConsumerSpec
