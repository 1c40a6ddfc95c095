"""Acts: pictures come, are found, are alike, go; what the demo does, and what it must find then."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.requests.checks import Checks
from examples.search import truth
from examples.search.app import Upload, duplicates, pictures
from examples.search.asking import Account, Versioned, Visitor, asking
from examples.search.local import APP, WAIT, Album
from examples.search.pictures import HANDS, KINDS, copied
from examples.search.truth import Vectors
from mqinfer import Blob
from mqinfer.testing import until

K = 10
BY_HTTP = 20  # pictures of the second hand that are added one by one
ORIGINALS = 20  # drawn ones of which near-duplicates are made, beside all photographs


@dataclass
class Show:
    """What all acts know.

    Attributes:
        album: what runs.
        checks: what was seen.
        visitor: by HTTP.
        collection: the folder of drawn pictures.
        photographs: the folder of photographs.
        things: file names of what is drawn, by both hands.
        queries: vectors that are searched for without a pause.
    """

    album: Album
    checks: Checks
    visitor: Visitor
    collection: Path
    photographs: Path
    things: list[str]
    queries: Versioned

    def file(self, hand: str, thing: str) -> bytes:
        """A picture."""
        return (self.collection / hand / thing).read_bytes()

    async def held(self, **beside: int) -> list[int]:
        """Vectors of each model in the generation that is searched, then in others, by model."""
        most: dict[tuple[str, int], dict[int, int]] = {}
        for holding in await self.album.holdings():
            for one in holding.shards:
                shards = most.setdefault((one.model, one.generation), {})
                shards[one.shard] = max(shards.get(one.shard, 0), one.count)
        client = self.album.client
        wanted = [(one, (await client.generation(pictures, one)).number) for one in pictures.models]
        return [sum(most.get(one, {}).values()) for one in (*wanted, *beside.items())]

    async def until_held(self, wanted: int, seconds: float = WAIT) -> None:
        """Return when each model's index has so many vectors."""

        async def there() -> bool:
            return set(await self.held()) == {wanted}

        await until(there, f"{wanted} vectors of each model", seconds)

    @asynccontextmanager
    async def searched(
        self, when: str, *, whole: bool = True, pause: float = 0.02
    ) -> AsyncIterator[Account]:
        """Searches go on while inside: none may fail, and if `whole`, none may lack a shard."""
        async with asking(self.album.client, self.queries, pause=pause) as account:
            yield account
        self.checks.fact(f"{when}: {account.text()}", **{f"searches {when}": account.figures()})
        for why in dict.fromkeys(account.failed[:3]):
            self.checks.fact(f"  a search failed: {why}")
        self.checks.check(not account.failed, f"{when}: no search failed")
        if whole:
            self.checks.check(not account.missing, f"{when}: no search lacked a shard")


async def taken_in(show: Show) -> int:
    """A folder by a job, the other hand by messages, some by HTTP; how many pictures there are."""
    folder = show.album.stack.dir / "folder" / "noto"
    await asyncio.to_thread(_copy, show.collection / "noto", show.things, folder)
    began = time.monotonic()
    async with show.searched("while pictures come"):
        job = asyncio.create_task(
            show.album.command("job", "submit", APP, "add", str(folder.parent), "--wait")
        )
        rest = show.things[BY_HTTP:]
        photographs = {f"photos/{one.name}": one.read_bytes() for one in photos(show)}
        drawn = {f"twemoji/{one}": show.file("twemoji", one) for one in rest}
        await show.album.client.publish_all(
            [Upload(Blob(data), name) for name, data in (photographs | drawn).items()]
        )
        for one in show.things[:BY_HTTP]:
            await show.visitor.ask("add", show.file("twemoji", one), name=f"twemoji/{one}")
        await job
        files = {show.file(hand, one) for hand in HANDS for one in show.things}
        files |= set(photographs.values())
        await show.until_held(len(files))
    seconds = time.monotonic() - began
    given = len(HANDS) * len(show.things) + len(photographs)
    show.checks.fact(
        f"{given:,} pictures, {len(files):,} of them different, by a job, messages and HTTP: all "
        f"are found by both models after {seconds:.1f} s ({given / seconds:.0f} a second)",
        pictures=given,
        different=len(files),
        seconds_to_take_in=seconds,
    )
    return len(files)


def photos(show: Show) -> list[Path]:
    """The photographs."""
    return sorted(show.photographs.glob("*.jpg"))


def _copy(source: Path, names: Sequence[str], target: Path) -> None:
    target.mkdir(parents=True)
    for name in names:
        shutil.copy(source / name, target / name)


async def near(show: Show) -> dict[str, Vectors]:
    """How much is found of what is nearest, how well across hands, and by which weights best."""
    client, checks = show.album.client, show.checks
    known = {
        model: await truth.vectors(show.album.database, model, "1") for model in pictures.models
    }
    sample = [f"noto/{one.removesuffix('.png')}" for one in show.things[:: len(show.things) // 60]]
    for model, one in known.items():
        there = [name for name in sample if name in set(one.names)]
        found = await truth.recall(client, model, one, there, K)
        checks.fact(
            f"{model}: recall@{K} against all {len(one.ids):,} compared one by one: {found:.3f}",
            **{f"recall {model}": found},
        )
        checks.check(found >= 0.98, f"{model}: recall@{K} is 0.98 at least")
    both = set(known["lite0"].names) & set(known["lite2"].names)
    asked = [one.removesuffix(".png") for one in show.things[:: max(1, len(show.things) // 150)]]
    asked = [one for one in asked if {f"noto/{one}", f"twemoji/{one}"} <= both]
    queries = {model: one.of([f"twemoji/{name}" for name in asked]) for model, one in known.items()}
    told: dict[str, float] = {}
    for lite0, lite2 in ((1, 0), (0, 1), (1, 1), (1, 2), (2, 1)):
        weights = {"lite0": float(lite0), "lite2": float(lite2)}
        told[f"{lite0}:{lite2}"] = await truth.across(client, queries, asked, weights, k=K)
    checks.fact(
        f"who asks with one hand's picture finds the other's of the same thing among {K}, by "
        f"weights lite0:lite2: " + ", ".join(f"{one} {share:.2f}" for one, share in told.items()),
        across=told,
    )
    alone = max(told["1:0"], told["0:1"])
    together = max(told[one] for one in ("1:1", "1:2", "2:1"))
    checks.check(together >= alone, "together they find no less than the better one alone")
    return known


async def weighed(show: Show) -> None:
    """Weights are changed while all runs."""
    picture = show.file("twemoji", show.things[-1])
    await show.album.generations.weigh(pictures, {"lite2": 2.0})

    async def heeded() -> bool:
        found = await show.visitor.similar(picture)
        return bool(found.weights == {"lite0": 1.0, "lite2": 2.0})

    await until(heeded, "the weights", WAIT)
    show.checks.check(True, "weights that are set at run time count within seconds")


async def alike(show: Show, there: int) -> int:
    """Near-duplicates are made, found and folded; a person says otherwise. How many there are."""
    checks, client, database = show.checks, show.album.client, show.album.database
    originals = {
        f"noto/{one.removesuffix('.png')}": show.file("noto", one)
        for one in random.Random(3).sample(show.things, ORIGINALS)
    }
    originals |= {f"photos/{one.stem}": one.read_bytes() for one in photos(show)}
    copies = {
        f"copies/{kind} {name.replace('/', ' ')}": (name, copied(data, kind))
        for name, data in originals.items()
        for kind in KINDS
    }
    await client.publish_all([Upload(Blob(data), name) for name, (_, data) in copies.items()])
    there += len({data for _, data in copies.values()})
    await show.until_held(there)

    async def decided() -> dict[str, tuple[str, str]] | None:
        rows = await database.query(duplicates.sql, {})
        found = {row["picture"]: (row["original"], row["content"]) for row in rows}
        return found if len({content for _, content in found.values()}) >= there else None

    found = await until(decided, "a decision on each picture", WAIT) or {}
    same = {name for name in copies if found[name][0] != name}
    right = {name for name in same if found[name][0] == copies[name][0]}
    precision = len(right) / max(1, len(same))
    checks.fact(
        f"of {len(copies)} near-duplicates {len(same)} are found, {len(right)} of them as what "
        f"they are: precision {precision:.2f}",
        precision_of_duplicates=precision,
    )
    for hand in ("photos", "noto"):
        of = {name for name in copies if copies[name][0].startswith(hand)}
        share = {
            kind: len([name for name in right & of if name.startswith(f"copies/{kind}")])
            / (len(of) / len(KINDS))
            for kind in KINDS
        }
        recall = len(right & of) / len(of)
        each = ", ".join(f"{kind} {share[kind]:.2f}" for kind in KINDS)
        checks.fact(f"  {hand}: recall {recall:.2f} ({each})", **{f"duplicates of {hand}": share})
        if hand == "photos":
            checks.check(recall >= 0.8, "eight of ten copies of photographs are found")
    others = {
        one: original
        for one, (original, _) in found.items()
        if one != original and not one.startswith("copies/")
    }
    some = "; ".join(f"{one} = {original}" for one, original in list(others.items())[:6])
    checks.fact(
        f"of the {there - len(copies):,} others {len(others)} are called duplicates: {some} ...",
        others=others,
    )
    checks.check(precision >= 0.9, "nine of ten that are told to be duplicates are so")
    name = next(one for one in copies if one in right)
    original, data = copies[name]
    answer = await show.visitor.similar(data, k=24)
    shown = {one.picture_id: one for one in answer.merged}
    group = [found[original][1], found[name][1]]
    checks.check(len(shown.keys() & set(group)) == 1, "a search shows one of what is alike")
    await duplicates.say(client, *group, same=False, by="the demo")

    async def apart() -> bool:
        answer = await show.visitor.similar(data, k=24)
        return set(group) <= {one.picture_id for one in answer.merged}

    await until(apart, "a person's word", WAIT)
    checks.check(True, "a person says that both are to be kept: it shows both")
    return there


async def gone_and_back(show: Show, there: int) -> None:
    """A picture is removed, and added again."""
    thing = show.things[len(show.things) // 2]
    data = show.file("noto", thing)
    added = (await show.visitor.ask("add", data, name=f"noto/{thing}"))["added"]
    identity = added["picture_id"]
    removed = time.monotonic()
    await show.visitor.ask("remove", picture_id=identity)
    await show.until_held(there - 1)
    answer = await show.visitor.similar(data, k=24)
    told = [one for near in (answer.merged, *answer.by_model.values()) for one in near]
    show.checks.check(
        identity not in {one.picture_id for one in told},
        f"a removed picture is found no more ({time.monotonic() - removed:.1f} s)",
    )
    await show.visitor.ask("add", data, name=f"noto/{thing}")
    await show.until_held(there)
    answer = await show.visitor.similar(data)
    first = answer.merged[0]
    show.checks.check(
        first.score > 0.99 and first.name == thing.removesuffix(".png"),
        "and added again, it is the nearest to itself",
    )
