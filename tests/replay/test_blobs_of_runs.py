"""Blobs of replay runs, wherever they stand: kept apart from live ones, found by a comparison."""

import msgspec

from mqinfer import App, Blob, Context, Message, Row
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.scan import Scanner
from mqinfer.replay.compare import compare
from mqinfer.replay.examples import attach, figures
from mqinfer.replay.runs import Wanted
from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support.replay import runs_of, work

Picture = Blob


class Crop(msgspec.Struct, frozen=True):
    image: Blob
    label: str


class Photo(Message, subject="photo"):
    name: str
    crops: dict[str, Crop]


class Cut(Row, frozen=True, table="cut", order_by="name"):
    name: str
    verdict: str
    blob_count: int  # no blob, whatever it is called
    whole: "Picture"
    best: Crop
    crops: list[Crop]
    pairs: tuple[str, Blob]
    named: dict[str, list[Blob]]


async def test_blobs_of_a_run_anywhere_in_its_rows(
    nats: Settings, url: str, db: ClickHouse
) -> None:
    settings = Settings.load({}, nats_url=nats.nats_url, blobs=nats.blobs, clickhouse_url=url)
    app = App("cuts")

    @app.stage(attempts=1)
    async def cut(photo: Photo, ctx: Context) -> Cut:
        side = ctx.run or "live"

        def blob(name: str) -> Blob:
            return Blob(f"{side} {name}".encode(), path=f"{photo.name}/{name}")

        return Cut(
            photo.name,
            side,
            7,
            whole=blob("whole"),
            best=Crop(blob("best"), "leaf"),
            crops=[Crop(blob("crop1"), "stem"), Crop(Blob(b"inline"), "root")],
            pairs=("text", blob("pair")),
            named={"key": [blob("named")]},
        )

    names = ("whole", "best", "crop1", "pair", "named")
    async with Harness(app, settings) as harness:
        blobs = harness.client.blobs
        await harness.publish(Photo("p", {"a": Crop(Blob(b"in", path="p/in"), "leaf")}))
        await harness.drain()
        run = await runs_of(harness).create(stage="cut", wanted=Wanted(), name="r1")
        await work(harness, "r1")
        for name in names:
            assert await blobs.get(f"p/{name}") == f"live {name}".encode()
            assert await blobs.get(f"runs/r1/p/{name}") == f"r1 {name}".encode()

        facts = await compare(app, run, None, db)
        (table,) = facts["tables"]
        assert table["blobs"] == ["best", "crops", "named", "pairs", "whole"]
        assert list(table["columns"]) == ["verdict", "blob_count"]
        attached = await attach(app, run, facts, Scanner(harness.services.broker.client))  # type: ignore[attr-defined]
        (example,) = table["examples"]
        paths = {(one["of"], one["field"], one["path"]) for one in example["blobs"]}
        fields = {"whole": "whole", "best": "best", "crop1": "crops", "pair": "pairs"}
        fields["named"] = "named"
        assert paths == {
            ("input", "crops", "p/in"),
            ("old", "crops", None),
            ("new", "crops", None),
            *(("old", fields[name], f"p/{name}") for name in names),
            *(("new", fields[name], f"runs/r1/p/{name}") for name in names),
        }
        ((_, shown),) = (await figures(attached, blobs)).items()
        assert "p/in (2 bytes, no picture" in shown[0].text
