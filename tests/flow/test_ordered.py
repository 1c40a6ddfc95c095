"""Order by key on a real nats-server: many workers, retries, deaths, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mqinfer import App, Context, Message, plan
from mqinfer.adapters import admin
from mqinfer.adapters.jetstream import JetStream
from mqinfer.backoff import Backoff
from mqinfer.errors import ConflictError, WiringError
from mqinfer.flow.deadletter import SEQUENCE, SUBJECT
from mqinfer.flow.ordered.partition import Held, Partition
from mqinfer.identity import MSG_ID, SOURCE, output_id
from mqinfer.operate import check, status
from mqinfer.operate.permissions import permissions
from mqinfer.settings import Settings
from mqinfer.testing import Harness, nats_only, until
from mqinfer.worker.live import LiveWork
from tests.support import ordered_app

SOON = Backoff(initial=0.01, maximum=0.05)


class Leaf(Message, key="position", ordered=True):
    position: str
    number: int


class Step(Message, key="position"):
    position: str
    number: int


class Plain(Message, key="position"):
    position: str
    number: int


def numbers(messages: Iterable[Any]) -> dict[str, list[int]]:
    """The numbers of each key, in the order they come."""
    found: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        found[message.position].append(message.number)
    return dict(found)


def raw(harness: Harness) -> JetStream:
    broker = harness.services.broker
    assert isinstance(broker, JetStream)
    return broker


async def test_order_by_key_with_workers_that_join_and_leave_and_handlers_that_fail(
    nats: Settings,
) -> None:
    app = App("plants", partitions=4)
    begun: list[SimpleNamespace] = []
    busy: set[str] = set()

    @app.stage(backoff=SOON)
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        assert leaf.position not in busy
        busy.add(leaf.position)
        begun.append(SimpleNamespace(position=leaf.position, number=leaf.number))
        try:
            await asyncio.sleep(0.001 * (leaf.number % 3))
            if leaf.number % 5 == 2 and ctx.attempt < 3:
                raise ValueError("twice")
            return Step(leaf.position, leaf.number)
        finally:
            busy.discard(leaf.position)

    keys = [f"p.{index}" for index in range(12)]
    expected = {key: list(range(20)) for key in keys}
    async with Harness(app, nats) as harness:
        for number in range(20):
            await harness.publish(*(Leaf(key, number) for key in keys))

        async def answered(count: int) -> bool:
            return len(await harness.stored(subject="plants.step.>")) >= count

        async with harness.worker():
            async with harness.worker(), harness.worker():
                await until(lambda: answered(60), "the first answers")
            async with harness.worker():
                await until(lambda: answered(240), "all answers")
        assert numbers(await harness.messages(Step)) == expected
        assert await harness.dead() == []
    handled = numbers(begun)
    for key in keys:  # every number until it was answered, and none after a later one
        assert handled[key] == sorted(handled[key])
        assert sorted(set(handled[key])) == expected[key]


async def test_few_handlers_serve_every_partition(nats: Settings) -> None:
    app, seen = App("plants", partitions=8), list[str]()

    @app.stage(concurrency=1)
    async def follow(leaf: Leaf) -> None:
        seen.append(leaf.position)

    async with Harness(app, nats) as harness, harness.worker():
        for number in range(12):  # one at a time: the other partitions have nothing
            await harness.publish(Leaf(f"p.{number}", number))
            await until(lambda: len(seen) == number + 1, f"p.{number}")  # noqa: B023


class Fleet:
    """Worker processes of `ordered_app`, and what they wrote down."""

    def __init__(self, settings: Settings, log: Path):
        self.log = log
        self.workers: list[asyncio.subprocess.Process] = []
        self._environ = {
            **os.environ,
            "MQINFER_NATS_URL": settings.nats_url,
            "MQINFER_BLOBS": str(settings.blobs),
            "ORDERED_LOG": str(log),
        }

    async def start(self) -> None:
        self.workers.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mqinfer", "worker", "tests.support.ordered_app:app"),
                cwd=Path(__file__).parents[2],
                env=self._environ,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    def lines(self) -> list[list[str]]:
        if not self.log.exists():
            return []
        return [line.split() for line in self.log.read_text().splitlines()]

    async def busy(self, worker: asyncio.subprocess.Process) -> None:
        """Until a worker is in the middle of a message."""

        def in_the_middle() -> bool:
            mine = [line for line in self.lines() if line[1] == str(worker.pid)]
            return len(mine) > 5 and mine[-1][0] == "begin"

        await until(in_the_middle, "a busy worker", 60)

    async def stand_still(self, worker: asyncio.subprocess.Process) -> None:
        """Until a worker has stopped, which it does with its next message."""
        (asked := Path(f"{self.log}.still.{worker.pid}")).touch()
        process = psutil.Process(worker.pid)
        await until(lambda: not asked.exists() and process.status() == psutil.STATUS_STOPPED)

    def begun(self) -> dict[str, list[int]]:
        """The numbers of each key, in the order in which handlers began."""
        found: dict[str, list[int]] = defaultdict(list)
        for what, _, key, number, _ in self.lines():
            if what == "begin":
                found[key].append(int(number))
        return found

    async def stop(self) -> list[int]:
        for worker in self.workers:
            if worker.returncode is None:
                worker.send_signal(signal.SIGCONT)
                worker.send_signal(signal.SIGTERM)
        return [await worker.wait() for worker in self.workers]


async def produce(harness: Harness, keys: list[str], enough: asyncio.Event) -> int:
    """Publish rounds of one message a key, a few ahead of the answers; the number of rounds."""
    rounds = 0
    while not enough.is_set():
        await harness.publish(*(ordered_app.Leaf(key, rounds) for key in keys))
        rounds += 1
        await all_answered(harness, rounds * len(keys), (rounds - 10) * len(keys))
    await all_answered(harness, rounds * len(keys), rounds * len(keys))
    return rounds


async def all_answered(harness: Harness, published: int, count: int) -> None:
    """Until `count` of the `published` messages have their answer in the stream beside them."""

    async def enough() -> bool:
        info = await raw(harness).stream_info("plants")
        return info is not None and info["state"]["messages"] - published >= count

    await until(enough, "the answers", 180)


async def check_order(harness: Harness, fleet: Fleet, keys: list[str], count: int) -> None:
    expected = {key: list(range(count)) for key in keys}
    assert numbers(await harness.messages(ordered_app.Step)) == expected
    assert await harness.dead() == []
    begun = fleet.begun()
    for key in keys:  # again after a failure or a death, but never after a later one
        assert begun[key] == sorted(begun[key])
        assert sorted(set(begun[key])) == expected[key]


async def test_order_through_the_deaths_of_workers(nats: Settings, tmp_path: Path) -> None:
    fleet = Fleet(nats, tmp_path / "handled")
    keys = [f"p{index}" for index in range(10)]
    enough = asyncio.Event()
    async with Harness(ordered_app.app, nats) as harness:
        for _ in range(3):
            await fleet.start()
        producer = asyncio.create_task(produce(harness, keys, enough))
        try:
            for victim in range(3):
                await fleet.busy(fleet.workers[victim])
                fleet.workers[victim].kill()
                await fleet.start()
            enough.set()
            count = await producer
        finally:
            producer.cancel()
            codes = await fleet.stop()
        assert codes[:3] == [-signal.SIGKILL] * 3
        assert set(codes[3:]) <= {0, -signal.SIGTERM}  # the last may not have begun yet
        await check_order(harness, fleet, keys, count)


async def test_order_when_a_worker_stands_still_for_longer_than_its_lease(
    nats: Settings, tmp_path: Path
) -> None:
    fleet = Fleet(nats, tmp_path / "handled")
    keys = [f"p{index}" for index in range(10)]
    enough = asyncio.Event()
    async with Harness(ordered_app.app, nats) as harness:
        await fleet.start()
        await fleet.start()
        producer = asyncio.create_task(produce(harness, keys, enough))
        try:
            still = fleet.workers[0]
            await fleet.busy(still)
            await fleet.stand_still(still)
            enough.set()
            count = await producer  # the other one took over all it had
            still.send_signal(signal.SIGCONT)
            for number in range(count, count + 5):
                await harness.publish(*(ordered_app.Leaf(key, number) for key in keys))
            count += 5
            await all_answered(harness, count * len(keys), count * len(keys))
        finally:
            producer.cancel()
            codes = await fleet.stop()
        assert codes == [0, 0]
        await check_order(harness, fleet, keys, count)


async def test_identity_subject_and_place_are_those_of_the_original(nats: Settings) -> None:
    app = App("plants", partitions=3)
    seen: list[tuple[str, int, str, dict[str, str]]] = []

    @app.stage(attempts=1)
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        seen.append((ctx.id, ctx.sequence, ctx.subject, dict(ctx.headers)))
        if leaf.number == 4:
            raise ValueError("bad")
        return Step(leaf.position, leaf.number)

    @app.stage
    async def aside(leaf: Plain) -> None:
        return None

    async with Harness(app, nats) as harness:
        await harness.publish(Plain("x", 0))
        # As plain clients publish: without a key, and with one of several tokens.
        await harness.publish_bytes("plants.leaf", b'{"position": "x", "number": 1}')
        await harness.publish_bytes("plants.leaf.a.b", b'{"position": "x", "number": 2}')
        (named,) = await harness.publish(Leaf("x", 3))
        (bad,) = await harness.publish(Leaf("x", 4))
        await harness.drain()
        assert sorted(seen, key=lambda item: item[1]) == [
            ("plants:2", 2, "plants.leaf", {}),
            ("plants:3", 3, "plants.leaf.a.b", {}),
            (named, 4, "plants.leaf.x", seen_headers(seen, 4)),
            (bad, 5, "plants.leaf.x", seen_headers(seen, 5)),
        ]
        assert all(SOURCE not in headers for *_, headers in seen)
        ids = {raw.headers[MSG_ID] for raw in await harness.stored(subject="plants.step.>")}
        assert ids == {
            output_id(parent, "follow", None, 0) for parent in ("plants:2", "plants:3", named)
        }
        (dead,) = await harness.dead()
        assert (dead.headers[SEQUENCE], dead.headers[SUBJECT]) == ("5", "plants.leaf.x")


def seen_headers(seen: list[tuple[str, int, str, dict[str, str]]], sequence: int) -> dict[str, str]:
    (headers,) = [headers for _, place, _, headers in seen if place == sequence]
    return headers


async def test_a_failing_message_holds_its_key_until_its_dead_letter(nats: Settings) -> None:
    app = App("plants", partitions=1)
    begun: list[int] = []

    @app.stage(attempts=3, backoff=SOON)
    async def follow(leaf: Leaf) -> Step:
        begun.append(leaf.number)
        if leaf.number == 1:
            raise ValueError("never")
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Leaf("x", number) for number in range(4)))
        await harness.drain()
        assert begun == [0, 1, 1, 1, 2, 3]
        assert [dead.kind for dead in await harness.dead()] == ["failed"]


async def test_batches_hold_one_message_of_a_key(nats: Settings) -> None:
    app = App("plants", partitions=4)
    batches: list[list[Leaf]] = []

    @app.stage(batch_wait=0.01)
    async def follow(leaves: list[Leaf]) -> list[Step]:
        batches.append(leaves)
        return [Step(leaf.position, leaf.number) for leaf in leaves]

    keys = [f"p{index}" for index in range(8)]
    async with Harness(app, nats) as harness:
        for number in range(5):
            await harness.publish(*(Leaf(key, number) for key in keys))
        await harness.drain()
        assert numbers(await harness.messages(Step)) == {key: list(range(5)) for key in keys}
    assert max(len(batch) for batch in batches) > 1
    for batch in batches:
        assert len({leaf.position for leaf in batch}) == len(batch) <= 8


async def test_two_stages_on_one_type_and_unordered_readers_beside_them(nats: Settings) -> None:
    app = App("plants", partitions=2)
    held = asyncio.Event()
    plain: list[int] = []

    @app.stage
    async def first(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    @app.stage(name="second")
    async def other(leaf: Leaf) -> Plain:
        return Plain(leaf.position, leaf.number)

    @app.stage
    async def unordered(message: Plain) -> None:
        # All are here at once, though they have one key: nothing else sets the event.
        plain.append(message.number)
        if len(plain) == 6:
            held.set()
        await held.wait()

    async with Harness(app, nats) as harness:
        await harness.publish(*(Leaf("x", number) for number in range(6)))
        await harness.drain()
        assert numbers(await harness.messages(Step)) == {"x": list(range(6))}
        assert numbers(await harness.messages(Plain)) == {"x": list(range(6))}
        assert await raw(harness).stream_info("plants-ordered-plain") is None
        assert await harness.lag("unordered") == 0


async def test_the_copy_goes_on_after_a_death_of_the_server(tmp_path: Path) -> None:
    from mqinfer.stack import Stack, StackSettings

    app = App("plants", partitions=2)

    @app.stage(ack_wait=2.0)
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    chosen = StackSettings(dir=tmp_path, nats_port=0, triton=False, clickhouse=False)
    async with Stack(chosen) as stack:
        settings = Settings.load({}, nats_url=stack.nats_url, blobs=str(tmp_path / "blobs"))
        async with Harness(app, settings) as harness, harness.worker():
            await harness.publish(*(Leaf("x", number) for number in range(20)))
            assert stack.nats is not None
            stack.nats.kill()
            await stack.nats.wait()
            await stack.nats.start()
            await stack.nats.wait_ready()
            for number in range(20, 40):
                await harness.publish(Leaf("x", number))

            async def answered() -> bool:
                return len(await harness.stored(subject="plants.step.>")) >= 40

            await until(answered, "all answers", 90)
            assert numbers(await harness.messages(Step)) == {"x": list(range(40))}


# --- what is refused ----------------------------------------------------------------------------


async def test_another_number_of_partitions_is_refused(nats: Settings) -> None:
    def declared(partitions: int) -> App:
        app = App("plants", partitions=partitions)

        @app.stage
        async def follow(leaf: Leaf) -> None:
            return None

        return app

    async with Harness(declared(4), nats) as harness:
        await harness.drain()
        more = declared(6)
        task = plan.tasks(more)[0]
        with pytest.raises(ConflictError, match=r"cut into 4 .* asks for 6.*partitions=4"):
            await LiveWork(more, harness.services.broker).ensure(task)
        with pytest.raises(ConflictError, match="cut into 4"):
            await admin.ensure_stream(raw(harness).client, plan.copy_spec(more, Leaf))


async def test_a_stage_that_ran_without_order_is_refused(nats: Settings) -> None:
    before, after = App("plants"), App("plants")

    @before.stage(name="follow")
    async def unordered(leaf: Plain) -> None:
        return None

    @after.stage
    async def follow(leaf: Leaf) -> None:
        return None

    async with Harness(before, nats) as harness:
        await harness.drain()
        work = LiveWork(after, harness.services.broker)
        with pytest.raises(ConflictError, match=r"without order before.*name="):
            await work.ensure(work.tasks[0])


def test_the_number_of_partitions_has_a_range() -> None:
    with pytest.raises(WiringError, match="partitions=0 must be 1 to 1024"):
        App("plants", partitions=0)


# --- what others know of partitions -------------------------------------------------------------


async def test_status_check_and_permissions_know_the_partitions(nats: Settings) -> None:
    from mqinfer.adapters.scan import Scanner

    app = App("plants", partitions=2)

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        assert await harness.lag("follow") == -1  # no worker ran it
        await harness.drain()
        assert await harness.lag("follow") == 0
        await harness.publish(*(Leaf(f"p{number}", number) for number in range(6)))
        assert await harness.lag("follow") > 0  # also while they are not in a partition yet
        scanner = Scanner(raw(harness).client)

        async def copied() -> bool:
            (found,) = (await status.gather(app, scanner)).tasks
            return found.exists and found.waiting == 6

        await until(copied, "the lag of all partitions")
        assert await harness.lag("follow") == 6
        report = check.Report()
        await check.check_streams(app, scanner, report)
        assert report.problems == []
        other = App("plants", partitions=3)
        other.stage(name="follow")(follow)
        await check.check_streams(other, scanner, report)
        assert "cut into 2 partitions" in report.problems[0]
    allowed = permissions(app, ["follow"]).publish
    assert "$JS.API.CONSUMER.MSG.NEXT.plants-ordered-leaf.follow-p1" in allowed
    assert "$JS.ACK.plants-ordered-leaf.follow-p0.>" in allowed


async def test_an_ordered_stage_runs_under_exactly_its_permissions(tmp_path: Path) -> None:
    app = App("plants", partitions=2)

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    allowed = permissions(app, ["follow"], inbox_prefix="_INBOX_follow")
    users = f'{{user: "admin", password: "x"}}\n{{user: "f", password: "x", {allowed.config()}}}'
    config = f"authorization {{ users = [\n{users}\n] }}\n"
    async with nats_only(tmp_path, nats_config=config) as plain:

        def login(user: str, inbox: str) -> Settings:
            return Settings.load(
                {},
                nats_url=plain.nats_url,
                blobs=plain.blobs,
                nats_user=user,
                nats_password="x",
                nats_inbox_prefix=inbox,
            )

        async with Harness(app, login("admin", "_INBOX")) as harness:
            await harness.drain()
            await harness.publish(*(Leaf("x", number) for number in range(5)))
            async with Harness(app, login("f", "_INBOX_follow")) as limited:
                await limited.drain()
            assert numbers(await harness.messages(Step)) == {"x": [0, 1, 2, 3, 4]}


class Delivered(SimpleNamespace):
    """A delivery as the adapter gives it."""


def delivery(**changes: Any) -> Any:
    source = {SOURCE: "plants 17 plants.leaf.> x plants.leaf.a abc", "X": "y"}
    fields = {"data": b"", "reply": b"r", "attempt": 1, "pending": 0, "published": 0, "size": 9}
    fields |= {"stream": "copy", "sequence": 3, "subject": "5.plants.leaf.a", "headers": source}
    return Delivered(**{**fields, **changes})


def test_a_delivery_is_told_as_the_original() -> None:
    held = Held(delivery(), Partition(5, "s-p5"), 1.0)
    assert (held.stream, held.sequence, held.subject) == ("plants", 17, "plants.leaf.a")
    assert held.headers == {"X": "y"}
    assert "plants.leaf.a #17" in repr(held)
    assert held.partition.tenure is None  # nobody owns it
    strange = Held(delivery(headers={SOURCE: "?"}), Partition(5, "s-p5"), 1.0)
    assert (strange.stream, strange.sequence) == ("copy", 3)


async def test_a_lost_lease_is_dropped_without_a_word(nats: Settings) -> None:
    """The renewals of a worker get lost: it cancels its handler, another one answers."""
    app = App("plants", partitions=1)
    begun: list[str] = []
    cancelled = asyncio.Event()

    @app.stage(ack_wait=5.0)
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        begun.append(f"{leaf.number}/{ctx.attempt}")
        if leaf.number == 0 and ctx.attempt == 1:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        await harness.publish(Leaf("x", 0), Leaf("x", 1))
        async with harness.worker() as cut_off:
            assert cut_off.engine is not None
            broker = cut_off.services.broker
            broker.progress = lambda *_: None  # type: ignore[method-assign]
            await cancelled.wait()
            async with harness.worker():

                async def answered() -> bool:
                    return len(await harness.messages(Step)) == 2

                await until(answered, "both answers")
        assert begun == ["0/1", "0/2", "1/1"]
        assert numbers(await harness.messages(Step)) == {"x": [0, 1]}
