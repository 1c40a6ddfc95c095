"""Every stage runs under exactly the permissions that are printed for it, and no fewer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mqinfer import App, Message, Row, Settings
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.backoff import Backoff
from mqinfer.cli import main
from mqinfer.errors import ConfigurationError, PermissionDenied
from mqinfer.operate.permissions import Permissions, permissions
from mqinfer.replay.runs import Wanted
from mqinfer.testing import Harness, nats_only, until
from tests.support.replay import runs_of, work

SOON = Backoff(initial=0.01, maximum=0.02)


class Number(Message):
    value: int


class Named(Message, key="name"):
    name: str


class Last(Message):
    name: str


app = App("least")


@app.stage(attempts=2, backoff=SOON)
async def name(number: Number) -> Named:
    if number.value < 0:
        raise ValueError("negative")
    return Named(str(number.value))


@app.stage
async def last(named: Named) -> Last:
    return Last(named.name)


class Size(Row, table="least_size", order_by=("name",)):
    name: str


tables = App("least-rows")
unused = tables.model("nothing", alias="live")  # never called: only its alias is read


@tables.stage(attempts=1)
async def measure(number: Number) -> Size:
    if number.value < 0:
        raise ValueError("negative")
    return Size(str(number.value))


@tables.stage
async def pass_on(size: Size) -> Last:
    return Last(size.name)


def _config(users: dict[str, Permissions]) -> str:
    lines = ['{user: "admin", password: "admin"}']
    for user, allowed in users.items():
        lines.append(f'{{user: "{user}", password: "{user}", {allowed.config()}}}')
    return "authorization { users = [\n" + "\n".join(lines) + "\n] }\n"


def _as(settings: Settings, user: str) -> Settings:
    return Settings.load(
        {},
        nats_url=settings.nats_url,
        blobs=settings.blobs,
        grace=0.5,
        nats_user=user,
        nats_password=user,
        nats_inbox_prefix="_INBOX" if user == "admin" else f"_INBOX_{user}",
    )


async def test_every_stage_runs_under_exactly_its_permissions(tmp_path: Path) -> None:
    users = {
        stage: permissions(app, [stage], inbox_prefix=f"_INBOX_{stage}") for stage in app.stages
    }
    async with nats_only(tmp_path, nats_config=_config(users)) as plain:
        admin = _as(plain, "admin")
        async with Harness(app, admin) as harness:
            await harness.drain()  # makes consumers and the bucket
            await harness.publish(*(Number(value) for value in range(-1, 20)))
            for stage in app.stages:
                async with Harness(app, _as(plain, stage)) as limited:
                    await limited.drain(stage)
            names = {message.name for message in await harness.messages(Last)}
            assert names == {str(value) for value in range(20)}
            (dead,) = await harness.dead()
            assert dead.reason == "negative"


@pytest.mark.parametrize("granted", ["r1", "*"])
async def test_a_run_takes_no_more_than_is_printed_for_it(
    tmp_path: Path, url: str, db: ClickHouse, granted: str
) -> None:
    """With outputs, rows, dead letters and a following stage; also the aliases are read."""
    allowed = permissions(tables, inbox_prefix="_INBOX_all", replays=[granted])
    async with nats_only(tmp_path, nats_config=_config({"all": allowed})) as plain:
        limited, admin = (
            dataclasses.replace(_as(plain, user), clickhouse_url=url) for user in ("all", "admin")
        )
        async with Harness(tables, admin) as harness:
            await harness.drain()
            await harness.publish(*(Number(value) for value in range(-1, 20)))
            async with Harness(tables, limited) as worker:
                await worker.drain()
                runs = runs_of(harness)
                await runs.create(stage="measure", wanted=Wanted(), name="r1", downstream=True)
                await work(worker, "r1")
            assert (await runs.get("r1")).state == "done"
            assert len(await harness.messages(Last)) == 20
            assert len(await harness.stored(subject="least-rows.run.r1.last")) == 20
            assert [letter.reason for letter in await harness.dead()] == ["negative"] * 2
        counted = await db.query(
            "SELECT _run, count() AS n FROM least_size__storage FINAL GROUP BY _run ORDER BY _run"
        )
        assert counted == [{"_run": "", "n": 20}, {"_run": "r1", "n": 20}]
        (inputs,) = await db.query("SELECT count() AS n FROM mqinfer_run_inputs__storage FINAL")
        assert inputs == {"n": 20}


async def test_a_run_that_was_not_granted_is_denied(tmp_path: Path) -> None:
    allowed = permissions(app, inbox_prefix="_INBOX_all", replays=["r1"])
    async with (
        nats_only(tmp_path, nats_config=_config({"all": allowed})) as plain,
        Harness(app, _as(plain, "admin")) as harness,
    ):
        await harness.publish(Number(1))
        await harness.drain()
        await runs_of(harness).create(stage="name", wanted=Wanted(), name="r2")
        async with Harness(app, _as(plain, "all")) as worker:
            with pytest.raises(ExceptionGroup) as raised:
                await work(worker, "r2")
            assert raised.group_contains(PermissionDenied, match="run-r2-name")


async def test_a_denied_permission_is_told_as_such(tmp_path: Path) -> None:
    allowed = permissions(app, ["name"], inbox_prefix="_INBOX_name")
    without_outputs = Permissions(
        tuple(subject for subject in allowed.publish if not subject.startswith("least.")),
        allowed.subscribe,
    )
    no_inbox = Permissions(allowed.publish, ("_INBOX_other.>",))
    users = {"name": without_outputs, "deaf": no_inbox}
    async with nats_only(tmp_path, nats_config=_config(users)) as plain:
        admin = _as(plain, "admin")
        async with Harness(app, admin) as harness:
            await harness.drain()
            async with Harness(app, _as(plain, "name")) as limited:
                with pytest.raises(PermissionDenied, match=r"least\.number"):
                    await limited.publish(Number(2))
                async with limited.worker("name") as worker:
                    await harness.publish(Number(1))

                    # The output waits for an operator; nothing is lost and no attempt is spent.
                    def told() -> bool:
                        return any("least.named.1" in reason for reason in worker.not_ready())

                    await until(told, "the denial as the reason not to be ready")
            with pytest.raises(PermissionDenied, match="MQINFER_NATS_INBOX_PREFIX"):
                async with Harness(app, _as(plain, "deaf")):
                    pass
            with pytest.raises(PermissionDenied, match="refuses these credentials"):
                async with Harness(app, _as(plain, "nobody")):
                    pass
            await harness.drain()
            assert [message.name for message in await harness.messages(Last)] == ["1"]


async def test_blobs_in_nats_take_no_more(tmp_path: Path) -> None:
    allowed = permissions(app, inbox_prefix="_INBOX_all", blob_bucket="least-blobs")
    async with nats_only(tmp_path, nats_config=_config({"all": allowed})) as plain:
        for user in ("admin", "all"):  # the first makes streams and the bucket, and may
            settings = dataclasses.replace(_as(plain, user), blobs="nats://")
            async with Harness(app, settings) as harness:
                store = harness.services.store
                assert store is not None
                await store.put("a/b", user.encode() * 500_000)
                await store.put("a/b", user.encode())
                assert await store.get("a/b") == user.encode()


def test_the_command_prints_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    app_name = "tests.operate.test_permissions:app"
    command = ["permissions", app_name, "--stage", "last", "--inbox-prefix", "_I_l"]
    assert main(command) == 0
    expected = permissions(app, ["last"], inbox_prefix="_I_l")
    assert capsys.readouterr().out.strip() == expected.config()
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "publish": list(expected.publish),
        "subscribe": ["_I_l.>"],
    }
    assert main([*command, "--blobs", "nats://"]) == 0
    with_blobs = permissions(app, ["last"], inbox_prefix="_I_l", blob_bucket="least-blobs")
    assert capsys.readouterr().out.strip() == with_blobs.config()
    assert "$O.least-blobs.>" in with_blobs.publish
    assert main([*command, "--run", "r1"]) == 0
    with_run = permissions(app, ["last"], inbox_prefix="_I_l", replays=["r1"])
    assert capsys.readouterr().out.strip() == with_run.config()
    assert "$JS.API.CONSUMER.MSG.NEXT.least.run-r1-last" in with_run.publish
    assert "least.run.r1.last" in with_run.publish
    assert main([*command, "--run", "a-b"]) == 2
    assert "a run's name is" in capsys.readouterr().err
    assert main(["permissions", "tests.operate.test_permissions:app", "--stage", "none"]) == 2
    assert "it has name, last" in capsys.readouterr().err


def test_unknown_stages_are_told() -> None:
    with pytest.raises(ConfigurationError, match="it has name, last"):
        permissions(app, ["other"])
