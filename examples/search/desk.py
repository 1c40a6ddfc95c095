"""Desk: what stages ask of the index and of near-duplicates; some of it is known for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import mqinfer
from mqinfer.dedup.standing import Standing

if TYPE_CHECKING:
    from mqinfer import App, Client
    from mqinfer.index import Index

FRESH = 1.0
"""Seconds for which it is believed which versions there are."""
_STANDS = 5.0  # seconds for which it is believed whose duplicate a picture is


class Desk:
    """What stages ask.

    Args:
        client: of the app.
        pictures: the index.

    Attributes:
        client: the same.
    """

    def __init__(self, client: Client, pictures: Index):
        self.client = client
        self._pictures = pictures
        self._versions: dict[str, tuple[float, list[tuple[str, bool]]]] = {}
        self._originals: dict[str, tuple[float, str]] = {}

    # --- models ---------------------------------------------------------------------------------

    async def versions(self, model: str) -> list[tuple[str, bool]]:
        """The versions by which a new picture is embedded, and which is the first of them.

        They are those of all generations there are, so that one that is built beside lacks nothing
        that comes meanwhile. "" is the live version, where a generation is of any.
        """
        now = time.monotonic()
        known = self._versions.get(model)
        if known is None or now - known[0] >= FRESH:
            held = await self.client.generations(self._pictures, model)
            named = dict.fromkeys(one.version for one in held.values()) or {"": None}
            found = [(version, place == 0) for place, version in enumerate(named)]
            known = self._versions[model] = now, found
        return known[1]

    async def generation(self, model: str) -> tuple[int, str]:
        """The generation that is searched, and the version that embeds what is asked of it."""
        found = await self.client.generation(self._pictures, model)
        return found.number, found.version

    async def weights(self) -> dict[str, float]:
        """Those of the index, as they are now."""
        return await self.client.weights(self._pictures)

    # --- near-duplicates ------------------------------------------------------------------------

    async def originals(self, identities: Iterable[str]) -> dict[str, str]:
        """Whose duplicate each picture is; itself if of none, or while that is not decided."""
        now, names = time.monotonic(), list(identities)
        due = [
            name for name in names if now - self._originals.get(name, (-_STANDS, ""))[0] >= _STANDS
        ]
        states = await asyncio.gather(
            *(self.client.state("dedup_pictures", name, Standing) for name in due)
        )
        if len(self._originals) > 100_000:
            self._originals.clear()
        for name, standing in zip(due, states, strict=True):
            self._originals[name] = now, (standing.original if standing else "") or name
        return {
            name: self._originals[name][1] if name in self._originals else name for name in names
        }


@asynccontextmanager
async def desk(app: App, pictures: Index) -> AsyncIterator[Desk]:
    """A desk, open; by a task of its own, so that handlers call models by their worker's way."""
    end = asyncio.Event()
    opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with mqinfer.connect(app) as client:
            opened.set_result(client)
            await end.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait((holding, opened), return_when=asyncio.FIRST_COMPLETED)
    if not opened.done():
        holding.result()
    try:
        yield Desk(opened.result(), pictures)
    finally:
        end.set()
        await holding
