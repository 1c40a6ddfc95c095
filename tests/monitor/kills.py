"""Counts through kills of workers, of a run's workers and of those who seal, and of the server.

    python -m tests.monitor.kills --numbers 5000 --kills 40

Every count is to be what a recount of the table says and what the truth says: live and sealed,
after the kills, after a replay under kills, its promotion, and its undoing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.replay.promote import Promotions
from mqinfer.replay.run import State
from mqinfer.replay.runs import Wanted
from mqinfer.testing import until
from tests.support import clickhouse, kills
from tests.support.bins import confidence_key
from tests.support.counts_app import Number, app, ensure, guesses, sealed
from tests.support.kills import Deaths
from tests.support.replay import runs_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Counts = dict[tuple[Any, ...], int]


@dataclass
class Plan(Deaths):
    """What is done.

    Attributes:
        numbers: that are published.
        sealers: deaths of those who seal, during the run.
    """

    numbers: int
    sealers: int


async def through(
    plan: Plan, folder: Path, timeout: float, url: str | None = None
) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Args:
        plan: what is done.
        folder: for the servers.
        timeout: of each wait, seconds.
        url: of a database; None: of a server of its own.

    Raises:
        AssertionError: a count is not what it should be.
    """
    server = None
    if url is None:
        server = await clickhouse.started(folder / "clickhouse")
        url = server.url
    database = ClickHouse(url)
    try:
        async with kills.grounds(plan, app, folder, clickhouse_url=url) as grounds:
            return await _through(plan, grounds, database, timeout)
    finally:
        await database.close()
        if server is not None:
            await server.stop()


async def _through(
    plan: Plan, grounds: kills.Grounds, database: ClickHouse, timeout: float
) -> dict[str, Any]:
    harness, numbers = grounds.harness, range(plan.numbers)
    await harness.publish(*map(Number, numbers), ids=[f"n-{n}" for n in numbers])
    live = sum(len(guesses(n, None)) for n in numbers)

    async def stored(run: str) -> int:
        (found,) = await database.query(
            "SELECT count() AS n FROM counted_guess__storage FINAL WHERE _run = {run:String}",
            {"run": run},
        )
        return int(found["n"])

    await ensure(database)
    async with grounds.fleet("counts") as fleet:
        await grounds.kill_server()

        async def all_stored() -> bool:
            return await stored("") >= live and fleet.deaths >= plan.kills

        await until(all_stored, "each row", timeout)
    # Nothing is sealed yet: all of it is counted as it came.
    assert await _counted(database) == await _kept(database)
    await _compare(database, plan)

    runs = runs_of(harness)
    await runs.create(stage="guess", wanted=Wanted(from_seq=1), name="better")
    async with _sealers(plan, grounds) as deaths, grounds.fleet("counts", "--run", "better") as run:

        async def done() -> bool:
            return (await runs.get("better")).state is State.DONE

        await until(done, "the end of the run", timeout)
    assert await stored("better") == sum(len(guesses(n, "better")) for n in numbers)
    await _compare(database, plan)
    promotions = Promotions(app, runs, database)
    await promotions.promote("better")
    await _compare(database, plan)
    await promotions.undo("better")
    await _compare(database, plan)
    assert await harness.dead() == []
    return {
        "rows": live,
        "kills of a run's workers": run.ends[-9],
        "kills of sealers": deaths[-9],
        **grounds.facts(fleet),
    }


@asynccontextmanager
async def _sealers(plan: Plan, grounds: kills.Grounds) -> AsyncIterator[Counter[int]]:
    """Inside, somebody seals, and dies after a few steps; the next one goes on."""
    ends: Counter[int] = Counter()

    async def seal_on() -> None:
        for number in range(plan.sealers):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.counts_app"),
                cwd=kills.ROOT,
                env={**kills.environ(grounds.harness.settings), "COUNTS_KILL": str(5 + 3 * number)},
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                ends[await process.wait()] += 1
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async with asyncio.TaskGroup() as group:
        sealing = group.create_task(seal_on())
        yield ends
        await asyncio.wait({sealing})


async def _compare(database: ClickHouse, plan: Plan) -> None:
    """What is counted is what the table keeps and what the truth says, once all is sealed."""
    truth = _truth(plan)
    kept = await _kept(database)
    assert _without_steps(kept) == {key: n for key, n in truth.items() if key[1] in _runs(kept)}
    await sealed(database)
    assert await _counted(database, "sealed") == await _counted(database) == kept


def _runs(counts: Counts) -> set[str]:
    return {key[1] for key in counts}


def _truth(plan: Plan) -> Counts:
    found: Counter[tuple[Any, ...]] = Counter()
    for run in ("", "better"):
        for one in (one for n in range(plan.numbers) for one in guesses(n, run)):
            found["label", run, one.label] += 1
            found["sure", run, confidence_key(one.sure)] += 1
    return dict(found)


def _without_steps(counts: Counts) -> Counts:
    found: Counter[tuple[Any, ...]] = Counter()
    for (column, run, _, key), n in counts.items():
        found[column, run, key] += n
    return dict(found)


async def _kept(database: ClickHouse) -> Counts:
    """A recount of the table, step by step."""
    found: Counter[tuple[Any, ...]] = Counter()
    for row in await database.query(
        "SELECT label, sure, toString(_run) AS run, "
        "intDiv(toUnixTimestamp(_published), 10) AS step FROM counted_guess__storage FINAL"
    ):
        found["label", row["run"], row["step"], row["label"]] += 1
        found["sure", row["run"], row["step"], confidence_key(row["sure"])] += 1
    return dict(found)


async def _counted(database: ClickHouse, where: str = "1") -> Counts:
    rows = await database.query(
        "SELECT `column`, run, intDiv(toUnixTimestamp(step), 10) AS at, key, sum(n) AS n "
        f"FROM counted_guess__counts WHERE {where} GROUP BY ALL"
    )
    return {(row["column"], row["run"], row["at"], row["key"]): row["n"] for row in rows}


def main() -> None:
    """From the command line."""
    asked = kills.arguments(__doc__, numbers=5000, kills=40, sealers=20).parse_args()
    plan = Plan(
        numbers=asked.numbers,
        sealers=asked.sealers,
        kills=asked.kills,
        server_kills=asked.server_kills,
        steps=(1, max(60, 8 * asked.numbers // max(1, asked.kills))),
        seed=asked.seed,
    )
    kills.run(through, plan, asked.timeout)


if __name__ == "__main__":
    main()
