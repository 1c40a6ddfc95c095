"""The study in small: few false alarms of stable worlds, soon an alarm of one that changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.monitor.study import changed, stable
from benchmarks.monitor.worlds import WORLDS, World
from mqinfer.monitor.detector import Budget

# A tenth of a day instead of a month, and the same chance in it: as many steps fewer to reach it.
SHORT = Budget(days=0.1)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_stable_months_rarely_alarm(world: World) -> None:
    found = stable(world, 60, SHORT.days, SHORT, seed=1).alarms
    # 5 % of 60 are 3; 12 and more of them have a chance of 1 in 20,000.
    assert (found["mqinfer"] > 0).sum() <= 11


@pytest.mark.parametrize(("share", "rows"), [(0.3, 600), (0.2, 3_500)])
def test_a_change_is_seen_within_rows_of_evidence(share: float, rows: int) -> None:
    found = changed(WORLDS[0], share, 20, 6_000, Budget(), seed=2).rows
    assert np.median(found["mqinfer"]) < rows
    assert (found["mqinfer"] > 20).all()  # nobody alarms by accident
    assert np.isinf(found["PSI > 0.2, 1 h"]).mean() > 0.9 or share > 0.25


def test_the_command_tells_it_and_draws_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept, chart = tmp_path / "study.json", tmp_path / "study.png"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.monitor", "--months", "3", "--days", "0.01"),
            *(
                "--changes",
                "2",
                "--most",
                "500",
                "--world",
                "daily",
                "--json",
                str(kept),
                "--chart",
                str(chart),
            ),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(kept.read_text())
    assert list(found["worlds"]) == ["daily"]
    assert "months with alarm" in done.stdout
    assert chart.read_bytes().startswith(b"\x89PNG")
