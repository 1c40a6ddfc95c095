"""The plant stages on real servers: photographs in, rows out, and bad input told apart."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import nats
import numpy as np
import pytest
import pytest_asyncio

from examples.plants.fleet import Flight, flight
from examples.plants.materials import DEFAULT_CACHE, ensure_materials
from examples.plants.season import Season
from mqinfer import Blob, Settings
from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.errors import PayloadTooLarge
from mqinfer.image import decode, encode_png
from mqinfer.replay.promote import Promotions
from mqinfer.replay.ranges import Wanted
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.which import row_subject
from mqinfer.stack import Stack, StackSettings
from mqinfer.streams import Stored
from mqinfer.testing import Harness
from stages.plants import DISEASES, DroneImage, Health, app
from tests.support.replay import runs_of, work

MODELS = Path(__file__).parents[2] / "triton_models"
DAY = datetime.date(2026, 5, 4)
DAYS = [datetime.timedelta(days=n) for n in range(2)]
COLUMNS = [
    "position_id",
    "date",
    "leaf_crop_idx",
    "disease_type",
    "predicted_grade",
    "cropper_model_id",
    "cropper_model_version",
    "disease_model_id",
    "disease_model_version",
    "confidence",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("plants")
    async with Stack(StackSettings.free_ports(folder, models=MODELS)) as stack:
        yield stack


@pytest.fixture
def settings(stack: Stack) -> Settings:
    return Settings.load(stack.environment(), grace=5.0)


@pytest.fixture
async def plants(settings: Settings) -> AsyncIterator[Harness]:
    async with Harness(app, settings) as harness:
        yield harness


@pytest.fixture
async def tables(settings: Settings) -> AsyncIterator[ClickHouse]:
    database = ClickHouse(settings.clickhouse_url)
    yield database
    await database.close()


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    """Three positions on the first day."""
    season = Season(3, 1, 5, "test", ensure_materials(DEFAULT_CACHE))
    return [flight(shot) for shot in season]


async def publish(plants: Harness, one: Flight) -> None:
    await plants.publish(one.photo, one.truth, ids=[one.photo_id, one.truth_id])


async def of(tables: ClickHouse, table: str, position: str) -> list[dict[str, Any]]:
    return await tables.query(
        f"SELECT * FROM {table} WHERE position_id = {{position:String}} ORDER BY leaf_crop_idx",
        {"position": position},
    )


def sharing(one: dict[str, float], other: dict[str, float]) -> float:
    """Intersection over union."""
    width = min(one["x1"], other["x1"]) - max(one["x0"], other["x0"])
    height = min(one["y1"], other["y1"]) - max(one["y0"], other["y0"])
    both = max(0.0, width) * max(0.0, height)
    sizes = [(box["x1"] - box["x0"]) * (box["y1"] - box["y0"]) for box in (one, other)]
    return both / (sum(sizes) - both)


async def test_a_photograph_becomes_rows(
    plants: Harness, tables: ClickHouse, settings: Settings, flights: list[Flight]
) -> None:
    one = flights[0]
    position = one.photo.position_id
    await publish(plants, one)
    await plants.drain()

    found = await of(tables, "leaf_found", position)
    truth = one.truth.leaves
    assert 0.8 * len(truth) <= len(found) <= 1.2 * len(truth)
    assert [row["leaf_crop_idx"] for row in found] == list(range(len(found)))
    grades = await of(tables, "disease_grade", position)
    assert [name for name in grades[0] if not name.startswith("_")] == COLUMNS
    answers = {(row["leaf_crop_idx"], row["disease_type"]) for row in grades}
    assert answers == {(row["leaf_crop_idx"], name) for row in found for name in DISEASES}
    assert len(grades) == 5 * len(found)
    for row in grades:
        assert row["date"] == DAY
        assert 0 <= row["predicted_grade"] <= 3
        assert (row["cropper_model_id"], row["cropper_model_version"]) == ("leaf_detector", "1")
        assert row["disease_model_id"] == f"grade_{row['disease_type']}"
        assert row["disease_model_version"].isdigit()
        assert 0.25 <= row["confidence"] <= 1  # the largest of the chances of four grades
        # The framework's own columns say the same, from the first input on.
        assert row["_models"]["leaf_detector"] == "1"
        assert row["_ancestors"][0] == one.photo_id

    folder = Path(settings.blobs) / position / str(DAY)
    assert (folder / "image.png").read_bytes() == one.photo.image.inline
    leaves = folder / "leaf_detector" / "1"
    assert {path.name for path in leaves.iterdir()} == {f"{n}.png" for n in range(len(found))}
    assert found[0]["image"] == f"{position}/{DAY}/leaf_detector/1/0.png"
    assert decode((leaves / "0.png").read_bytes()).shape == (96, 96, 3)
    rows = await tables.query(f"SELECT * FROM leaf_truth WHERE position_id = '{position}'")
    assert len(rows) == len(truth)
    assert rows[0]["grades"] == truth[rows[0]["leaf_idx"]].grades
    assert await plants.dead() == []


async def reported(tables: ClickHouse) -> list[str]:
    rows = await tables.query("SELECT position_id FROM photo_report")
    return [row["position_id"] for row in rows]


def held(stored: Stored) -> int:
    """How many messages or rows one in the stream is."""
    return 1 if row_subject(stored.subject) is None else layout.count(stored.data)


async def test_published_again_it_adds_nothing(
    plants: Harness, tables: ClickHouse, settings: Settings, flights: list[Flight]
) -> None:
    one = flights[1]

    async def everything() -> list[Any]:
        names = ("disease_grade", "photo_report", "alarm", "reminder")
        sql = "SELECT * EXCEPT (_sequence, _published, _inserted) FROM {} ORDER BY _id"
        rows = [await tables.query(sql.format(name)) for name in names]
        return [*rows, await plants.state("watch", one.photo.position_id)]

    await publish(plants, one)
    await plants.drain()
    before = await everything()
    length = len(await plants.stored())
    await publish(plants, one)  # JetStream knows it
    await plants.drain()
    assert len(await plants.stored()) == length

    # And when it has forgotten everything: all the work is done again, the tables stay.
    connection = await nats.connect(settings.nats_url)
    config = (await connection.jetstream().stream_info(app.name)).config
    for window in itertools.cycle((0.1, 0.2)):
        # Again and again: the server may look what to forget before it takes the new window.
        await connection.jetstream().update_stream(config, duplicate_window=window)
        await publish(plants, one)
        if len(await plants.stored()) > length:
            break
        await asyncio.sleep(0.05)
    await connection.close()
    await plants.drain()
    leaves = len(await of(tables, "leaf_found", one.photo.position_id))
    again = sum(map(held, (await plants.stored())[length:]))
    assert again >= (1 + 1 + 5) * leaves  # a leaf, where it was found, and its five grades
    assert await everything() == before
    assert len(await plants.timers("expect")) == len({*await reported(tables)})


async def test_the_field_plan_becomes_positions(plants: Harness, tables: ClickHouse) -> None:
    plan = {"positions": {"north": "active", "south": "control"}}
    await plants.publish_bytes("plants.field_plan", json.dumps(plan).encode())
    await plants.drain()
    rows = await tables.query("SELECT position_id, area FROM position ORDER BY position_id")
    assert rows == [
        {"position_id": "north", "area": "active"},
        {"position_id": "south", "area": "control"},
    ]


@pytest.mark.parametrize(("width", "height"), [(960, 720), (512, 384), (640, 700), (1000, 480)])
async def test_photographs_of_any_size_give_boxes_in_their_own_pixels(
    plants: Harness, tables: ClickHouse, flights: list[Flight], width: int, height: int
) -> None:
    one = flights[2]
    assert one.photo.image.inline is not None
    pixels = decode(one.photo.image.inline)
    position = f"size-{width}x{height}"
    scale = min(width / 640, height / 480)
    inside = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 90, np.uint8)  # the rest is bare ground
    canvas[: inside.shape[0], : inside.shape[1]] = inside
    await plants.publish(DroneImage(position, DAY, Blob(encode_png(canvas))))
    await plants.drain("crop", "sink-leaf_found")
    found = [row["box"] for row in await of(tables, "leaf_found", position)]
    assert all(0 <= box["x0"] < box["x1"] <= width for box in found)
    assert all(0 <= box["y0"] < box["y1"] <= height for box in found)
    truth = [
        {name: getattr(leaf.box, name) * scale for name in ("x0", "y0", "x1", "y1")}
        for leaf in one.truth.leaves
    ]
    met = sum(any(sharing(there, box) >= 0.5 for box in found) for there in truth)
    assert met >= 0.7 * len(truth)


async def test_a_photograph_without_leaves_is_done_without_rows(
    plants: Harness, tables: ClickHouse
) -> None:
    bare = np.full((480, 640, 3), (120, 95, 70), np.uint8)
    await plants.publish(DroneImage("bare", DAY, Blob(encode_png(bare))))
    await plants.drain()
    assert await of(tables, "leaf_found", "bare") == []
    assert [letter for letter in await plants.dead() if b'"bare"' in letter.data] == []


async def test_a_plain_client_that_knows_no_headers_is_served(
    plants: Harness, tables: ClickHouse, settings: Settings, flights: list[Flight]
) -> None:
    one = flights[0].photo
    assert one.image.inline is not None
    upload = Path(settings.blobs) / "plain" / str(DAY) / "image.png"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(one.image.inline)
    connection = await nats.connect(settings.nats_url)
    message = {"position_id": "plain", "date": str(DAY), "image": f"plain/{DAY}/image.png"}
    await connection.publish("plants.drone_image", json.dumps(message).encode())
    await connection.flush()
    await connection.close()
    await plants.drain()
    found = await of(tables, "leaf_found", "plain")
    assert found
    assert len(await of(tables, "disease_grade", "plain")) == 5 * len(found)


def huge_png() -> bytes:
    """A real PNG of 20,000 x 20,000 pixels, one bit each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000 * 2_501), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def test_every_bad_photograph_is_told_and_the_good_ones_are_answered(
    plants: Harness, tables: ClickHouse, settings: Settings, flights: list[Flight]
) -> None:
    good = flights[0].photo.image.inline
    assert good is not None
    files = {
        "cut.png": good[: len(good) // 2],
        "empty.png": b"",
        "dot.png": encode_png(np.zeros((1, 1, 3), np.uint8)),
        "huge.png": huge_png(),
        "text.png": b"this is no picture at all",
    }
    assert plants.services.store is not None
    for name, data in files.items():
        await plants.services.store.put(f"bad/{name}", data)

    def message(**changes: Any) -> bytes:
        fields = {"position_id": "bad", "date": str(DAY), "image": f"bad/{DAY}.png", **changes}
        return json.dumps({name: value for name, value in fields.items() if value != ""}).encode()

    bad = {
        b"\x89 no json at all": ("decode", "no json"),
        message(image=""): ("decode", "missing required field `image`"),
        message(position_id=7): ("decode", "Expected `str`, got `int` - at `$.position_id`"),
        message(date="yesterday"): ("decode", "$.date"),
        message(position_id="../etc"): ("decode", "$.position_id"),
        message(position_id="a/b"): ("decode", "$.position_id"),
        message(image="../../etc/passwd"): ("decode", "'../../etc/passwd' is not allowed"),
        message(image="bad/cut.png"): ("rejected", "bad/cut.png"),
        message(image="bad/empty.png"): ("rejected", "bad/empty.png is empty"),
        message(image="bad/dot.png"): ("rejected", "1 x 1 pixels, but each side must have at"),
        message(image="bad/huge.png"): ("rejected", "20000 x 20000 pixels"),
        message(image="bad/text.png"): ("rejected", "bad/text.png"),
        message(image="bad/nowhere.png"): (None, "bad/nowhere.png"),
    }
    answered = []
    for index, payload in enumerate(bad):
        if index % 4 == 0:  # before the first, between, and after the last
            answered.append(f"good-{index}")
            await plants.publish(DroneImage(answered[-1], DAY, Blob(good)))
        await plants.publish_bytes("plants.drone_image", payload)
    await plants.drain()

    dead = await plants.dead()
    letters = {one.data: one for one in dead if one.stored.subject == "dead.plants.crop"}
    assert set(bad) <= set(letters)
    for payload, (kind, reason) in bad.items():
        letter = letters[payload]
        assert reason in letter.reason, letter
        assert kind in (None, letter.kind), letter
    # What nobody can read dies at every stage that would read it; the others at `crop` alone.
    unread = {payload for payload, (kind, _) in bad.items() if kind == "decode"}
    of_expect = {one.data for one in dead if one.stored.subject == "dead.plants.expect"}
    assert of_expect & set(bad) == unread
    of_report = [one.data for one in dead if one.stored.subject == "dead.plants.report"]
    assert all(any(payload in data for payload in unread) for data in of_report)
    # What could be read has a report, which says why there is nothing in it.
    reports = await of_day(tables, "photo_report", "bad")
    assert {tuple(row["reasons"]) for row in reports} == {
        (f"crop: {letters[payload].reason}",) for payload in set(bad) - unread
    }
    assert {(row["leaves"], row["died"], row["grade"]) for row in reports} == {(0, 1, None)}
    rows = await tables.query(
        "SELECT position_id, uniqExact(leaf_crop_idx) AS leaves, count() AS grades "
        "FROM disease_grade WHERE startsWith(position_id, 'good-') GROUP BY position_id"
    )
    assert {row["position_id"] for row in rows} == set(answered)
    assert len({row["leaves"] for row in rows}) == 1  # the same picture, the same answers
    assert all(row["grades"] == 5 * row["leaves"] for row in rows)


async def test_a_leaf_that_dies_is_named_in_the_report(
    plants: Harness, tables: ClickHouse, settings: Settings, flights: list[Flight]
) -> None:
    image = flights[0].photo.image.inline
    assert image is not None
    await plants.publish(DroneImage("hurt", DAY, Blob(image)))
    await plants.drain("crop")
    leaves = Path(settings.blobs) / "hurt" / str(DAY) / "leaf_detector" / "1"
    (leaves / "1.png").write_bytes(b"this is no picture")
    await plants.drain()

    (report,) = await of_day(tables, "photo_report", "hurt")
    count = len([*leaves.iterdir()])
    grades = [row["predicted_grade"] for row in await of(tables, "disease_grade", "hurt")]
    assert (report["leaves"], len(grades)) == (count, 5 * (count - 1))
    assert report["by_grade"] == [grades.count(grade) for grade in range(4)]
    assert report["grade"] == sum(grades) / len(grades)
    assert report["worst_grade"] == max(grades)
    assert report["ungraded"] == [f"{disease} on leaf 1" for disease in DISEASES]
    assert report["died"] == 5
    assert [text.split(":")[0] for text in report["reasons"]] == sorted(
        f"grade_{disease}" for disease in DISEASES
    )
    assert all(f"hurt/{DAY}/leaf_detector/1/1.png" in text for text in report["reasons"])
    assert report["incomplete"] == ""


async def of_day(tables: ClickHouse, table: str, position: str) -> list[dict[str, Any]]:
    return await tables.query(
        f"SELECT * FROM {table} WHERE position_id = {{position:String}} ORDER BY date",
        {"position": position},
    )


async def test_a_run_has_reports_and_health_of_its_own_and_sets_no_reminder(
    plants: Harness, tables: ClickHouse, flights: list[Flight]
) -> None:
    image = flights[1].photo.image.inline
    assert image is not None
    begin = (await plants.stored())[-1].sequence + 1
    await plants.publish(*(DroneImage("again", DAY + DAYS[n], Blob(image)) for n in range(2)))
    await plants.drain()
    live = await of_day(tables, "photo_report", "again")
    assert len(live) == 2
    remembered = await plants.state("watch", "again")
    timers = await plants.timers("expect")

    store = runs_of(plants)
    await store.create(stage="crop", wanted=Wanted(from_seq=begin), name="again", downstream=True)
    await work(plants, "again")
    rows = await tables.query(
        "SELECT * EXCEPT (_visible, _version) FROM photo_report__storage FINAL "
        "WHERE position_id = 'again' AND _run = 'again' ORDER BY date"
    )
    fields = [name for name in live[0] if not name.startswith("_")]
    assert [[row[name] for name in fields] for row in rows] == [
        [row[name] for name in fields] for row in live
    ]
    of_run = await plants.client.state("watch", "again", run="again")
    assert isinstance(of_run, Health)
    assert of_run == remembered
    assert await of_day(tables, "photo_report", "again") == live  # nothing of the run is shown
    assert await plants.state("watch", "again") == remembered
    assert await plants.timers("expect") == timers

    promotions = Promotions(plants.app, store, tables)
    await promotions.promote("again")
    shown = await of_day(tables, "photo_report", "again")
    assert [(row["date"], row["_run"]) for row in shown] == [
        (DAY, "again"),
        (DAY + DAYS[1], "again"),
    ]
    assert await plants.state("watch", "again") == remembered


async def test_too_large_a_payload_is_refused_and_the_client_goes_on(
    plants: Harness, tables: ClickHouse, flights: list[Flight]
) -> None:
    limit = plants.services.broker.max_payload
    with pytest.raises(PayloadTooLarge, match=f"{limit}|{limit:,}"):
        await plants.client.publish_raw("plants.drone_image", b"x" * (limit + 1))
    photo = flights[0].photo
    assert photo.image.inline is not None
    async with asyncio.timeout(60):
        await plants.publish(DroneImage("after", DAY, Blob(photo.image.inline)))
    await plants.drain("crop", "sink-leaf_found")
    assert await of(tables, "leaf_found", "after")
