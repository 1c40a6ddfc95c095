"""Kept: references and what people said of alarms, in three tables that are only added to.

`mqinfer_references`, of which the newest of a series counts; `mqinfer_sayings`; and
`mqinfer_episodes`, where those go that ended with their reference, for whoever looks back.
Alarms are not kept: they follow from the counts (`follow`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mqinfer.monitor.episode import Episode
from mqinfer.monitor.follow import Saying, Series
from mqinfer.monitor.reference import Reference
from mqinfer.tables import migrate
from mqinfer.tables.sql import text_literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqinfer.ports import Database

REFERENCES: Final = "mqinfer_references"
SAYINGS: Final = "mqinfer_sayings"
EPISODES: Final = "mqinfer_episodes"
_KINDS: Final = (REFERENCES, SAYINGS, EPISODES)


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A reference and where it is from.

    Attributes:
        series: whose it is.
        reference: itself.
        made: when it was accepted, seconds since the epoch: what comes later is held against it.
        source: in words: a window, a run.
    """

    series: Series
    reference: Reference
    made: float
    source: str


class Kept:
    """What is kept of one app.

    Args:
        db: that has the tables.
        app: whose.
    """

    def __init__(self, db: Database, app: str):
        self._db = db
        self._app = app

    async def ensure(self) -> None:
        """Make the tables that are not there."""
        for name in _KINDS:
            if not await migrate.columns(self._db, name):
                await self._db.command(
                    f"CREATE TABLE IF NOT EXISTS {name} (app LowCardinality(String), id String, "
                    "at Float64, body String) ENGINE = MergeTree ORDER BY (app, at)"
                )

    async def references(self) -> dict[Series, Accepted]:
        """The newest of each series."""
        found = [
            msgspec.json.decode(body, type=Accepted) for body in await self._bodies(REFERENCES)
        ]
        return {one.series: one for one in found}

    async def sayings(self) -> list[Saying]:
        """All that was said, the oldest first."""
        return [msgspec.json.decode(body, type=Saying) for body in await self._bodies(SAYINGS)]

    async def episodes(self) -> list[Episode]:
        """Those that ended with their reference, the oldest first."""
        return [msgspec.json.decode(body, type=Episode) for body in await self._bodies(EPISODES)]

    async def accept(self, accepted: Accepted, ended: Iterable[Episode] = ()) -> None:
        """Keep a reference, and first the episodes that end with the one before."""
        for one in ended:
            await self._add(EPISODES, one.id, accepted.made, msgspec.json.encode(one))
        name = str(accepted.series)
        await self._add(REFERENCES, name, accepted.made, msgspec.json.encode(accepted))

    async def say(self, saying: Saying) -> None:
        """Keep what a person said."""
        await self._add(SAYINGS, saying.episode, saying.said, msgspec.json.encode(saying))

    async def _add(self, table: str, name: str, at: float, body: bytes) -> None:
        values = ", ".join(map(text_literal, (self._app, name)))
        await self._db.command(
            f"INSERT INTO {table} SELECT {values}, {at!r}, {text_literal(body.decode())}"
        )

    async def _bodies(self, table: str) -> list[str]:
        rows = await self._db.query(
            f"SELECT body FROM {table} WHERE app = {{app:String}} ORDER BY at, id",
            {"app": self._app},
        )
        return [str(row["body"]) for row in rows]
