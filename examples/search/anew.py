"""Anew: every picture embedded by another version of a model, beside what comes meanwhile.

    mqinfer index examples.search.app:app build pictures --model lite0 --version lite0=2
    python -m examples.search.anew lite0 2
    mqinfer index examples.search.app:app flip pictures --model lite0

From the first line on, new pictures are embedded by both versions; the second line has the older
ones. One that is removed meanwhile stays so: its entries are in order.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

import mqinfer
from examples.search.app import ENTRIES, app, pictures
from examples.search.desk import FRESH
from mqinfer import MqinferError, Settings, wiring

if TYPE_CHECKING:
    from mqinfer import Client
    from mqinfer.ports import Database

_THERE = """\
SELECT picture_id FROM {table} GROUP BY picture_id
HAVING argMax(length(vector), _sequence) > 0 ORDER BY picture_id"""


async def anew(client: Client, database: Database, model: str, version: str) -> int:
    """Have all pictures there are embedded by a version; how many.

    Raises:
        TableError: the table cannot be read.
        Unavailable: ClickHouse or NATS does not answer.
    """
    # By then whoever takes pictures knows of the version, so that none is left between.
    await asyncio.sleep(FRESH)
    table = pictures.models[model].__mqinfer__.table
    rows = await database.query(_THERE.format(table=table), {})
    entry = ENTRIES[model]
    told = [entry(str(row["picture_id"]), "again", version=version) for row in rows]
    await client.publish_all(told)
    return len(told)


async def _main(model: str, version: str) -> None:
    settings = Settings.load()
    database = wiring.clickhouse(settings)
    try:
        async with mqinfer.connect(app, settings) as client:
            count = await anew(client, database, model, version)
    finally:
        await database.close()
    print(f"{count:,} pictures are embedded anew by version {version} of {model}")


def main() -> int:
    """Have all of them embedded by a version."""
    parser = argparse.ArgumentParser(prog="python -m examples.search.anew", description=__doc__)
    parser.add_argument("model", choices=sorted(ENTRIES))
    parser.add_argument("version")
    options = parser.parse_args()
    try:
        asyncio.run(_main(options.model, options.version))
    except MqinferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
