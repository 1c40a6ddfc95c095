"""Counts equal a recount and the truth, whoever is killed between which two steps."""

from __future__ import annotations

from pathlib import Path

from tests.monitor.kills import Plan, through


async def test_somebody_is_killed_between_any_two_steps(tmp_path: Path, url: str) -> None:
    plan = Plan(numbers=60, sealers=1, kills=1, server_kills=1, steps=(10, 50), workers=1, seed=7)
    facts = await through(plan, tmp_path, 300, url)
    assert facts["kills"] == 1
    assert facts["kills of a run's workers"] == 1
    assert facts["kills of sealers"] == 1
