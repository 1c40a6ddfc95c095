"""Each row of a job ends once, with exactly what came of it, whoever is killed between what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.kills import Plan, through


@pytest.mark.parametrize(
    "plan",
    [
        Plan(1, rows=20, kills=7, steps=(1, 60), workers=1, seed=3),
        Plan(2, rows=150, kills=4, server_kills=2, steps=(20, 1500), seed=4),
    ],
    ids=["after few steps", "two at once, and the server"],
)
async def test_somebody_is_killed_between_any_two_steps(plan: Plan, tmp_path: Path) -> None:
    facts = await through(plan, tmp_path, 300)
    assert facts["kills"] > plan.kills - plan.workers  # the last may find nothing left to do
    assert facts["tried again"] == plan.jobs
