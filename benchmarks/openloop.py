"""An open-loop generator: sends on schedule whatever comes back, and times from the schedule.

A process of its own: `python -m benchmarks.openloop PLAN`, a `Plan` as JSON; prints `Measured`.

When a message counts as answered is seen in its acknowledgement, which a worker sends when its
output is stored: whoever subscribes to `$JS.ACK.<stream>.<consumer>.>` is told as soon as the
server is. What the generator sends late counts as latency of the message.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec
from msgspec import Struct

from benchmarks import load
from benchmarks.times import quantile
from mqinfer.adapters.jetstream import JetStream
from mqinfer.collector import tune_collector
from mqinfer.settings import Settings

WINDOW = 1024  # under way at once while the capacity is measured
SIZE, OTHER = 200, 20  # bytes of a message, about, and of what is not its text


class Plan(Struct, frozen=True):
    """What to do.

    Attributes:
        url: of NATS.
        stream: inputs go to `<stream>.in`; the consumer is `work`.
        seconds: of each level; half of it of the measurement of the capacity.
        shares: of the capacity, a level each.
        rates: messages a second, further levels.
        lead: seconds of each phase that are not counted.
    """

    url: str
    stream: str
    seconds: float
    shares: tuple[float, ...]
    rates: tuple[float, ...] = ()
    lead: float = 0.5


class Level(Struct, frozen=True):
    """What was found at one rate; times in milliseconds."""

    rate: float
    count: int
    p50: float
    p99: float
    p999: float
    most: float


class Measured(Struct, frozen=True):
    """What was found: messages a second at most, the levels of the plan, and how many were sent."""

    capacity: float
    levels: tuple[Level, ...]
    sent: int


class Generator:
    """Sends numbered messages to a stream that only it writes to, and hears when they are done.

    The consumer counts what it delivers, in the order in which it was sent, so the acknowledgement
    of its n-th delivery is that of the n-th message.

    Args:
        jetstream: open.
        stream: see `Plan`.
        lead: see `Plan`.
    """

    def __init__(self, jetstream: JetStream, stream: str, lead: float):
        self._client = jetstream.client
        self._stream = stream
        self._lead = lead
        self._head = f"PUB {stream}.in ".encode()
        self.scheduled: list[float] = []
        self.latencies: list[float] = []  # in the order of the schedule; 0 is not done yet
        self.done = 0
        self._wanted = 0
        self._reached = asyncio.Event()
        self._error: Exception | None = None

    async def listen(self) -> None:
        """Subscribe to the acknowledgements."""
        await self._client.subscribe_direct(f"$JS.ACK.{self._stream}.work.>", self._on_ack)
        await self._client.flush()

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        now = time.perf_counter()
        if data == b"+WPI":
            return
        # ... <delivered> <in the stream> <in the consumer> <time> <pending>
        parts = subject.rsplit(b".", 5)
        number = int(parts[3]) - 1
        if data not in (b"+ACK", b"") or parts[1] != b"1" or self.latencies[number]:
            self._error = RuntimeError(f"a message was not answered once: {subject!r} {data!r}")
            self._reached.set()
            return
        self.latencies[number] = now - self.scheduled[number]
        self.done += 1
        if self.done >= self._wanted:
            self._reached.set()

    async def until_done(self, count: int, timeout: float = 60.0) -> None:
        """Wait until so many messages are done.

        Raises:
            RuntimeError: one failed or came twice.
            TimeoutError: they are not.
        """
        self._wanted = count
        self._reached.clear()
        if self.done < count and self._error is None:
            async with asyncio.timeout(timeout):
                await self._reached.wait()
        if self._error is not None:
            raise self._error

    def send(self, times: list[float]) -> None:
        """Send messages that are due at these times."""
        first, head = len(self.scheduled), self._head
        parts = [
            b"%b%d\r\n%b\r\n" % (head, len(data), data)
            for data in load.items(first, len(times), SIZE - OTHER)
        ]
        self.scheduled += times
        self.latencies += [0.0] * len(times)
        self._client.write(b"".join(parts))

    async def capacity(self, seconds: float) -> float:
        """Messages a second while there are always some under way."""
        began = time.perf_counter()
        counted: float | None = None
        at_first = 0
        while counted is None or time.perf_counter() < counted + seconds:
            now = time.perf_counter()
            if counted is None and now >= began + self._lead:
                counted, at_first = now, self.done
            self.send([now] * (WINDOW - (len(self.scheduled) - self.done)))
            await self.until_done(len(self.scheduled) - WINDOW // 2)
        rate = (self.done - at_first) / (time.perf_counter() - counted)
        await self.until_done(len(self.scheduled))
        return rate

    async def level(self, rate: float, seconds: float) -> Level:
        """Send at a steady rate."""
        first, count = len(self.scheduled), int(rate * (self._lead + seconds))
        began, sent = time.perf_counter(), 0
        while sent < count:
            due = min(count, int((time.perf_counter() - began) * rate) + 1)
            if due > sent:
                self.send([began + number / rate for number in range(sent, due)])
                sent = due
            await asyncio.sleep(max(0.0, began + sent / rate - time.perf_counter()))
        await self.until_done(first + count)
        taken = [1e3 * seconds for seconds in self.latencies[first + int(rate * self._lead) :]]
        return Level(
            rate,
            len(taken),
            quantile(taken, 0.5),
            quantile(taken, 0.99),
            quantile(taken, 0.999),
            max(taken),
        )


async def generate(plan: Plan) -> Measured:
    """Carry out a plan; the worker may still be starting."""
    async with JetStream(Settings.load({}, nats_url=plan.url), name="generator") as jetstream:
        generator = Generator(jetstream, plan.stream, plan.lead)
        await generator.listen()
        generator.send([time.perf_counter()])
        await generator.until_done(1)
        capacity = await generator.capacity(plan.seconds / 2)
        levels = [
            await generator.level(rate, plan.seconds)
            for rate in (*(share * capacity for share in plan.shares), *plan.rates)
        ]
        return Measured(capacity, tuple(levels), len(generator.scheduled))


if __name__ == "__main__":
    tune_collector()
    found = asyncio.run(generate(msgspec.json.decode(sys.argv[1], type=Plan)))
    print(msgspec.json.encode(found).decode())
