"""An owner of partitions while the server is slow, at a stop, and with what comes again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer import App
from mqinfer.errors import Unavailable
from mqinfer.flow.job import SETTLED
from mqinfer.flow.ledger import Ledger
from mqinfer.flow.ordered import owner as owners
from mqinfer.flow.ordered.leases import Leases
from mqinfer.flow.ordered.owner import Owner
from mqinfer.flow.ordered.partition import CALM, Token
from mqinfer.flow.ordered.places import SINGLE, WINDOW
from mqinfer.settings import Settings
from mqinfer.specs import ConsumerSpec, ConsumerState
from mqinfer.stage import Limits
from mqinfer.testing import Harness, until
from tests.flow.test_ordered import Leaf, Step, delivery
from tests.flow.test_partitions import owner_of

PLACES: Any = SimpleNamespace(
    partitions=[SimpleNamespace(name="s-p0", stream="copy")],
    tokens=SimpleNamespace(name="s", stream="owners"),
    present=SimpleNamespace(name="s=present", stream="owners"),
    wanting=SimpleNamespace(name="s=wanting", stream="owners"),
)
LIMITS: Any = replace(Limits(), ack_wait=10.0)


class SlowServer:
    """Opens no pull of a partition while `slow` is set, and answers no question."""

    def __init__(self) -> None:
        self.slow = asyncio.Event()
        self.opened: list[str] = []
        self.asked = 0

    async def pull(self, _stream: str, consumer: str, **_: Any) -> Any:
        self.opened.append(consumer)
        if consumer == "s-p0":
            await self.slow.wait()

        async def close() -> None:
            return None

        return SimpleNamespace(requests=0, paused=False, request=lambda *_: None, close=close)

    async def consumer_state(self, _stream: str, _consumer: str) -> None:
        self.asked += 1
        raise Unavailable("no answer")

    def nak(self, _delivery: Any, _delay: float) -> None:
        return None


async def test_a_server_that_does_not_answer_has_nothing_opened_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owners, "SOON", 0.0)
    monkeypatch.setattr(owners, "LOOK", 0.0)
    server: Any = SlowServer()
    owner = Owner(server, PLACES, LIMITS, lambda: 1.0)
    owner.windows(100)

    async def nothing(*_: object) -> None:
        return None

    pull = await owner.pull(
        "copy",
        "s",
        on_message=lambda _: None,
        on_released=lambda _messages, _size: None,
        recreate=nothing,
    )
    owner._token(delivery(subject="$KV.o.s.0"))
    await until(lambda: "s-p0" in server.opened, "a pull")
    for _ in range(300):  # whatever is done beside it has its turns
        await asyncio.sleep(0)
    assert server.asked >= 1
    assert server.opened.count("s-p0") == 1
    server.slow.set()
    await until(lambda: owner.partitions[0].pull, "the pull is open")
    await pull.close()
    await owner.end()


def reply(number: int) -> bytes:
    return b"$JS.ACK.copy.s-p0.1.%d.%d.1700000000000000000.0" % (number, number)


async def test_what_comes_again_before_its_end_was_read_is_not_handled_again() -> None:
    """Else it would begin after its successor, or lie here for ever."""
    confirmed: list[Any] = []
    put: list[Any] = []
    broker: Any = SimpleNamespace(confirm=lambda _, done: confirmed.append(done))
    owner = Owner(broker, PLACES, LIMITS, lambda: 1.0)
    owner._on_released = lambda _messages, _size: None
    leases, partition = Leases(owner), owner.partitions[0]
    arrived = leases.begins(put.append, None)  # type: ignore[arg-type]
    owner._token(delivery(subject="$KV.o.s.0"))
    partition.turns.look(0, 0)

    def comes(number: int, sequence: int, attempt: int = 1) -> Any:
        held = partition.arrived(
            delivery(reply=reply(number), sequence=sequence, headers={}, attempt=attempt), 1.0
        )
        if not leases.admits(held):
            return None
        job = SimpleNamespace(delivery=held, state=None, pulsed=1.0, memory=None)
        arrived(job)  # type: ignore[arg-type]
        return job

    first, second = comes(1, 1), comes(2, 2)
    assert put == [first]
    assert comes(3, 3) is not None
    first.state = SETTLED
    leases.settled(first)
    leases.left(first)
    assert comes(4, 1, attempt=2) is None
    confirmed.pop()()
    assert put == [first, second]
    assert len(partition.turns) == 2


async def test_what_was_settled_as_it_came_again_is_handed_back() -> None:
    pulls: dict[str, Any] = {}
    given_back: list[Any] = []
    came: list[Any] = []
    released: list[int] = []

    async def pull(_stream: str, _consumer: str, **taken: Any) -> Any:
        pulls.update(taken)
        return SimpleNamespace(requests=0, paused=False, request=lambda *_: None)

    broker: Any = SimpleNamespace(pull=pull, nak=lambda one, delay: given_back.append((one, delay)))
    owner = Owner(broker, PLACES, LIMITS, lambda: 1.0)
    owner._on_message = came.append
    owner._on_released = lambda messages, _size: released.append(messages)
    owner._recreate = None  # type: ignore[assignment]
    owner._token(delivery(subject="$KV.o.s.0"))
    (partition,) = owner.partitions
    partition.pull = await owner._open(partition)
    for sequence in (1, 2):
        pulls["on_message"](delivery(reply=reply(sequence), sequence=sequence, headers={}))
    first, second = came
    partition.settled(first)
    again = delivery(reply=reply(3), sequence=1, headers={}, attempt=2)
    pulls["on_message"](again)  # sent before the server heard of the end of the first
    assert came == [first, second]
    assert given_back == [(again, 0)]
    assert released == [1]  # its place may be asked for
    assert (len(partition.turns), partition.size) == (1, second.size)


@pytest.mark.parametrize(("asleep", "changes"), [(0.0, [WINDOW]), (100.0, [])])
async def test_who_stood_still_does_not_open_the_window_of_the_next_owner(
    asleep: float, changes: list[int]
) -> None:
    """What follows a message that failed there would be given out while that waits."""
    now, changed = 1.0, []

    async def consumer_state(_stream: str, name: str) -> ConsumerState:
        return ConsumerState(name, 0, 0, 0, 0, 0, max_ack_pending=SINGLE)

    async def later(stream: str, name: str) -> ConsumerState:
        nonlocal now
        now += asleep
        return await consumer_state(stream, name)

    async def ensure_consumer(spec: ConsumerSpec) -> None:
        changed.append(spec.max_ack_pending)

    broker: Any = SimpleNamespace(consumer_state=consumer_state, ensure_consumer=ensure_consumer)
    places: Any = SimpleNamespace(
        **{**vars(PLACES), "partitions": [ConsumerSpec("s-p0", "copy", ("0.>",))]}
    )
    owner = Owner(broker, places, LIMITS, lambda: now)
    owner._on_released = lambda _messages, _size: None
    (partition,) = owner.partitions
    partition.take(Token(delivery(), now))
    for _ in range(CALM):
        await owner._look(partition)
    assert partition.turns.single
    assert changed == []
    broker.consumer_state = later
    await owner._look(partition)
    assert changed == changes


async def test_what_waits_for_its_turn_at_a_stop_does_not_begin(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is about to be handed back: its handler would be cancelled half way."""
    app = App("plants", partitions=1)
    begun: list[int] = []
    go = asyncio.Event()
    found: list[Any] = []

    @app.stage
    async def follow(leaf: Leaf) -> Step:
        begun.append(leaf.number)
        await go.wait()
        return Step(leaf.position, leaf.number)

    written = Ledger.handed_back

    async def slowly(self: Ledger, jobs: Any) -> bool:
        if found and not go.is_set():
            go.set()
            (partition,) = found
            await until(lambda: len(partition.turns) == 1, "the end of the first")
            for _ in range(50):
                await asyncio.sleep(0)
        return await written(self, jobs)

    monkeypatch.setattr(Ledger, "handed_back", slowly)
    async with Harness(app, nats) as harness:
        await harness.publish(Leaf("x", 0), Leaf("x", 1))
        async with harness.worker() as worker:
            await until(lambda: begun and len(owner_of(worker).partitions[0].turns) == 2, "work")
            found.append(owner_of(worker).partitions[0])
        assert begun == [0]
        await harness.drain()
        assert begun == [0, 1]
        assert [step.number for step in await harness.messages(Step)] == [0, 1]
