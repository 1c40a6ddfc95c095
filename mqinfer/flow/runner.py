"""Runner: one stage at work: reserve slots, pull, decode, handle, emit, settle.

    Slots ──> Pull ──> mailbox ──> handlers ──> Emitter ──> Settler
      ^                                                        │
      └──────────────────────── released ──────────────────────┘

Promises 3 (bounded; outages stop the pulling, not the work) and 5 (clean stop) are kept here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from mqinfer.context import current
from mqinfer.errors import HandlerTimeout, Reject, WorkerKilled
from mqinfer.flow.handling import Handling
from mqinfer.flow.job import Job
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots
from mqinfer.identity import ONLY

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.flow.suspects import Suspects
    from mqinfer.message import Message
    from mqinfer.observe import StageMetrics
    from mqinfer.ports import Delivery, Feed, Pull
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

TICK = 0.25  # how often timeouts, pulses and gates are looked at, in seconds
WAITING = 512  # messages that may wait for handlers, or be in them
GATHER = 0.002  # how long few free slots wait to be asked for together


class Runner:
    """One consumer in one process.

    Args:
        name: of the stage or sink, for logs.
        stream: and `consumer`, whose messages it handles.
        consumer: the durable's name.
        decode: makes a message of a delivery, or raises Reject.
        limits: what bounds the work.
        handling: what is done with messages.
        settler: what becomes of them.
        slots: the account of what is in flight.
        broker: the stream's server.
        gates: each gives a reason not to pull now, or None.
        recreate: makes the consumer again after an operator deleted it.
        metrics: of the stage.
        suspects: the lane of messages that may kill their worker.
        state: what the stage's lifespan yielded.
        blobs: the blob store.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        stream: str,
        consumer: str,
        decode: Callable[[Delivery], Message],
        limits: Limits,
        handling: Handling,
        settler: Settler,
        slots: Slots,
        broker: Feed,
        gates: Sequence[Callable[[], str | None]],
        recreate: Callable[[], Awaitable[object]],
        metrics: StageMetrics,
        suspects: Suspects,
        state: object = None,
        blobs: BlobStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name = name
        self.stream = stream
        self.consumer = consumer
        self.jobs: dict[int, Job] = {}  # by sequence
        self.slots = slots
        # What waits here for a handler could be another worker's: no more of it than hides the way
        # to the server, whatever may be in flight while outputs are being stored.
        slots.max_unhandled = max(WAITING, handling.concurrency * handling.batch_size)
        self._decode = decode
        self._limits = limits
        self._handling = handling
        self._settler = settler
        self._broker = broker
        self._gates = gates
        self._recreate = recreate
        self._metrics = metrics
        self._suspects = suspects
        self._state = state
        self._blobs = blobs
        self._clock = clock
        self._mailbox: deque[Job] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = False
        self._gathering = asyncio.Lock()
        self._pull: Pull | None = None
        self._asking: asyncio.TimerHandle | asyncio.Handle | None = None
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.blocked: str | None = None

    # --- running --------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, grace: float) -> None:
        """Work until `stop` is set, then stop in order.

        Args:
            stop: set by the worker.
            grace: seconds that handlers may take to finish.
        """
        async with asyncio.TaskGroup() as group:
            handlers = [
                group.create_task(self._handler(), name=f"{self.name} {number}")
                for number in range(self._handling.concurrency)
            ]
            watch = group.create_task(self._watch(), name=f"{self.name} watch")
            try:
                self._pull = await self._broker.pull(
                    self.stream,
                    self.consumer,
                    on_message=self._arrived,
                    on_released=self._withdrawn,
                    recreate=self._recreate,
                )
                self._ask()
                await stop.wait()
            finally:
                await self._drain(grace, handlers)
                watch.cancel()
                self._handling.close()

    async def _drain(self, grace: float, handlers: Sequence[asyncio.Task[None]]) -> None:
        """Promise 5: stop pulling, finish, publish, acknowledge, hand back the rest."""
        self._stopping = True
        if self._pull is not None:
            await self._pull.close()
        while self._mailbox:
            self._settler.hand_back(self._mailbox.popleft())
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            log.warning("grace is over", stage=self.name, unfinished=len(self.jobs))
        for task in handlers:
            task.cancel()
        await asyncio.wait(handlers)
        for job in list(self.jobs.values()):
            self._settler.hand_back(job)

    # --- asking and taking ----------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask for as many messages as there are free slots, unless a gate is closed."""
        self._asking = None
        if self._stopping or self._pull is None or self._pull.paused:
            return
        blocked = next((reason for gate in self._gates if (reason := gate())), None)
        if blocked != self.blocked:
            if (blocked is None) != (self.blocked is None):
                log.info(
                    "pulls again" if blocked is None else "stops pulling",
                    stage=self.name,
                    reason=blocked,
                )
            self.blocked = blocked
        if blocked is not None:
            return
        while plan := self.slots.plan():
            self.slots.ask(*plan)
            self._pull.request(*plan)

    def _ask_soon(self) -> None:
        """Ask in this iteration of the loop when much is free, else let more become free."""
        if self._asking is None and not self._stopping:
            loop = asyncio.get_running_loop()
            if self.slots.half_free:
                self._asking = loop.call_soon(self._ask)
            else:
                self._asking = loop.call_later(GATHER, self._ask)

    def _withdrawn(self, messages: int, size: int) -> None:
        self.slots.withdraw(messages, size)
        self._ask_soon()

    def _arrived(self, delivery: Delivery) -> None:
        """A message from the read loop."""
        self.slots.arrive(delivery.size)
        earlier = self.jobs.get(delivery.sequence)
        if earlier is not None:
            # ack_wait ran out on it (this process was stopped, or the server restarted) while it
            # is still being worked on here: one handling serves both deliveries.
            self.slots.release(earlier.delivery.size)
            earlier.delivery = delivery
            earlier.pulsed = self._clock()
            return
        job = Job(delivery, self._clock())
        if self._stopping:
            self.jobs[delivery.sequence] = job
            self._settler.hand_back(job)
            return
        if delivery.attempt > 1:
            self._metrics.redelivered()
        self.jobs[delivery.sequence] = job
        self._empty.clear()
        self._mailbox.append(job)
        if self._idle:
            self._wake()

    def released(self, job: Job) -> None:
        """A job left; the settler calls this."""
        if self.jobs.pop(job.delivery.sequence, None) is None:
            return
        self.slots.release(job.delivery.size, handled=job.handled)
        if not self.jobs:
            self._empty.set()
        self._ask_soon()

    # --- handling -------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Wake one idle handler; it wakes the next, if there is still work when it has its own.

        A handler that never waits so empties the mailbox alone, without a switch for each message.
        """
        while self._idle and not self._waking:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._waking = True

    async def _handler(self) -> None:
        """One of the stage's handlers: takes messages from the mailbox until cancelled."""
        task = asyncio.current_task()
        assert task is not None
        mailbox = self._mailbox
        single = self._handling.batch_size == 1
        while True:
            if single:
                while not mailbox:
                    await self._sleep(None)
                batch = [mailbox.popleft()]
            else:
                async with self._gathering:  # one batch is gathered at a time
                    batch = await self._gather()
            if mailbox:
                self._wake()  # in case this one has to wait
            ready = [job for job in batch if self._open(job)]
            if self._any_suspect(ready):
                ready = await self._without_suspects(ready, task)
            if ready:
                await self._handle(ready, task)
                self._handled(ready)
            # There may be hundreds of handlers: one that waits must not keep its last message,
            # neither here nor as the context of its task.
            del batch, ready
            current.set(None)

    def _handled(self, jobs: Sequence[Job]) -> None:
        """The handler is free for others; what is left of these is JetStream's to store."""
        for job in jobs:
            if not job.settled:
                job.handled = True
                self.slots.handled()

    def _any_suspect(self, jobs: Sequence[Job]) -> bool:
        for job in jobs:  # noqa: SIM110 - a generator would cost more than the rest of the loop
            if job.delivery.attempt > 1 and self._is_suspect(job):
                return True
        return False

    def _is_suspect(self, job: Job) -> bool:
        return self._handling.runs_user_code and self._suspects.suspects(job)

    async def _without_suspects(self, jobs: Sequence[Job], task: asyncio.Task[object]) -> list[Job]:
        """Handle the suspects among `jobs` alone; the others are left."""
        others = []
        for job in jobs:
            if self._is_suspect(job):
                await self._handle_alone(job, task)
            else:
                # Not asked again later: it may be delivered anew, and then be a suspect, meanwhile.
                others.append(job)
        return others

    async def _sleep(self, timeout: float | None) -> None:
        """Until a message arrives, or `timeout` seconds have passed."""
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            if timeout is None:
                await waiter
            else:
                async with asyncio.timeout(timeout):
                    await waiter
        except TimeoutError:
            pass
        finally:
            self._waking = False
            waiter.cancel()

    async def _gather(self) -> list[Job]:
        """A batch: full, or as old as a batch may get."""
        wanted = self._handling.batch_size
        while not self._mailbox:
            await self._sleep(None)
        oldest = self._mailbox[0].received
        while 0 < len(self._mailbox) < wanted:
            left = oldest + self._handling.batch_wait - self._clock()
            full = self.slots.plan() is None and not self.slots.asked
            if left <= 0 or full:
                break  # old enough, or no more can come before this batch is done
            await self._sleep(left)
        return [self._mailbox.popleft() for _ in range(min(wanted, len(self._mailbox)))]

    def _open(self, job: Job) -> bool:
        """Read headers and payload; False when the message is settled already."""
        context = job.open(self.name, self._state, self._blobs)
        headers = context.headers
        only = headers.get(ONLY) if headers else None
        if only is not None and only != self.consumer:
            self._settler.skipped(job)
            return False
        try:
            job.message = self._decode(job.delivery)
        except Reject as error:
            self._settler.failed(job, error)
            return False
        return True

    async def _handle_alone(self, job: Job, task: asyncio.Task[object]) -> None:
        """Handle a message that may kill its worker, so that no other can be blamed for it."""
        async with self._suspects.lane:
            if not await self._suspects.may_run(job):
                self._settler.dead(
                    job,
                    WorkerKilled(
                        f"its worker died while it alone was being handled; delivered "
                        f"{job.delivery.attempt - 1} times (out of memory, a crash in native "
                        "code, os._exit?)"
                    ),
                )
                return
            try:
                await self._handle([job], task)
            finally:
                await self._suspects.survived(job)

    async def _handle(self, jobs: Sequence[Job], task: asyncio.Task[object]) -> None:
        """Run the handler; a timeout cancels this task, and only then is the cancel ours."""
        now = self._clock()
        for job in jobs:
            job.started = now
            job.task = task
        try:
            await self._handling.run(jobs)
        except asyncio.CancelledError:
            if not any(job.timed_out for job in jobs) or self._stopping:
                raise
            task.uncancel()
            if len(jobs) > 1:
                # One of them hangs, and the others must not pay for it with their attempts.
                await self._handle_each(jobs, task)
                return
            error = HandlerTimeout(
                f"stage {self.name} took longer than its timeout of {self._limits.timeout} s; "
                "raise timeout=, or call ctx.progress() as the work advances"
            )
            for job in jobs:
                self._settler.failed(job, error)
        finally:
            for job in jobs:
                job.task = None

    async def _handle_each(self, jobs: Sequence[Job], task: asyncio.Task[object]) -> None:
        """Handle the messages of a batch that timed out one by one, each with the whole timeout."""
        for job in jobs:
            if not job.settled and job.unpublished == 0:
                job.timed_out = False
                await self._handle([job], task)

    # --- time -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(TICK, self._limits.ack_wait / 6, self._limits.timeout / 2))
            self.tick(self._clock())
            if self._asking is None:
                self._ask()

    def tick(self, now: float) -> None:
        """Pulse what is being worked on, and cancel what takes too long."""
        pulse_before = now - self._limits.ack_wait / 3
        busy: dict[asyncio.Task[object], float] = {}
        for job in self.jobs.values():
            if job.pulsed <= pulse_before:
                self._broker.progress(job.delivery)
                job.pulsed = now
            if job.task is None or job.timed_out or job.context is None:
                continue
            if job.context.take_progress():
                job.started, job.context.waited = now, 0.0
            # The messages of a batch share a task, and one of them has its waits and progress.
            busy[job.task] = min(busy.get(job.task, job.busy(now)), job.busy(now))
        late = {task for task, seconds in busy.items() if seconds > self._limits.timeout}
        if late:
            for job in self.jobs.values():
                job.timed_out = job.timed_out or job.task in late
            for task in late:
                task.cancel()
        if self._handling.exhausted:
            raise HandlerTimeout(
                f"stage {self.name}: too many handlers hang in threads that cannot be stopped; "
                "the worker ends, to be started anew"
            )

    def __repr__(self) -> str:
        return f"Runner({self.name}, {self.slots!r}, blocked={self.blocked!r})"
