"""One stage without servers: a broker that writes down what it is told, and a clock of the test's.

The broker answers a publish when the test says so, in any order; a message arrives when the test
delivers it. Everything between the two is the real thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mqinfer import App, Message, plan
from mqinfer.codec import Codec
from mqinfer.flow.beat import Beat
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.handling import InBatches, OneByOne
from mqinfer.flow.intake import Source
from mqinfer.flow.job import Job
from mqinfer.flow.lane import Lane
from mqinfer.flow.ledger import Ledger
from mqinfer.flow.past import Past
from mqinfer.flow.policy import Policy
from mqinfer.flow.reader import Reader
from mqinfer.flow.runner import Runner
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots
from mqinfer.flow.suspects import Suspects
from mqinfer.identity import parse_header_block
from mqinfer.metrics import StageMetrics
from mqinfer.ports import PublishDone
from tests.support.bucket import Memory

LARGEST = 1_000  # bytes of the largest message
STAND_STILL = 61.0  # seconds, past the timeout of a stage that says nothing


class Number(Message, subject="number"):
    value: int


class Double(Message, subject="double"):
    value: int


class Strange(Message, subject="strange"):
    """An output that may hold what no payload can."""

    value: Any = None


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Delivered:
    """A delivery as the adapter gives it."""

    sequence: int = 1
    data: bytes = b'{"value": 1}'
    headers: dict[str, str] = field(default_factory=dict)
    attempt: int = 1
    size: int = 10
    stream: str = "t"
    subject: str = "t.number"
    reply: bytes = b"reply"
    pending: int = 0
    published: int = 0


@dataclass
class Published:
    """A publish that waits for its answer."""

    subject: str
    header: bytes
    payload: bytes
    done: PublishDone

    @property
    def headers(self) -> dict[str, str]:
        return parse_header_block(self.header)


class FakePull:
    """What was asked for."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []
        self.paused = False
        self.closed = False

    def request(self, messages: int, max_bytes: int) -> None:
        self.requests.append((messages, max_bytes))

    async def close(self) -> None:
        self.closed = True

    @property
    def asked(self) -> int:
        return sum(messages for messages, _ in self.requests)


class FakeBroker:
    """A broker that writes down what it is told.

    Attributes:
        said: ("ack" | "nak" | "term", sequence, the delay or the reason) in the order of the calls.
        published: what was published, and `unanswered` the part that waits for `answer`.
        renewed: sequences of the messages that were said to be worked on.
        counts: the bucket of suspects and of the ledger; `ended` is what was written to the latter.
    """

    max_payload = 1 << 20
    blocked: str | None = None
    full = False

    def __init__(self) -> None:
        self.said: list[tuple[str, int, Any]] = []
        self.published: list[Published] = []
        self.unanswered: list[Published] = []
        self.renewed: list[int] = []
        self.counts = Memory()
        self.ended: dict[str, bytes] = {}
        self.pulls: list[FakePull] = []
        self.on_message: Callable[[Any], None]
        self.on_released: Callable[[int, int], None]

    async def pull(self, stream: str, consumer: str, **calls: Any) -> FakePull:
        self.on_message, self.on_released = calls["on_message"], calls["on_released"]
        self.pulls.append(FakePull())
        return self.pulls[-1]

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
    ) -> None:
        name = subject if isinstance(subject, str) else subject.decode()
        if name.startswith("$KV.state."):  # the ledger, which waits for nobody here
            self.ended[name.removeprefix("$KV.state.")] = payload
            self.counts.values[name.removeprefix("$KV.state.")] = (payload, 1)
            done(None, False)
            return
        self.published.append(Published(name, header, payload, done))
        self.unanswered.append(self.published[-1])

    def answer(self, which: int = 0, error: Exception | None = None, repeat: bool = False) -> None:
        """Answer one of the publishes that wait."""
        self.unanswered.pop(which).done(error, repeat)

    def answer_all(self) -> None:
        while self.unanswered:
            self.answer()

    def subjects(self) -> list[str]:
        return [one.subject for one in self.published]

    def ack(self, delivery: Any) -> None:
        self.said.append(("ack", delivery.sequence, None))

    def nak(self, delivery: Any, delay: float) -> None:
        self.said.append(("nak", delivery.sequence, delay))

    def term(self, delivery: Any, reason: str) -> None:
        self.said.append(("term", delivery.sequence, reason))

    def heard(self) -> list[tuple[str, int]]:
        """What was said, without delays and reasons."""
        return [(what, sequence) for what, sequence, _ in self.said]

    def progress(self, delivery: Any, heard: Callable[[], None] | None = None) -> None:
        self.renewed.append(delivery.sequence)

    async def room(self) -> None:
        return None

    def bucket(self, name: str, **options: Any) -> Memory:
        return self.counts


class Flow:
    """One stage between a fake broker and a clock of the test's.

    Args:
        handler: of the stage, as a user writes it.
        policy: of its messages.
        beat: of the loop; its clock is to be this one's.
        recorder: of what is below the root of a join; None is below none.
        limits: of the stage.
    """

    def __init__(
        self,
        handler: Any,
        *,
        policy: Policy | None = None,
        beat: Beat | None = None,
        recorder: Any = None,
        **limits: Any,
    ):
        self.app = App("t")
        self.app.stage(name="s", **limits)(handler)
        self.stage = self.app.stages["s"]
        self.broker: Any = FakeBroker()
        self.clock = Clock()
        self.metrics = StageMetrics()
        self.gate: str | None = None
        self.lane = Lane(gather=0.0)
        self.left: list[tuple[Job, bool]] = []  # released, and whether its outputs were stored
        self.ledger = Ledger("s", name="state", bucket=self.broker.counts, broker=self.broker)
        self.settler = self.make_settler(policy, recorder=recorder)
        self.handling = (InBatches if self.stage.signature.batch else OneByOne)(
            self.stage, self.settler
        )
        self.slots = Slots(self.stage.limits.max_in_flight, 1 << 20, LARGEST)
        codec = Codec()
        self.runner = Runner(
            "s",
            source=Source("t", "s", self.broker, _nothing, gates=[lambda: self.gate]),
            reader=Reader(
                "s",
                "s",
                lambda delivery: codec.decode(self.stage.reads, delivery.data, None),
                app="t",
                readers=frozenset({"s", "another"}),
            ),
            limits=self.stage.limits,
            handling=self.handling,
            settler=self.settler,
            slots=self.slots,
            metrics=self.metrics,
            suspects=Suspects(
                "s",
                bucket=self.broker.counts,
                limits=self.stage.limits,
                lane=self.lane,
                handlers=self.handling.concurrency * self.handling.batch_size,
            ),
            ledger=self.ledger,
            policy=policy,
            beat=beat,
            clock=self.clock,
        )

    def make_settler(
        self,
        policy: Policy | None = None,
        *,
        dead: bool = True,
        recorder: Any = None,
        timers: Any = None,
    ) -> Settler:
        """The settler of the stage; one without dead letters if `dead` is false."""
        return Settler(
            "s",
            self.stage.limits,
            broker=self.broker,
            emitter=Emitter(
                self.app,
                "s",
                (*self.stage.writes, Number),
                run=None,
                codec=Codec(),
                store=None,
                inline_limit=0,
                broker=self.broker,
                recorder=recorder,
            ),
            ledger=self.ledger,
            dead_subject=plan.dead_subject(self.app, "s") if dead else None,
            metrics=self.metrics,
            released=self._released,
            clock=self.clock,
            policy=policy,
            timers=timers,
        )

    def _released(self, job: Job, storing: bool) -> None:
        self.left.append((job, storing))
        self.runner.released(job, storing)

    def job(self, sequence: int = 1, value: int = 1, **fields: Any) -> Job:
        """A job that was read, as a handler would be given it; earlier attempts have failed."""
        now = self.clock()
        job = Job(Delivered(sequence, **fields), now, now)
        context = job.open("s", None, None)
        failures = job.delivery.attempt - 1
        context.past = Past(failures=failures, tries=failures, explained=failures)
        job.message = Number(value)
        return job

    def deliver(self, sequence: int, value: int | None = None, **fields: Any) -> Delivered:
        """A message arrives."""
        data = b'{"value": %d}' % (sequence if value is None else value)
        delivery = Delivered(sequence, data, **fields)
        self.slots.ask(1, delivery.size)
        self.broker.on_message(delivery)
        return delivery

    @asynccontextmanager
    async def running(self, grace: float = 0.0) -> AsyncIterator[SimpleNamespace]:
        """The runner at work; at the end it is stopped in order, which must come to an end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.runner.run(stop, grace))
        await turns()
        try:
            yield SimpleNamespace(stop=stop, task=task)
        finally:
            stop.set()
            async with asyncio.timeout(120):
                await task

    @property
    def values(self) -> list[int]:
        """The values of the outputs that were published."""
        return [
            int(one.payload.split(b":")[1].rstrip(b"}"))
            for one in self.broker.published
            if one.subject == "t.double"
        ]


class Owned(Policy):
    """Messages that are this worker's until they are named in `lost`; those in `out` never were."""

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.out: set[int] = set()

    def admits(self, delivery: Any) -> bool:
        return delivery.sequence not in self.out

    def owns(self, job: Any, now: float) -> bool:
        return job.delivery.sequence not in self.lost


class Begun:
    """A handler's calls, each held until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.hang: set[int] = set()
        self._let_go = asyncio.Event()

    def let_go(self) -> None:
        self.hang.clear()
        self._let_go.set()
        self._let_go = asyncio.Event()

    async def begin(self, *values: int) -> None:
        self.calls.append(list(values))
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        if self.hang & set(values):
            await self._let_go.wait()


async def pass_time(flow: Flow, seconds: float) -> None:
    """The clock advances, the runner looks at it, and what that leads to happens."""
    flow.clock.now += seconds
    flow.runner.tick(flow.clock.now)
    await turns()


async def turns(count: int = 20) -> None:
    """Let everything run that can run without an answer from outside."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _nothing() -> None:
    return None
