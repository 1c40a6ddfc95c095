"""The short version of `python -m tests.faults.replay`; the latency is that one's business."""

from __future__ import annotations

from pathlib import Path

import pytest

from .replay import Replay

pytest.importorskip("chdb")
pytestmark = pytest.mark.triton  # its model is one of Triton's Python backend


async def test_a_replay_beside_live_work_is_killed_and_joined(tmp_path: Path) -> None:
    # Slow enough that a look at its rows comes before its end, on a busy machine too.
    facts = await Replay(
        tmp_path,
        messages=400,
        quiet=1.0,
        options=("--rate=30",),
        pace=20.0,
        module="tests.support.eager",
    )()
    assert not facts.broken(), facts
    assert (facts.kills, facts.workers) == (3, 5)
    assert facts.probes > 100
