"""What every table has beside a row's own columns, and the table of dead letters."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.ports import Origin
from mqinfer.tables.tables import DeadLetterRow, frame_values
from tests.support.rowtypes import write


@given(st.lists(st.integers(0, 2**65), max_size=5))
def test_the_first_answer_has_the_greatest_version_all_in_generation_0(times: list[int]) -> None:
    versions = frame_values([Origin(id="i", published=time) for time in times])[-1]
    assert len(versions) == len(times)
    assert all(version >> 44 == 0 <= version for version in versions)
    for time, version in zip(times, versions, strict=True):
        for later, smaller in zip(times, versions, strict=True):
            if time // 1_000_000 < min(later // 1_000_000, 2**44 - 1):
                assert version > smaller


async def test_dead_letters_are_a_table(db: ClickHouse) -> None:
    now = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)
    letter = DeadLetterRow("plants", "crop", now, "failed", "boom", "ValueError", "s", 7, 5, "x")
    assert not await write(db, DeadLetterRow, letter)
    (found,) = await db.query("SELECT stage, reason, sequence, size FROM mqinfer_dead_letters")
    assert found == {"stage": "crop", "reason": "boom", "sequence": 7, "size": 0}
