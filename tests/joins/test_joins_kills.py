"""Each join is called once in effect, with exactly its outputs, whoever is killed between what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.joins.kills import Plan, through


@pytest.mark.parametrize(
    "plan",
    [
        Plan(roots=12, kills=9, steps=(1, 30), workers=1, seed=3),
        Plan(roots=150, kills=5, server_kills=2, steps=(20, 1500), workers=2, seed=4),
    ],
    ids=["after few steps", "and of the server"],
)
async def test_workers_are_killed_between_any_two_steps(plan: Plan, tmp_path: Path) -> None:
    facts = await through(plan, tmp_path, 300)
    assert facts["kills"] > plan.kills - plan.workers  # the last may find nothing left to do
    assert facts["reports"] == plan.roots
