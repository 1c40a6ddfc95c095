"""Truth that people tell by rows' ids: accuracy is counted of enough, and else estimated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import pytest

from mqinfer import App, Confidence, Label, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.cli.monitor import _pairs
from mqinfer.errors import ConfigurationError
from mqinfer.monitor.accuracy import Estimate
from mqinfer.monitor.follow import Series
from mqinfer.monitor.gauges import exposed
from mqinfer.monitor.looking import Monitor
from mqinfer.ports import Origin
from mqinfer.tables.sink import Sink
from tests.support.replay import Number

HOUR = 3600


class Leaf(Row, frozen=True, table="true_leaf"):
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()]


app = App("knowing")
grader = app.model("grader")


@app.stage(models=[grader])
async def grade(number: Number) -> Leaf:
    raise NotImplementedError


SERIES = Series("true_leaf", "label", "grader", "1")


async def store(
    db: ClickHouse, at: float, numbers: range, sure: float, *, version: str = "1", run: str = ""
) -> None:
    rows = [
        (
            Leaf("rust", sure),
            Origin(
                id=f"n-{n}" if not run else f"n-{n}-{run}",
                ancestors=(f"in-{n}@2026-05-01",),
                stage="grade",
                run=run,
                models={"grader": version},
                published=int(at * 1e9),
            ),
        )
        for n in numbers
    ]
    assert await Sink(db, Leaf, app="knowing").write(rows) == {}


async def accuracy(monitor: Monitor, now: float, series: Series = SERIES) -> Estimate | None:
    return next(one.accuracy for one in await monitor.look(now) if one.series == series)


async def test_accuracy_is_estimated_until_it_can_be_counted(db: ClickHouse) -> None:
    now = float(int(time.time()))
    monitor = Monitor(app, db, window=2 * HOUR, target=0.9)
    await monitor.ensure()
    # Long ago: of sure ones 9 in 10 are right, of unsure ones one half; a person labelled all.
    await store(db, now - 9 * HOUR, range(200), 0.97)
    await store(db, now - 9 * HOUR, range(200, 400), 0.52)
    truths = {f"n-{n}": "rust" if n % 10 or n >= 200 else "spot" for n in range(400)}
    truths |= {f"n-{n}": "spot" for n in range(200, 400, 2)}
    await store(db, now - 60, range(400, 500), 0.97)
    await store(db, now - 60, range(500, 800), 0.52)
    assert await accuracy(monitor, now) is None
    assert await monitor.truth("true_leaf", "label", truths.items(), now - 5) == 400
    found = await accuracy(monitor, now)
    assert found is not None
    expected = (100 * 180.5 / 201 + 300 * 100.5 / 201) / 400
    assert found.value == pytest.approx(expected)
    assert (found.true, found.rows, found.labelled) == (False, 400, 400)
    # The same rows of a run of another version: what is true of them is known already.
    await store(db, now - 30, range(400), 0.97, version="2", run="better")
    await store(db, now - 30, range(1000, 1100), 0.97, version="2")
    second = await accuracy(monitor, now, Series("true_leaf", "label", "grader", "2"))
    assert second is not None
    assert second.value == pytest.approx(280.5 / 401)

    # Of 100 rows of the window the truth is told: it is counted, whatever they were thought to be;
    # what is said last of a row counts.
    told = {f"n-{n}": "spot" for n in range(500, 620)}
    await monitor.truth("true_leaf", "label", told.items(), now - 4)
    told = {f"n-{n}": "rust" for n in range(500, 530)}
    await monitor.truth("true_leaf", "label", told.items(), now - 3)
    found = await accuracy(monitor, now)
    assert found is not None
    assert (found.true, found.value, found.rows) == (True, 30 / 120, 120)
    text = exposed(app.name, await monitor.look(now), now).decode()
    (line,) = (line for line in text.splitlines() if 'how="counted"' in line)
    assert line.endswith(" 0.25")
    with pytest.raises(ConfigurationError, match=r"is no label; these are: true_leaf\.label"):
        await monitor.truth("true_leaf", "sure", [], now)


def test_a_file_of_truths_says_where_it_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "truth.csv"
    file.write_text('n-1,rust\n\n"n-2","a, b"\n')
    assert _pairs(file) == [("n-1", "rust"), ("n-2", "a, b")]
    file.write_text("n-1,rust\nn-2\n")
    with pytest.raises(ConfigurationError, match="line 2: it has 1 fields"):
        _pairs(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _pairs(file.parent)
