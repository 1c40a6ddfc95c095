"""Copies of ordered types, cut into partitions, on a real nats-server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mqinfer import App, plan
from mqinfer.adapters import admin
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.identity import header_block
from mqinfer.settings import Settings
from mqinfer.specs import StreamSpec
from mqinfer.stack import Stack, StackSettings
from mqinfer.testing import until
from tests.flow.test_ordered import Leaf

app = App("plants", partitions=4)


@app.stage
async def follow(leaf: Leaf) -> None:
    """Give nothing back."""


async def streams(broker: JetStream) -> StreamSpec:
    """Make the app's stream and the copy; gives the copy's."""
    await broker.ensure_stream(plan.stream_spec(app))
    copy = plan.copy_spec(app, Leaf)
    await broker.ensure_stream(copy)
    return copy


async def put(broker: JetStream, first: int, last: int) -> None:
    """Messages with a key, and every fifth one without."""
    for number in range(first, last):
        subject = "plants.leaf" if number % 5 == 0 else f"plants.leaf.p{number % 7}"
        broker.publish(subject, header_block({}), b"%d" % number, lambda *_: None)
    await until(lambda: broker.publisher.outstanding == 0, "all are stored")


async def copied(broker: JetStream, copy: StreamSpec) -> list[tuple[str, int]]:
    """Subjects without the partition, and numbers, when all is copied."""

    async def done() -> bool:
        return not await broker.uncopied(copy)

    await until(done, "the copies")
    found = [
        (one.subject.partition(".")[2], int(one.data))
        async for one in Scanner(broker.client).messages(copy.name, ">")
    ]
    return sorted(found, key=lambda one: one[1])


def expected(last: int) -> list[tuple[str, int]]:
    return [
        ("plants.leaf" if number % 5 == 0 else f"plants.leaf.p{number % 7}", number)
        for number in range(last)
    ]


async def test_all_is_copied_once_with_a_key_and_without_through_a_kill(tmp_path: Path) -> None:
    chosen = StackSettings(dir=tmp_path, nats_port=0, triton=False, clickhouse=False)
    async with Stack(chosen) as stack:
        settings = Settings.load({}, nats_url=stack.nats_url)
        async with JetStream(settings, name="test") as broker:
            copy = await streams(broker)
            await put(broker, 0, 200)
            assert await copied(broker, copy) == expected(200)
            assert stack.nats is not None
            stack.nats.kill()
            await stack.nats.wait()
            await stack.nats.start()
            await stack.nats.wait_ready()
            await until(lambda: broker.blocked is None, "a connection")
            await put(broker, 200, 400)
            assert await copied(broker, copy) == expected(400)


async def test_a_subject_has_a_source_of_its_own(nats: Settings) -> None:
    """One for two costs the server a look through all subjects for every message."""
    async with JetStream(nats, name="test") as broker:
        copy = await streams(broker)
        info = await broker.stream_info(copy.name)
        assert info is not None
        taken = [
            [one["src"] for one in source["subject_transforms"]]
            for source in info["config"]["sources"]
        ]
        assert taken == [["plants.leaf"], ["plants.leaf.>"]]


async def test_a_copy_of_a_version_before_is_used_as_it_is(nats: Settings) -> None:
    async with JetStream(nats, name="test") as broker:
        await broker.ensure_stream(plan.stream_spec(app))
        copy = plan.copy_spec(app, Leaf)
        config: dict[str, Any] = admin.stream_config(copy)
        together = [one for source in config["sources"] for one in source["subject_transforms"]]
        config["sources"] = [{"name": "plants", "subject_transforms": together}]
        await admin.ask(broker.client, f"STREAM.CREATE.{copy.name}", config, "a copy")
        await put(broker, 0, 50)
        await broker.ensure_stream(copy)
        await broker.ensure_stream(replace(copy, max_age=3600.0))  # what may change does
        info = await broker.stream_info(copy.name)
        assert info is not None
        assert info["config"]["sources"] == config["sources"]
        assert info["config"]["max_age"] == 3600 * admin.NANO
        assert admin.copy_conflict(copy, info["config"]) is None
        assert await copied(broker, copy) == expected(50)
        more = plan.copy_spec(App("plants", partitions=6), Leaf)
        assert admin.copy_conflict(more, info["config"])
