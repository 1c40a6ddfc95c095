"""What the faults program knows beforehand: ways, odd values, and what memory tells."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mqinfer import Retry, Snooze
from mqinfer.codec import Codec
from mqinfer.tables.tables import schema_of

from . import model, odd, ordinary, pipeline
from .memory import Memory, Sample, draw, life_of

NUMBERS = range(5000)


def test_every_way_occurs_and_ends_before_its_message_is_dead() -> None:
    stages = pipeline.app.stages
    seen = set()
    for name, number, index in pipeline.messages(NUMBERS):
        way = ordinary.way_of(name, number, index)
        if way is None:
            continue
        seen.add((name, way.name))
        spends = way.times if way.name in ("retry", "fail") else 0
        assert spends < stages[name].limits.attempts
        for attempt in range(1, way.times + 1):
            if way.name == "slow":
                assert ordinary.live(name, attempt, number, index) > ordinary.ACK_WAIT
            else:
                with pytest.raises((Retry, Snooze, RuntimeError)):
                    ordinary.live(name, attempt, number, index)
        assert ordinary.live(name, way.times + 1, number, index) in (0.0, ordinary.SLOW)
    assert {way for _, way in seen} == {"retry", "retry after", "snooze", "fail", "slow"}
    assert {name for name, _ in seen} == {s for s in stages if not s.startswith("sink-")}


def test_an_input_has_the_same_odd_values_each_time_and_all_occur() -> None:
    odds = [odd.odd_of(number) for number in NUMBERS[::5]]
    assert odd.expected_row(5) == odd.expected_row(5)
    assert any(math.isnan(one.real) for one in odds)
    assert any(math.copysign(1.0, one.real) < 0 for one in odds if one.real == 0)
    assert {one.text for one in odds} >= {"", "\0", "\U0001f33f\U0001f600"}
    assert any(one.huge > 2**200 for one in odds)
    assert any(one.day.year < 1970 for one in odds)
    assert any(one.maybe is None for one in odds)
    assert any(not one.reals for one in odds)
    assert any(len(one.blob.inline or b"") > 1_000_000 for one in odds)


async def test_odd_values_can_be_written_and_read() -> None:
    codec = Codec()
    columns = schema_of(odd.Oddity).types
    for number in range(200):
        message = odd.odd_of(number)
        data, wire = codec.write(message)
        row = await odd.row_of(codec.decode(odd.Odd, data, f"application/{wire}"))
        codec.write(row)
        assert set(odd.Oddity.__struct_fields__) <= set(columns)
        assert row.size == len(message.blob.inline or b"")


def test_the_longest_life_tells_whether_a_process_grows() -> None:
    steady = [Sample(float(at), 2, 100.0 + (at < 20)) for at in range(200)]
    other = [Sample(float(at), 1, 900.0) for at in range(-50, 0)]
    life = life_of(other + steady)
    assert (life.processes, life.seconds, life.most, life.end, life.growth) == (2, 199, 101, 100, 0)
    leak = [Sample(float(at), 2, 100.0 + at) for at in range(200)]
    assert life_of(leak).growth == 120.0
    assert life_of(leak[:50]).growth is None


def test_memory_is_told_and_drawn(tmp_path: Path) -> None:
    import os

    memory = Memory(lambda: {"worker 0": os.getpid(), "gone": None})
    memory.take()
    assert set(memory.samples) == {"worker 0"}
    assert "worker 0" in memory.table()
    assert "nothing can be said" in memory.verdict()
    growing = [Sample(float(at), 2, 100.0 + at) for at in range(200)]
    memory.samples["worker steady"] = growing
    assert "worker steady, +120.0 MiB" in memory.verdict()
    pytest.importorskip("matplotlib")
    draw(tmp_path / "memory.png", "a test", {**memory.samples, "Triton": growing})
    assert (tmp_path / "memory.png").stat().st_size > 10_000


def test_the_pace_of_the_model_is_set_from_outside(tmp_path: Path) -> None:
    pace = model.build(tmp_path / "models", "affine")
    assert float(pace.path.read_text()) == model.USUAL
    pace.set(1.5)
    assert float(pace.path.read_text()) == 1.5
    assert pace.path.name in (tmp_path / "models" / "affine" / "1" / "model.py").read_text()
