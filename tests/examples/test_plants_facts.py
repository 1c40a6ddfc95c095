"""What the demo tells of reports, alarms and reminders, and that it sees each that is wrong."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import clickhouse_connect
import msgspec
import pytest

from examples.plants import facts
from examples.plants.drones import Where
from examples.plants.facts import Facts
from mqinfer import Blob, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink
from stages.plants import (
    Alarm,
    Box,
    DiseaseGrade,
    LeafFound,
    LeafTruth,
    PhotoReport,
    Reminder,
)

DAYS = [datetime.date(2026, 5, 4) + datetime.timedelta(days=n) for n in range(4)]
CROPPER = ("leaf_detector", "1")


@dataclass
class Tables:
    """Position p gets worse from 0 to 3 in four days, each with a leaf and a grade."""

    db: ClickHouse
    url: str
    count: int = field(default=0)

    async def add(self, *rows: Row) -> None:
        for row in rows:
            self.count += 1
            origin = Origin(id=f"row-{self.count}", published=self.count, sequence=self.count)
            assert await Sink(self.db, type(row)).write([(row, origin)]) == {}

    async def told(self, tell: Callable[..., None], *more: Any) -> Facts:
        def ask() -> Facts:
            client = clickhouse_connect.get_client(dsn=self.url)
            try:
                found = Facts()
                tell(client, *more, found)
                return found
            finally:
                client.close()

        return await asyncio.to_thread(ask)


def report(day: int, **changes: Any) -> PhotoReport:
    counts = [int(grade == day) for grade in range(4)]
    made = PhotoReport("p", DAYS[day], 1, counts, float(day), day, "", [], 0, [], "")
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
async def tables(db: ClickHouse, url: str) -> Tables:
    for kind in (LeafFound, DiseaseGrade, LeafTruth, PhotoReport, Alarm, Reminder):
        await Sink(db, kind).prepare()
    made = Tables(db, url)
    box = Box(0, 0, 9, 9)
    for n, day in enumerate(DAYS):
        await made.add(
            LeafFound("p", day, 0, box, 0.9, Blob.at("0.png"), *CROPPER),
            DiseaseGrade("p", day, 0, "rust", n, *CROPPER, "grade_rust", "1"),
            LeafTruth("p", day, 0, box, {"rust": n}),
        )
    return made


FLOWN: list[Where] = [("p", day) for day in DAYS]


async def test_reports_are_held_against_the_grades(tables: Tables) -> None:
    await tables.add(*map(report, range(3)))
    found = await tables.told(facts.tell_reports, FLOWN)
    assert found.broken == ["3 reports, of 3 photographs, not of 4"]
    await tables.add(report(3))
    found = await tables.told(facts.tell_reports, FLOWN)
    assert (found.broken, found.figures) == ([], {"reports": 4})
    assert found.lines == [
        "reports: 4 of 4 photographs, each as its grades say: 4 leaves, 4 grades, 0 missing, 0 dead"
    ]
    await tables.add(report(3))
    assert "5 reports, of 4" in (await tables.told(facts.tell_reports, FLOWN)).broken[0]


WRONG: list[dict[str, Any]] = [
    {"leaves": 2},
    {"by_grade": [0, 0, 0, 2]},
    {"grade": 2.9},
    {"worst_grade": 2},
    {"incomplete": "late"},
    {"died": 1},
    {"ungraded": ["rust on leaf 1"]},
]


async def test_a_report_that_is_wrong_is_seen(tables: Tables) -> None:
    for changes in WRONG:
        await tables.db.command("TRUNCATE TABLE photo_report__storage")
        await tables.add(*map(report, range(3)), report(3, **changes))
        assert len((await tables.told(facts.tell_reports, FLOWN)).broken) == 1, changes


async def test_alarms_are_held_against_the_grades(tables: Tables) -> None:
    assert (await tables.told(facts.tell_alarms)).broken  # there should be one
    alarm = Alarm("p", DAYS[1], DAYS[3], 0.0, 3.0)
    await tables.add(alarm)
    found = await tables.told(facts.tell_alarms)
    assert found.broken == []
    assert found.lines == [
        "alarms: 1, as the grades say; 1 of the 1 of which the inspections tell",
        "  p got worse on each day from 2026-05-05 to 2026-05-07: 0.00 to 3.00",
    ]
    await tables.add(alarm)
    assert (await tables.told(facts.tell_alarms)).broken


async def test_reminders_are_one_a_position_about_its_last_photograph(tables: Tables) -> None:
    await tables.add(Reminder("p", DAYS[3]))
    assert (await tables.told(facts.tell_reminders, FLOWN, True)).broken == []
    await tables.add(Reminder("p", DAYS[2]))  # the drones were slow, or a timer was not replaced
    assert (await tables.told(facts.tell_reminders, FLOWN, False)).broken == []
    assert (await tables.told(facts.tell_reminders, FLOWN, True)).broken == [
        "1 reminders are about earlier photographs"
    ]
    await tables.add(Reminder("p", DAYS[3]))
    assert (await tables.told(facts.tell_reminders, FLOWN, False)).broken == [
        "2 reminders of 1 positions"
    ]
