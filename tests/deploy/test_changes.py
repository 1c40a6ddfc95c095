"""Differences are told by their consequence, against a real server with messages on it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.cli import deploying
from mqinfer.cli.deployservers import servers
from mqinfer.deploy import applied, live
from mqinfer.deploy.change import Change, Kind
from mqinfer.deploy.changes import changes
from mqinfer.deploy.declaration import declaration
from mqinfer.deploy.processes import Plan
from mqinfer.deploy.reading import read
from mqinfer.errors import ConflictError
from mqinfer.settings import Settings
from mqinfer.specs import ConsumerSpec
from mqinfer.tables.migrate import ensure_table
from tests.support.deploy_app import make

FILE = """
[workers.graders]
stages = ["grade"]
processes = "1..2"
[workers.rest]
[gateway]
[models.grader]
live = "1"
"""
OTHER = """
[settings]
grace = 40
[workers.graders]
stages = ["grade"]
processes = "4..8"
[workers.rest]
[gateway]
replicas = 3
[console]
[models.grader]
live = "2"
"""


def plan_of(app: App, text: str, folder: Path) -> Plan:
    file = folder / "deploy.toml"
    file.write_text(text)
    return Plan("a:app", read(file, app, "local"), declaration(app))


async def look(app: App, planned: Plan, settings: Settings) -> tuple[list[Change], int]:
    async with wiring.jetstream(app, settings, "test") as broker:
        before, revision = await applied.load(broker.bucket(applied.bucket_name(app)))
        aliases = await wiring.aliases(app, broker).all()
        indexes = await live.look_at_indexes(
            app, wiring.generations(app, broker), wiring.core(broker)
        )
        now = await live.look(app, wiring.scanner(broker), aliases, indexes)
    return changes(before, planned.deployment, planned.declared, now), revision


async def put(app: App, planned: Plan, settings: Settings, **options: Any) -> list[Change]:
    found, revision = await look(app, planned, settings)
    await deploying.carry_out(
        app, planned, "local", settings, revision, lambda: None, prune=options.get("prune", False)
    )
    return found


async def publish(app: App, settings: Settings, count: int) -> None:
    async with wiring.jetstream(app, settings, "test") as broker:
        for number in range(count):
            photo = json.dumps({"name": f"a{number}"}).encode()
            await broker.client.request(f"{app.name}.photo", photo, timeout=60)


async def test_each_difference_by_its_consequence(nats: Settings, tmp_path: Path) -> None:
    first = make(stages="grade watch old")
    found = await put(first, plan_of(first, FILE, tmp_path), nats)
    assert {one.kind for one in found} <= {Kind.BEGIN, Kind.SWITCH}
    await publish(first, nats, 7)
    again, _ = await look(first, plan_of(first, FILE, tmp_path), nats)
    # No process runs: that alone is left to do.
    assert {one.where for one in again} == {"workers.graders", "workers.rest"}
    assert all("0 of" in one.what for one in again)

    second = make(
        batch=16,
        deadline="500ms",
        max_age="1s",
        replicas=1,
        max_bytes="1GB",
        partitions=8,
        columns="label extra",
        duplicate_window="1s",
    )
    wanted = plan_of(second, OTHER, tmp_path)
    told, _ = await look(second, wanted, nats)
    while not any("7 of 7 now" in str(one) for one in told):  # they are a second old
        told, _ = await look(second, wanted, nats)
    lines = {(one.kind, str(one)) for one in told}

    def said(kind: Kind, start: str, *parts: str) -> None:
        assert any(
            one is kind and line.startswith(start) and all(part in line for part in parts)
            for one, line in lines
        ), (start, sorted(lines))

    nothing = "one by one; nothing is lost"
    said(Kind.SCALE, "workers.graders: processes 1..2 -> 4..8: 2 more begin; those that run go on")
    said(Kind.RESTART, "stage grade: batch_size 8 -> 16: workers.graders restart", nothing)
    said(Kind.RESTART, "settings.grace: none -> 40: every process is replaced", nothing)
    said(Kind.SCALE, "gateway: replicas 1 -> 3: each answers for all")
    said(Kind.BEGIN, "console: new: it listens on port 8090")
    said(
        Kind.DROP,
        "stream deployed: max_age 7 d -> 1 s: messages older than 1 s are dropped, 7 of 7 now",
        "no replay reaches further back",
    )
    said(Kind.CHANGE, "stream deployed: max_bytes without limit -> 1 GB: nothing is dropped")
    said(
        Kind.REMOVE,
        "stage old: removed: its consumer stays, with 7 messages that nobody handles",
        "--prune deletes it and drops them",
    )
    said(Kind.SWITCH, "model grader@live: version 1 -> 2", "within two seconds, none restarts")
    said(Kind.REFUSED, "stream deployed: partitions 4 -> 8", "lose their order")
    said(Kind.CHANGE, "table graded_deployed: column extra added", "have its default")
    said(Kind.REMOVE, "table graded_deployed: column score removed", "it stays, with its values")
    assert told[0].kind is Kind.REFUSED


async def test_what_is_refused_or_removed(nats: Settings, tmp_path: Path) -> None:
    first = make(columns="label extra")
    await put(first, plan_of(first, FILE, tmp_path), nats)
    second = make(columns="label extra", order="extra")
    without = "[workers.one]\n"
    told, _ = await look(second, plan_of(second, without, tmp_path), nats)
    lines = [str(one) for one in told]
    for start in (
        "table graded_deployed: order_by label -> extra: a table keeps its sorting key",
        "workers.one: new: 1 process for ",
        "workers.graders: removed: its processes finish what they have and end; other groups",
        "gateway: removed: it finishes what it is asked and ends",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)


async def test_tables_and_models_as_they_are_there(
    url: str, db: ClickHouse, tmp_path: Path
) -> None:
    first = make("live_tables", columns="label extra")
    await ensure_table(db, first.rows["graded_live_tables"], first.name)
    settings = Settings.load({}, clickhouse_url=url, triton_url="127.0.0.1:1")
    asked = await servers(first, settings, "local", models=True)
    assert asked.conflicts == {}
    assert asked.served is None
    assert [line[:6] for line in asked.silent] == ["Triton"]
    second = make("live_tables", columns="label extra", order="extra")
    asked = await servers(second, settings, "local", models=False)
    now = live.Live(
        aliases={"grader@live": "2"},
        servers=live.Servers(asked.conflicts, {"grader": ["2", "3"]}),
    )
    wanted = plan_of(second, FILE, tmp_path)
    found = changes(None, wanted.deployment, wanted.declared, now)
    refused = [str(one) for one in found if one.kind is Kind.REFUSED]
    assert len(refused) == 2
    assert refused[0].startswith("table graded_live_tables: as it is there: ")
    assert refused[1].startswith("model grader@live: Triton does not serve version 1: its stages")


async def test_a_removed_stage_is_pruned_only_when_asked_and_a_stranger_never(
    nats: Settings, tmp_path: Path
) -> None:
    first, second = make(stages="grade watch old"), make(stages="grade watch")
    await put(first, plan_of(first, FILE, tmp_path), nats)
    await put(second, plan_of(second, FILE, tmp_path), nats)
    told, _ = await look(second, plan_of(second, FILE, tmp_path), nats)
    assert any(one.where == "stage old" for one in told)
    strange = ConsumerSpec("strange", second.name, (f"{second.name}.photo",))
    async with wiring.jetstream(second, nats, "test") as broker:
        await broker.ensure_consumer(strange)
    await put(second, plan_of(second, FILE, tmp_path), nats, prune=True)
    async with wiring.jetstream(second, nats, "test") as broker:
        names = {one["name"] for one in await broker.consumers(second.name)}
    assert "strange" in names
    assert not names & {"old", "old=bulk"}
    told, _ = await look(second, plan_of(second, FILE, tmp_path), nats)
    assert not any(one.where == "stage old" for one in told)


async def test_two_who_deploy_do_not_undo_each_other(nats: Settings, tmp_path: Path) -> None:
    app = make()
    planned = plan_of(app, FILE, tmp_path)
    _, revision = await look(app, planned, nats)
    await put(app, planned, nats)
    with pytest.raises(ConflictError, match="somebody else has deployed"):
        await deploying.carry_out(app, planned, "local", nats, revision, lambda: None, prune=False)


async def test_what_was_changed_by_hand_is_seen(nats: Settings, tmp_path: Path) -> None:
    app = make()
    planned = plan_of(app, FILE, tmp_path)
    await put(app, planned, nats)
    async with wiring.jetstream(app, nats, "test") as broker:
        await wiring.aliases(app, broker).set("grader", "live", "7")
        for name in ("keep", "keep=bulk"):
            await broker.delete_consumer(app.name, name)
    told, _ = await look(app, planned, nats)
    lines = [str(one) for one in told]
    assert any("model grader@live: version 7 -> 1" in line for line in lines), lines
    assert any(line.startswith("stage keep: new: ") for line in lines), lines
