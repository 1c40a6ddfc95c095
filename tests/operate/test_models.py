"""Model versions as workers follow them: the latest, a pinned one, an alias; on real servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mqinfer
from mqinfer import App, Message, Row, Settings, wiring
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.bucket import change
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError, WiringError
from mqinfer.inference.aliases import Aliases
from mqinfer.replay.runs import Wanted
from mqinfer.running import Worker
from mqinfer.stack import Stack, StackSettings
from mqinfer.stack.triton import TritonServer as Triton
from mqinfer.testing import Harness, until
from tests.support.cli import Shell, command
from tests.support.cli import until as until_true
from tests.support.models import save_table
from tests.support.replay import runs_of, work

FACTORS = {"1": 1.0, "2": 10.0, "3": 100.0}  # of the values that each version of a model gives


class Ask(Message, subject="ask"):
    index: int


class Told(Row, table="told", order_by=("index",)):
    index: int
    value: float


def asking(name: str, model_name: str, **follows: Any) -> App:
    """An app with one stage, which asks one model."""
    app = App(name)
    model = app.model(model_name, **follows)

    @app.stage
    async def ask(question: Ask) -> Told:
        found = await model(index=np.array([question.index], np.int64))
        return Told(question.index, float(found["value"][0]))

    return app


def save(repository: Path, model: str, *versions: str) -> None:
    for version in versions:
        save_table(repository, version, FACTORS[version], model)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    save(root, "newest", "1")
    save(root, "moved", "1", "2")
    save(root, "both", "1", "2")
    return root


@pytest.fixture
def all_three(nats: Settings, triton: Triton, url: str) -> Settings:
    """NATS, Triton and ClickHouse."""
    return replace(nats, triton_url=triton.url, clickhouse_url=url)


def aliases_of(harness: Harness) -> Aliases:
    return wiring.aliases(harness.app, harness.services.broker)  # type: ignore[arg-type]


class Questions:
    """Asks with one number after another."""

    def __init__(self, harness: Harness, db: ClickHouse, model: str):
        self._harness, self._db, self._model = harness, db, model
        self.asked = 0

    async def ask(self) -> None:
        self.asked += 1
        await self._harness.publish(Ask(self.asked))

    async def versions(self, run: str = "") -> list[str]:
        """Who answered each number, by the rows, whose values must be of that version."""
        rows = await self._db.query(
            "SELECT index, value, _models FROM told__storage FINAL WHERE _run = {run:String} "
            "ORDER BY index",
            {"run": run},
        )
        for row in rows:
            (version,) = row["_models"].values()
            assert list(row["_models"]) == [self._model]
            assert row["value"] == FACTORS[version] * row["index"]
        return [row["_models"][self._model] for row in rows]

    async def until_answered(self) -> list[str]:
        """Wait for all the rows."""

        async def all_of_them() -> list[str] | None:
            versions = await self.versions()
            return versions if len(versions) == self.asked else None

        found: list[str] = await until(all_of_them, "all answers")
        return found

    async def until_by(self, version: str) -> None:
        """Ask until that version answers."""
        while True:
            await self.ask()
            if (await self.until_answered())[-1] == version:
                return


# --- workers ------------------------------------------------------------------------------------


async def test_the_latest_is_followed_by_a_running_worker(
    all_three: Settings, db: ClickHouse, repository: Path
) -> None:
    app = asking("newest", "newest")
    async with Harness(app, all_three) as harness, harness.worker():
        questions = Questions(harness, db, "newest")
        await questions.ask()
        assert await questions.until_answered() == ["1"]
        save(repository, "newest", "2")
        await questions.until_by("2")
        await questions.ask()
        assert (await questions.until_answered())[-1] == "2"


async def test_an_alias_moves_a_running_worker(
    all_three: Settings, db: ClickHouse, repository: Path
) -> None:
    app = asking("moved", "moved", alias="live", version=1)
    async with Harness(app, all_three) as harness, harness.worker() as worker:
        questions, aliases = Questions(harness, db, "moved"), aliases_of(harness)
        await questions.ask()
        # Not set: what was declared answers, though the latest is 2.
        assert await questions.until_answered() == ["1"]
        assert await aliases.set("moved", "live", "2") is None
        await questions.until_by("2")

        # A version that is not there is waited for, and the reason says what is.
        before = await aliases.set("moved", "live", "3")
        assert before is not None
        assert before.version == "2"

        def waiting() -> str | None:
            text = " ".join(worker.not_ready())
            return text if "alias live -> 3" in text else None

        reason = await until(waiting, "the reason")
        assert "stage ask: model moved alias live -> 3 is not available" in reason
        assert "moved version 3 is not ready" in reason
        assert "it serves 1, 2" in reason
        await questions.ask()
        save(repository, "moved", "3")
        assert (await questions.until_answered())[-1] == "3"

        # What waits for a version goes to the one that the alias is moved to.
        await aliases.set("moved", "live", "9")
        await until(lambda: "-> 9" in " ".join(worker.not_ready()), "the reason")
        await questions.ask()
        assert await aliases.unset("moved", "live") is not None
        assert (await questions.until_answered())[-1] == "1"
        assert await aliases.unset("moved", "live") is None


async def test_a_call_that_waits_for_a_version_goes_to_the_next(
    nats: Settings, triton: Triton
) -> None:
    """As in a client, which no gate keeps from calling."""
    app = asking("waits", "both", alias="live")
    (model,) = app.models.values()
    settings = replace(nats, triton_url=triton.url)
    async with Harness(app, settings) as harness:
        aliases = aliases_of(harness)
        await aliases.set("both", "live", "9")
        async with mqinfer.connect(app, settings) as client:
            inference = client._services.inference
            assert inference is not None

            calls = [asyncio.create_task(call(model, number)) for number in range(5)]
            await until(
                lambda: any(
                    "-> 9" in (queue.blocked or "") for queue in inference.statistics().queues
                )
            )
            assert not any(one.done() for one in calls)
            await aliases.set("both", "live", "2")
            assert await asyncio.gather(*calls) == [("2", 10.0 * number) for number in range(5)]


async def call(model: Any, number: int) -> tuple[str, float]:
    found = await model(index=np.array([number], np.int64))
    return found.version, float(found["value"][0])


async def test_without_nats_the_last_known_aliases_are_used(tmp_path: Path, triton: Triton) -> None:
    app = asking("away", "both", alias="live")
    (model,) = app.models.values()
    chosen = StackSettings(dir=tmp_path, nats_port=0, triton=False, clickhouse=False)
    async with Stack(chosen) as stack:
        settings = Settings.load(
            {}, nats_url=stack.nats_url, triton_url=triton.url, blobs=str(tmp_path / "blobs")
        )
        async with Harness(app, settings) as harness, mqinfer.connect(app, settings) as client:
            await aliases_of(harness).set("both", "live", "1")
            assert await call(model, 7) == ("1", 7.0)
            inference = client._services.inference
            assert inference is not None
            followed = inference._aliases
            assert followed is not None
            assert stack.nats is not None
            stack.nats.kill()
            await stack.nats.wait()
            await until(lambda: followed._trouble, "a look that failed")
            assert await call(model, 7) == ("1", 7.0)
            await stack.nats.start()
            await stack.nats.wait_ready()
            await aliases_of(harness).set("both", "live", "2")

            async def moved() -> bool:
                return await call(model, 7) == ("2", 70.0)

            await until(moved, "the other version", 60)
            assert followed._trouble is None


async def test_a_replay_goes_through_another_version(all_three: Settings, db: ClickHouse) -> None:
    app = asking("both", "both", alias="live", version=1)
    async with Harness(app, all_three) as harness:
        questions, aliases, runs = (
            Questions(harness, db, "both"),
            aliases_of(harness),
            runs_of(harness),
        )
        for _ in range(20):
            await questions.ask()
        await harness.drain()
        assert await questions.versions() == ["1"] * 20
        # By number, whatever the alias says; and by what another alias names when it is made.
        await aliases.set("both", "live", "1")
        await runs.create(stage="ask", wanted=Wanted(), name="r1", models={"both": "2"})
        await work(harness, "r1")
        assert await questions.versions("r1") == ["2"] * 20
        await aliases.set("both", "live", "2")
        named = await aliases.resolve({"both": "@live"})
        made = await runs.create(stage="ask", wanted=Wanted(), name="r2", models=named)
        await aliases.set("both", "live", "1")
        assert made.models == {"both": "2"}
        await work(harness, "r2")
        assert await questions.versions("r2") == ["2"] * 20
        assert await questions.versions() == ["1"] * 20
        with pytest.raises(ConfigurationError, match="both@next is not set"):
            await aliases.resolve({"both": "@next"})


async def test_a_run_waits_for_a_version_that_is_not_served(all_three: Settings) -> None:
    app = asking("absent", "both")
    async with Harness(app, all_three) as harness:
        await harness.publish(Ask(1))
        await harness.drain()
        await runs_of(harness).create(stage="ask", wanted=Wanted(), name="r1", models={"both": "8"})
        worker = Worker(app, settings=all_three, run="r1")

        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            await until(lambda: "both version 8" in " ".join(worker.not_ready()), "the reason")
            assert "it serves 1, 2" in " ".join(worker.not_ready())
            worker.stop()


# --- the bucket ---------------------------------------------------------------------------------


def test_aliases_have_plain_names() -> None:
    with pytest.raises(WiringError, match="an alias is letters"):
        App("plain").model("both", alias="a.b")


async def test_what_is_no_alias_is_told(nats: Settings) -> None:
    app = asking("garbage", "both", alias="live")
    async with Harness(app, nats) as harness:
        aliases = aliases_of(harness)
        await aliases.set("both", "live", "1")
        bucket = harness.services.broker.bucket("garbage-models")
        await change(bucket, "both.live", lambda _: b"2", what="the alias")
        with pytest.raises(ConfigurationError, match=r"under both\.live is no alias"):
            await Worker(app, settings=nats).run()
        assert await aliases.set("both", "live", "2") is None
        ((key, alias),) = (await aliases.all()).items()
        assert (key, alias.version) == (("both", "live"), "2")


async def test_of_two_at_once_each_knows_what_it_replaced(nats: Settings) -> None:

    app = asking("race", "both", alias="live")
    async with Harness(app, nats) as harness:
        aliases = aliases_of(harness)
        versions = [str(number) for number in range(1, 9)]
        replaced = await asyncio.gather(
            *(aliases.set("both", "live", version) for version in versions)
        )
        last = (await aliases.all())["both", "live"].version
        before = [None if one is None else one.version for one in replaced]
        assert sorted([*filter(None, before), last]) == versions
        assert before.count(None) == 1


# --- the command line ---------------------------------------------------------------------------

APP = """
from __future__ import annotations
import numpy as np
from mqinfer import App, Message, Row

app = App("{name}")
follows = app.model("both", alias="live", version=1)
latest = app.model("moved")
unused = app.model("newest", version=1)

class Ask(Message, subject="ask"):
    index: int

class Told(Row, table="told_{name}", order_by=("index",)):
    index: int
    value: float

@app.stage
async def ask(question: Ask) -> Told:
    index = np.array([question.index], np.int64)
    await latest(index=index)
    found = await follows(index=index)
    return Told(question.index, float(found["value"][0]))
"""


@pytest.fixture
def with_models(served: Shell, triton: Triton, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell with all servers, whose app asks two models and declares a third."""
    monkeypatch.setenv("MQINFER_TRITON_URL", triton.url)
    served.write(APP, module=served.name)
    return served


def publish(shell: Shell, count: int) -> None:
    Path("asks.jsonl").write_text("".join(json.dumps({"index": n}) + "\n" for n in range(count)))
    code, _, err = shell.run("publish", shell.app, "ask", "asks.jsonl")
    assert code == 0, err


def test_what_is_used_served_and_stored(with_models: Shell) -> None:
    shell = with_models
    publish(shell, 30)
    shell.drain()
    before = shell.json("models", shell.app)
    assert before["missing"] == {}
    models = {one["model"]: one for one in before["models"]}
    assert list(models) == ["both", "moved", "newest"]
    (use,) = models["both"]["uses"]
    assert (use["stages"], use["follows"]) == (["ask"], "alias live, not set: pinned 1")
    assert [use["follows"] for use in models["moved"]["uses"]] == ["latest"]
    assert [(use["stages"], use["follows"]) for use in models["newest"]["uses"]] == [
        ([], "pinned 1")
    ]
    assert models["both"]["served"] == [
        {"version": version, "ready": True, "reason": ""} for version in ("1", "2")
    ]
    told = f"told_{shell.name}"
    latest = max(one["version"] for one in models["moved"]["served"])

    def rows(facts: Any, model: str) -> list[tuple[str, str, int, int]]:
        assert all(one["table"] == told for one in facts["rows"])
        found = [one for one in facts["rows"] if one["model"] == model]
        return [(one["version"], one["run"], one["rows"], one["shown"]) for one in found]

    assert rows(before, "both") == [("1", "", 30, 30)]
    assert rows(before, "moved") == [(latest, "", 30, 30)]

    assert shell.json("models", shell.app, "--set", "both@live=2")["changes"] == [
        {"model": "both", "alias": "live", "before": None, "version": "2"}
    ]
    code, out, _ = shell.run("models", shell.app, "--set", "both@live=2")
    assert (code, out) == (0, "both@live: 2 already\n")
    arguments = ["-s", "ask", "--from-seq", "1", "--run", "r1", "--model", "both=2"]
    code, _, err = shell.run("replay", shell.app, *arguments)
    assert code == 0, err
    after = shell.json("models", shell.app)
    (use,) = after["models"][0]["uses"]
    assert (use["follows"], use["named"]) == ("alias live -> 2", "2")
    assert use["set"]
    assert rows(after, "both") == [("1", "", 30, 30), ("2", "r1", 30, 0)]
    assert shell.run("runs", "promote", shell.app, "r1")[0] == 0
    assert rows(shell.json("models", shell.app), "both") == [("1", "", 30, 0), ("2", "r1", 30, 30)]
    code, out, err = shell.run("models", shell.app)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "both ask alias live -> 2 1, 2" in lines
    assert f"both 2 {told} r1 30 30" in lines

    code, out, _ = shell.run("models", shell.app, "--unset", "both@live")
    assert (code, out) == (0, "both@live: 2 -> not set\n")
    code, out, _ = shell.run("models", shell.app, "--unset", "both@live")
    assert (code, out) == (0, "both@live: not set already\n")


MISTAKES = [
    (["--set", "nope@live=1"], "has no model nope; it has: both, moved, newest"),
    (["--set", "moved@live=1"], "follows moved@live"),
    (["--set", "moved@live=1"], "followed are: both@live"),
    (["--set", "both@next=1"], "followed are: both@live"),
    (["--set", "both@live=7"], "does not serve version 7 of both; it serves: 1, 2 (--force"),
    (["--set", "both@live"], "--set takes MODEL@ALIAS=VERSION"),
    (["--set", "both@live="], "--set takes MODEL@ALIAS=VERSION"),
    (["--set", "both=1"], "--set takes MODEL@ALIAS=VERSION"),
    (["--set", "@live=1"], "--set takes MODEL@ALIAS=VERSION"),
    (["--unset", "both"], "--unset takes MODEL@ALIAS"),
    (["--unset", "both@next"], "followed are: both@live"),
    (["--set", "both@live=1", "--set", "both@live=2"], "is given twice"),
    (["--set", "both@live=1", "--unset", "both@live"], "is given twice"),
    # All or nothing.
    (["--set", "both@live=1", "--set", "both@next=1"], "followed are: both@live"),
]


def test_mistakes_are_one_line(with_models: Shell) -> None:
    for arguments, says in MISTAKES:
        code, out, err = with_models.run("models", with_models.app, *arguments)
        assert (code, out) == (2, ""), arguments
        assert says in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    (use,) = with_models.json("models", with_models.app)["models"][0]["uses"]
    assert use["named"] is None  # whatever of it was right


def test_what_triton_does_not_serve_can_be_forced_and_is_checked(with_models: Shell) -> None:
    shell = with_models
    code, out, _ = shell.run("check", shell.app)
    assert code == 0
    assert "ok       alias live of model both is not set: version 1 answers" in out.splitlines()
    code, out, _ = shell.run("models", shell.app, "--set", "both@live=7", "--force")
    assert (code, out) == (0, "both@live: not set -> 7\n")
    code, out, _ = shell.run("check", shell.app)
    assert code == 1
    (problem,) = (line for line in out.splitlines() if line.startswith("problem"))
    assert "stage ask: alias live names version 7: model both version 7 is not ready" in problem
    assert "it serves 1, 2" in problem
    shell.json("models", shell.app, "--set", "both@live=2")
    code, out, _ = shell.run("check", shell.app)
    assert code == 0
    assert "alias" not in out


def test_an_alias_that_nothing_follows_any_more(with_models: Shell) -> None:
    shell = with_models
    shell.json("models", shell.app, "--set", "both@live=2")
    module = shell.folder / f"{shell.name}.py"
    other = f"{shell.name}_later"
    (shell.folder / f"{other}.py").write_text(module.read_text().replace('alias="live", ', ""))
    facts = shell.json("models", f"{other}:app")
    assert facts["not_followed"] == ["both@live=2"]
    _, out, _ = shell.run("models", f"{other}:app")
    assert "note: nothing follows both@live, which names 2" in out
    assert (
        shell.json("models", f"{other}:app", "--unset", "both@live")["changes"][0]["before"] == "2"
    )
    assert shell.json("models", f"{other}:app")["not_followed"] == []


@pytest.mark.parametrize(
    ("server", "unknown"),
    [
        ("NATS", "alias live -> not known"),
        ("TRITON", "not known"),
        ("CLICKHOUSE", "rows by model: not known"),
    ],
)
def test_a_server_that_is_away_leaves_its_part_unknown(
    with_models: Shell, monkeypatch: pytest.MonkeyPatch, server: str, unknown: str
) -> None:
    shell = with_models
    away = "http://default@127.0.0.1:1/default" if server == "CLICKHOUSE" else "127.0.0.1:1"
    monkeypatch.setenv(f"MQINFER_{server}_URL", away)
    code, out, _ = shell.run("models", shell.app)
    assert code == 1
    assert unknown in out
    assert out.count("not known of ") == 1
    code, out, _ = shell.run("models", shell.app, "--json")
    assert code == 1
    facts = json.loads(out)
    assert [name.upper() for name in facts["missing"]] == [server]
    assert (facts["rows"] is None) == (server == "CLICKHOUSE")
    assert (facts["models"][0]["served"] is None) == (server == "TRITON")
    if server == "TRITON":
        code, _, err = shell.run("models", shell.app, "--set", "both@live=2")
        assert code == 1
        assert "--force sets the alias without asking Triton" in err
        assert shell.run("models", shell.app, "--set", "both@live=2", "--force")[0] == 0


def test_a_replay_takes_an_alias(with_models: Shell) -> None:
    shell = with_models
    publish(shell, 5)
    shell.drain()
    arguments = ["-s", "ask", "--from-seq", "1", "--model", "both=@live"]
    code, _, err = shell.run("replay", shell.app, *arguments)
    assert code == 2
    assert "both@live is not set" in err
    shell.json("models", shell.app, "--set", "both@live=2")
    code, _, err = shell.run("replay", shell.app, *arguments, "--run", "r1")
    assert code == 0, err
    assert shell.json("runs", "show", shell.app, "r1")["models"] == {"both": "2"}


def test_a_replay_is_refused_a_version_that_is_not_served(
    with_models: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = with_models
    publish(shell, 5)
    shell.drain()
    arguments = ["replay", shell.app, "-s", "ask", "--from-seq", "1", "--run", "r1"]
    code, out, err = shell.run(*arguments, "--model", "moved=1", "--model", "both=7")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "does not serve version 7 of both; it serves: 1, 2 (--force starts the run" in err
    assert shell.json("runs", "list", shell.app) == []  # the name is still free

    forced = shell.start(*arguments, "--model", "both=7", "--force")
    until_listed(shell, ["r1"])
    forced.terminate()
    forced.wait(120)
    assert shell.json("runs", "show", shell.app, "r1")["settled"] == 0

    # Triton is away: it starts, and waits.
    monkeypatch.setenv("MQINFER_TRITON_URL", "127.0.0.1:1")
    arguments[-1] = "r2"
    waiting = subprocess.Popen(
        command(*arguments, "--model", "both=2", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    shell.running.append(waiting)
    assert waiting.stdout is not None
    with waiting.stdout:
        started = json.loads(waiting.stdout.readline())
        assert (started["event"], started["run"]) == ("started", "r2")
        (note,) = started["notes"]
        assert "not known whether the versions are served" in note
        assert json.loads(waiting.stdout.readline())["done"] == 0
        waiting.terminate()
        assert json.loads(waiting.stdout.read().splitlines()[-1])["state"] == "running"
    assert waiting.wait(120) == 130


def until_listed(shell: Shell, names: list[str]) -> None:
    """Wait until the app has these runs."""
    until_true(lambda: [run["name"] for run in shell.json("runs", "list", shell.app)] == names)


def test_an_app_without_models(served: Shell) -> None:
    code, out, _ = served.run("models", served.app)
    assert code == 0
    assert "uses no models" in out
    app = load_app(served.app)
    assert app.models == {}
