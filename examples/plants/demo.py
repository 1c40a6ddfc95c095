"""The case study from end to end on this machine; `make demo` runs it.

    python -m examples.plants.demo

Starts the embedded servers and three worker processes, flies a season, waits until every leaf is
graded, lets the mornings of the season strike, prints the report, and flies the same season again
to show that it adds nothing. Then no drone flies any more, and the reminders come. It keeps what it
promises or ends with exit code 1 and the name of what it did not keep.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

import clickhouse_connect
from rich.console import Console

from examples.plants import fleet, watching
from examples.plants.analysis import Study, study, tables
from examples.plants.app import app
from examples.plants.chart import draw
from examples.plants.facts import Facts
from examples.plants.flying import Run, contents, fly_and_wait
from examples.plants.local import (
    APP,
    MODELS,
    WORKERS,
    Pipeline,
    clear,
    conclude,
    dead_letters,
    machine,
    pipeline,
    run_to_exit,
    say_where,
    while_alive,
)
from examples.plants.progress import Bar, follow
from examples.plants.watchchart import draw_watch
from stages.plants import DISEASES

# What the demo promises, of scenes that no model was trained on.
LEAST = {"precision": 0.95, "recall": 0.95, "exact": 0.85, "within_one": 0.98}

REMIND_AFTER = 20.0  # seconds; a day would be long for a demo

console = Console(highlight=False, soft_wrap=True)


async def demo(positions: int, days: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run it all.

    Returns:
        The figures of the report.

    Raises:
        Broken: a promise does not hold; the text names the figures.
        StackError: something died or did not start; the text has the end of its log.
    """
    began = time.monotonic()
    console.print(f"making {positions * days} photographs, starting servers and workers ...")
    # In a thread: composing pictures goes on while the servers start.
    flights: list[fleet.Flight] = []
    stop = threading.Event()
    making = asyncio.create_task(asyncio.to_thread(_make, positions, days, seed, flights, stop))
    try:
        clear(folder)
        soon = {"PLANTS_REMIND_AFTER": f"{REMIND_AFTER}s"}
        async with pipeline(folder, MODELS, APP, WORKERS, soon) as running:
            say_where(running, console)
            figures, broken = await while_alive(
                running, _study(running, flights, positions * days, making)
            )
    finally:
        stop.set()
        making.cancel()
    conclude(figures, broken, folder, time.monotonic() - began, console)
    return figures


def _make(
    positions: int, days: int, seed: int, made: list[fleet.Flight], stop: threading.Event
) -> None:
    for one in fleet.flights(fleet.new_season(positions, days, seed)):
        made.append(one)
        if stop.is_set():
            return


async def _study(
    running: Pipeline, flights: list[fleet.Flight], total: int, making: asyncio.Task[None]
) -> tuple[dict[str, Any], list[str]]:
    """Fly twice, with the report between; the figures and the promises that do not hold."""
    await follow(console, [Bar("photographs made", total, lambda: len(flights))], making)
    told = Facts()
    database = await asyncio.to_thread(
        clickhouse_connect.get_client, dsn=running.settings.clickhouse_url
    )
    try:
        first = await fly_and_wait(
            console, running, database, flights, total=total, what="the season"
        )
        found = await asyncio.to_thread(study, database)
        console.print(*tables(found))
        chart = await asyncio.to_thread(draw, found, running.stack.dir / "healing.png")
        console.print(f"chart: {chart}")
        where = machine()
        photo_rate, grade_rate = first.photographs / first.seconds, first.grades / first.seconds
        console.print(
            f"rate: {photo_rate:.1f} photographs/s, {grade_rate:,.0f} grades/s "
            f"({first.seconds:.1f} s, {where})"
        )
        flown = watching.photographs(flights)
        await watching.mornings(running, database, flown, told)
        console.print(*told.lines, sep="\n")
        chart = await asyncio.to_thread(draw_watch, database, running.stack.dir / "watch.png")
        console.print(f"chart: {chart}")
        before = await asyncio.to_thread(contents, database)
        second = await fly_and_wait(
            console, running, database, flights, total=total, what="the same season again"
        )
        after = await asyncio.to_thread(contents, database)
        same = before == after
        rows = ", ".join(f"{table} {count:,}" for table, (count, _) in after.items())
        console.print(f"flown twice, the tables {'are the same' if same else 'DIFFER'}: {rows}")
        quick = max(first.expected, second.expected) < REMIND_AFTER
        await watching.reminders(
            running, database, flown, after=REMIND_AFTER, quick=quick, told=told
        )
        console.print(told.lines[-1])
        dead = await dead_letters(app, running.settings)
    finally:
        database.close()
    figures = {
        "photographs": first.photographs,
        "leaves_found": first.leaves,
        "grades": first.grades,
        "pipeline_seconds": round(first.seconds, 2),
        "photographs_per_second": round(photo_rate, 2),
        "grades_per_second": round(grade_rate, 1),
        "machine": where,
        "rows_after_first": {table: count for table, (count, _) in before.items()},
        "rows_after_second": {table: count for table, (count, _) in after.items()},
        "dead_letters": dead,
        **told.figures,
        **found.figures(),
    }
    return figures, broken_promises(first, found, before, after, dead) + told.broken


def broken_promises(
    first: Run,
    found: Study,
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
    dead: int,
) -> list[str]:
    """Every promise that does not hold, with its figure."""
    broken = []
    if first.grades != len(DISEASES) * first.leaves or not first.grades:
        broken.append(f"{first.grades} grades of {first.leaves} leaves, not {len(DISEASES)} each")
    for name, least in LEAST.items():
        value = getattr(found, name)
        if not value >= least or math.isnan(value):
            broken.append(f"{name} is {value:.3f}, less than {least}")
    for table, now in after.items():
        if now != before[table]:
            broken.append(f"the second run changed {table}: {before[table][0]} rows, then {now[0]}")
    if dead:
        broken.append(f"{dead} dead letters")
    return broken


def main() -> int:
    """Run the demo; 0 if every promise holds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.plants.demo", description="The plant study, end to end."
    )
    parser.add_argument("--positions", type=int, default=20, help="half of them get medicine")
    parser.add_argument("--days", type=int, default=11)
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn")
    parser.add_argument("--dir", type=Path, default=Path(".mqinfer/demo"), help="cleared first")
    options = parser.parse_args()
    folder = options.dir.absolute()
    return run_to_exit(demo(options.positions, options.days, options.seed, folder))


if __name__ == "__main__":
    sys.exit(main())
