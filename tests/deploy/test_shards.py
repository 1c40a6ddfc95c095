"""Indexes are deployed, scaled and compared like stages: by consequence, on a real server."""

from __future__ import annotations

import datetime

import msgspec

from mqinfer import App, wiring
from mqinfer.cli import deploying
from mqinfer.deploy.applied import Applied
from mqinfer.deploy.change import Change, Kind
from mqinfer.deploy.changes import changes
from mqinfer.deploy.declaration import declaration
from mqinfer.deploy.deployment import Deployment, Held
from mqinfer.deploy.live import Live, LiveIndex, LiveModel
from mqinfer.deploy.processes import Plan
from mqinfer.deploy.shards import index_changes
from mqinfer.search.generations import Generation
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.deploy.test_changes import look
from tests.search.support import clustered, holding
from tests.support.deploy_app import make
from tests.support.search_run_app import Vector, app


def planned(**of: object) -> Plan:
    held = msgspec.convert(of, Held)
    return Plan("a:app", Deployment(workers={}, indexes={"pictures": held}), declaration(app))


async def put(one: Plan, settings: Settings) -> list[Change]:
    found, revision = await look(app, one, settings)
    await deploying.carry_out(app, one, "local", settings, revision, lambda: None, prune=False)
    return [change for change in found if change.where.startswith("index")]


async def test_other_shards_are_built_beside_then_flipped_to_and_back(nats: Settings) -> None:
    first = planned(replicas=1, shards=3, weights={"vector": 2.0})
    (begun, weighed) = await put(first, nats)
    assert str(begun) == (
        "index pictures: new: 1 process holds 3 shards of vector, and answer when all that "
        "there is is read"
    )
    assert (weighed.kind, weighed.what) == (Kind.SWITCH, "weight of vector 1 -> 2")
    vectors = clustered(60, 1, 8)
    async with Harness(app, nats) as harness:
        generations = wiring.generations(app, harness.services.broker)
        # It begins as the file says, not as the code does.
        assert (await generations.held(app.indexes["pictures"], "vector")).all[1].shards == 3
        (missing,) = await put(first, nats)
        assert str(missing) == "index pictures: 0 of 1 replicas run: 1 begin"
        async with holding(harness) as keeping:
            await harness.client.publish_all(
                [Vector(n, one.tolist()) for n, one in enumerate(vectors)]
            )

            def held(number: int) -> int:
                shards = keeping.holding().shards
                own = [one for one in shards if (one.model, one.generation) == ("vector", number)]
                return sum(one.count for one in own if one.ready)

            await until(lambda: held(1) == 60, "the vectors")
            assert await put(first, nats) == []

            second = planned(shards=2, weights={"vector": 2.0})
            built = await put(second, nats)
            assert [one.kind for one in built] == [Kind.BUILD]
            assert built[0].what == "vector: shards 3 -> 2"
            assert "generation 2 is read beside 1, 60 vectors" in built[0].consequence
            await until(lambda: held(2) == 60, "the generation beside")
            await until(lambda: not keeping.not_ready(), "all of them")
            flipped = await put(second, nats)
            assert [one.kind for one in flipped] == [Kind.SWITCH]
            assert "searches go to generation 2" in flipped[0].consequence
            assert await put(second, nats) == []
            # Back: what is there is not built again.
            assert [one.kind for one in await put(first, nats)] == [Kind.SWITCH]
            assert (await generations.held(app.indexes["pictures"], "vector")).current == 1


def applied(of: App, *, held: Held) -> Applied:
    return Applied(
        target="local",
        deployment=Deployment(workers={}, indexes={"pictures": held}),
        declaration=declaration(of),
        at=datetime.datetime.now(datetime.UTC),
    )


def test_each_change_by_its_consequence() -> None:
    code = make(shards=2)
    one = Generation(number=1, shards=2, dtype="bf16", model="lite", version="2")
    two = msgspec.structs.replace(one, number=2, shards=4, dtype="i8")

    def told(then: Held, now: Held | None, *there: Generation, ready: int = 0) -> list[str]:
        model = LiveModel(1, {n.number: n for n in there}, frozenset({ready}), 2, 5_000_000, 10**10)
        live = Live(indexes={"pictures": LiveIndex({"vector": model}, {"vector": 1.0})})
        after = Deployment(workers={}, indexes={} if now is None else {"pictures": now})
        found = index_changes(applied(code, held=then), after, declaration(code), live)
        return [f"{one.kind} {one}" for one in found]

    def starts(lines: list[str], *wanted: str) -> None:
        assert len(lines) == len(wanted), lines
        for line, start in zip(lines, wanted, strict=True):
            assert line.startswith(start), lines

    usual = Held(replicas=2)
    assert told(usual, usual, one) == []
    starts(
        told(usual, Held(parts=2, replicas=1, memory=10**9), one),
        "scale index pictures: replicas 2 -> 1: the others answer",
        "restart index pictures: parts 1 -> 2: shards change processes",
        "restart index pictures: memory none -> 1000000000: its processes are replaced one by one",
    )
    starts(
        told(usual, Held(replicas=3), one),
        "scale index pictures: replicas 2 -> 3: they are asked once they have read",
        "begin index pictures: 2 of 3 replicas run: 1 begin",
    )
    starts(told(usual, None, one), "remove index pictures: removed: its processes end")
    other = Held(replicas=2, shards=4, dtype="i8")
    (line,) = told(usual, other, one)
    assert "vector: shards 2 -> 4 and dtype bf16 -> i8: generation 2 is read beside 1" in line
    assert "5,000,000 vectors, 5.0 GB more in memory, some 23 minutes of a processor" in line
    starts(told(usual, other, one, two), "build index pictures: vector: shards 2 -> 4")
    starts(told(usual, other, one, two, ready=2), "switch index pictures: vector: shards 2 -> 4")
    # One of other vectors is no place to go to: another is built, of those that are searched.
    strange = msgspec.structs.replace(two, version="1")
    (line,) = told(usual, other, one, strange, ready=2)
    assert "generation 3 is read beside 1" in line


def test_what_the_code_declares_otherwise() -> None:
    old, new = make(shards=2), make(shards=2, filters=("station",))
    after = Deployment(workers={}, indexes={"pictures": Held()})
    found = changes(applied(old, held=Held()), after, declaration(new), Live())
    assert any(str(one).startswith("index pictures: filters none -> station") for one in found)
