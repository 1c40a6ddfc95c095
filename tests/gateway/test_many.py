"""Many clients wait in one gateway, each in little room, and nobody is forgotten.

Ten thousand of them: `python -m tests.gateway.many --clients 10000`.
"""

from __future__ import annotations

from tests.gateway.many import many


async def test_many_who_wait_are_all_answered() -> None:
    facts = await many(400, processes=2, idle=0.5)
    assert (facts["answered"], facts["wrong"]) == (400, [])
    assert facts["kb_each"] < 50
