"""What the Labels page shows, on a real ClickHouse: sums, shares over time, the newest examples."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.monitor.examples import Examples, Place, place_of
from mqinfer.monitor.lines import Tally
from mqinfer.monitor.places import ensure_counts
from mqinfer.monitor.timeline import Timeline, added, deployments, of_version, width
from mqinfer.ports import Origin
from tests.monitor.test_counts import FIRST, GUESSES, HOUR, Guess, item, promoted, sealed, store

LABEL, SURE, WIDTH, CAMERA = GUESSES.fields
HOSTILE = ["", "NULL", "'; DROP TABLE guess; --", '<b>&"</b>', "\\", "{key:String}", "ü" * 300]


def stored(number: int, label: str | None, at: float, version: str = "2") -> tuple[Any, Origin]:
    """A row of a version; nearly all of them are of one day of birth."""
    row, origin = item(number, label, at, sure=0.5)
    return row, Origin(
        id=origin.id,
        ancestors=origin.ancestors,
        stage="guess",
        models={"grader": version},
        sequence=number,
        published=origin.published,
    )


async def every(found: Examples, key: str, **options: Any) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    after: Place | None = None
    for _ in range(50):
        page = await found.page(key, time.time(), 3, after=after, **options)
        ids += [row.id for row in page.rows]
        after = page.next
        if after is None:
            return ids
        assert place_of(str(after)) == after
    raise AssertionError("pages without an end")


async def test_sums_over_sealed_and_newest_rows(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    now = time.time() - FIRST
    old = [stored(n, "cat" if n % 3 else None, 60.0 * n, "1") for n in range(60)]
    await store(db, old)
    await sealed(db)
    new = [stored(100 + n, "dog", now - 15 + n, "2") for n in range(10)]
    await store(db, new + new)
    timeline = Timeline(db, Guess, LABEL)
    found = await timeline.tallies(FIRST)
    assert {v: {k: t.rows for k, t in keys.items()} for v, keys in found.items()} == {
        "1": {"cat": 40, "NULL": 20},
        "2": {"dog": 10},
    }
    assert of_version(found, "1")["cat"] == Tally(40, 40, 20.0, 10.0)
    assert of_version(found, None)["dog"].rows == 10
    # In two parts it is the same.
    step = int(FIRST + now - 30) // 10 * 10
    before, after = await timeline.tallies(FIRST, step), await timeline.newest(step)
    assert added(before, after) == found
    assert set(after) == {"2"}
    assert await timeline.tallies(FIRST, FIRST) == {}


async def test_shares_over_time_and_what_happened(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    rows = [stored(n, "cat" if n % 4 else "", 90.0 * n, "1") for n in range(80)]  # two hours
    rows += [stored(500 + n, "dog", 3 * HOUR + n, "2") for n in range(5)]
    await store(db, rows)
    timeline = Timeline(db, Guess, LABEL)
    until = FIRST + 4 * HOUR
    found = await timeline.shares(FIRST, until, ["cat", "", "bird"])
    assert found.times[0] == FIRST
    assert found.times[-1] == until
    assert {b - a for a, b in zip(found.times, found.times[1:], strict=False)} == {900}
    assert found.rows[:9] == (10,) * 8 + (0,)
    assert found.keys["cat"][8] is None
    assert found.keys["bird"][0] == 0
    assert sum(
        share * rows
        for share, rows in zip(found.keys[""], found.rows, strict=True)
        if share is not None
    ) == pytest.approx(20)
    third = found.times.index(FIRST + 3 * HOUR)
    assert (found.rows[third], found.keys["cat"][third]) == (5, 0)
    (mark,) = deployments(found.began, "grader")
    assert (mark.at, mark.text) == (FIRST + 3 * HOUR, "grader 2")
    assert {mean for mean in found.means["cat"] if mean is not None} == {0.5}
    assert await timeline.first() == FIRST
    assert await Timeline(db, Guess, CAMERA).first() == FIRST
    assert [width(hours * HOUR) for hours in (1, 24, 168, 720, 9000)] == [
        60, 900, 3600, 21600, 86400,
    ]  # fmt: skip


async def test_examples_are_the_rows_of_a_label_newest_first(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    labels: list[str | None] = [*HOSTILE, "rare", None]
    now = time.time() - FIRST
    rows = [stored(n, labels[n % 8], now - n) for n in range(64)]
    rows += [stored(1000 + n, "cat", 30.0 * n) for n in range(30)]
    rows += [stored(2000, "rare", HOUR), stored(2001, None, 2 * HOUR, "1")]
    rows.append(item(3000, "rare", now - 1, run="r1"))
    await store(db, rows)
    await store(db, rows[::5])  # again
    await sealed(db)
    by: Counter[str] = Counter()
    examples = Examples(db, Guess, LABEL)
    for label in (*HOSTILE, "rare", "cat"):
        key = label if len(label.encode()) <= 200 else None
        if key is None:
            (row,) = await db.query(
                "SELECT any(key) AS label FROM guess__counts WHERE key LIKE 'ü%' AND n > 0"
            )
            key = str(row["label"])
        expected = [
            origin.id
            for guess, origin in sorted(rows, key=lambda pair: -pair[1].published)
            if not origin.run
            and (guess.label == label or (guess.label is None and label == "NULL"))  # type: ignore[attr-defined]
        ]
        assert await every(examples, key) == expected, label
        by[label] = len(expected)
    assert by["rare"] == 9
    assert by["NULL"] == 8 + 1
    assert await every(examples, "NULL", version="1") == ["id-2001-"]
    assert await every(examples, "never") == []
    (row,) = (await examples.page("cat", time.time(), 1)).rows
    assert row.columns["label"] == "cat"
    assert (row.models, row.shown, row.sequence) == ({"grader": "2"}, True, 1029)
    assert row.ancestors == ("in-1029@2026-05-01",)
    await promoted(db, "0")
    (row,) = (await examples.page("cat", time.time(), 1)).rows
    assert not row.shown


async def test_examples_of_bins_and_inputs(db: ClickHouse) -> None:
    await ensure_counts(db, GUESSES, "guessing")
    now = time.time() - FIRST
    await store(
        db,
        [
            item(1, "a", now - 3, sure=0.97, width=10.0, camera="north"),
            item(2, "a", now - 2, sure=0.12, width=-1.0, camera="north"),
            item(3, "a", now - 1, sure=None, width=0.0),
        ],
    )
    for field, key, ids in (
        (SURE, "0.95", ["id-1-"]),
        (SURE, "NULL", ["id-3-"]),
        (WIDTH, "+13", ["id-1-"]),
        (WIDTH, "0", ["id-3-"]),
        (CAMERA, "north", ["id-2-", "id-1-"]),
    ):
        assert await every(Examples(db, Guess, field), key) == ids


def test_a_place_is_read_or_it_is_none() -> None:
    assert place_of("12.a.b") == Place(12, "a.b")
    for text in ("", "12", ".a", "-1.a", "1e3.a", "²3.a", "9" * 30 + ".a"):
        assert place_of(text) is None
