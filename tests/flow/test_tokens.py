"""Workers share the tokens of a stage with no leader: each counts the requests of the others."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from mqinfer.flow.ordered.share import Share
from mqinfer.flow.ordered.tokens import Tokens

TOKENS, PRESENT, WANTING = (
    SimpleNamespace(name=name, stream="owners") for name in ("s", "s=present", "s=wanting")
)


class Pull:
    """The open requests of one worker at one consumer."""

    def __init__(self, server: Server, **calls: Any):
        self.server = server
        self.on_message, self.on_released = calls["on_message"], calls["on_released"]
        self.expires = calls["expires"]
        self.requests = 0
        self.paused = self.closed = False

    def request(self, messages: int, _size: int) -> None:
        self.requests += 1
        self.wanted = messages

    async def close(self) -> None:
        self.closed = True
        self.requests = 0


class Server:
    """Consumers of which it counts the open requests; it gives tokens when the test says so."""

    def __init__(self) -> None:
        self.pulls: dict[str, list[Pull]] = {"s": [], "s=present": [], "s=wanting": []}
        self.gone = False

    async def pull(self, _stream: str, consumer: str, **calls: Any) -> Pull:
        self.pulls[consumer].append(Pull(self, **calls))
        return self.pulls[consumer][-1]

    async def consumer_state(self, _stream: str, consumer: str) -> Any:
        if self.gone:
            return None
        return SimpleNamespace(requests=sum(pull.requests for pull in self.pulls[consumer]))


class Worker:
    """One that owns what it is given, and gives away what it is told to."""

    def __init__(self, server: Server, partitions: int):
        places: Any = SimpleNamespace(
            partitions=[None] * partitions, tokens=TOKENS, present=PRESENT, wanting=WANTING
        )
        self.server = server
        self.tokens = Tokens(server, places, 5.0)  # type: ignore[arg-type]
        self.owned = 0

    async def open(self) -> Worker:
        async def recreate() -> None:
            return None

        await self.tokens.open(self.given, recreate)
        return self

    def given(self, _token: object) -> None:
        self.owned += 1

    async def look(self) -> int:
        less = await self.tokens.look(self.owned)
        self.owned -= less
        return less


class Group:
    """Workers of one stage, and the tokens that nobody owns."""

    def __init__(self, partitions: int):
        self.server = Server()
        self.partitions = self.free = partitions
        self.workers: list[Worker] = []

    async def joins(self) -> Worker:
        self.workers.append(await Worker(self.server, self.partitions).open())
        return self.workers[-1]

    async def leaves(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await worker.tokens.close()
        self.free += worker.owned

    async def second(self) -> int:
        """Each looks, and free tokens go to who asked; how many partitions moved."""
        moved = 0
        for worker in random.sample(self.workers, len(self.workers)):
            less = await worker.look()
            self.free += less
            moved += less
        for pull in random.sample(self.server.pulls["s"], len(self.server.pulls["s"])):
            if pull.requests and not pull.closed:
                while self.free and pull.wanted:
                    self.free -= 1
                    pull.wanted -= 1
                    pull.on_message(None)
                if pull.wanted:
                    pull.on_released(pull.wanted, 0)  # the request ends without
                pull.requests = 0
        for pull in self.server.pulls["s=wanting"]:
            pull.requests = 0  # those end after a moment
        return moved

    def owned(self) -> list[int]:
        return sorted(worker.owned for worker in self.workers)


@pytest.mark.parametrize(
    ("partitions", "workers"), [(1, 1), (1, 3), (8, 2), (8, 3), (7, 5), (32, 6), (3, 8)]
)
async def test_each_comes_to_own_its_share(partitions: int, workers: int) -> None:
    group = Group(partitions)
    for _ in range(workers):
        await group.joins()
        await group.second()
    for _ in range(200):
        await group.second()
    least, most = partitions // workers, -(-partitions // workers)
    assert sum(group.owned()) == partitions
    assert set(group.owned()) <= {least, most}
    # And then nothing moves any more.
    assert sum([await group.second() for _ in range(50)]) == 0


async def test_what_one_leaves_behind_is_taken_and_one_that_joins_has_its_share() -> None:
    group = Group(12)
    workers = [await group.joins() for _ in range(3)]
    for _ in range(100):
        await group.second()
    assert group.owned() == [4, 4, 4]
    await group.leaves(workers[0])
    for _ in range(100):
        await group.second()
    assert group.owned() == [6, 6]
    await group.joins()
    await group.joins()
    for _ in range(100):
        await group.second()
    assert group.owned() == [3, 3, 3, 3]


async def test_a_request_that_was_lost_does_not_count_twice() -> None:
    """It may have ended here alone, and the server keeps it: its inbox is closed with it."""
    group = Group(8)
    worker = await group.joins()
    await worker.look()
    (present,) = group.server.pulls["s=present"]
    await worker.look()
    assert group.server.pulls["s=present"] == [present], "one that is open is left as it is"
    present.requests = 0
    await worker.look()
    assert present.closed
    assert [pull.closed for pull in group.server.pulls["s=present"]] == [True, False]


async def test_it_asks_once_for_what_it_lacks() -> None:
    group = Group(8)
    worker = await group.joins()
    await worker.look()
    (pull,) = group.server.pulls["s"]
    assert (pull.requests, pull.wanted) == (1, 8)
    await worker.look()
    assert pull.requests == 1
    pull.requests = 0
    pull.on_released(3, 0)  # five of them came, or will
    await worker.look()
    assert pull.requests == 0
    for _ in range(5):
        pull.on_message(None)
    await worker.look()
    assert (pull.requests, pull.wanted) == (1, 3)


async def test_while_the_server_is_away_it_asks_for_nothing() -> None:
    group = Group(8)
    worker = await group.joins()
    (pull,) = group.server.pulls["s"]
    pull.paused = True
    await worker.look()
    assert pull.requests == 0
    pull.paused = False
    await worker.look()
    assert pull.requests == 1


async def test_consumers_that_are_gone_move_nothing() -> None:
    group = Group(8)
    worker = await group.joins()
    worker.owned = 8
    group.server.gone = True
    assert await worker.look() == 0
    assert worker.owned == 8


async def test_one_that_is_closed_asks_no_more_and_is_not_counted() -> None:
    group = Group(8)
    worker = await group.joins()
    await worker.look()
    await worker.tokens.close()
    assert all(pull.closed for pulls in group.server.pulls.values() for pull in pulls)
    assert await worker.look() == 0
    assert sum(pull.requests for pulls in group.server.pulls.values() for pull in pulls) == 0


async def test_one_that_is_not_open_yet_asks_for_nothing() -> None:
    assert await Worker(Server(), 4).look() == 0


def test_a_request_that_is_not_there_for_a_moment_moves_nothing() -> None:
    """A worker's request is renewed now and then; the most of three looks counts."""
    share = Share(8)
    share.seen(2, 0)
    share.seen(1, 0)
    share.seen(2, 0)
    assert (share.least, share.most) == (4, 4)
    for _ in range(3):
        share.seen(1, 0)
    assert share.more(4) == 4
