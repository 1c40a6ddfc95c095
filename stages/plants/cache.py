"""The study's frequent questions, cached: mean grades of positions, kept by a refreshable view.

`position_grade` holds what `queries.GRADES` gives, a row for each position, disease and day: a few
thousand instead of millions. ClickHouse computes it anew every hour and exchanges it at once, from
what the tables show then; so late grades and promoted replays are in it without any bookkeeping,
and a query sees one state or the next, never half of one. `refresh` does it now.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from mqinfer import Settings
from stages.plants.effects import Effect, effects
from stages.plants.queries import GRADES, effects_of

VIEW = "position_grade"
EVERY = "1 HOUR"
QUERY_SECONDS = 120

_DEFINITION = f"""
REFRESH EVERY {EVERY}
ENGINE = MergeTree ORDER BY (disease, area, date, position_id)
EMPTY AS {GRADES}
"""
# It stands in the view's comment: another definition is another view.
_MARK = f"plants {hashlib.blake2b(_DEFINITION.encode(), digest_size=8).hexdigest()}"


def ensure(client: Client) -> None:
    """Make the view, or replace one of another version; what it holds can be computed again.

    Args:
        client: of the database with the tables of `stages.plants`, which a worker has made.
    """
    made = client.query(
        f"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = '{VIEW}'"
    ).result_rows
    if made and made[0][0] != _MARK:
        client.command(f"DROP VIEW IF EXISTS {VIEW} SYNC")
    client.command(f"CREATE MATERIALIZED VIEW IF NOT EXISTS {VIEW} {_DEFINITION} COMMENT '{_MARK}'")


def refresh(client: Client) -> None:
    """Make the view if need be, compute it now, and wait until it is there."""
    ensure(client)
    client.command(f"SYSTEM REFRESH VIEW {VIEW}")
    client.command(f"SYSTEM WAIT VIEW {VIEW}")


def effects_until(day: datetime.date) -> list[Effect]:
    """What the medicine has done until a day, from a cache that was filled just now.

    Takes as long as a query of all grades, so call it in a thread; with the worker's settings.
    """
    with database() as client:
        refresh(client)
        until = f"(SELECT * FROM {VIEW} WHERE date <= {{day:Date}})"
        found = client.query(effects_of(until), parameters={"day": day})
        return effects(dict(row) for row in found.named_results())


@contextmanager
def database() -> Iterator[Client]:
    """A connection to the database of the environment's settings."""
    client = clickhouse_connect.get_client(
        dsn=Settings.load().clickhouse_url, send_receive_timeout=QUERY_SECONDS
    )
    try:
        yield client
    finally:
        client.close()
