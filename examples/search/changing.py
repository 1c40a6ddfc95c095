"""Changing: processes die, replicas, shards and versions change, while somebody searches."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from examples.search import truth
from examples.search.acts import K, Show
from examples.search.anew import anew
from examples.search.app import pictures
from examples.search.asking import asking
from examples.search.local import APP, WAIT
from examples.search.pictures import copied
from examples.search.truth import Vectors
from mqinfer.hits import Hits
from mqinfer.testing import until


async def shard_dies(show: Show) -> None:
    """A process that holds shards is killed: it is told, and is back; of two, nobody sees it."""
    client, checks = show.album.client, show.checks
    vectors = {model: show.queries[model, "1"][0] for model in pictures.models}
    async with show.searched("while a shard is away", whole=False):
        await show.album.kill_holder(0)
        killed = time.monotonic()
        lacking: list[Hits] = []

        async def missing() -> bool:
            hits = await client.search(pictures, vectors, K)
            lacking[:] = [hits]
            return not hits.complete

        async def whole() -> bool:
            return (await client.search(pictures, vectors, K)).complete

        await until(missing, "a shard that is missing", WAIT)
        said = time.monotonic() - killed
        await until(whole, "all shards", WAIT)
        back = time.monotonic() - killed
    checks.fact(
        f"killed: after {1000 * said:.0f} ms a search says {lacking[0].shards} shards, "
        f"{', '.join(lacking[0].missing)} missing; after {back:.1f} s all answer again",
        shard_missing_ms=1000 * said,
        shard_back_s=back,
    )
    some = bool(lacking[0].missing and len(lacking[0]))
    checks.check(some, "a missing shard is told, and the others answer")
    show.album.edit("replicas = 1", "replicas = 2")
    told = await applied(show)
    checks.check(
        "replicas 1 -> 2" in told, "deploy says what a change of the file does, and does it"
    )

    async def replicated() -> bool:
        held = await show.album.holdings()
        return len(held) == 4 and all(one.ready for one in held)

    await until(replicated, "a replica of each shard", WAIT)
    async with show.searched("while one of two replicas dies"):
        pid = await show.album.kill_holder(0)

        async def other() -> bool:
            held = await show.album.holdings()
            return len(held) == 4 and all(one.ready and one.pid != pid for one in held)

        await until(other, "another process", WAIT)


async def applied(show: Show) -> str:
    """Apply the file as it is now, which what runs takes up; what it says that this does."""
    file, out = str(show.album.deployed.file), f"--out={show.album.deployed.folder}"
    told = await show.album.command("deploy", "apply", APP, file, "--target=local", out)
    for line in told.strip().splitlines():
        show.checks.fact(f"  {line}")
    return told


async def resharded(show: Show) -> None:
    """From two shards to three, by the file, while searches go on."""
    checks, client = show.checks, show.album.client
    async with show.searched("while shards are cut anew"):
        show.album.edit("shards = 2", "shards = 3")
        told = await applied(show)
        checks.check("generation 2 is read beside 1" in told, "deploy says what other shards are")
        for model in pictures.models:
            await until(partial(_ready, show, model, 2), f"generation 2 of {model}", WAIT)
        told = await applied(show)
        checks.check("searches go to generation 2" in told, "and lets searches go there, once read")
        vectors = {model: show.queries[model, "1"][0] for model in pictures.models}

        async def cut() -> bool:
            return (await client.search(pictures, vectors, K)).shards == "6/6"

        await until(cut, "three shards of each model", WAIT)
        for model in pictures.models:
            await show.album.generations.drop(pictures, model, 1, client.blobs)
    checks.check(True, "each model has three shards instead of two")


async def built(show: Show, version: str) -> int:
    """Build a generation of a version beside the one that is searched, until it is read; which."""
    changed = {"model": "lite0", "version": version, "shards": 3}
    number = (await show.album.generations.build(pictures, "lite0", changed)).number
    await until(partial(_ready, show, "lite0", number), f"generation {number}", WAIT)
    return number


async def _ready(show: Show, model: str, number: int) -> bool:
    shards = {
        (one.shard, one.ready)
        for holding in await show.album.holdings()
        for one in holding.shards
        if (one.model, one.generation) == (model, number)
    }
    return bool(shards) and all(ready for _, ready in shards)


async def flipped(show: Show, number: int) -> None:
    """Let a generation of lite0 be searched, and drop the one that was."""
    client, generations = show.album.client, show.album.generations
    before = await generations.flip(pictures, "lite0", number)

    async def seen() -> bool:
        return (await client.generation(pictures, "lite0")).number == number

    await until(seen, f"generation {number}", WAIT)
    await generations.drop(pictures, "lite0", before, client.blobs)


async def rolled_out(show: Show, there: int, known: Vectors) -> None:
    """Another version of a model, beside and then instead, while pictures come and go."""
    checks, client = show.checks, show.album.client
    data = [
        copied(copied(show.file("noto", one), "cropped"), "shifted")
        for one in show.things[5:300:20]
    ]
    async with show.searched("while a version is rolled out") as account:
        began = time.monotonic()
        # Until now of any version, and so it would take those of the new one as well.
        first = await built(show, "1")
        await flipped(show, first)
        number = await built(show, "2")
        again = asyncio.create_task(anew(client, show.album.database, "lite0", "2"))
        gone = known.ids[7]
        await show.visitor.ask("remove", picture_id=gone)
        for place, picture in enumerate(data):
            await show.visitor.ask("add", picture, name=f"meanwhile/{place}.png")
        count = await again

        async def caught_up() -> bool:
            held = await show.held(lite0=number)
            return len(set(held)) == 1 and held[0] >= there - 1

        await until(caught_up, "the new version of all pictures", WAIT)
        ready = time.monotonic() - began
        await flipped(show, number)
        await until(lambda: "2" in account.versions["lite0"], "searches by it", WAIT)
    checks.fact(
        f"lite0 version 2: {count:,} pictures embedded anew in {ready:.1f} s, while "
        f"{len(data)} came and one went",
        rolled_out_s=ready,
    )
    new = await truth.vectors(show.album.database, "lite0", "2")
    sample = [name for name in new.names if name.startswith("noto/")][::40]
    found = await truth.recall(client, "lite0", new, sample, K)
    checks.fact(f"lite0 version 2: recall@{K} {found:.3f}", recall_version_2=found)
    checks.check(found >= 0.98, "what is found is of the new version alone")
    checks.check(gone not in new.ids, "what was removed meanwhile is not there")
    wanted = {f"meanwhile/{place}" for place in range(len(data))}
    checks.check(wanted <= set(new.names), "what came meanwhile is there")
    answer = await show.visitor.similar(data[0])
    checks.check(answer.versions["lite0"] == "2", "a picture that is asked is embedded by it")


async def checked(show: Show) -> None:
    """The index is held against the table."""
    told = await show.album.facts("index", APP, "check")
    for one in told:
        show.checks.fact(
            f"  {one['model']}, generation {one['generation']}: {one['recorded']:,} keys in the "
            f"table, {one['held']:,} held, {one['lacks']} lacking"
        )
    show.checks.check(
        all(one["whole"] and one["recorded"] == one["held"] for one in told),
        "`mqinfer index check`: all that is in the tables is in the indexes, and nothing else",
    )


async def quick(show: Show) -> None:
    """How quick searches are, alone and many at a time."""
    for at_once in (1, 16):
        async with asking(show.album.client, show.queries, at_once=at_once) as account:
            await asyncio.sleep(2.0)
        show.checks.fact(
            f"{at_once} at a time, by both models: {account.text()}",
            **{f"searches {at_once} at a time": account.figures()},
        )
    took = []
    for one in show.things[:10]:
        began = time.monotonic()
        await show.visitor.similar(show.file("twemoji", one))
        took.append(time.monotonic() - began)
    show.checks.fact(
        f"from a picture by HTTP to what is like it: {1000 * sorted(took)[len(took) // 2]:.0f} ms "
        "(median)",
        by_http_ms=1000 * sorted(took)[len(took) // 2],
    )
