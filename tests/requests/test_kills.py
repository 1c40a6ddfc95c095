"""Each request ends once, with exactly its answers, whoever is killed between what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.requests.kills import Plan, through


@pytest.mark.parametrize(
    "plan",
    [
        Plan(8, kills=7, askers=4, steps=(1, 40), workers=1, seed=3),
        Plan(60, kills=4, askers=4, server_kills=2, steps=(20, 1500), asker_steps=(2, 40), seed=4),
    ],
    ids=["after few steps", "and of the server"],
)
async def test_somebody_is_killed_between_any_two_steps(plan: Plan, tmp_path: Path) -> None:
    facts = await through(plan, tmp_path, 300)
    assert facts["kills"] > plan.kills - plan.workers  # the last may find nothing left to do
    assert facts["askers killed"] > 0
    assert sum(facts["ends"].values()) == plan.requests
