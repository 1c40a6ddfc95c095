"""Changing: the world as it was becomes the reference; then it is another one: an alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from examples.mlwatch.local import Database
from examples.mlwatch.photographs import World
from examples.mlwatch.watching import WINDOW, Watching, said
from examples.plants.local import Broken
from examples.requests.checks import Checks
from mqinfer.testing import until

WAIT = 300.0  # seconds for what a busy machine does; only what fails waits so long
CLOSED = 60.0  # seconds after which a step of the monitor is closed
SHOWN = 3  # labels that are told with a photograph

# Of what an alarm must stand, where 3 of 10 photographs are of the changed world: the column that
# says what has happened to it.
EXPECTED: dict[World, set[str]] = {
    "night": {"brightness"},
    "jpeg": {"bits"},
    "new-label": {"label"},
}
WITHIN = 1_000  # rows after the first changed one: two steps of ten seconds


@dataclass(frozen=True)
class Alarmed:
    """When the first alarm came.

    Attributes:
        rows: from the first changed one to the end of the step that was enough.
        changed: of them are of the changed world.
        columns: of which an alarm stands.
    """

    rows: int
    changed: int
    columns: set[str]


async def accept(environment: dict[str, str], checks: Checks) -> None:
    """What came until now is as it should be."""
    _, text = await said(environment, "accept", "--window=1h")
    lines = text.splitlines()
    for line in lines:
        checks.fact(f"accepted: {line}")
    checks.check(
        len(lines) == 4, "a reference of labels, confidence, brightness and bits of the file"
    )


async def alarmed(watching: Watching, database: Database, drift: World, checks: Checks) -> Alarmed:
    """Wait until alarms stand of all that must change, and tell which, of how many rows."""
    wanted = EXPECTED[drift]

    def columns() -> set[str]:
        return {one["series"]["column"] for one in watching.alarms()}

    looks = watching.looks
    try:
        await until(lambda: wanted <= columns(), "all alarms", WAIT)
    except AssertionError:
        raise Broken(
            f"no alarm of {', '.join(sorted(wanted - columns()))} in {WAIT:.0f} s and "
            f"{watching.looks - looks} looks {watching.trouble}"
        ) from None
    episodes = [one for series in watching.alarms() for one in series["episodes"]]
    first = min(one["alarmed"] for one in episodes)
    sql = """
        WITH (SELECT min(_published) FROM prediction WHERE photograph LIKE {like:String}) AS began
        SELECT count(), countIf(photograph LIKE {like:String}), toFloat64(began)
        FROM prediction WHERE _published >= began AND _published < {until:UInt32}
    """
    ((rows, changed, began),) = await database.ask(sql, like=f"{drift}/%", until=int(first))
    found = Alarmed(int(rows), int(changed), columns())
    checks.fact(
        f"{drift}: an alarm {found.rows:,} rows after the first changed one, {found.changed:,} of "
        f"them changed; alarms of {', '.join(sorted(found.columns))}",
        alarm={"rows": rows, "changed": changed, "columns": sorted(found.columns)},
    )
    checks.check(first > began, "no alarm before the world changed")
    checks.check(found.rows <= WITHIN, f"an alarm within {WITHIN:,} rows")
    return found


async def explained(
    watching: Watching, database: Database, environment: dict[str, str], checks: Checks
) -> None:
    """What changed, which labels, their photographs, and what to do."""
    for series in watching.last["series"]:
        changes = series["verdict"]["changes"][:SHOWN]
        told = "; ".join(
            f"{one['key']} {one['before']:.1%} -> {one['after']:.1%}" for one in changes
        )
        checks.fact(f"  {series['series']['column']}: {series['verdict']['word']}: {told}")
    new = await never_said(database)
    for label, rows, photograph in new:
        checks.fact(f"  never said by day: {label}, {rows} times, such as {photograph}")
        checks.fact(f"    every ten seconds: {await _over_time(database, label)}")
    checks.check(bool(new), "labels of the changed world have their photographs")
    (labels,) = [one for one in watching.last["series"] if one["what"] == "label"]
    advice = labels["advice"] or {}
    checks.fact(f"  retrain? {advice.get('word')}: {advice.get('why')}; {advice.get('what')}")
    checks.check(bool(advice.get("word")), "it says what to do")
    code, text = await said(environment, "show", f"--window={WINDOW}")
    checks.check(code == 1 and "ALARM" in text, "`mqinfer monitor` ends with exit code 1")


async def never_said(database: Database) -> list[tuple[str, int, str]]:
    """Labels that no photograph by day ever had, with their rows and the newest photograph."""
    found = await database.ask(
        "SELECT label, count() AS n, argMax(photograph, _published) FROM prediction "
        "WHERE label NOT IN (SELECT label FROM prediction WHERE photograph LIKE 'day/%') "
        f"GROUP BY label ORDER BY n DESC LIMIT {SHOWN}"
    )
    return [(str(label), int(rows), str(photograph)) for label, rows, photograph in found]


async def _over_time(database: Database, label: str) -> str:
    """Rows of a label in the last steps, as they are counted."""
    found = await database.ask(
        "SELECT n FROM (SELECT step, sumIf(n, key = {label:String}) AS n FROM prediction__counts "
        "WHERE `column` = 'label' GROUP BY step ORDER BY step DESC LIMIT 12) ORDER BY step",
        label=label,
    )
    return " ".join(str(n) for (n,) in found)


async def to_date(database: Database, checks: Checks) -> list[tuple[Any, ...]]:
    """Frequency and mean confidence of every label, held against a recount of all rows."""
    counts = await database.ask(
        "SELECT key, sum(n) AS rows, sum(total) / sum(numbers) FROM prediction__counts "
        "WHERE `column` = 'label' AND run = '' GROUP BY key ORDER BY rows DESC, key"
    )
    recount = await database.ask(
        "SELECT label, count() AS rows, avg(confidence) FROM prediction "
        "GROUP BY label ORDER BY rows DESC, label"
    )
    same = [row[:2] for row in counts] == [row[:2] for row in recount] and all(
        abs(one[2] - other[2]) < 1e-9 for one, other in zip(counts, recount, strict=True)
    )
    total = sum(row[1] for row in counts)
    for label, rows, confidence in counts[:5]:
        checks.fact(
            f"  to date: {label:<20} {rows:>6,} rows {rows / total:6.1%}  confidence "
            f"{confidence:.2f}"
        )
    checks.check(same, f"counts and mean confidence of {len(counts)} labels equal a recount")
    return counts
