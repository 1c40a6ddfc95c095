"""Parts: how two hashes that differ in few bits meet, with many workers and no index. Pure.

Multi-index hashing: a hash is cut into `bits + matching` blocks, so two that differ in `bits` bits
at most agree in `matching` blocks at least (pigeonhole). Each combination of so many blocks is a
part, and a part is the key of a state: those that agree in it meet there, in the order in which
messages of a key are handled, so of two that arrive at once the second finds the first.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, pairwise
from typing import Any, Final

import msgspec
import numpy as np

from mqinfer.dedup.looks import BITS
from mqinfer.statetype import State

MOST: Final = 64  # earlier ones that a picture is told of, in a part
_ENTRY = np.dtype([("looks", "<u8"), ("order", "<i8"), ("content", "V32")])


class Met(msgspec.Struct, frozen=True, array_like=True):
    """A picture that another one met.

    Attributes:
        content: which.
        order: its place.
        bits: in which their hashes differ.
    """

    content: str
    order: int
    bits: int


class Part(State):
    """All pictures whose hashes agree in some blocks: 48 bytes each, in no order."""

    entries: bytes = b""


@cache
def blocks(count: int) -> tuple[tuple[int, int], ...]:
    """Where each of so many blocks begins, from the lowest bit, and its mask when shifted there."""
    edges = [BITS * number // count for number in range(count + 1)]
    return tuple((low, (1 << high - low) - 1) for low, high in pairwise(edges))


def keys(looks: str, bits: int, matching: int) -> list[str]:
    """The parts of a hash: `<blocks>:<what stands in them>`, always as many."""
    value, cut = int(looks, 16), blocks(bits + matching)
    found = []
    for chosen in combinations(range(len(cut)), matching):
        told = "-".join(f"{value >> cut[one][0] & cut[one][1]:x}" for one in chosen)
        found.append(f"{'-'.join(map(str, chosen))}:{told}")
    return found


def meet(
    part: Part, key: str, me: tuple[int, str], looks: str, bits: int, matching: int
) -> tuple[list[Met], list[Met]]:
    """Put a picture into a part; whom it meets there: earlier ones (the first 64), and later ones.

    A pair that agrees in several parts meets in the first of them. What is in there already takes
    its place anew, where that is an earlier one.

    Args:
        part: is changed.
        key: of the part.
        me: order and content.
        looks: the hash.
        bits: in which near ones may differ.
        matching: blocks that a part consists of.
    """
    order, content = me
    value = int(looks, 16)
    entries = np.frombuffer(part.entries, _ENTRY)
    raw = np.void(bytes.fromhex(content))
    mine = entries["content"] == raw if len(entries) else np.zeros(0, bool)
    if mine.any():
        entries = entries.copy()
        order = min(order, int(entries["order"][mine][0]))
        entries["order"][mine] = order
        part.entries = entries.tobytes()
    else:
        part.entries += np.array([(value, order, bytes.fromhex(content))], _ENTRY).tobytes()
    differ = entries["looks"] ^ np.uint64(value)
    counts = np.unpackbits(differ.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
    earlier: list[Met] = []
    later: list[Met] = []
    for at in np.flatnonzero((counts <= bits) & ~mine):
        if _first(int(differ[at]), bits, matching) != key.partition(":")[0]:
            continue
        entry: Any = entries[at]
        met = Met(entry["content"].tobytes().hex(), int(entry["order"]), int(counts[at]))
        (earlier if (met.order, met.content) < (order, content) else later).append(met)
    earlier.sort(key=lambda met: (met.order, met.content))
    return earlier[:MOST], later


def _first(differ: int, bits: int, matching: int) -> str:
    """The blocks of the first part that two hashes share, by the bits in which they differ."""
    cut = blocks(bits + matching)
    same = [str(one) for one, (low, mask) in enumerate(cut) if not differ >> low & mask]
    return "-".join(same[:matching])
