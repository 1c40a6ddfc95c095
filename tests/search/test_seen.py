"""Shards seen from outside: what a process may do on NATS and no more, and what it counts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import mqinfer
from mqinfer import Settings, wiring
from mqinfer.cli import main
from mqinfer.errors import ConfigurationError, SearchError
from mqinfer.operate.permissions import Permissions, keeper, requester
from mqinfer.search.keeping import Keeping
from mqinfer.testing import Harness, nats_only, until
from tests.search.support import clustered, holding, keys
from tests.support.search_two_app import Small, app, pictures

BLOBS = "searched_two-blobs"


def config(users: dict[str, Permissions]) -> str:
    lines = ['{user: "admin", password: "admin"}']
    lines += [
        f'{{user: "{user}", password: "{user}", {allowed.config()}}}'
        for user, allowed in users.items()
    ]
    return "authorization { users = [\n" + "\n".join(lines) + "\n] }\n"


def as_user(settings: Settings, user: str) -> Settings:
    return dataclasses.replace(
        settings, nats_user=user, nats_password=user, nats_inbox_prefix=f"_INBOX_{user}"
    )


@asynccontextmanager
async def kept(settings: Settings) -> AsyncIterator[Keeping]:
    """What `mqinfer index APP serve` runs, under some user's permissions."""
    async with wiring.services(app, settings, "index") as services:
        keeping = Keeping(app, wiring.keeping(app, services, None, 0.1), linger=0.1)
        running = asyncio.create_task(keeping.run())
        try:
            await until(lambda: running.done() or not keeping.not_ready(), "shards that are held")
            yield keeping
        finally:
            keeping.stop()
            await running


async def test_shards_are_held_and_searched_with_no_more_than_is_printed(tmp_path: Path) -> None:
    users = {
        "index": keeper(app, inbox_prefix="_INBOX_index", blob_bucket=BLOBS),
        "web": requester(app, inbox_prefix="_INBOX_web", blob_bucket=BLOBS),
    }
    async with nats_only(tmp_path, nats_config=config(users)) as plain:
        settings = dataclasses.replace(plain, blobs="nats://")
        admin, held, web = (as_user(settings, user) for user in ("admin", "index", "web"))
        vectors = clustered(40, 1, 8)
        async with Harness(app, admin) as harness:
            generations = wiring.generations(app, harness.services.broker)
            await generations.ensure()
            assert harness.services.store is not None
            await harness.services.store.put("made", b"the bucket")

            async def saved() -> bool:
                found = [await generations.saved("pictures", "small", 1, n) for n in (0, 1)]
                return all(one is not None and one.count for one in found)

            async with kept(held):
                await harness.client.publish_all(
                    [Small(n, one.tolist()) for n, one in enumerate(vectors)]
                )
                async with mqinfer.connect(app, web):

                    async def found() -> bool:
                        return len(await pictures.search({"small": vectors[3]}, 50)) == 40

                    await until(found, "all vectors")
                    hits = await pictures.search({"small": vectors[3]}, 1)
                    assert keys(hits) == [3]
                await until(saved, "snapshots")
            # From the snapshot, a generation that was built meanwhile, and one that is dropped.
            made = await generations.build(pictures, "small", {"shards": 3})
            async with kept(held) as keeping, mqinfer.connect(app, web):
                assert sum(one.count for one in keeping.holding().shards) == 80
                assert len(await pictures.search({"small": vectors[3]}, 50)) == 40
                await generations.flip(pictures, "small", made.number)
                await generations.drop(pictures, "small", 1, harness.services.store)
                await until(lambda: len(keeping.holding().shards) == 5, "one that is dropped")


async def test_what_is_held_and_asked_is_counted(nats: Settings) -> None:
    vectors = clustered(30, 1, 32)
    async with Harness(app, nats) as harness, holding(harness) as keeping:
        await harness.client.publish_all([Small(n, v.tolist()) for n, v in enumerate(vectors)])
        await seen_small(harness, 30)
        with pytest.raises(SearchError):
            await harness.client.search("pictures", {"small": vectors[0][:5]})
        made = await keeping.tools.generations.build(pictures, "small", {"shards": 1})
        of = f'app="{app.name}",generation="{{}}",index="pictures",model="small"'

        def lines() -> list[str]:
            return keeping.metrics().decode().splitlines()

        def told(line: str) -> bool:
            return any(one.startswith(line) for one in lines())

        beside = f'mqinfer_index_ready{{{of.format(made.number)},searched="false",shard="0"}} 1.0'
        await until(lambda: told(beside), "the generation beside")
        assert told(f'mqinfer_index_shards{{app="{app.name}",index="pictures",model="small"}} 2.0')
        counted = [
            float(one.split()[-1])
            for one in lines()
            if one.startswith(f'mqinfer_index_vectors{{{of.format(1)},searched="true"')
        ]
        assert len(counted) == 2
        assert sum(counted) == 30
        of_model = f'app="{app.name}",index="pictures",model="small"'
        assert told(f"mqinfer_index_search_seconds_count{{{of_model}}} ")
        assert told(f"mqinfer_index_refused_searches_total{{{of_model}}} 2.0")


async def seen_small(harness: Harness, wanted: int) -> None:
    async def there() -> bool:
        hits = await harness.client.search("pictures", {"small": clustered(1, 1, 32)[0]}, 50)
        return len(hits) == wanted

    await until(there, f"{wanted} vectors")


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    name = "tests.support.search_two_app:app"
    assert main(["permissions", name, "--index", "*", "--inbox-prefix", "_I"]) == 0
    assert capsys.readouterr().out.strip() == keeper(app, inbox_prefix="_I").config()
    assert main(["permissions", name, "--index", "pictures", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["allow_responses"] is True
    assert "requests.searched_two.search.pictures.*.*.*" in facts["subscribe"]
    assert main(["permissions", name, "--index", "pictures", "--gateway"]) == 2
    assert main(["permissions", name, "--index", "none"]) == 2
    with pytest.raises(ConfigurationError, match="it has pictures"):
        keeper(app, ["none"])
