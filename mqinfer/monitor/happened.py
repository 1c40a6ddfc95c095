"""Happened: what is looked at first when an alarm rings, as it came just before the change.

A version that began to answer is seen in the counts themselves, however it came to do so: by an
alias that moved, a canary, a deployment. What else there was, such as workers that were started
anew, is told by whoever knows of it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mqinfer.monitor.counting import VIEW_SUFFIX
from mqinfer.tables.sql import quoted

if TYPE_CHECKING:
    from mqinfer.monitor.episode import Episode
    from mqinfer.ports import Database

BEFORE: Final = 1800  # seconds before a change in which something may be why
AFTER: Final = 600  # the same behind it: where a change began is known to some rows only
_BACK: Final = 2 * 86_400  # seconds without a row, before which a version is a new one
_MOVING: Final = 15  # seconds from an alias that moves to the reference that is adopted for it
_SAID: Final = 3


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that may be why a model answers otherwise.

    Attributes:
        at: seconds since the epoch.
        text: in words.
        model: that it is about; "" is any.
        table: whose rows it is about; "" is any.
    """

    at: float
    text: str
    model: str = ""
    table: str = ""


async def versions(db: Database, table: str, since: float) -> list[Happening]:
    """When each version of a model answered first, of those that did not in the days before.

    Args:
        db: that has the table.
        table: its name.
        since: from when on it is asked, seconds since the epoch.
    """
    rows = await db.query(
        "SELECT model, version, toUnixTimestamp(min(step)) AS first "
        f"FROM {quoted(table + VIEW_SUFFIX)} WHERE run = '' AND model != '' "
        "AND step >= toDateTime({since:UInt32}, 'UTC') GROUP BY model, version",
        {"since": max(int(since) - _BACK, 0)},
    )
    return [
        Happening(
            float(row["first"]),
            f"{row['model']} {row['version']} began to answer",
            str(row["model"]),
            table,
        )
        for row in rows
        if row["first"] > since - BEFORE
    ]


def why(episodes: Sequence[Episode], happenings: Iterable[Happening], made: float) -> str:
    """What happened just before the change of one of these episodes, in words; "": nothing did.

    Args:
        episodes: of one series.
        happenings: of any.
        made: when its reference was; what came before is in the reference.
    """
    found = {
        one
        for one in happenings
        for episode in episodes
        if one.model in ("", episode.model)
        and one.table in ("", episode.table)
        and made - _MOVING <= one.at
        and episode.began - BEFORE <= one.at <= episode.began + AFTER
    }
    ordered = sorted(found, key=lambda one: (-one.at, one.text))[:_SAID]
    return ", ".join(f"{one.text} ({_moment(one.at)})" for one in ordered)


def _moment(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
