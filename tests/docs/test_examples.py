"""The examples of pages without tests elsewhere: each runs, and does what its page says."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import cv2
import msgspec
import numpy as np
import pytest
from nats import connect

import mqinfer
from mqinfer import App, Blob
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import RequestRejected
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, Harness, until
from tests.docs.pages import ROOT, python
from tests.support.cli import Shell
from tests.support.console import serving

Told = Callable[..., Awaitable[str]]

# The page of each capability; where one has several, which of the page's examples is this one's.
CAPABILITIES = {
    **{
        name: (name, 0)
        for name in (
            *("stages", "models", "testing", "tables", "replay", "joins", "requests", "gateway"),
            *("jobs", "state", "timers", "search", "dedup", "around", "monitor", "coming-from"),
            *("console", "deploy", "tracing", "deleting", "changing-types"),
        )
    },
    "blobs": ("stages", 1),
    "shadows and canaries": ("models", 1),
    "dead letters": ("debugging", 0),
}
_LONGER = ("testing", "coming-from")  # an app and its tests; one beside others' words
# Pages of what is done with an app, rather than of what one can declare.
_OF_ANY_APP = {
    *("README", "tutorial", "working", "debugging", "errors", "index", "reference/index"),
    *("production", "hosts", "compose", "security", "upgrading", "performance"),
    *("guarantees", "explanation"),
}
_APART = ("reference/", "studies/", "architecture", "changelog", "contributing")
# Names for annotations: what is given back by what the examples call, and what is caught.
_GIVEN = {
    *("Answer", "Client", "Died", "Hit", "Hits", "Index", "Job", "JobRow", "JobStatus", "Model"),
    *("MqinferError", "Request", "RequestEvent", "Settings", "Tensor", "Worker"),
}


def source(name: str) -> tuple[str, str]:
    """The page of a capability, and its example there."""
    page, number = CAPABILITIES[name]
    return f"docs/{page}.md", [one for one in python(f"docs/{page}.md") if "App(" in one][number]


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that an example is."""
    page, code = source(name)
    module = ModuleType(re.sub(r"\W", "_", f"{name} example"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, page, "exec"), vars(module))
    return module


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_capability_has_an_example_that_stands_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in source(name)[1].splitlines() if line.strip()]
    assert len(lines) <= (45 if name in _LONGER else 30)
    module = example(name, monkeypatch)
    assert module.app.resolve()[1] == []  # nothing is wrong with its wiring


def test_no_page_and_no_name_is_without_one() -> None:
    shown = {page for page, _ in CAPABILITIES.values()} | _OF_ANY_APP
    guide = re.findall(r": ([\w/-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert [page for page in guide if page not in shown and not page.startswith(_APART)] == []
    code = "\n".join(source(name)[1] for name in CAPABILITIES)
    missing = {name for name in mqinfer.__all__ if not re.search(rf"\b{name}\b", code)}
    assert missing <= _GIVEN


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


async def test_blobs_go_to_the_store_and_come_from_it(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = example("blobs", monkeypatch)
    png = cv2.imencode(".png", np.zeros((64, 80, 3), np.uint8))[1].tobytes()
    async with Harness(scans.app, nats) as harness:
        put = Path(nats.blobs) / "p17" / "scan.png"
        put.parent.mkdir(parents=True)
        put.write_bytes(png)
        await harness.publish(
            scans.Scan("p16", Blob(png)),
            scans.Scan("p17", Blob.at("p17/scan.png")),
            scans.Scan("p18", Blob.at("p18/nowhere.png")),
            scans.Scan("p19", Blob(b"no picture")),
        )
        await harness.drain()
        found = await harness.messages(scans.Preview)
        assert sorted((one.size, one.image.path) for one in found) == [
            ((64, 80), "p16/preview.png"),
            ((64, 80), "p17/preview.png"),
        ]
        small = cv2.imdecode(np.frombuffer(await found[0].image.bytes(), np.uint8), -1)
        assert small.shape == (8, 10, 3)
        letters = {one.headers["Mq-Dead-Error"]: one.reason for one in await harness.dead()}
        assert set(letters) == {"BlobNotFound", "BadImage"}, letters


async def test_letters_die_as_the_handler_says_and_come_back(
    nats: Settings, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    orders = example("dead letters", monkeypatch)
    async with Harness(orders.app, nats) as harness:
        made = (orders.Order("lamp", 2), orders.Order("lamp", 0), orders.Order("chair", 1))
        await harness.publish(*made)
        await harness.drain()
        letters = await harness.dead()
        assert {(one.kind, one.attempts, one.reason) for one in letters} == {
            ("rejected", 1, "nothing to pack"),
            ("failed", 3, "no article chair yet"),
        }
        orders.known.add("chair")
        await told("dead", "retry", "dead_letters_example:app", "--reason", "no article chair")
        await harness.drain()
        assert {one.article for one in await harness.messages(orders.Parcel)} == {"lamp", "chair"}
        assert [one.kind for one in await harness.dead()] == ["rejected"]


async def test_the_console_shows_a_stage_and_a_letter(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = example("console", monkeypatch)
    async with serving(nats, post.app) as served:
        await served.harness.publish(post.Letter("a@b"), post.Letter("nobody"))
        await served.harness.drain()

        async def shown(page: str, text: str) -> bool:
            return text in (await served.http.get(page)).text

        await until(lambda: shown("/pipeline", "send"), "the stage")
        await until(lambda: shown("/letters", "is no address"), "the letter")


async def test_a_span_of_the_handlers_own_is_in_the_trace(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="mqinfer[otel] is not installed")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from mqinfer.adapters import otel

    exporter, provider = InMemorySpanExporter(), otel.provider("reading")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    reading = example("tracing", monkeypatch)
    async with Harness(reading.app, nats) as harness:
        await harness.publish(reading.Text("a leaf and a petal"))
        await harness.drain()
    spans = {one.name: one for one in exporter.get_finished_spans()}
    provider.shutdown()
    begun = spans["stage count"].context
    for name in ("split", "stage note"):
        parent = spans[name].parent
        assert parent is not None
        assert (parent.trace_id, parent.span_id) == (begun.trace_id, begun.span_id)
    assert spans["split"].attributes == {"words": 5}


def test_what_runs_is_rendered_and_compared(
    shell: Shell, cli_nats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQINFER_NATS_URL", cli_nats)
    app = shell.write(source("deploy")[1].replace('App("shop")', f'App("{shell.name}")'))
    (file,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    Path("deploy.toml").write_text(file)
    asked = (app, "deploy.toml", "--target", "local")
    assert shell.run("deploy", "render", *asked, "--out", "local")[0] == 0
    assert '"pack"' in Path("local/processes.json").read_text()
    code, said, err = shell.run("deploy", "diff", *asked)
    assert code == 1, err
    for group in ("workers.pack", "workers.rest", "gateway"):
        assert re.search(f"begin +{group}", said), said


async def test_a_shadow_answers_beside_and_is_not_shown(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    plants = example("shadows and canaries", monkeypatch)
    app = "shadows_and_canaries_example:app"
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    answers = {"grade_rust:2": {"grade": [3]}, "grade_rust:1": {"grade": [1]}}
    settings = dataclasses.replace(nats, clickhouse_url=url)
    asked = "SELECT predicted_grade, _run FROM disease_grade__storage FINAL"
    with FakeModels(answers, aliases={"grade_rust@live": "1"}):
        async with Harness(plants.app, settings) as harness, harness.worker():
            # Without asking a server: there is none.
            begin = ("--shadow", "grade_rust=2", "--share", "1", "--run", "next", "--late", "1h")
            await told("models", app, *begin, "--force")
            await harness.publish(plants.Leaf("p1", 0.5))

            async def both() -> bool:
                rows = await db.query(asked)
                return {tuple(row.values()) for row in rows} == {(1, ""), (3, "next")}

            await until(both, "the answers of both versions")
            shown = await db.query("SELECT predicted_grade FROM disease_grade")
            assert [row["predicted_grade"] for row in shown] == [1]


async def test_old_messages_are_read_by_new_types(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = example("changing-types", monkeypatch)
    assert msgspec.json.decode(b'{"id": "a", "size": 120}', type=sizes.Leaf) == sizes.Leaf(
        "a", 120, "wide"
    )
    async with Harness(sizes.app, nats) as harness:
        await harness.publish_bytes("sizes.leaf", b'{"id": "a", "size": 120}')
        await harness.publish(sizes.Leaf("b", 130))
        await harness.drain()
        assert [one.id for one in await harness.messages(sizes.Large)] == ["a", "b"]
        assert all(b'"size"' in one.data for one in await harness.stored(subject="sizes.leaf"))


async def test_what_is_about_one_person_goes(
    nats: Settings, url: str, db: ClickHouse, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    shop = example("deleting", monkeypatch)
    monkeypatch.setitem(sys.modules, "shop", shop)
    monkeypatch.setenv("MQINFER_CLICKHOUSE_URL", url)
    page = (ROOT / "docs/deleting.md").read_text()
    purges = re.findall(r"^nats stream purge (\S+) --subject '(\S+)'$", page, re.MULTILINE)
    (delete,) = re.findall(r"```sql\n(.*)\n```", page)
    settings = dataclasses.replace(nats, clickhouse_url=url)
    async with Harness(shop.app, settings) as harness:
        people = [shop.Photo(person, sharp) for person in ("p17", "p18") for sharp in (True, False)]
        await harness.publish(*people)
        await harness.drain()
        assert await harness.state("watch", "p17") is not None
        client = await connect(nats.nats_url)
        for stream, subject in purges:
            await client.jetstream().purge_stream(stream, subject=subject)
        await client.close()
        assert "p17" in await told("dead", "list", "shop:app", "--reason", "p17")
        await told("dead", "drop", "shop:app", "--reason", "p17")
        await told("state", "shop:app", "watch", "p17", "--reset")
        await db.command(delete)
        streams = ("shop", "shop-ordered-photo", "shop-dead")
        left = [one for name in streams for one in await harness.stored(name)]
        assert len(left) > 4  # of the other person
        assert [one.subject for one in left if b"p17" in one.data] == []
        assert await harness.state("watch", "p17") is None
        assert await harness.state("watch", "p18") is not None

        async def gone() -> bool:
            rows = await db.query("SELECT person FROM grade__storage")
            return [row["person"] for row in rows] == ["p18"]

        await until(gone, "the rows' end")
