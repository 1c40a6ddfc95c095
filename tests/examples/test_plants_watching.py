"""What looks after the field, without models and tables: alarms, reports, reminders."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.plants.facts import worsenings
from mqinfer import Blob, Context, Settings
from mqinfer.completion.assemble import Died
from mqinfer.testing import Harness, until
from stages.plants import Alarm, DiseaseGrade, DroneImage, Health, Leaf, PhotoReport, Reminder, app
from stages.plants import reminder as reminders
from stages.plants.health import DAY, KEPT_DAYS, watch
from stages.plants.report import report
from tests.faults.stateworker import POINTS
from tests.support.plants_watch import app as watching

ROOT = Path(__file__).parents[2]
FIRST = datetime.date(2026, 5, 4)
CROPPER = ("leaf_detector", "1")


def day(number: int) -> datetime.date:
    return FIRST + number * DAY


def said(position: str, number: int, grade: float | None) -> PhotoReport:
    return PhotoReport(position, day(number), 1, [1, 0, 0, 0], grade, 0, "", [], 0, [], "")


# --- alarms -------------------------------------------------------------------------------------


async def alarms(grades: dict[int, float | None], order: list[int] | None = None) -> list[Alarm]:
    health = Health()
    found = [await watch(said("p", n, grades[n]), health) for n in order or grades]
    return [one for one in found if one is not None]


def season(*grades: float | None) -> dict[int, float | None]:
    return dict(enumerate(grades))


async def test_three_worse_days_in_a_row_are_one_alarm() -> None:
    assert await alarms(season(1, 0.9, 1.0, 1.1, 1.2)) == [Alarm("p", day(2), day(4), 0.9, 1.2)]
    assert len(await alarms(season(0, 1, 2, 3, 2, 2.1, 2.2, 2.3))) == 2  # it had healed between
    assert len(await alarms(season(*(n / 10 for n in range(20))))) == 1  # however long it goes on


@pytest.mark.parametrize(
    "grades",
    [
        season(0, 1, 2),  # two days
        season(0, 1, 1, 2, 3),  # a day that was no worse
        season(0, 1, 2, None, 3, 4),  # a day without a grade
        {0: 0.0, 1: 1.0, 2: 2.0, 4: 3.0, 5: 3.1},  # a day without a photograph
    ],
)
async def test_what_is_no_worsening_over_three_days(grades: dict[int, float | None]) -> None:
    assert await alarms(grades) == []


async def test_days_that_come_late_change_nothing() -> None:
    grades = season(1, 0.9, 1.0, 1.1, 1.2, 1.0)
    for order in itertools.permutations(grades):
        assert await alarms(grades, list(order)) == [Alarm("p", day(2), day(4), 0.9, 1.2)], order


async def test_the_same_reports_again_are_no_second_alarm() -> None:
    grades = season(0, 1, 2, 3, 4)
    assert len(await alarms(grades, [0, 1, 2, 3, 3, 0, 1, 2, 3, 4, 4])) == 1


@given(st.lists(st.integers(0, 3), max_size=40))
def test_alarms_are_those_that_all_grades_say(values: list[int]) -> None:
    grades = {day(n): float(value) for n, value in enumerate(values)}
    found = asyncio.run(alarms(dict(enumerate(map(float, values)))))
    assert [(one.since, one.date) for one in found] == list(worsenings(grades))


async def test_no_more_is_remembered_than_is_needed() -> None:
    health = Health()
    for n in range(3 * KEPT_DAYS):
        await watch(said("p", n, n % 5), health)
    assert len(health.grades) == KEPT_DAYS
    assert len(health.alarms) <= KEPT_DAYS / 3
    assert min(health.alarms) in health.grades


async def test_a_worker_that_is_killed_gives_each_alarm_once(
    nats: Settings, tmp_path: Path
) -> None:
    positions = [f"p{n}" for n in range(6)]
    grades = [1.0, 0.8, 0.9, 1.0, 1.1]
    async with Harness(watching, nats) as harness:
        for number, grade in enumerate(grades):
            reports = [said(position, number, grade + 0.01) for position in positions]
            ids = [f"{position}@{day(number)}" for position in positions]
            await harness.publish(*reports, ids=ids)
        for point in POINTS[:5]:  # each dies there in the middle of what is left
            assert await killed(nats, point, 5, tmp_path) == -signal.SIGKILL
        await harness.drain("watch")
        found = await harness.messages(Alarm)
        assert sorted(one.position_id for one in found) == positions
        assert {(one.since, one.date) for one in found} == {(day(2), day(4))}
        for position in positions:
            health = await harness.client.state("watch", position, Health)
            assert health is not None
            assert len(health.grades) == len(grades)
        # All of it again, as if JetStream knew nothing of it any more.
        again = [said(position, n, grades[n]) for position in positions for n in range(5)]
        await harness.publish(*again)
        await harness.drain("watch")
        assert len(await harness.messages(Alarm)) == len(positions)
        assert await harness.dead() == []


async def killed(settings: Settings, point: str, passages: int, folder: Path) -> int:
    """The return code of a worker that dies at a point."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MQINFER_NATS_URL": settings.nats_url,
        "MQINFER_BLOBS": settings.blobs,
    }
    words = ("-m", "tests.support.plants_watch", point, str(passages))
    with (folder / "worker.log").open("a") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, env=environment, stdout=log, stderr=log
        )
        try:
            async with asyncio.timeout(120):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


# --- reports ------------------------------------------------------------------------------------


def leaf(index: int) -> Leaf:
    return Leaf("p", FIRST, index, Blob.at(f"{index}.png"), *CROPPER)


def graded(index: int, disease: str, grade: int) -> DiseaseGrade:
    return DiseaseGrade("p", FIRST, index, disease, grade, *CROPPER, f"grade_{disease}", "1")


def told(*died: Died, incomplete: str = "") -> Context:
    return Context(id="1", stage="report", sequence=1, died=died, incomplete=incomplete)


async def test_a_report_counts_what_is_there_and_names_what_is_not() -> None:
    photo = DroneImage("p", FIRST, Blob.at("p.png"))
    others = ("blight", "mildew", "spot", "mosaic")
    found = [leaf(0), leaf(1), *(graded(0, name, 1) for name in others), graded(0, "rust", 3)]
    found += [graded(1, name, 0) for name in others]
    died = Died("grade_rust", "x", "rejected", "1.png is empty")
    made = await report(photo, found, told(died, incomplete="late"))
    assert (made.leaves, made.by_grade, made.grade) == (2, [4, 4, 0, 1], 7 / 9)
    assert (made.worst_grade, made.worst) == (3, "rust on leaf 0")
    assert made.ungraded == ["rust on leaf 1"]
    assert (made.died, made.reasons) == (1, ["grade_rust: 1.png is empty"])
    assert made.incomplete == "late"

    bare = await report(photo, [], told())
    assert (bare.leaves, bare.grade, bare.worst_grade, bare.worst) == (0, None, None, "")


# --- reminders ----------------------------------------------------------------------------------


async def test_a_later_photograph_replaces_the_reminder(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def photos(number: int, *positions: str) -> list[DroneImage]:
        return [DroneImage(one, day(number), Blob.at("a.png")) for one in positions]

    async with Harness(app, nats) as harness:
        await harness.publish(*photos(0, "a", "b"))
        await harness.drain("expect")
        waiting = await harness.timers("expect")
        assert sorted(str(one.key) for one in waiting) == ["a", "b"]
        now = datetime.datetime.now(datetime.UTC)
        assert all(one.due > now + datetime.timedelta(hours=23) for one in waiting)

        monkeypatch.setattr(reminders, "REMIND_AFTER", "0.2s")
        await harness.publish(*photos(1, "a"))
        async with harness.worker("expect", "remind"):
            (first,) = await until(lambda: harness.messages(Reminder), "a reminder")
            assert (first.position_id, first.last_photo) == ("a", day(1))
            (left,) = await harness.timers("expect")  # the one of the first day is no more
            assert left.key == "b"
            # It is due once; the next photograph makes the next one possible.
            await harness.publish(*photos(2, "a"))

            async def both() -> bool:
                return len(await harness.messages(Reminder)) == 2

            await until(both, "the second reminder")
        assert [one.last_photo for one in await harness.messages(Reminder)] == [day(1), day(2)]
