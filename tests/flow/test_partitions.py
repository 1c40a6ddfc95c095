"""Owned partitions on a real nats-server: keys side by side, sharing, tenures, other versions."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer import App, Context, Message, Retry, Snooze, plan
from mqinfer.adapters import admin
from mqinfer.backoff import Backoff
from mqinfer.flow.ordered.leases import Leases
from mqinfer.flow.ordered.owner import Owner
from mqinfer.flow.ordered.partition import Held, Partition, Token, delivery_number
from mqinfer.flow.ordered.places import SINGLE, WINDOW, Quota
from mqinfer.flow.ordered.share import Share
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.specs import ConsumerState
from mqinfer.testing import Harness, until
from tests.flow.test_ordered import Leaf, Step, delivery, numbers, raw


def owner_of(worker: Worker) -> Owner:
    """The owner of the one ordered stage of a worker."""
    assert worker.engine is not None
    (runner,) = [one for one in worker.engine.runners if isinstance(one.source.feed, Owner)]
    assert isinstance(runner.source.feed, Owner)
    return runner.source.feed


async def test_messages_of_different_keys_of_a_partition_are_handled_at_once(
    nats: Settings,
) -> None:
    app = App("plants", partitions=1)
    both = asyncio.Barrier(3)
    at_once: list[str] = []

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        at_once.append(leaf.position)
        await both.wait()  # until all three keys are here
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        for number in range(4):
            await harness.publish(*(Leaf(key, number) for key in "abc"))
        await harness.drain()
        assert numbers(await harness.messages(Step)) == {key: [0, 1, 2, 3] for key in "abc"}
    for turn in range(0, 12, 3):
        assert sorted(at_once[turn : turn + 3]) == ["a", "b", "c"]


async def test_a_message_that_waits_for_its_time_holds_up_its_key_alone_and_through_a_stop(
    nats: Settings,
) -> None:
    app = App("plants", partitions=1)
    begun: list[tuple[str, int, float]] = []
    first = asyncio.Event()

    @app.stage
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        begun.append((leaf.position, leaf.number, time.time()))
        if (leaf.position, leaf.number, ctx.attempt) == ("x", 0, 1):
            first.set()
            raise Snooze(after=4.0)
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        await harness.publish(Leaf("x", 0), Leaf("x", 1), Leaf("y", 0), Leaf("y", 1))

        async def others() -> bool:
            return len(await harness.messages(Step)) == 2

        async with harness.worker():
            await until(others, "the other key")
            ended = f"$KV.plants-state.follow.ended.{1}"
            await until(lambda: harness.stored("KV_plants-state", ended), "the end is written")
        assert numbers(await harness.messages(Step)) == {"y": [0, 1]}
        await harness.drain()
        assert numbers(await harness.messages(Step)) == {"x": [0, 1], "y": [0, 1]}
    times = [when for key, number, when in begun if (key, number) == ("x", 0)]
    assert len(times) == 2
    assert times[1] - times[0] > 3.9  # though another worker had it at the end
    assert [number for key, number, _ in begun if key == "x"] == [0, 0, 1]


async def test_a_dead_letter_lets_the_next_of_its_key_begin(nats: Settings) -> None:
    app = App("plants", partitions=1)
    begun: list[tuple[int, int]] = []

    @app.stage(attempts=3, backoff=Backoff(initial=0.01, maximum=0.02))
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        begun.append((leaf.number, ctx.attempt))
        if leaf.number % 2:
            raise ValueError("never")
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Leaf("x", number) for number in range(6)))
        await harness.drain()
        assert numbers(await harness.messages(Step)) == {"x": [0, 2, 4]}
        assert len(await harness.dead()) == 3
    assert begun == [
        (number, attempt) for number in range(6) for attempt in range(1, 4 if number % 2 else 2)
    ]


async def test_workers_that_come_and_go_share_the_partitions(nats: Settings) -> None:
    app = App("plants", partitions=8)

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness, harness.worker() as one:
        await until(lambda: len(owner_of(one).owned) == 8, "all partitions")
        async with harness.worker() as two, harness.worker() as three:
            workers = (one, two, three)

            def shared() -> bool:
                return sorted(len(owner_of(each).owned) for each in workers) == [2, 3, 3]

            await until(shared, "fair shares")
            owned = [part.number for each in workers for part in owner_of(each).owned]
            assert sorted(owned) == list(range(8))
            for number in range(5):
                await harness.publish(*(Leaf(f"p{key}", number) for key in range(30)))
        await until(lambda: len(owner_of(one).owned) == 8, "all partitions again")

        async def answered() -> bool:
            return len(await harness.messages(Step)) == 150

        await until(answered, "all answers")
        expected = {f"p{key}": list(range(5)) for key in range(30)}
        assert numbers(await harness.messages(Step)) == expected


async def test_a_worker_whose_requests_are_lost_counts_once(nats: Settings) -> None:
    app = App("plants", partitions=8)

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness, harness.worker() as worker:
        tokens: Any = owner_of(worker)._tokens
        spec = tokens._places.present
        await until(lambda: len(owner_of(worker).owned) == 8, "all partitions")
        for _ in range(3):
            before = tokens._present
            before._pull.reset("a test")  # as where nothing was heard in an election
            await until(lambda before=before: tokens._present not in (before, None), "another")
        state = await harness.services.broker.consumer_state(spec.stream, spec.name)
        assert state is not None
        assert state.requests == 1


async def test_a_tenure_is_another_one_whenever_a_partition_is_owned_anew(nats: Settings) -> None:
    app = App("plants", partitions=1)
    tenures: list[int | None] = []

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness:
        for _ in range(2):
            async with harness.worker() as worker:
                partition = owner_of(worker).partitions[0]
                tenures.append(await until(lambda: partition.tenure, "a tenure"))  # noqa: B023
                await harness.publish(Leaf("x", 1), Leaf("x", 2))
                await until(
                    lambda: partition.turns._next > 2 and not len(partition.turns),  # noqa: B023
                    "work",
                )
                assert partition.tenure == tenures[-1]
            assert partition.tenure is None
    assert len(set(tenures)) == 2


async def test_a_token_bucket_that_is_deleted_costs_no_order(nats: Settings) -> None:
    """Whoever holds a token of before, and whoever has the new one, wait for one another."""
    app = App("plants", partitions=2)
    busy: set[str] = set()
    begun: dict[str, list[int]] = defaultdict(list)

    @app.stage(ack_wait=4.0)
    async def follow(leaf: Leaf) -> Step:
        assert leaf.position not in busy
        busy.add(leaf.position)
        begun[leaf.position].append(leaf.number)
        try:
            await asyncio.sleep(0.002)
        finally:  # it is cancelled where a claim is lost
            busy.discard(leaf.position)
        return Step(leaf.position, leaf.number)

    async with Harness(app, nats) as harness, harness.worker() as one:
        await until(lambda: len(owner_of(one).owned) == 2, "all partitions")
        await admin.ask(raw(harness).client, "STREAM.DELETE.KV_plants-owners", None, "tokens")
        async with harness.worker():
            for number in range(40):
                await harness.publish(*(Leaf(f"p{key}", number) for key in range(6)))

            async def answered() -> bool:
                return len(await harness.messages(Step)) == 240

            await until(answered, "all answers", 90)
    for numbers_begun in begun.values():
        assert numbers_begun == sorted(numbers_begun)


async def test_what_waits_here_is_asked_for_anew_after_another_was_given_a_message(
    nats: Settings,
) -> None:
    """It may have been settled there; nothing else says whether the server still counts it."""
    app = App("plants", partitions=1)
    begun: list[tuple[str, int, int, float]] = []

    @app.stage
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        begun.append((leaf.position, leaf.number, ctx.attempt, time.time()))
        if (leaf.position, leaf.number, ctx.attempt) == ("x", 0, 1):
            raise Retry("later", after=4.0)
        return Step(leaf.position, leaf.number)

    (task,) = plan.tasks(app)
    (spec,) = [spec for spec in plan.consumer_specs(app, task) if spec.max_ack_pending == WINDOW]
    theirs: list[Any] = []

    async def nothing() -> None:
        return None

    async with Harness(app, nats) as harness:
        broker = raw(harness)
        async with harness.worker():
            await harness.publish(Leaf("x", 0))
            await until(lambda: len(begun) == 1, "the one that fails")
            pull = await broker.pull(
                spec.stream,
                spec.name,
                on_message=theirs.append,
                on_released=lambda *_: None,
                recreate=nothing,
            )
            pull.request(1, 1 << 20)
            published = 0
            while not theirs:  # the server gives to each that asks in turn
                await harness.publish(Leaf("y", published))
                published += 1
                await asyncio.sleep(0.1)
            await pull.close()
            broker.nak(theirs[0], 0)
            await harness.publish(Leaf("x", 1))

            async def answered() -> bool:
                return len(await harness.messages(Step)) == published + 2

            await until(answered, "all answers")
        state = await broker.consumer_state(spec.stream, spec.name)
        found = numbers(await harness.messages(Step))
    assert found == {"x": [0, 1], "y": list(range(published))}
    assert [one[:3] for one in begun if one[0] == "x"] == [("x", 0, 1), ("x", 0, 2), ("x", 1, 1)]
    first, again, _ = [when for key, *_, when in begun if key == "x"]
    assert again - first > 3.9
    # Theirs came once more, and so did what waited.
    assert state is not None
    assert state.deliveries >= published + 2 + 2


# --- two versions -------------------------------------------------------------------------------


class OldWorker:
    """As versions without owners did it: every partition is asked, one message at a time."""

    def __init__(self, harness: Harness, handle: Any) -> None:
        self.broker = raw(harness)
        self.specs = [
            replace(spec, max_ack_pending=1, window_kept=False)
            for task in plan.tasks(harness.app)
            for spec in plan.consumer_specs(harness.app, task)
        ]
        self.handle = handle
        self.handled = 0
        self.pulls: list[Any] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        for spec in self.specs:
            await self.broker.ensure_consumer(spec)
        for at, spec in enumerate(self.specs):

            def arrived(message: Any, at: int = at) -> None:
                task = asyncio.create_task(self._work(message, at))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

            def released(messages: int, _size: int, at: int = at) -> None:
                if messages:
                    self.pulls[at].request(1, 1 << 20)

            async def nothing() -> None:
                return None

            pull = await self.broker.pull(
                spec.stream, spec.name, on_message=arrived, on_released=released, recreate=nothing
            )
            self.pulls.append(pull)
            pull.request(1, 1 << 20)

    async def _work(self, message: Any, at: int) -> None:
        await self.handle(message.subject.rpartition(".")[2], message.data)
        self.handled += 1
        self.broker.ack(message)
        self.pulls[at].request(1, 1 << 20)

    async def stop(self) -> None:
        for pull in self.pulls:
            await pull.close()
        await asyncio.gather(*self.tasks)
        await self.broker.flush()


async def test_a_worker_of_a_version_without_owners_comes_and_goes(nats: Settings) -> None:
    app = App("plants", partitions=2)
    busy: set[str] = set()
    begun: dict[str, list[int]] = defaultdict(list)
    failures: list[str] = []
    tenures: set[int | None] = set()

    async def handle(key: str, number: int) -> None:
        if key in busy or (begun[key] and begun[key][-1] != number - 1):
            failures.append(f"{key} {number} after {begun[key][-3:]}, busy={key in busy}")
        busy.add(key)
        begun[key].append(number)
        await asyncio.sleep(0.001)
        busy.discard(key)

    @app.stage
    async def follow(leaf: Leaf) -> None:
        await handle(leaf.position, leaf.number)

    async def handle_raw(key: str, data: bytes) -> None:
        await handle(key, int(data.rpartition(b"number")[2].strip(b'":} ')))

    async def window(number: int) -> bool:
        found = await raw(harness).consumer_info("plants-ordered-leaf", f"follow-p{number}")
        assert found is not None
        windows.add(found["config"]["max_ack_pending"])
        return bool(found["config"]["max_ack_pending"] == WINDOW)

    windows: set[int] = set()
    enough = asyncio.Event()
    count = 0

    def near() -> bool:
        return min(len(found) for found in begun.values()) > count - 20

    async def produce() -> None:
        nonlocal count
        while not enough.is_set():
            await harness.publish(*(Leaf(f"p{key}", count) for key in range(6)))
            count += 1
            await until(near, "answers")

    async with Harness(app, nats) as harness, harness.worker() as worker:
        owner = owner_of(worker)
        await until(lambda: all(part.tenure for part in owner.partitions), "owned partitions")
        begun.update({f"p{key}": [] for key in range(6)})
        producing = asyncio.create_task(produce())
        await until(lambda: count > 20, "work")
        old = OldWorker(harness, handle_raw)
        await old.start()
        await until(lambda: old.handled > 30, "work of the old version")
        await until(lambda: not any(part.tenure for part in owner.partitions), "no owner alone")
        tenures.update(part.tenure for part in owner.partitions)
        await old.stop()
        for number in range(2):
            await until(lambda: window(number), "a window again", 60)  # noqa: B023
        await until(lambda: all(part.tenure for part in owner.partitions), "owned partitions")
        enough.set()
        await producing
        await until(lambda: all(len(found) == count for found in begun.values()), "the rest")
    assert failures == []
    assert tenures == {None}
    assert windows == {SINGLE, WINDOW}
    assert all(found == list(range(count)) for found in begun.values())


@pytest.mark.parametrize("busy", [True, False])
async def test_a_window_that_is_opened_again_costs_no_order(
    nats: Settings, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """From then on the server gives out what follows one that failed."""
    app = App("plants", partitions=1)
    begun: list[int] = []

    @app.stage(backoff=Backoff(initial=0.3, maximum=0.3))
    async def follow(leaf: Leaf, ctx: Context) -> Step:
        begun.append(leaf.number)
        if leaf.number == 0 and ctx.attempt == 1:
            raise ValueError("not at the first attempt")
        return Step(leaf.position, leaf.number)

    (task,) = plan.tasks(app)
    (spec,) = [spec for spec in plan.consumer_specs(app, task) if spec.max_ack_pending == WINDOW]
    one_at_a_time = replace(spec, max_ack_pending=SINGLE, window_kept=False)
    opened, known = asyncio.Event(), asyncio.Event()

    async with Harness(app, nats) as harness, harness.worker() as worker:
        owner = owner_of(worker)
        (partition,) = owner.partitions
        await until(lambda: partition.tenure, "an owned partition")
        ensure = owner.broker.ensure_consumer

        async def slowly(wanted: Any) -> Any:
            state = await ensure(wanted)
            opened.set()
            await known.wait()
            return state

        monkeypatch.setattr(owner.broker, "ensure_consumer", slowly)
        await raw(harness).ensure_consumer(one_at_a_time)  # as a worker of another version does it
        await until(lambda: partition.turns.single, "one message at a time")
        await opened.wait()

        async def delivered() -> bool:
            state = await raw(harness).consumer_state(spec.stream, spec.name)
            return state is not None and state.deliveries > 0

        if busy:
            await harness.publish(Leaf("x", 0))
            await until(delivered, "the first message")
            assert begun == []  # whether others have messages is not known
        known.set()
        for _ in range(50):  # it is told
            await asyncio.sleep(0)
        await until(lambda: partition.turns.sure, "the end of doubt")
        if not busy:
            await harness.publish(Leaf("x", 0))
        await until(lambda: begun, "the first try")
        await harness.publish(Leaf("x", 1))

        async def answered() -> bool:
            return len(await harness.messages(Step)) == 2

        await until(answered, "the answers")
    assert begun == [0, 0, 1]


# --- with a clock of the test's own --------------------------------------------------------------


def test_a_claim_counts_from_its_last_confirmed_renewal() -> None:
    asked: list[Any] = []
    broker: Any = SimpleNamespace(progress=lambda one, heard=None: asked.append((one, heard)))
    now = 100.0
    places: Any = SimpleNamespace(
        partitions=[SimpleNamespace(name="s-p0")], tokens=None, present=None, wanting=None
    )
    limits: Any = SimpleNamespace(ack_wait=10.0)
    owner = Owner(broker, places, limits, lambda: now)
    leases, partition = Leases(owner), owner.partitions[0]
    owner._token(delivery(subject="$KV.o.s.0"))
    held = partition.arrived(delivery(), now)
    job: Any = SimpleNamespace(delivery=held, pulsed=now)
    assert partition.turns.arrived(held.sequence, job) is False  # it is not sure to be the first
    now = 104.0
    owner.renew(now)
    (message, _), (token, confirmed) = asked  # what the token stands for goes first
    assert message is held
    assert token is partition.token.delivery  # type: ignore[union-attr]
    now = 107.0
    assert leases.owns(job, now)
    confirmed()
    now = 111.9  # from when it was asked for
    assert leases.owns(job, now)
    now = 112.1
    assert not leases.owns(job, now)
    owner.renew(now)
    assert partition.token is None
    assert owner.owned == []
    assert not leases.owns(job, 104.0)


def test_fair_shares() -> None:
    share = Share(8)
    assert (share.least, share.most, share.more(0)) == (8, 8, 8)
    for _ in range(3):
        share.seen(3, 0)
    assert (share.least, share.most) == (2, 3)
    assert (share.more(1), share.more(2), share.more(3)) == (2, 1, 0)  # one is left over for some
    assert (share.less(5, 0.0), share.less(3, 0.0)) == (2, 0)
    assert (share.wants(1), share.wants(2)) == (True, False)
    share.seen(3, 1)
    assert share.more(2) == 0  # somebody else has too few
    assert share.less(3, 0.0) == 0
    share.seen(3, 1)
    assert (share.less(3, 0.4), share.less(3, 0.6), share.less(2, 0.0)) == (1, 0, 0)
    many = Share(2)
    many.seen(5, 0)
    assert (many.least, many.most, many.wants(0), many.more(0)) == (0, 1, False, 1)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        (b"$JS.ACK.s.c.2.71.70.1700000000000000000.9", 70),
        (b"$JS.ACK.d.acc.s.c.2.71.70.1700000000000000000.9.x", 70),
        (b"r", 0),
    ],
)
def test_the_number_of_a_delivery(reply: bytes, number: int) -> None:
    assert delivery_number(reply) == number


def test_a_partition_asks_for_half_of_its_window_at_a_time_and_never_for_more() -> None:
    asked: list[tuple[int, int]] = []
    pull: Any = SimpleNamespace(
        paused=False, requests=0, request=lambda *wanted: asked.append(wanted)
    )
    partition, quota = Partition(0, "s-p0"), Quota(4, 1000, 100)
    assert partition.wanted(quota) is None  # nobody owns it
    partition.take(Token(delivery(), 1.0))
    partition.pull = pull
    assert partition.wanted(quota) is None  # others may have messages
    partition.turns.look(0, 0)
    partition.ask(quota)
    partition.ask(quota)
    assert asked == [(4, 500)]
    for number in (1, 2, 3):
        held = partition.arrived(delivery(sequence=number, reply=_reply(number), headers={}), 1.0)
        job: Any = SimpleNamespace(delivery=held)
        assert partition.turns.arrived(number, job) is (number == 1)
    assert (partition.asked, partition.size) == (1, 27)
    assert partition.settled(held_of(partition, 1)) is not None
    assert partition.wanted(quota) is None  # one place: few are asked for together
    partition.settled(held_of(partition, 2))
    assert partition.wanted(quota) == (2, 500)
    partition.giving = True
    assert partition.wanted(quota) is None
    assert "s-p0" in repr(partition)


def held_of(partition: Partition, sequence: int) -> Held:
    (found,) = [
        job.delivery for job in partition.turns.items() if job.delivery.sequence == sequence
    ]
    assert isinstance(found, Held)
    return found


def _reply(number: int) -> bytes:
    return b"$JS.ACK.copy.s-p0.1.%d.%d.1700000000000000000.0" % (number, number)


def test_a_window_that_another_opened_ends_one_message_at_a_time() -> None:
    """At the next look: the server no longer keeps the order alone."""
    partition = Partition(0, "s-p0")
    partition.take(Token(delivery(), 1.0))
    alone = ConsumerState("s-p0", 0, 0, 0, 0, 0, max_ack_pending=SINGLE)
    partition.look(alone, 1.0)
    assert partition.turns.single
    assert partition.turns.sure
    partition.look(replace(alone, unacknowledged=1, deliveries=1, max_ack_pending=WINDOW), 2.0)
    assert not partition.turns.single
    assert not partition.turns.sure  # somebody has one


class Wide(Message, key="position", ordered=True):
    position: str


async def test_max_in_flight_is_shared_by_the_partitions(nats: Settings) -> None:
    app = App("plants", partitions=2)
    here: set[str] = set()
    most = 0
    go = asyncio.Event()

    @app.stage(max_in_flight=6)
    async def follow(wide: Wide) -> None:
        nonlocal most
        here.add(wide.position)
        most = max(most, len(here))
        if most == 6:
            go.set()
        await go.wait()
        here.discard(wide.position)

    async with Harness(app, nats) as harness:
        await harness.publish(*(Wide(f"p{key}") for key in range(40)))
        await harness.drain()
    assert most == 6
