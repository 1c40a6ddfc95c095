"""The examples of pages without tests elsewhere: each runs, and does what its page says."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import sys
from collections import Counter
from types import ModuleType

import pytest

from mqinfer import App
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import RequestRejected
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, Harness
from tests.docs.pages import python
from tests.support.cli import Shell

# A page for each capability; each has an example that stands alone, of at most 30 lines.
CAPABILITIES = (
    *("stages", "models", "testing", "tables", "replay", "joins", "requests", "gateway", "jobs"),
    *("state", "timers", "search", "dedup", "around", "monitor", "coming-from"),
)
_LONGER = ("testing", "coming-from")  # an app and its tests; one beside others' words


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a page's example is."""
    code = next(one for one in python(f"docs/{name}.md") if "App(" in one)
    module = ModuleType(f"{name.replace('-', '_')}_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, f"docs/{name}.md", "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_capability_has_an_example_that_stands_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(one for one in python(f"docs/{name}.md") if "App(" in one)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= (45 if name in _LONGER else 30)
    module = example(name, monkeypatch)
    assert module.app.resolve()[1] == []  # nothing is wrong with its wiring


async def test_batches_threads_and_refusals(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = example("stages", monkeypatch)
    async with Harness(shapes.app, nats) as harness:
        await harness.publish(*(shapes.Number(value) for value in (3, 7, 100, -1)))
        await harness.drain("square", "add")
        squares = {(one.value, one.square) for one in await harness.messages(shapes.Square)}
        assert squares == {(3, 9), (7, 49), (-1, 1)}
        sums = {(one.of, one.total) for one in await harness.messages(shapes.Sum)}
        assert sums == {(3, 6), (7, 28), (100, 5050)}
        assert {one.reason for one in await harness.dead()} == {"large", "not below nothing"}


async def test_a_row_is_in_its_table(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = example("tables", monkeypatch)
    day = datetime.date(2026, 5, 27)
    settings = dataclasses.replace(nats, clickhouse_url=url)
    async with Harness(tables.app, settings) as harness:
        await harness.publish(tables.Photo("p1", day), tables.Photo("p1", day), ids=["a", "a2"])
        await harness.drain()
    asked = "SELECT position, taken, disease, share, _stage FROM grade"
    rows = [tuple(row.values()) for row in await db.query(asked)]
    assert rows == [("p1", day, "rust", 0.25, "grade")] * 2


def test_a_replay_by_another_version_mails_nobody(
    shell: Shell, cli_nats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQINFER_NATS_URL", cli_nats)
    code = next(one for one in python("docs/replay.md") if "App(" in one)
    app = shell.write(code.replace('App("plants")', f'App("{shell.name}")'))
    (shell.folder / "leaves.jsonl").write_text('{"position": "p1", "rust": 1}\n' * 2)
    versions = {"grade_rust:1": {"grade": [1]}, "grade_rust:2": {"grade": [3]}}
    with FakeModels(versions) as models:
        for command in (
            f"publish {app} leaf leaves.jsonl",
            f"worker {app} --drain --stage grade_rust",
            f"replay {app} --stage grade_rust --from-seq 1 --model grade_rust=1 --run first",
            f"replay {app} --stage grade_rust --from-seq 1 --model grade_rust=2 --run second",
        ):
            done, _, err = shell.run(*command.split())
            assert done == 0, (command, err)
        assert [call.version for call in models.calls("grade_rust")] == [
            "2",
            "2",
            "1",
            "1",
            "2",
            "2",
        ]
    listed = asyncio.run(subjects(cli_nats, shell.name))
    assert Counter(one.split(".", 1)[1] for one in listed) == {
        "leaf.p1": 2,
        "grade": 2,
        "mail": 2,
        "run.first.grade": 2,
        "run.second.grade": 2,
    }


async def subjects(nats: str, app: str) -> list[str]:
    async with Harness(App(app), Settings(nats_url=nats)) as harness:
        return [one.subject for one in await harness.stored()]


async def test_the_same_task_is_asked(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = example("coming-from", monkeypatch)
    monkeypatch.setenv("MQINFER_NATS_URL", nats.nats_url)
    monkeypatch.setenv("MQINFER_BLOBS", str(nats.blobs))
    async with Harness(photos.app, nats) as harness, harness.worker():
        assert await photos.ask("a/b.jpg") == photos.Grade("a/b.jpg", 3)
        with pytest.raises(RequestRejected, match="only JPEGs"):
            await photos.ask("a.png")
