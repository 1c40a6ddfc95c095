"""Rate: what is sustained down to the database, and what of it inference alone would take."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from examples.mlwatch.app import model
from examples.mlwatch.local import Database, pids, producer
from examples.mlwatch.processors import Processors
from examples.plants.local import Pipeline
from examples.requests.checks import Checks
from examples.requests.lite0 import SIDE
from mqinfer import Client
from mqinfer.image import decode

ASKED = 1_000  # a second, as the study wanted
OPEN = 1_000  # photographs that may wait
ALONE = 64  # calls of the model at a time
WARM = 4  # times that they are made before anything is measured
# The study's: a second on 8 processors.
STUDY_ALONE, STUDY, STUDY_PROCESSORS = 150, 15, 8


@dataclass(frozen=True)
class Measured:
    """A stretch of steady work.

    Attributes:
        rows: that were done in it.
        seconds: that it took.
        used: processor seconds by part.
    """

    rows: int
    seconds: float
    used: dict[str, float]

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def per_processor(self) -> float:
        """Rows for each processor second that the pipeline used, whoever else was busy."""
        return self.rows / sum(self.used.values())

    def milliseconds(self) -> dict[str, float]:
        """Of a processor for each row, by part."""
        return {part: 1000 * seconds / self.rows for part, seconds in self.used.items()}


async def alone(pipeline: Pipeline, client: Client, photographs: Path, pictures: int) -> Measured:
    """Inference alone: photographs that are decoded before, as many at a time as are worthwhile."""
    asked = client.model(model)
    files = sorted((photographs / "day").iterdir())[:ALONE]
    decoded = [decode(file.read_bytes(), size=(SIDE, SIDE)) for file in files]
    numbers = iter(range(pictures))
    for _ in range(WARM):
        await asyncio.gather(*(asked(image=one) for one in decoded))
    parts = {"models": pids(pipeline)["models"], "client": os.getpid()}
    processors, began = Processors(parts), time.monotonic()

    async def some() -> None:
        for number in numbers:
            await asked(image=decoded[number % len(decoded)])

    await asyncio.gather(*(some() for _ in range(ALONE)))
    return Measured(pictures, time.monotonic() - began, processors.used())


async def sustained(
    pipeline: Pipeline, database: Database, environment: dict[str, str], pictures: int
) -> Measured:
    """The producer asks for 1,000 a second; rows are counted in the table.

    What is measured begins with a tenth of the rows, and ends while the producer still publishes:
    before and after it not everything is at work.
    """
    waiting = min(OPEN, pictures // 8)
    log = pipeline.stack.dir / "logs" / "producer.log"
    pace = {"rate": ASKED, "count": pictures, "most_open": waiting, "seed": 1}
    async with producer(environment, log, **pace) as producing:
        first = await _reached(database, pictures // 10)
        parts = {**pids(pipeline), "producer": producing.pid}
        processors, began = Processors(parts), time.monotonic()
        last = await _reached(database, pictures - 3 * waiting)
        found = Measured(last - first, time.monotonic() - began, processors.used())
        await producing.done()
    return found


async def _reached(database: Database, rows: int) -> int:
    for _ in itertools.count():
        if (found := await database.count()) >= rows:
            break
        await asyncio.sleep(0.2)
    return found


def told(checks: Checks, bare: Measured, found: Measured) -> None:
    """Both, beside the study's."""
    eight = STUDY_PROCESSORS * found.per_processor
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in found.milliseconds().items())
    checks.fact(
        f"{ASKED:,} a second asked: {found.rate:,.0f} a second sustained down to the database "
        f"({found.rows:,} rows in {found.seconds:.1f} s); ms of a processor for each: {parts}",
        sustained={"rows": found.rows, "seconds": found.seconds, "rate": found.rate},
        milliseconds=found.milliseconds(),
    )
    checks.fact(
        f"inference alone: {bare.rate:,.0f} a second; a processor second gives "
        f"{bare.per_processor:,.0f}, and {found.per_processor:,.0f} down to the database "
        f"({found.per_processor / bare.per_processor:.0%}; the study's pipeline kept "
        f"{STUDY / STUDY_ALONE:.0%})",
        alone={"rate": bare.rate, "milliseconds": bare.milliseconds()},
        per_processor=found.per_processor,
    )
    checks.fact(
        f"{STUDY_PROCESSORS} such processors would give {eight:,.0f} a second (the study: "
        f"{STUDY_ALONE} for inference alone, {STUDY} down to the database)",
        of_eight=eight,
    )
    checks.check(
        found.per_processor > STUDY_ALONE / STUDY_PROCESSORS,
        "a processor brings more into the database than the study's for inference alone",
    )
    checks.check(
        found.per_processor > bare.per_processor / 4,
        "a quarter or more of what inference alone would be reaches the database",
    )
