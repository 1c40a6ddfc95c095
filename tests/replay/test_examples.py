"""Examples of a comparison show the message that was replayed, with its pictures."""

from __future__ import annotations

from mqinfer import App, Blob, Context, Message, Row, plan
from mqinfer.adapters import admin
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.scan import Scanner
from mqinfer.operate.letters import DeadLetters, Selection
from mqinfer.replay.compare import compare
from mqinfer.replay.examples import attach, figures
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import runs_of, work


class Photo(Message, subject="photo"):
    name: str
    image: Blob


class Cut(Message, subject="cut"):
    name: str


class Judged(Row, frozen=True, table="judged", order_by="name"):
    name: str
    verdict: str


async def test_examples_of_following_stages_show_what_was_replayed(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("follow")
    failing = True

    @app.stage(attempts=1)
    async def cut(photo: Photo, ctx: Context) -> Cut:
        if failing and ctx.run and photo.name == "b":
            raise ValueError("it cannot")
        return Cut(photo.name)

    @app.stage
    async def judge(cut: Cut, ctx: Context) -> Judged:
        return Judged(cut.name, ctx.run or "live")

    async with Harness(app, settings) as harness:
        scanner = Scanner(harness.services.broker.client)  # type: ignore[attr-defined]
        await harness.publish(*(Photo(name, Blob.at(f"photos/{name}.png")) for name in "ab"))
        await harness.drain()
        runs = runs_of(harness)
        run = await runs.create(stage="cut", wanted=Wanted(), name="r1", downstream=True)
        await work(harness, "r1")
        # One that failed is answered under another sequence, and is found there.
        failing = False
        broker = harness.services.broker
        outcome = await DeadLetters(app, scanner, broker, runs).retry(Selection())
        assert outcome.done == 1
        await work(harness, "r1")
        facts = await compare(app, run, None, db)
        attached = await attach(app, run, facts, scanner)
        (table,) = facts["tables"]
        examples = {one["new"]["name"]: one for one in table["examples"]}
        for name, example in examples.items():
            path = f"photos/{name}.png"
            blob = {"of": "input", "field": "image", "path": path, "bytes": None}
            assert (example["problem"], example["blobs"]) == (None, [blob])
        assert examples["a"]["sequence"] == 1
        assert examples["b"]["sequence"] > 2
        # Nothing is in the store.
        (first, second) = (await figures(attached, harness.services.store)).values()
        assert [figure.url for figure in (*first, *second)] == [None, None]
        assert "photos/" in first[0].text

        # A stream that was made anew has other messages under the same sequences.
        client = broker.client  # type: ignore[attr-defined]
        await admin.ask(client, "STREAM.DELETE.follow", {}, "stream")
        await broker.ensure_stream(plan.stream_spec(app))
        await harness.publish(Photo("c", Blob.at("photos/c.png")))
        assert await scanner.message("follow", 1) is not None
        await attach(app, run, facts, scanner)
        assert {one["problem"] for one in table["examples"]} == {
            "the stream does not hold it any more"
        }
