"""`mqinfer monitor`: from no reference to an alarm, and what a person says to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import time
import urllib.request

import pytest

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.app import App
from mqinfer.cli.load import load_app
from mqinfer.cli.monitor import _watch
from mqinfer.errors import Unavailable
from mqinfer.monitor.looking import Monitor, Standing
from mqinfer.settings import Settings
from tests.support.cli import Shell, until

DAY = 86_400.0
APP = """
from typing import Annotated
from mqinfer import App, Label, Message, Row

app = App("{name}")
grader = app.model("grader")

class Sheet(Message):
    path: str

class Graded(Row, table="{name}_graded"):
    label: Annotated[str, Label()]

@app.stage(models=[grader])
async def grade(sheet: Sheet) -> Graded:
    return Graded("cat")
"""


def counted(url: str, table: str, since: int, until: int, share: float) -> None:
    async def insert() -> None:
        db = ClickHouse(url)
        for key, part in (("cat", share), ("dog", 1 - share)):
            n = f"toUInt64(floor((number + 1) * {10 * part}) - floor(number * {10 * part}))"
            await db.command(
                f"INSERT INTO mqinfer_counts SELECT 's', '{table}', 'label', 'label', 'grader', "
                f"'1', '', toDateTime(({since // 10} + number) * 10, 'UTC'), '{key}', {n}, 0, 0, 0 "
                f"FROM numbers({(until - since) // 10}) WHERE {n} > 0"
            )
        await db.command(
            f"INSERT INTO mqinfer_seals (* EXCEPT(rows)) SELECT DISTINCT '{table}', "
            f"toStartOfHour(toDateTime(({since // 10} + number) * 10, 'UTC')), 's', now64(3), [] "
            f"FROM numbers({(until - since) // 10})"
        )
        await db.close()

    asyncio.run(insert())


def accepted_before(url: str, app: App, now: float) -> None:
    """A reference that was accepted an hour ago, of the day before."""

    async def accept() -> None:
        db = ClickHouse(url)
        await Monitor(app, db).accept([], now - 90_000, now - 3_600)
        await db.close()

    asyncio.run(accept())


def test_from_no_reference_to_an_alarm_and_what_is_said_to_it(shell: Shell, url: str) -> None:
    name = shell.write(APP).removesuffix(":app")
    app, where = f"{name}:app", ("--clickhouse-url", url)
    code, out, _ = shell.run("monitor", app, *where)
    assert (code, "no rows in the window, and no reference" in out) == (0, True)
    now = int(time.time()) // 10 * 10
    counted(url, f"{name}_graded", now - 90_000, now - 3_600, 0.3)
    code, out, _ = shell.run("monitor", app, *where)
    assert (code, "no reference" in out) == (0, True)
    code, out, _ = shell.run("monitor", "accept", app, "--window", "26h", *where)
    assert code == 0
    assert "rows accepted; would have alarmed 0 times in its own time" in out
    code, out, _ = shell.run("monitor", app, *where)
    assert (code, "steady" in out) == (0, True)
    code, _, err = shell.run("monitor", "acknowledge", app, "e1", *where)
    assert (code, "no episode 'e1' lasts; these do: none" in err) == (2, True)


def test_an_alarm_is_an_exit_code_until_it_is_muted(shell: Shell, url: str) -> None:
    name = shell.write(APP).removesuffix(":app")
    app, where = f"{name}:app", ("--clickhouse-url", url)
    assert shell.run("monitor", app, *where)[0] == 0  # makes what counts
    now = int(time.time()) // 10 * 10
    counted(url, f"{name}_graded", now - 90_000, now - 3_600, 0.3)
    accepted_before(url, load_app(app), now)
    counted(url, f"{name}_graded", now - 3_600, now, 0.6)
    code, out, _ = shell.run("monitor", app, *where)
    assert code == 1
    assert "changed" in out
    assert "retrain? cannot say: no truth and no labelled run" in out
    code, out, _ = shell.run("monitor", app, "--json", *where)
    facts = json.loads(out)
    assert (code, facts["alarms"]) == (1, 1)
    episode = facts["series"][0]["episodes"][0]["id"]
    code, out, _ = shell.run("monitor", "acknowledge", app, episode, "--note", "looking", *where)
    assert (code, out) == (0, f"{episode} is acknowledged\n")
    code, out, _ = shell.run("monitor", app, *where)
    assert (code, "(acknowledged: looking)" in out) == (1, True)
    code, _, err = shell.run("monitor", "mute", app, episode, "--for", "soon", *where)
    assert (code, "is no duration" in err) == (2, True)
    assert shell.run("monitor", "mute", app, episode, "--for", "2h", *where)[0] == 0
    assert shell.run("monitor", app, *where)[0] == 0
    assert shell.run("monitor", "accept", app, "--window", "1h", *where)[0] == 0
    facts = shell.json("monitor", app, *where)
    assert [one["state"] for one in facts["history"]] == ["accepted"]


def test_whoever_watches_has_gauges(shell: Shell, url: str) -> None:
    app = shell.write(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ("--clickhouse-url", url, "--http", str(port), "--interval", "1")
    watching = shell.start("monitor", app, "--watch", *where)

    def gauges() -> bool:
        assert watching.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
                return b"mqinfer_monitor_looked_timestamp_seconds{" in answer.read()
        except OSError:
            return False

    until(gauges)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) in (0, 130)


async def test_whoever_watches_for_json_has_lines_of_it_alone(
    shell: Shell, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while ClickHouse does not answer."""
    look, looks = Monitor.look, itertools.count()

    async def sometimes(monitor: Monitor, now: float) -> list[Standing]:
        if next(looks) % 2:
            raise Unavailable("ClickHouse does not answer")
        return await look(monitor, now)

    monkeypatch.setattr(Monitor, "look", sometimes)
    settings = Settings.load({}, clickhouse_url=url)
    app = load_app(shell.write(APP))
    lines: list[str] = []
    watching = asyncio.create_task(_watch(app, settings, (DAY, None), 0.0, None, as_json=True))
    try:
        while len(lines) < 2:
            await asyncio.sleep(0.01)
            assert not watching.done()
            lines += capsys.readouterr().out.splitlines()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    first, second = (json.loads(line) for line in lines[:2])
    assert (first["app"], first["series"]) == (app.name, [])
    assert (second["app"], second["problem"]) == (app.name, "ClickHouse does not answer")


def test_an_app_without_marks_is_told_what_to_do(shell: Shell, url: str) -> None:
    code, _, err = shell.run("monitor", shell.app, "--clickhouse-url", url)
    assert (code, "mark what is to be watched" in err) == (2, True)


def test_a_server_that_is_away_is_said(shell: Shell) -> None:
    code, _, err = shell.run("monitor", shell.write(APP))
    assert code == 1
    assert "ClickHouse" in err
