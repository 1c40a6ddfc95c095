"""How many processes there should be, by what waits; pure, so that time is a number here."""

import itertools
import math

import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.supervise.scaling import (
    Bounds,
    Load,
    Scaler,
    desired,
    parse_processes,
    parse_scale,
)

BOUNDS = Bounds(1, 8, target=10.0, backlog=100, cooldown=60.0)


@pytest.mark.parametrize(
    ("load", "current", "wanted"),
    [
        (Load(0), 5, 1),  # nothing to do
        (Load(50), 1, 1),  # nothing is known of the pace, and less waits than for one
        (Load(150), 1, 2),
        (Load(10_000), 2, 4),  # at most twice as many at a time
        (Load(10_000), 8, 8),  # and never above the bound
        (Load(1000, pace=10.0), 4, 8),  # 10 a second each, to be done in ten seconds: 10
        (Load(400, pace=10.0), 4, 4),
        (Load(100, arriving=30.0, pace=10.0), 4, 4),  # 30 come a second, and 10 to catch up
        (Load(1, arriving=5.0, pace=10.0), 4, 1),
        (Load(10_000, held="ClickHouse is away"), 3, 3),  # never against a gate
        (Load(10_000, pace=10.0, held="calls queue"), 3, 3),
        (Load(10_000, pace=10.0, busy=0.95), 2, 2),  # they fill the two processors that there are
        (Load(10_000, pace=10.0, busy=0.95), 1, 2),
        (Load(10_000, pace=10.0, busy=0.3), 2, 4),
        (Load(10_000, pace=10.0, busy=0.95), 4, 4),  # those there are stay
    ],
)
def test_desired(load: Load, current: int, wanted: int) -> None:
    assert desired(load, current, BOUNDS, processors=2) == wanted


def simulate(burst: int, gate: range = range(0)) -> list[int]:
    """Each process does 10 a second; the group's size second by second, until long after it."""
    scaler, waiting, settled, sizes = Scaler(BOUNDS, processors=64), burst, 0, []
    for second in range(400):
        held = "a gate" if second in gate else ""
        done = 0 if held else min(waiting, 10 * scaler.wanted)
        waiting, settled = waiting - done, settled + done
        scaler.look(
            float(second), waiting=waiting, in_flight=0, settled=settled, busy=0.2, held=held
        )
        sizes.append(scaler.wanted)
    assert waiting == 0
    return sizes


def test_a_burst_makes_more_and_its_end_fewer_one_by_one_after_patience() -> None:
    sizes = simulate(5000)
    assert max(sizes) == 8
    assert sizes[3] == 8  # doubled thrice
    top = len(sizes) - sizes[::-1].index(8)
    falls = [second for second in range(1, 400) if sizes[second] < sizes[second - 1]]
    assert all(sizes[second] == sizes[second - 1] - 1 for second in falls)
    assert all(b - a >= BOUNDS.cooldown for a, b in itertools.pairwise(falls))
    assert falls[0] == top


def test_nothing_is_added_while_a_gate_is_closed() -> None:
    sizes = simulate(5000, gate=range(60))
    assert set(sizes[:60]) == {1}
    assert max(sizes[60:]) == 8


def test_a_steady_flow_finds_its_number_and_stays() -> None:
    scaler, waiting, settled, sizes = Scaler(BOUNDS, processors=64), 0, 0, []
    for second in range(900):
        waiting += 35
        done = min(waiting, 10 * scaler.wanted)
        waiting, settled = waiting - done, settled + done
        scaler.look(float(second), waiting=waiting, in_flight=0, settled=settled, busy=0.2, held="")
        sizes.append(scaler.wanted)
    assert waiting < 350
    assert set(sizes[-300:]) <= {4, 5}


def test_what_the_command_line_takes() -> None:
    assert parse_processes("4") == (4, 4)
    assert parse_processes("1..8") == (1, 8)
    for wrong in ("0", "8..1", "..3", "x", "1..", "-1..3"):
        with pytest.raises(ConfigurationError, match=r"write 4, or 1\.\.8"):
            parse_processes(wrong)
    assert parse_scale("target=1m, backlog=5", 1, 8) == Bounds(1, 8, 60.0, 5, 60.0)
    for wrong in ("target=0", "backlog=x", "speed=3"):
        with pytest.raises(ConfigurationError, match="write target=30s"):
            parse_scale(wrong, 1, 8)
    assert math.isfinite(Bounds().target)
