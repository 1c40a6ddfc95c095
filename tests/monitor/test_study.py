"""The study in small: few false alarms of stable worlds, soon an alarm of one that changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.monitor.rules import Evidence, Psi, Screen, allowed_of
from benchmarks.monitor.study import changed, stable
from benchmarks.monitor.worlds import DAY, ROWS, SHARES, WORLDS, World
from mqinfer.monitor.detector import Budget
from mqinfer.monitor.distance import psi

# Three hours instead of a month, and the same chance in them: as many steps fewer to reach it.
SHORT = Budget(days=0.125)


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
            *(sys.executable, "-m", "benchmarks.monitor", "--months", "3", "--days", "0.04"),
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


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_worlds_are_what_they_say(world: World) -> None:
    rng = np.random.default_rng(5)
    hours = [world.steps(rng, hour * 360, 360, 40) for hour in range(24)]
    counts = np.concatenate(hours).astype(int)
    assert counts.sum() / (DAY * 40) == pytest.approx(ROWS, rel=0.02)
    shares = counts.sum(axis=(0, 2)) / counts.sum()
    if not world.daily:
        assert shares == pytest.approx(np.array(SHARES), abs=0.005)
    steps = counts.sum(axis=1)
    assert (steps.var() / steps.mean() > 4) == world.clustered
    by_hour = [hour.sum() for hour in hours]
    assert (max(by_hour) > 3 * min(by_hour)) == world.daily
    more = world.steps(rng, 0, 360, 40, 0.3).astype(int)
    assert more.sum(axis=(0, 2))[3] / more.sum() > 0.25


def test_psi_of_many_months_is_that_of_each() -> None:
    rng = np.random.default_rng(6)
    reference, now = (rng.poisson(0.5, (360, 6, 7)).astype(np.uint8) for _ in range(2))
    now[:, 2, ::2] += 2
    found = Psi(reference, 60).steps(now)
    assert found[:-1].sum() == 0
    for month in range(7):
        far = psi(now[..., month].sum(axis=0), reference[..., month].sum(axis=0)).raw
        assert found[-1, month] == (far > 0.2)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_what_is_screened_out_would_not_have_alarmed(world: World) -> None:
    rng = np.random.default_rng(7)
    allowed = allowed_of(np.concatenate([world.steps(rng, h * 360, 360, 30) for h in range(12)]))
    low = Budget(days=0.01)
    for budget in (low, Budget()):
        own, screen = Evidence(allowed, budget), Screen(allowed, budget)
        alarms = np.zeros(30)
        for hour in range(3):
            counts = world.steps(rng, hour * 360, 360, 30, 0.4 if hour == 2 else 0.1)
            alarms += own.steps(counts).sum(axis=0)
            screen.steps(counts)
        assert not (alarms.astype(bool) & ~screen.may).any()
        assert alarms.any()
