"""States through SIGKILL of workers between every two steps, and of the server."""

from __future__ import annotations

from pathlib import Path

from .states import Faults
from .stateworker import POINTS


async def test_each_message_counts_once_through_every_death(tmp_path: Path) -> None:
    faults = Faults(tmp_path, messages=1_200, keys=40, kills=12, servers=1, seed=5)
    await faults()
    assert sum(faults.deaths.values()) >= 10
    assert set(faults.deaths) >= set(POINTS[1:5])
