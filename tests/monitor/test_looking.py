"""The monitor on a real ClickHouse: references, alarms, what is said of them, what is adopted."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import pytest
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mqinfer import App, Confidence, Label, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import ConfigurationError
from mqinfer.monitor import asking, counting, gauges
from mqinfer.monitor.episode import State
from mqinfer.monitor.follow import Series
from mqinfer.monitor.gauges import exposed
from mqinfer.monitor.happened import Happening
from mqinfer.monitor.looking import Monitor, adopt
from mqinfer.monitor.verdict import Word
from tests.rooms import ROOT

DAY = 86_400


class Sheet(Message):
    path: str


class Graded(Row, table="graded", kw_only=True):
    label: Annotated[str, Label()]
    sure: Annotated[float, Confidence()] = 1.0


app = App("watching")
grader = app.model("grader")


@app.stage(models=[grader])
async def grade(sheet: Sheet) -> Graded:
    raise NotImplementedError


LABEL = Series("graded", "label", "grader", "1")


async def counted(
    db: ClickHouse,
    since: float,
    until: float,
    cats: float,
    *,
    version: str = "1",
    run: str = "",
    seal: str = "s",
) -> None:
    """Ten rows in every ten seconds, as the live view would count them."""
    first, last = int(since) // 10, int(until) // 10
    for key, share in (("cat", cats), ("dog", 1 - cats)):
        # Shares that are met as evenly as whole numbers can.
        n = f"toUInt64(floor((number + 1) * {10 * share}) - floor(number * {10 * share}))"
        await db.command(
            f"INSERT INTO {counting.COUNTS} SELECT '{seal}', 'graded', 'label', 'label', 'grader', "
            f"'{version}', '{run}', toDateTime(({first} + number) * 10, 'UTC') AS step, '{key}', "
            f"{n} AS n, 0, 0, 0 FROM numbers({last - first}) WHERE n > 0"
        )
    await db.command(
        f"INSERT INTO {counting.SEALS} (* EXCEPT(rows)) SELECT DISTINCT 'graded', "
        f"toStartOfHour(toDateTime(({first} + number) * 10, 'UTC')), '{seal}', now64(3), [] "
        f"FROM numbers({last - first})"
    )


async def monitor(db: ClickHouse) -> Monitor:
    made = Monitor(app, db)
    await made.ensure()
    return made


async def test_from_no_reference_to_an_alarm_and_back(db: ClickHouse) -> None:
    now = float(int(time.time()) // 10 * 10)
    watching = await monitor(db)
    assert await watching.look(now) == []
    await counted(db, now - 2 * DAY, now - DAY, 0.3)
    (one,) = await watching.look(now - DAY)
    assert (one.series, one.what, one.verdict.word) == (LABEL, "label", Word.NONE)
    assert one.proposed
    with pytest.raises(ConfigurationError, match="no series is called nothing"):
        await watching.accept(["nothing"], now - 2 * DAY, now - DAY)
    ((accepted, alarms),) = await watching.accept([], now - 2 * DAY, now - DAY)
    assert accepted.reference.rows > 86_000
    assert alarms == []

    await counted(db, now - DAY, now - 7200, 0.3)
    (one,) = await watching.look(now - 7200)
    assert one.verdict.word is Word.STEADY
    assert one.episodes == ()
    assert one.evidence is not None
    assert one.evidence < 1
    await counted(db, now - 7200, now, 0.5)
    (one,) = await watching.look(now)
    (episode,) = one.alarms(now)
    assert one.verdict.word is Word.CHANGED
    assert abs(episode.began - (now - 7200)) < 300
    assert one.advice is not None
    assert one.advice.word == "cannot say"
    # Whoever looks sees the same, and what was said of it.
    other = Monitor(app, db)
    assert (await other.look(now))[0].episodes == one.episodes
    await other.say(episode.id, "acknowledge", now, note="looking")
    (one,) = await watching.look(now)
    assert [found.state for found in one.alarms(now)] == [State.ACKNOWLEDGED]
    await other.say(episode.id, "mute", now, seconds=60)
    assert (await watching.look(now))[0].alarms(now) == []
    assert (await watching.look(now + 61))[0].alarms(now + 61) != []
    with pytest.raises(ConfigurationError, match=f"no episode 'e1' lasts; these do: {episode.id}"):
        await watching.say("e1", "mute", now, seconds=60)
    await watching.accept(["label"], now - 7200, now)
    (one,) = await watching.look(now + 1)
    assert one.episodes == ()
    assert [found.state for found in await watching.history()] == [State.ACCEPTED]


async def test_advice_looks_at_what_happened_first_and_counts_what_is_new_from_the_change_on(
    db: ClickHouse,
) -> None:
    now = float(int(time.time()) // 10 * 10)
    began = now - 2 * DAY
    watching = Monitor(app, db, window=1800)
    await watching.ensure()
    await counted(db, began - DAY, began, 0.3)
    await watching.accept([], began - DAY, began)
    began += 600
    # For half an hour of two days every third row is of a kind that the reference does not know.
    await counted(db, began, began + 1800, 0.3)
    await db.command(
        f"INSERT INTO {counting.COUNTS} SELECT 's', 'graded', 'label', 'label', 'grader', '1', '', "
        f"toDateTime({int(began)} + number * 10, 'UTC'), 'bird', 5, 0, 0, 0 FROM numbers(180)"
    )

    async def advised(at: float, *happened: Happening) -> str:
        (one,) = [one for one in await watching.look(at, happened) if one.series == LABEL]
        assert one.alarms(at)
        return str(one.advice)

    soon = began + 1800 + 120
    assert "33.3% of the rows have a label that the reference does not know" in await advised(soon)
    # An hour later the window holds none of these rows; the episode does.
    assert "33.3% of the rows have a label" in await advised(began + 3 * 3600)
    # What came just before is said first; what came long before, or is about others, is not.
    for away, model, says in (
        (60, "", True),
        (60, "grader", True),
        (-300, "", True),
        (900, "", False),  # before the reference was made: it is in it
        (3600, "", False),
        (-3600, "", False),
        (60, "other", False),
    ):
        happened = Happening(began - away, "workers were started", model)
        told = await advised(soon, happened)
        assert ("fix the data: it changed at a step: workers were started (" in told) == says
    await counted(db, began - 60, began + 600, 0.3, version="2")
    assert "it changed at a step: grader 2 began to answer" in await advised(soon)


async def test_a_later_look_goes_on_from_a_sealed_hour_and_sees_what_came_late(
    db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    plain = asking.counted

    async def counted_(*args: Any, after: float, **more: Any) -> Any:
        asked.append(after)
        return await plain(*args, after=after, **more)

    monkeypatch.setattr(asking, "counted", counted_)
    now = float(int(time.time()) // 3600 * 3600 + 1800)
    made = now - 8 * 3600
    watching = await monitor(db)
    await counted(db, made - DAY, made, 0.3)
    await watching.accept([], made - DAY, made)
    await counted(db, made, now - 4500, 0.3)  # the last sealed hour ended half an hour ago

    async def looked() -> list[Any]:
        first, fresh = await watching.look(now), await (await monitor(db)).look(now)
        assert first == fresh
        return first

    await looked()
    asked.clear()
    (one,) = await looked()
    assert asked == [now - 1800, made]  # by whom knows, and by whom does not
    assert one.episodes == ()
    assert one.by_key.keys() == set(one.reference.reference.keys)
    # Three hours ago there was something else, which came late: the hour is sealed again.
    await counted(db, now - 4 * 3600 - 1800, now - 3 * 3600 - 1800, 0.9, seal="late")
    (one,) = await looked()
    (episode,) = one.episodes
    assert abs(episode.began - (now - 4 * 3600 - 1800)) < 300
    assert sum(one.by_key.values()) == pytest.approx(one.evidence)


async def test_a_run_is_the_reference_of_its_version(db: ClickHouse) -> None:
    now = float(int(time.time()) // 10 * 10)
    watching = await monitor(db)
    await counted(db, now - 9000, now - 8000, 0.4, version="2", run="better")
    (adopted,) = await watching.adopt("better", now - 7200)
    assert adopted.series.version == "2"
    assert adopted.source == "run better"
    assert await watching.adopt("better", now) == []  # promoted again: it has one
    await counted(db, now - 7200, now, 0.4, version="2")
    (one,) = await watching.look(now)
    assert one.verdict.word is Word.STEADY
    await counted(db, now - 7200, now, 0.9, version="2")
    (one,) = await watching.look(now)
    assert one.alarms(now)


async def test_a_promotion_does_not_fail_by_it(db: ClickHouse) -> None:
    now = time.time()
    await adopt(App("blind"), db, "better", now)
    await adopt(app, db, "better", now)  # a run without rows
    await db.command(f"DROP TABLE {counting.SEALS} SYNC")
    await db.command(
        f"CREATE TABLE {counting.SEALS} (hour String) ENGINE = MergeTree ORDER BY hour"
    )
    with structlog.testing.capture_logs() as logs:
        await adopt(app, db, "better", now)
    assert [log["log_level"] for log in logs] == ["warning"]
    assert "column 'hour'" in logs[0]["reason"]


async def test_nothing_to_watch_is_an_error_that_says_what_to_do(db: ClickHouse) -> None:
    with pytest.raises(ConfigurationError, match="mark what is to be watched"):
        await Monitor(App("blind"), db).ensure()


async def test_gauges_and_rules_fit_together(db: ClickHouse) -> None:
    now = float(int(time.time()) // 10 * 10)
    watching = await monitor(db)
    await counted(db, now - DAY, now - 7200, 0.3)
    await watching.accept([], now - DAY, now - 7200)
    await counted(db, now - 7200, now, 0.5)
    text = exposed(app.name, await watching.look(now), now).decode()
    found = {family.name: family.samples for family in text_string_to_metric_families(text)}
    labels = {"app": "watching", "table": "graded", "column": "label", "model": "grader"}
    (alarms,) = found[gauges.ALARMS]
    assert (alarms.value, alarms.labels) == (1, {**labels, "version": "1"})
    assert found[gauges.LOOKED][0].value == now
    assert found[gauges.PSI][0].value > 0
    rules = yaml.safe_load((ROOT / "compose/alerts.yml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    used = {
        word for text in expressions for word in text.replace("(", " ").replace(")", " ").split()
    }
    assert {word for word in used if word.startswith("mqinfer_")} <= found.keys()
    assert {gauges.ALARMS, gauges.LOOKED} <= used
    told = [word for group in rules["groups"] for rule in group["rules"] for word in rule]
    assert set(told) <= {"alert", "expr", "for", "labels", "annotations"}
    prometheus = yaml.safe_load((ROOT / "compose/prometheus.yml").read_text())
    assert "/etc/prometheus/alerts.yml" in prometheus["rule_files"]
    assert json.dumps(rules)
