"""The study's SQL on a small field whose answers can be worked out by hand."""

from __future__ import annotations

import asyncio
import datetime
import math
from pathlib import Path

import clickhouse_connect
import pytest

from examples.plants.analysis import Study, study, tables
from mqinfer import Blob
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.message import Row
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink
from stages.plants import Area, Box, DiseaseGrade, LeafFound, LeafTruth, Position
from stages.plants.effects import student_t

FIRST, LAST = datetime.date(2026, 5, 4), datetime.date(2026, 5, 8)
CROPPER = ("leaf_detector", "1")


def grades(position: str, date: datetime.date, values: list[int], disease: str) -> list[Row]:
    model = (f"grade_{disease}", "1")
    return [
        DiseaseGrade(position, date, index, disease, value, *CROPPER, *model)
        for index, value in enumerate(values)
    ]


def found(position: str, index: int, box: Box) -> LeafFound:
    return LeafFound(position, FIRST, index, box, 0.9, Blob.at(f"{index}.png"), *CROPPER)


async def asked(db: ClickHouse, url: str, rows: list[Row]) -> Study:
    for kind in (Position, LeafFound, LeafTruth, DiseaseGrade):
        sink = Sink(db, kind)
        await sink.prepare()
        items = [
            (row, Origin(id=f"{kind.__name__}-{i}", published=i, sequence=i + 1))
            for i, row in enumerate(rows)
            if isinstance(row, kind)
        ]
        if items:
            assert await sink.write(items) == {}

    def ask() -> Study:
        client = clickhouse_connect.get_client(dsn=url)
        try:
            return study(client)
        finally:
            client.close()

    return await asyncio.to_thread(ask)


def plan(**areas: Area) -> list[Row]:
    return [Position(name, area) for name, area in areas.items()]


async def test_means_are_over_positions_with_students_interval(db: ClickHouse, url: str) -> None:
    rows = plan(a="active", b="active", c="active", x="control")
    # Means of the positions are 1, 2 and 3, however many leaves each has.
    rows += grades("a", FIRST, [1], "rust") + grades("b", FIRST, [2, 2, 2, 2], "rust")
    rows += grades("c", FIRST, [3, 3], "rust") + grades("x", FIRST, [0, 1], "rust")
    result = await asked(db, url, rows)
    control, active = result.means
    assert (active.disease, active.area, active.positions, active.leaves) == (
        "rust",
        "active",
        3,
        7,
    )
    assert active.mean == pytest.approx(2)
    assert active.margin == pytest.approx(4.302653 / math.sqrt(3))  # deviation 1, 2 degrees
    assert (control.area, control.mean, control.positions) == ("control", 0.5, 1)
    assert math.isnan(control.margin)


async def test_the_effect_is_a_difference_in_differences(db: ClickHouse, url: str) -> None:
    rows = plan(a="active", b="active", c="active", x="control", y="control", z="control")
    # Changes: active -2, -1, -3; control 0, -1, +1. Welch: -2 ± t(4) * sqrt(1/3 + 1/3).
    for position, before, after in (
        ("a", [2, 2], [0, 0]),
        ("b", [2, 3, 1], [1, 2, 0]),
        ("c", [3], [0]),
        ("x", [1, 2], [2, 1]),
        ("y", [2], [1]),
        ("z", [0, 0], [1, 1]),
    ):
        rows += grades(position, FIRST, before, "rust") + grades(position, LAST, after, "rust")
        rows += grades(position, datetime.date(2026, 5, 6), [3, 3, 3], "rust")  # in between
    rows += plan(late="control") + grades("late", LAST, [3], "rust")  # no first day: no change
    result = await asked(db, url, rows)
    rust, everything = result.effects
    assert (rust.disease, everything.disease) == ("rust", "all")
    assert (rust.control, rust.active) == (3, 3)
    assert rust.control_change == pytest.approx(0)
    assert rust.active_change == pytest.approx(-2)
    assert rust.effect == pytest.approx(-2)
    half = 2.776445 * math.sqrt(2 / 3)
    assert (rust.low, rust.high) == pytest.approx((-2 - half, -2 + half), rel=1e-5)
    assert (rust.high > 0, rust.verdict) == (True, "not shown")
    # ClickHouse's own test agrees, where it can answer.
    (own,) = await db.query(
        "SELECT (welchTTest(0.95)(change, area) AS t).3 AS low, t.4 AS high "
        "FROM VALUES('change Float64, area UInt8', "
        "(-2, 0), (-1, 0), (-3, 0), (0, 1), (-1, 1), (1, 1))"
    )
    assert (rust.low, rust.high) == pytest.approx((own["low"], own["high"]), rel=1e-6)
    assert everything.effect == pytest.approx(-2)


@pytest.mark.parametrize(
    ("active", "control", "verdict"),
    [(0, 3, "helps"), (3, 0, "harms"), (3, 3, "not shown")],
)
async def test_the_sign_says_whether_it_helps(
    db: ClickHouse,
    url: str,
    active: int,
    control: int,
    verdict: str,
) -> None:
    rows: list[Row] = []
    for index in range(8):
        area: Area = "active" if index % 2 else "control"
        last = active if index % 2 else control
        wobble = [last, last, min(3, last + index // 2 % 2)]
        rows += plan(**{f"p{index}": area})
        rows += grades(f"p{index}", FIRST, [1, 2, 1], "spot")
        rows += grades(f"p{index}", LAST, wobble, "spot")
    assert {one.verdict for one in (await asked(db, url, rows)).effects} == {verdict}


async def test_a_plan_published_again_changes_no_weight(db: ClickHouse, url: str) -> None:
    rows = plan(a="control", b="active") + plan(a="active", b="active")  # the newest counts
    rows += grades("a", FIRST, [1], "rust") + grades("b", FIRST, [3], "rust")
    (mean,) = (await asked(db, url, rows)).means
    assert (mean.area, mean.positions, mean.leaves, mean.mean) == ("active", 2, 2, 2.0)


async def test_pairs_are_the_best_of_each_other(db: ClickHouse, url: str) -> None:
    truth = [Box(0, 0, 10, 10), Box(100, 0, 110, 10), Box(200, 0, 210, 10)]
    says = [{"rust": 2, "spot": 0}, {"rust": 0, "spot": 1}, {"rust": 3, "spot": 3}]
    rows: list[Row] = [
        LeafTruth("a", FIRST, index, box, grade)
        for index, (box, grade) in enumerate(zip(truth, says, strict=True))
    ]
    rows += [
        found("a", 0, Box(0, 0, 10, 10)),  # exactly the first
        found("a", 1, Box(0, 0, 10, 9)),  # also the first, but not as good: none
        found("a", 2, Box(100, 0, 110, 5)),  # half of the second: IoU is 0.5, a pair
        found("a", 3, Box(200, 0, 210, 4.9)),  # less than half of the third: none
        found("b", 0, Box(0, 0, 10, 10)),  # on a photograph where nothing is
    ]
    rows += grades("a", FIRST, [2, 0, 1, 0], "rust") + grades("a", FIRST, [0, 3, 3, 3], "spot")
    rows += grades("b", FIRST, [3], "rust")
    result = await asked(db, url, rows)
    assert (result.found, result.leaves, result.pairs) == (5, 3, 2)
    assert (result.precision, result.recall) == pytest.approx((2 / 5, 2 / 3))
    rust, spot = result.agreements
    assert (rust.disease, rust.graded, rust.exact, rust.within_one) == ("rust", 2, 0.5, 1.0)
    assert (spot.disease, spot.graded, spot.exact, spot.within_one) == ("spot", 2, 0.5, 0.5)
    assert list(rust.models) == ["grade_rust 1"]
    assert (result.exact, result.within_one) == (0.5, 0.75)


async def test_nothing_yet_is_no_error(db: ClickHouse, url: str, tmp_path: Path) -> None:
    from examples.plants.chart import draw

    result = await asked(db, url, [])
    assert (result.means, result.effects, result.agreements) == ([], [], [])
    assert math.isnan(result.precision)
    assert len(tables(result)) == 3
    assert draw(result, tmp_path / "empty.png").stat().st_size > 1000


async def test_the_chart_is_drawn(db: ClickHouse, url: str, tmp_path: Path) -> None:
    from examples.plants.chart import draw

    rows = plan(a="active", b="active", x="control", y="control")
    for position in "abxy":
        for day in (FIRST, LAST):
            for disease in ("blight", "mildew", "mosaic", "rust", "spot"):
                rows += grades(position, day, [1, 2, int(position in "ab")], disease)
    result = await asked(db, url, rows)
    chart = draw(result, tmp_path / "new" / "healing.png")
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("freedom", "factor"),
    [(1, 12.706205), (2, 4.302653), (3, 3.182446), (9, 2.262157), (120, 1.979930)],
)
def test_students_t(freedom: int, factor: float) -> None:
    assert student_t(freedom) == pytest.approx(factor, rel=1e-6)
