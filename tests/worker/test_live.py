"""Live work: consumers that operators delete, how far each is, and the end of a drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mqinfer import App, Message, Row
from mqinfer.errors import PermissionDenied, Unavailable
from mqinfer.flow.ordered.leases import Leases
from mqinfer.flow.ordered.owner import Owner
from mqinfer.flow.ordered.windows import Windows
from mqinfer.ports import ConsumerSpec, ConsumerState, StreamSpec
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from mqinfer.worker import live
from mqinfer.worker.live import LiveWork
from tests.support.bucket import Memory
from tests.support.flow import Double, Number


class Grade(Row, table="grade"):
    value: int


class Leaf(Message, key="position", ordered=True):
    position: str
    number: int


def plants() -> App:
    app = App("plants", partitions=2)

    @app.stage
    async def follow(leaf: Leaf) -> Number:
        return Number(leaf.number)

    @app.stage
    async def double(number: Number) -> Double:
        return Double(number.value)

    return app


# --- a consumer that is deleted -----------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_consumer_deleted_in_use_goes_on_where_it_was(
    nats: Settings, ordered: bool
) -> None:
    app = App("deleted", partitions=2)
    handled: list[int] = []

    if ordered:

        @app.stage(name="work")
        async def follow(leaf: Leaf) -> None:
            handled.append(leaf.number)

    else:

        @app.stage(name="work", max_in_flight=10)
        async def work(number: Number) -> None:
            handled.append(number.value)

    def message(number: int) -> Message:
        return Leaf(f"p{number % 8}", number) if ordered else Number(number)

    stream = "deleted-ordered-leaf" if ordered else "deleted"
    consumers = ["work-p0", "work-p1"] if ordered else ["work"]
    async with Harness(app, nats) as harness:
        api = harness.services.broker.client.api  # type: ignore[attr-defined]
        await harness.publish(*(message(number) for number in range(100)))
        async with harness.worker() as worker:
            assert worker.engine is not None
            floors: dict[str, int] = worker.engine.work.floors

            async def known() -> bool:
                """Whether the worker knows how far its consumers are, which is at the end."""
                states = [
                    await harness.services.broker.consumer_state(stream, name) for name in consumers
                ]
                return len(handled) == 100 and all(
                    state is not None
                    and state.lag == 0
                    and floors.get(state.name) == state.acknowledged_floor
                    for state in states
                )

            await until(known, "the floors")
            for name in consumers:
                answer = await api(f"$JS.API.CONSUMER.DELETE.{stream}.{name}")
                assert answer.get("success")
            await harness.publish(*(message(number) for number in range(100, 150)))
            await until(lambda: len(handled) >= 150, "the others", 60)
        # A worker that starts later takes the consumers as they are.
        await harness.publish(message(150))
        await harness.drain()
        assert sorted(handled) == list(range(151))  # not everything since the beginning again
        assert await harness.dead() == []


# --- with a broker that knows what the test says ------------------------------------------------


class Consumers:
    """Consumers and streams as the test wants them."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.states: dict[str, ConsumerState] = {}
        self.created: dict[str, str] = {"plants": "monday", "plants-ordered-leaf": "monday"}
        self.made: list[ConsumerSpec] = []
        self.streams: list[str] = []
        self.behind = False
        self.away = False
        self.looks = 0

    async def ensure_stream(self, spec: StreamSpec) -> None:
        self.streams.append(spec.name)

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        self.made.append(spec)
        return self.states.setdefault(spec.name, state(spec.name))

    async def stream_created(self, stream: str) -> str | None:
        return self.created.get(stream)

    async def consumer_state(self, stream: str, consumer: str) -> ConsumerState | None:
        self.looks += 1
        if self.away:
            raise Unavailable("no answer")
        return self.states.get(consumer)

    async def uncopied(self, spec: StreamSpec) -> bool:
        return self.behind

    def bucket(self, name: str, *, replicas: int = 1) -> Memory:
        return self.memory


def state(name: str, **changes: int) -> ConsumerState:
    nothing = ConsumerState(name, 0, 0, 0, acknowledged_floor=0, delivered=0)
    return replace(nothing, **changes)


@dataclass
class Worker:
    """A worker as its work sees it."""

    complete: bool = True
    idle: bool = True
    stopping: bool = False

    def stop(self) -> None:
        self.stopping = True


def work_of(broker: Any, stages: list[str] | None = None, *, drain: bool = False) -> LiveWork:
    return LiveWork(plants(), broker, stages=stages, drain=drain)


async def test_an_ordered_task_has_a_copy_and_a_consumer_a_partition() -> None:
    broker = Consumers()
    work = work_of(broker)
    for task in work.tasks:
        await work.ensure(task)
    assert broker.streams == ["plants-ordered-leaf"]
    tokens = ["follow", "follow=present", "follow=wanting"]
    assert [spec.name for spec in broker.made] == [*tokens, "follow-p0", "follow-p1", "double"]
    assert await broker.memory.names() == ["follow.0", "follow.1"]
    follow, double = (work.binding(task, lambda: 0.0) for task in work.tasks)
    assert isinstance(follow.feed, Owner)
    assert isinstance(follow.policy, Leases)
    assert follow.slots is not None
    assert isinstance(follow.slots(100, 7), Windows)
    assert (double.feed, double.policy, double.slots, double.run) == (broker, None, None, None)
    assert (follow.stream, double.stream) == ("plants-ordered-leaf", "plants")


@pytest.mark.parametrize(
    ("name", "gone", "created", "starts"),
    [
        ("double", True, "monday", 8),  # it goes on after what was done
        ("follow-p1", True, "monday", 8),
        ("double", False, "monday", None),  # it is there: taken as it is
        ("double", True, "tuesday", None),  # its stream is another, whose numbers begin anew
        ("follow-p1", True, "tuesday", None),
    ],
)
async def test_where_a_consumer_that_is_made_again_begins(
    name: str, gone: bool, created: str, starts: int | None
) -> None:
    broker = Consumers()
    work = work_of(broker)
    for task in work.tasks:
        await work.ensure(task)
    broker.states[name] = state(name, acknowledged_floor=7)
    await look(work)
    if gone:
        del broker.states[name]
    broker.created = dict.fromkeys(broker.created, created)
    broker.made.clear()
    for task in work.tasks:
        await work.recreate(task)
    made = [spec for spec in broker.made if spec.stream != "KV_plants-owners"]
    found = {spec.name: spec.start_sequence for spec in made}
    assert found == {"follow-p0": None, "follow-p1": None, "double": None, name: starts}


async def look(work: LiveWork) -> None:
    """One look at the lag."""
    worker = Worker()
    watching = asyncio.create_task(work.watch(worker))
    broker: Any = work._broker
    seen = broker.looks
    await until(lambda: broker.looks >= seen + 3, "a look")
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching})


async def test_how_far_consumers_are_and_never_back() -> None:
    broker = Consumers()
    work = work_of(broker, ["follow"])
    broker.states = {
        "follow-p0": state("follow-p0", waiting=3, unacknowledged=1, acknowledged_floor=9),
        "follow-p1": state("follow-p1", waiting=4),
        "double": state("double", waiting=5),
    }
    await look(work)
    assert work.waiting == {"follow": 7, "double": 5}  # also those behind it, for their gate
    assert work.lag == {"follow": 8, "double": 5}
    broker.states["follow-p0"] = state("follow-p0")
    await look(work)
    assert work.floors == {"follow-p0": 9, "follow-p1": 0, "double": 0}
    assert work.waiting["follow"] == 4


async def test_of_what_waits_for_a_sink_packs_are_known() -> None:
    app = App("plants")

    @app.stage
    async def write(number: Number) -> Grade:
        return Grade(number.value)

    broker = Consumers()
    work = LiveWork(app, broker, stages=["write"])  # type: ignore[arg-type]
    broker.states = {
        "sink-grade": state("sink-grade", waiting=5),
        "sink-grade-packs": state("sink-grade-packs", waiting=3),
    }
    await look(work)
    assert (work.waiting["sink-grade"], work.packs) == (8, {"sink-grade": 3})


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LAG_EVERY", 0.0)


async def draining(broker: Consumers, worker: Worker) -> bool:
    """Whether a drain ends within many looks."""
    watching = asyncio.create_task(work_of(broker, drain=True).watch(worker))
    await until(lambda: broker.looks > 50 or worker.stopping, "looks")
    watching.cancel()
    await asyncio.wait({watching})
    return worker.stopping


async def test_a_drain_ends_when_all_is_done(quickly: None) -> None:
    assert await draining(Consumers(), Worker())


@pytest.mark.parametrize(
    "change",
    [
        {"states": {"double": state("double", waiting=1)}},
        {"states": {"follow-p1": state("follow-p1", unacknowledged=1)}},
        {"behind": True},  # what is published is not in its partition yet
        {"away": True},
    ],
)
async def test_a_drain_goes_on_while_something_is_left(
    quickly: None, change: dict[str, Any]
) -> None:
    broker = Consumers()
    for name, value in change.items():
        setattr(broker, name, value)
    assert not await draining(broker, Worker())


@pytest.mark.parametrize("worker", [Worker(complete=False), Worker(idle=False)])
async def test_a_drain_waits_for_its_worker(quickly: None, worker: Worker) -> None:
    assert not await draining(Consumers(), worker)


async def test_without_a_drain_a_worker_goes_on_with_nothing_to_do(quickly: None) -> None:
    broker, worker = Consumers(), Worker()
    watching = asyncio.create_task(work_of(broker).watch(worker))
    await until(lambda: broker.looks > 50, "looks")
    assert not worker.stopping
    worker.stop()
    await watching


async def test_a_worker_that_may_not_write_down_where_it_is_works_and_asks_once(
    quickly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, worker, tries = Consumers(), Worker(), list[str]()

    async def denied(key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        tries.append(key)
        raise PermissionDenied("NATS: no")

    monkeypatch.setattr(broker.memory, "save", denied)
    monkeypatch.setattr(live, "NOTE_EVERY", 0.0)
    broker.states = {name: state(name) for name in ("follow-p0", "follow-p1", "double")}
    broker.memory.values = dict.fromkeys(("follow.0", "follow.1"), (b"", 1))
    work = work_of(broker)
    for task in work.tasks:
        await work.ensure(task)
    watching = asyncio.create_task(work.watch(worker))
    await until(lambda: broker.looks > 50, "looks")
    worker.stop()
    await watching
    assert tries == ["stages"]
