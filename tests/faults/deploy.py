"""Rolling restarts, as a deployment does them: a successor starts, then the predecessor stops."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

from .processes import Slot

VERSIONS = (1, 2)  # of the pipeline's code; see `pipeline`


class Deployments:
    """Replaces one worker after the other, all the time; each round is to the other version.

    Args:
        workers: to replace.
        rng: draws the pauses.
    """

    def __init__(self, workers: Sequence[Slot], rng: random.Random):
        self.replaced = dict.fromkeys(VERSIONS, 0)
        self.unclean: dict[str, str] = {}  # those that did not end in order, and their last words
        self._workers = workers
        self._rng = rng
        self._wanted = True

    async def run(self) -> None:
        """Replace until `stop`; whom a fault has in its hands is left out."""
        for version in itertools.cycle(reversed(VERSIONS)):
            for slot in self._workers:
                await asyncio.sleep(self._rng.uniform(0.3, 2.0))
                if not self._wanted:
                    return
                if slot.held.locked():
                    continue
                async with slot.held:
                    code = await slot.replace({"FAULTS_VERSION": str(version)})
                if code is None:
                    continue
                self.replaced[version] += 1
                # One that was told to die at a point may have passed it on its way out.
                if code not in (0, -9):
                    self.unclean[f"{slot.name} when replaced ({code})"] = slot.tail()

    def stop(self) -> None:
        """Replace no more; `run` ends after the one that is under way."""
        self._wanted = False
