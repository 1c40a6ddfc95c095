"""World: which photograph comes next, as the world was and as it has changed; pure."""

from __future__ import annotations

import random

from examples.mlwatch.photographs import EACH, KNOWN, World, path, things

SHARE = 0.3
"""Of what comes is of the changed world: one camera of three, or a new kind of thing."""
_FIRST = 3  # the larger, the less the things differ in how often they come


class Draw:
    """An endless draw of photographs, the same for the same seed.

    Things come as often as by Zipf's law: the first most often, the others ever more seldom.

    Args:
        seed: of the draw.
        drift: how the world has changed; None: it is as it was.
        share: of what comes is so, 0 to 1.
        each: cut-outs of each original.
    """

    def __init__(
        self, seed: int, drift: World | None = None, share: float = SHARE, each: int = EACH
    ):
        self._random = random.Random(seed)
        self._drift = drift
        self._share = share if drift else 0.0
        self._each = each

    def paths(self, count: int) -> list[str]:
        """The next so many."""
        return [self._next() for _ in range(count)]

    def _next(self) -> str:
        changed = self._random.random() < self._share
        world: World = self._drift if changed and self._drift else "day"
        known = things(world) if world == "new-label" else KNOWN
        weights = [1 / (_FIRST + rank) for rank in range(len(known))]
        (name,) = self._random.choices(known, weights)
        return path(world, name, self._random.randrange(self._each))
