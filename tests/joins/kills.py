"""Joins through kills of workers, which track as well, between any two steps, and of the server.

    python -m tests.joins.kills --roots 2500 --kills 50

Every root is to have one report, and each is to be what the truth says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.testing import Harness, until
from tests.support import kills
from tests.support.joins_app import Photo, Report, app, truth
from tests.support.kills import Deaths


@dataclass
class Plan(Deaths):
    """What is done.

    Attributes:
        roots: messages that are joined on.
    """

    roots: int


async def through(plan: Plan, folder: Path, timeout: float) -> dict[str, Any]:
    """Do it, and compare with the truth.

    Raises:
        AssertionError: a root has no report, more than one, or one that is not the truth.
    """
    async with kills.grounds(plan, app, folder) as grounds:
        harness = grounds.harness
        streams = harness.services.streams
        assert streams is not None
        async with grounds.fleet("joins") as fleet, asyncio.TaskGroup() as group:
            group.create_task(_publish(harness, plan.roots))

            async def reported() -> bool:
                found = await streams.subjects(app.name, "joined.report")
                return fleet.deaths >= plan.kills and sum(found.values()) >= plan.roots

            await grounds.kill_server()
            await until(reported, "a report for each root", timeout)
        await harness.drain()  # nothing is left that could lead to another
        reports = await harness.messages(Report)
        told = Counter(one.n for one in reports)
        wrong = [one for one in reports if one != truth(one.n)]
        assert not wrong, f"{len(wrong)} reports are wrong: {wrong[0]}, not {truth(wrong[0].n)}"
        assert told == Counter(range(plan.roots)), "a root has no report, or several"
        assert {letter.kind for letter in await harness.dead()} <= {"rejected"}
        info = await streams.stream_info(app.name)
        assert info is not None
        return {
            "roots": plan.roots,
            "messages": info["state"]["messages"],
            "reports": len(reports),
            **grounds.facts(fleet),
        }


async def _publish(harness: Harness, roots: int) -> None:
    for first in range(0, roots, 100):
        await harness.publish(*map(Photo, range(first, min(first + 100, roots))))
        await asyncio.sleep(0.05)


def main() -> None:
    """From the command line."""
    asked = kills.arguments(__doc__, roots=2500, kills=50).parse_args()
    plan = Plan(
        roots=asked.roots,
        kills=asked.kills,
        server_kills=asked.server_kills,
        steps=(1, max(40, 120 * asked.roots // max(1, asked.kills))),
        seed=asked.seed,
    )
    kills.run(through, plan, asked.timeout)


if __name__ == "__main__":
    main()
