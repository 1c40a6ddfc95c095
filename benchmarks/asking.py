"""Clients that ask over HTTP, each again as soon as it is answered: lean, so that it is no limit.

A process of its own: `python -m benchmarks.asking PLAN`, a `Plan` as JSON; prints `Measured`.

It speaks as much HTTP/1.1 as the servers that are compared do: connections that are kept alive, and
bodies of a known length or in chunks. Every answer is looked at.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
import time
from importlib import import_module
from itertools import count
from typing import cast

import msgspec
from msgspec import Struct

from benchmarks.times import quantile
from mqinfer.collector import tune_collector

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LIMIT = 60.0  # seconds beyond those of the plan


class Plan(Struct, frozen=True):
    """What to ask.

    Attributes:
        ports: of the servers on this machine; connections are shared out to them.
        path: that is asked.
        body: JSON, with `%d` where the number goes.
        status: of every answer.
        answer: a pattern of the answer's body, whose group is 2 n + 1 for the number n; "" is none.
        headers: beside those that every request has.
        clients: connections.
        lead: seconds that are not counted.
        seconds: that are counted.
        most: requests that are counted, at most.
    """

    ports: tuple[int, ...]
    path: str
    body: str
    status: int = 200
    answer: str = ""
    headers: dict[str, str] = {}
    clients: int = 1
    lead: float = 0.5
    seconds: float = 3.0
    most: int = 1_000_000


class Measured(Struct, frozen=True):
    """What was found.

    Attributes:
        rate: requests a second that were counted.
        counted: requests.
        asked: all of them, the lead's too.
        p50: milliseconds, and so are the others.
        p99: of those that were counted.
    """

    rate: float
    counted: int
    asked: int
    p50: float
    p99: float


class Asking:
    """All clients of one plan.

    Args:
        plan: what to ask.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.answer = re.compile(plan.answer.encode()) if plan.answer else None
        self.numbers = count()
        self.times: list[float] = []
        self.asked = 0
        self.since = time.perf_counter() + plan.lead
        self.until = self.since + plan.seconds
        self.last = self.since
        self.left = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def head(self, port: int) -> bytes:
        """The head of a request, but for the length of its body."""
        lines = [f"POST {self.plan.path} HTTP/1.1", f"host: 127.0.0.1:{port}"]
        given = {"content-type": "application/json", "accept": "*/*", **self.plan.headers}
        lines += [f"{name}: {value}" for name, value in given.items()]
        return "\r\n".join([*lines, "content-length: "]).encode()

    async def run(self) -> Measured:
        """Ask, until the time is over."""
        loop, plan = asyncio.get_running_loop(), self.plan
        self.left = plan.clients
        ports = [plan.ports[number % len(plan.ports)] for number in range(plan.clients)]
        clients = [Client(self, self.head(port)) for port in ports]
        try:
            for client, port in zip(clients, ports, strict=True):
                await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
            async with asyncio.timeout(plan.lead + plan.seconds + _LIMIT):
                await self.done
        finally:
            for client in clients:
                client.close()
        found = [1e3 * seconds for seconds in self.times]
        if not found:
            raise RuntimeError(f"no answer in {plan.seconds:g} s")
        rate = len(found) / (self.last - self.since)
        return Measured(rate, len(found), self.asked, quantile(found, 0.5), quantile(found, 0.99))

    def answered(self, number: int, began: float, status: int, body: bytes) -> bool:
        """One answer; whether its client goes on."""
        now = time.perf_counter()
        if status != self.plan.status:
            self.failed(f"status {status}: {body[:300]!r}")
        elif self.answer is not None:
            found = self.answer.search(body)
            if found is None or float(found[1]) != 2 * number + 1:
                self.failed(f"a wrong answer for {number}: {body[:300]!r}")
        self.asked += 1
        if self.since <= now < self.until and len(self.times) < self.plan.most:
            self.times.append(now - began)
            self.last = now
        if now < self.until and len(self.times) < self.plan.most and not self.done.done():
            return True
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)
        return False

    def failed(self, why: str) -> None:
        """Something is wrong, and all of it is."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


class Client(asyncio.Protocol):
    """One connection.

    Args:
        asking: that it belongs to.
        head: of its requests.
    """

    def __init__(self, asking: Asking, head: bytes):
        self._asking = asking
        self._head = head
        self._body = asking.plan.body.encode()
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self._began = 0.0
        self._ends = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is only like one
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._data += data
        found = _response(self._data)
        if found is None:
            return
        self._data.clear()
        if self._asking.answered(self._number, self._began, *found):
            self._ask()
        else:
            self.close()

    def close(self) -> None:
        """Ask no more."""
        self._ends = True
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ends:
            self._asking.failed(f"a connection was lost: {exc or 'closed by the server'}")

    def _ask(self) -> None:
        self._number = next(self._asking.numbers)
        assert self._transport is not None
        body = self._body % self._number
        self._began = time.perf_counter()
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))


def _response(data: bytearray) -> tuple[int, bytes] | None:
    """Status and body of a response that is whole; a body in chunks is left as it came."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = bytes(data[: end + 2]), end + 4
    status = int(head[9:12])
    if length := _LENGTH.search(head):
        whole = len(data) - start >= int(length[1])
    else:
        whole = bool(_CHUNKED.search(head)) and data.endswith(b"0\r\n\r\n")
    return (status, bytes(data[start:])) if whole else None


async def ask(plan: Plan) -> Measured:
    """Carry out a plan."""
    return await Asking(plan).run()


if __name__ == "__main__":
    tune_collector()
    fast = importlib.util.find_spec("uvloop") is not None
    with asyncio.Runner(
        loop_factory=import_module("uvloop").new_event_loop if fast else None
    ) as runner:
        found = runner.run(ask(msgspec.json.decode(sys.argv[1], type=Plan)))
    print(msgspec.json.encode(found).decode())
