"""New stages of an app that ran before, and stages whose consumer is gone: nothing unasked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Message, Row, Settings, plan
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import ConfigurationError, ConflictError
from mqinfer.operate.begin import begin
from mqinfer.operate.check import Report, check_streams
from mqinfer.operate.rename import rename
from mqinfer.operate.status import gather, warnings
from mqinfer.replay.runs import Wanted
from mqinfer.testing import Harness, until
from mqinfer.worker import known, live
from mqinfer.worker.known import Place
from mqinfer.worker.live import LiveWork
from mqinfer.worker.making import make_streams
from mqinfer.worker.survey import survey
from tests.support.bucket import Memory
from tests.support.replay import runs_of, work


class Photo(Message):
    n: int


class Leaf(Message, key="plant", ordered=True):
    plant: str
    n: int


class Grade(Row, table="grade"):
    n: int


def photos(*numbers: int) -> list[Photo]:
    return [Photo(n) for n in numbers]


class Version:
    """One version of an app: `stages` note what they are given."""

    def __init__(self, *stages: str, **starts: Any) -> None:
        self.seen: dict[str, list[int]] = {name: [] for name in stages}
        self.app = App("grown", partitions=2)
        for name in stages:
            self.add(name, Leaf if name.startswith("leaf") else Photo, starts.get(name))

    def add(self, name: str, kind: type[Any], start: Any = None, writes: Any = None) -> None:
        async def handler(message: Any) -> Any:
            self.seen.setdefault(name, []).append(message.n)

        handler.__annotations__.update(message=kind, **{"return": writes})
        self.app.stage(name=name, start=start)(handler)

    def on(self, settings: Settings) -> Harness:
        return Harness(self.app, settings)


def broker_of(harness: Harness) -> Any:
    return harness.services.broker


async def delete_consumer(harness: Harness, stream: str, consumer: str) -> None:
    await broker_of(harness).delete_consumer(stream, consumer)


async def facts(harness: Harness) -> tuple[Report, list[str]]:
    """What check and status say."""
    scanner, report = Scanner(broker_of(harness).client), Report()
    await check_streams(harness.app, scanner, report)
    return report, warnings(await gather(harness.app, scanner))


# --- a new app ----------------------------------------------------------------------------------


async def test_stages_of_a_new_app_begin_with_all_however_late_each_is_started(
    nats: Settings,
) -> None:
    version = Version("a", "b", "leaf")
    async with version.on(nats) as harness:
        await harness.publish(*photos(1, 2), Leaf("p", 3))
        report, lines = await facts(harness)
        assert not report.problems
        assert not any("asks" in line for line in lines)
        await harness.drain("a")
        await harness.publish(*photos(4))
        await harness.drain("b")  # another deployment, days later
        await harness.drain("leaf")
        await harness.drain()
    assert {name: sorted(seen) for name, seen in version.seen.items()} == {
        "a": [1, 2, 4],
        "b": [1, 2, 4],
        "leaf": [3],
    }


async def test_workers_that_start_at_once_ask_nothing(nats: Settings) -> None:
    versions = [Version(*"abcdefgh") for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        harnesses = [await stack.enter_async_context(version.on(nats)) for version in versions]
        await harnesses[0].publish(*photos(1, 2))
        await asyncio.gather(*(harness.drain() for harness in harnesses))
    for name in "abcdefgh":
        assert sorted(n for version in versions for n in version.seen[name]) == [1, 2]


async def test_a_worker_that_lists_consumers_slowly_finds_those_of_one_that_began_beside_it(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = Version("a", "leaf")
    async with version.on(nats) as first, version.on(nats) as second:
        await first.publish(*photos(1), Leaf("p", 2))
        broker = broker_of(second)
        real, slow = broker.consumers, True

        async def consumers(stream: str) -> Any:
            nonlocal slow
            found = await real(stream)
            if slow:
                slow = False
                await first.drain()
                await first.publish(*photos(3), Leaf("p", 4))
            return found

        monkeypatch.setattr(broker, "consumers", consumers)
        found = await survey(version.app, broker, LiveWork(version.app, broker)._recall)
        assert not slow
        assert found.beginnings == ()


async def test_a_stage_that_is_being_made_is_noted_nowhere_until_its_stream_has_a_date(
    nats: Settings,
) -> None:
    """Else a worker that starts at that moment takes it for one of an earlier stream, and asks."""
    version = Version("leaf")
    async with version.on(nats) as harness:
        await harness.publish(Leaf("p", 1))
        await make_streams(version.app, broker_of(harness), None)
        work = LiveWork(version.app, broker_of(harness))
        (task,) = work.tasks
        await work.survey()
        await broker_of(harness).ensure_stream(plan.copy_spec(version.app, Leaf))
        await work.recreate(task)
        await work._lag(task)  # as `watch` does beside it
        assert work._places == {}
        await work.ensure(task)
        await work._lag(task)
        assert work._places[task.name].created


async def test_a_stream_that_was_made_anew_is_of_a_new_app(nats: Settings) -> None:
    version = Version("a", "b")
    async with version.on(nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain("a")
        await broker_of(harness).client.api("$JS.API.STREAM.DELETE.grown")
        await broker_of(harness).ensure_stream(plan.stream_spec(version.app))
        await harness.publish(*photos(2))
    later = Version("a", "c")
    async with later.on(nats) as harness:
        await harness.drain()
    assert later.seen == {"a": [2], "c": [2]}


# --- a new stage --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mail", "leaf_mail"])
async def test_a_new_stage_of_an_app_that_ran_is_asked_about(nats: Settings, name: str) -> None:
    async with Version("a").on(nats) as harness:
        await harness.publish(*photos(1, 2, 3), *(Leaf("p", n) for n in (1, 2, 3)))
        await harness.drain()
    grown = Version("a", name)
    async with grown.on(nats) as harness:
        expected = (
            f"stage {name} is new in app grown, which ran before, and would handle 3 messages"
        )
        with pytest.raises(ConflictError, match=expected):
            await harness.drain()
        report, lines = await facts(harness)
        assert len(report.problems) == 1
        assert expected in report.problems[0]
        assert f"`mqinfer begin <module>:<app> {name} " in report.problems[0]
        assert f"stage {name}: never started; its consumer begins at the oldest message; 3 " in (
            " ".join(lines)
        )
        assert "a worker asks before it does" in " ".join(lines)
        await harness.drain("a")  # the others work
        await begin(grown.app, name, "oldest", broker_of(harness))
        assert (await facts(harness))[0].problems == []
        await harness.drain()
    assert grown.seen == {"a": [], name: [1, 2, 3]}


@pytest.mark.parametrize(
    ("start", "expected"), [("new", [3]), ("oldest", [1, 2, 3]), ("2h", [1, 2, 3])]
)
@pytest.mark.parametrize("how", ["declared", "said"])
async def test_where_a_new_stage_begins(
    nats: Settings, start: str, expected: list[int], how: str
) -> None:
    async with Version("a").on(nats) as harness:
        await harness.publish(*photos(1, 2))
        await harness.drain()
    grown = Version("a", "mail", **({"mail": start} if how == "declared" else {}))
    async with grown.on(nats) as harness:
        if how == "said":
            done = await begin(grown.app, "mail", start, broker_of(harness))
            assert done.waiting == (0 if start == "new" else 2)
        await harness.drain()
        await harness.publish(*photos(3))
        await harness.drain()
    assert grown.seen["mail"] == expected


async def test_a_new_stage_with_nothing_to_do_yet_is_known_from_then_on(nats: Settings) -> None:
    async with Version("a").on(nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain()
    grown = Version("a", "leaf")  # reads what nobody has published
    async with grown.on(nats) as harness:
        await harness.drain("a")
    async with Version("a").on(nats) as harness:  # a worker of the old version starts again
        await harness.publish(*photos(2), Leaf("p", 3))
        await harness.drain()
    async with grown.on(nats) as harness:
        await harness.drain()
    assert grown.seen == {"a": [], "leaf": [3]}


async def test_a_sink_is_asked_about_and_dead_letters_are_not(nats: Settings) -> None:
    class Graded(Message, subject="grade"):
        n: int

    old = Version("a")
    old.add("grader", Photo, writes=Graded)
    async with old.on(nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain()
        await harness.publish_bytes("grown.grade", b'{"n": 1}')
        await harness.publish_bytes("grown.photo", b"no json")
        await harness.drain()
        assert len(await harness.dead()) == 2
    grown = Version("a")
    grown.add("grader", Photo, writes=Grade)
    async with grown.on(nats) as harness:
        broker = broker_of(harness)
        with pytest.raises(ConflictError, match=r"sink sink-grade is new .* 1 messages") as error:
            await LiveWork(grown.app, broker).survey()
        assert "start=" not in str(error.value)  # a sink has none
        assert plan.DEAD_SINK not in str(error.value)
        await begin(grown.app, "sink-grade", "new", broker)
        await LiveWork(grown.app, broker).survey()


async def test_a_replay_is_no_beginning(nats: Settings) -> None:
    async with Version("a").on(nats) as harness:
        await harness.publish(*photos(1, 2))
        await harness.drain()
    grown = Version("a", "b")
    async with grown.on(nats) as harness:
        await runs_of(harness).create(stage="b", wanted=Wanted(), name="r1")  # that is asked for
        await work(harness, "r1")
        assert sorted(grown.seen["b"]) == [1, 2]
        with pytest.raises(ConflictError, match="stage b is new"):
            await harness.drain()


# --- consumers that are gone --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "leaf"])
async def test_a_consumer_that_was_deleted_goes_on_where_it_was(nats: Settings, name: str) -> None:
    stream = "grown" if name == "a" else "grown-ordered-leaf"
    consumers = ["a"] if name == "a" else ["leaf-p0", "leaf-p1"]

    def messages(*numbers: int) -> list[Message]:
        return [Leaf(f"p{n}", n) if name == "leaf" else Photo(n) for n in numbers]

    version = Version(name, **({"a": "new"} if name == "a" else {}))
    async with version.on(nats) as harness:
        await harness.drain()
        await harness.publish(*messages(1, 2, 3, 4))
        await harness.drain()
        assert sorted(version.seen[name]) == [1, 2, 3, 4]
        for consumer in consumers:
            await delete_consumer(harness, stream, consumer)
        await harness.publish(*messages(5, 6))
        if name == "leaf":
            spec = plan.copy_spec(version.app, Leaf)
            await until(lambda: _copied(broker_of(harness), spec), "the copies")
        _, lines = await facts(harness)
        assert f"stage {name}: its consumer is gone, and goes on where it was; 2 wait" in str(lines)
        await harness.drain()
        assert sorted(version.seen[name]) == [1, 2, 3, 4, 5, 6]
        # To begin anew takes a person's word.
        for consumer in consumers:
            await delete_consumer(harness, stream, consumer)
        await begin(version.app, name, "oldest", broker_of(harness))
        await harness.drain()
        assert sorted(version.seen[name]) == sorted([*range(1, 7), *range(1, 7)])


async def _copied(broker: Any, spec: Any) -> bool:
    return not await broker.uncopied(spec)


async def test_what_is_not_known_any_more_is_asked_about(nats: Settings) -> None:
    version = Version("a", "b", "c")
    async with version.on(nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain("a", "b")
        # The bucket keeps nothing longer than the stream does; or somebody deletes it.
        await broker_of(harness).client.api("$JS.API.STREAM.PURGE.KV_grown-state")
        await harness.drain("a", "b")
        with pytest.raises(ConflictError, match="stage c is new"):
            await harness.drain()
        await begin(version.app, "c", "oldest", broker_of(harness))
        await broker_of(harness).client.api("$JS.API.STREAM.PURGE.KV_grown-state")
        await delete_consumer(harness, "grown", "b")
        with pytest.raises(ConflictError, match="stage b is new"):
            await harness.drain()
    assert version.seen == {"a": [1], "b": [1], "c": []}


async def test_the_list_is_written_again_before_it_expires(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "NOTE_EVERY", 0.0)
    monkeypatch.setattr(live, "LAG_EVERY", 0.01)
    version = Version("a", "b")
    async with version.on(nats) as harness:
        bucket = broker_of(harness).bucket("grown-state")
        created = await broker_of(harness).stream_created("grown")

        async def written() -> float:
            found = await known.load(bucket, created)
            assert found is not None
            assert set(found.stages) == {"a", "b"}
            return found.written

        async with harness.worker("a"):
            first = await written()
            await until(lambda: _later(written, first), "another note")


async def _later(written: Any, first: float) -> bool:
    return bool(await written() > first)


async def test_a_stage_that_was_renamed_leaves_nothing_to_one_of_its_old_name(
    nats: Settings,
) -> None:
    async with Version("old").on(nats) as harness:
        await harness.publish(*photos(1))
        await harness.drain()
    renamed = Version("new")
    async with renamed.on(nats) as harness:
        await rename(renamed.app, "old", "new", broker_of(harness))
        await harness.publish(*photos(2))
        await harness.drain()
    again = Version("new", "old", old="new")
    async with again.on(nats) as harness:
        await harness.drain()
        await harness.publish(*photos(3))
        await harness.drain()
    assert (renamed.seen["new"], again.seen) == ([2], {"new": [3], "old": [3]})


# --- what a person says -------------------------------------------------------------------------


async def test_begin_says_what_it_cannot(nats: Settings) -> None:
    version = Version("a", "b", "leaf")
    async with version.on(nats) as harness:
        broker = broker_of(harness)
        for name, where, text in (
            ("x", "new", "has no stage x"),
            ("a", "soon", "'soon' is no time"),
            ("leaf", "new", "which is ordered"),
        ):
            with pytest.raises(ConfigurationError, match=text):
                await begin(version.app, name, where, broker)
        await harness.publish(*photos(1), Leaf("p", 2))
        await begin(version.app, "a", "new", broker)  # before the first worker
        with pytest.raises(ConflictError, match=r"a has begun.*delete consumer a"):
            await begin(version.app, "a", "oldest", broker)
        await harness.drain()  # and the others are those of a new app
        assert version.seen == {"a": [], "b": [1], "leaf": [2]}
        await broker.client.api("$JS.API.STREAM.DELETE.grown")
        with pytest.raises(ConflictError, match="has no stream yet"):
            await begin(version.app, "b", "new", broker)


# --- the list -----------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from("abcde")),
            st.dictionaries(
                st.sampled_from("abcde"),
                st.builds(
                    Place,
                    st.text(max_size=3),
                    st.dictionaries(st.text(max_size=3), st.integers(0, 2**63 - 1)),
                ),
            ),
        )
    )
)
def test_workers_only_add_to_the_list(notes: list[tuple[set[str], dict[str, Place]]]) -> None:
    async def write() -> None:
        bucket, expected = Memory(), dict[str, Place]()
        for names, places in notes:
            await known.add(bucket, "monday", names, places)
            expected = {**dict.fromkeys(names, Place()), **expected, **places}
            found = await known.load(bucket, "monday")
            assert found is not None
            assert found.stages == expected
        assert await known.load(bucket, "tuesday") is None

    asyncio.run(write())


@pytest.mark.parametrize(
    "value", [b"", b"x", b"[]", b'{"created": 1}', b'{"created": "m", "stages": 1}']
)
def test_a_list_that_nobody_can_read_is_none(value: bytes) -> None:
    assert known.read(value, "m") is None
