"""Roll: which processes hold which shards, as they all say; whether a generation is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.errors import ConflictError
from mqinfer.search import places, protocol
from mqinfer.search.generations import Generation

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.index import Index
    from mqinfer.ports import Core
    from mqinfer.search.protocol import Holding, ShardState

_SECONDS = 0.5  # in which processes answer


@dataclass(frozen=True, slots=True)
class Roll:
    """What all processes hold.

    Attributes:
        holdings: of each.
    """

    holdings: Sequence[Holding]

    def replicas(self, index: str, model: str, number: int, shard: int) -> list[ShardState]:
        """A shard as each process has it that holds it."""
        return [
            one
            for holding in self.holdings
            for one in holding.shards
            if (one.index, one.model, one.generation, one.shard) == (index, model, number, shard)
        ]

    def unready(self, index: Index, model: str, generation: Generation) -> list[str]:
        """Why a generation cannot be searched, a line for each shard; empty when it can."""
        found = []
        for shard in range(generation.shards):
            held = self.replicas(index.name, model, generation.number, shard)
            if not any(one.ready for one in held):
                why = f"is read: {max(one.lag for one in held)} left" if held else "has no process"
                found.append(f"shard {shard} of generation {generation.number} {why}")
        return found

    def check(self, index: Index, model: str, generation: Generation) -> None:
        """Return if a generation can be searched.

        Raises:
            ConflictError: it cannot; says why.
        """
        if unready := self.unready(index, model, generation):
            raise ConflictError(f"{'; '.join(unready)}: searches would miss what is there")


async def called(app: App, core: Core, seconds: float = _SECONDS) -> Roll:
    """The roll, as of now."""
    answers = await core.ask_all(places.roll(app), b"", seconds)
    return Roll([protocol.read_holding(one) for one in answers])
