"""Runner: one stage at work: take, read, handle, settle; and stop in order.

    Slots ──> Intake ──> Mailbox ──> handlers ──> Emitter ──> Settler
      ^                                                          │
      └───────────────────────── released ───────────────────────┘

Promises 3 (bounded; outages stop the pulling, not the work) and 5 (clean stop) are kept here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from mqinfer.context import current
from mqinfer.errors import HandlerTimeout, Reject
from mqinfer.flow.ahead import Ahead
from mqinfer.flow.beat import Beat
from mqinfer.flow.claims import Claims
from mqinfer.flow.handlers import Handlers
from mqinfer.flow.handling import Handling
from mqinfer.flow.intake import Intake, Source
from mqinfer.flow.intime import too_late
from mqinfer.flow.job import HANDLING, SETTLED, STORING, Interruption, Job
from mqinfer.flow.mailbox import Mailbox, Weighing
from mqinfer.flow.overdue import interrupt, overdue
from mqinfer.flow.returned import Returned
from mqinfer.flow.settler import Settler
from mqinfer.flow.slots import Slots

if TYPE_CHECKING:
    from mqinfer.flow.ledger import Ledger
    from mqinfer.flow.policy import Policy
    from mqinfer.flow.reader import Reader
    from mqinfer.flow.suspects import Suspects
    from mqinfer.observe import StageMetrics
    from mqinfer.ports import Delivery
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

TICK = 0.25  # how often timeouts, pulses and gates are looked at, in seconds


class Runner:
    """One consumer in one process.

    Args:
        name: of the stage or sink, for logs.
        source: where its messages come from.
        reader: makes a message of a delivery.
        limits: what bounds the work.
        handling: what is done with messages.
        settler: what becomes of them.
        slots: the account of what is in flight.
        metrics: of the stage.
        suspects: messages that may kill their worker.
        ledger: how earlier deliveries ended.
        policy: of ordered or replayed work; None is plain work.
        beat: of the loop; None is one that never stands still.
        clock: monotonic seconds, the beat's.
    """

    def __init__(
        self,
        name: str,
        *,
        source: Source,
        reader: Reader,
        limits: Limits,
        handling: Handling,
        settler: Settler,
        slots: Slots,
        metrics: StageMetrics,
        suspects: Suspects,
        ledger: Ledger,
        policy: Policy | None = None,
        beat: Beat | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name = name
        self.timeout = limits.timeout
        self.source = source
        self.jobs: dict[int, Job] = {}  # by sequence
        self.slots = slots
        self._reader = reader
        self._limits = limits
        self._handling = handling
        self._settler = settler
        self._metrics = metrics
        self._suspects = suspects
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._beat = beat or Beat()
        self.claims = Claims(
            name,
            limits.ack_wait,
            jobs=self.jobs,
            beat=self._beat,
            settler=settler,
            ledger=ledger if handling.runs_user_code else None,
            policy=policy,
            clock=clock,
        )
        self._intake = Intake(name, source, slots)
        waiting = (
            handling.batch_size,
            handling.batch_wait,
            lambda: slots.available() is not None or slots.asked > 0,
            clock,
            self._starved,
        )
        weigh = handling.weigh
        self._mailbox = Mailbox(*waiting) if weigh is None else Weighing(weigh, *waiting)
        self._returned = Returned(
            suspects,
            ledger,
            settler,
            self._mailbox,
            read=self._open,
            handle=self._handle,
            hand_back=self._hand_back,
            clock=clock,
            policy=policy,
        )
        handlers = handling.concurrency * handling.batch_size
        beside = min(slots.max_unhandled, slots.max_messages) - handlers
        # None where handlers take all that may be in flight: nothing can wait beside them.
        self._ahead = Ahead(handlers, beside) if beside > 0 and slots.adaptive else None
        if self._ahead is not None:
            slots.max_unhandled = self._ahead.allowed
        self.hanging: list[str] = []  # handlers that did not end when the stage did
        self._handled = self._pending = 0
        self._stopping = False
        put: Callable[[Job], None] = self._mailbox.put
        self._enter = put if policy is None else policy.begins(put, self._hand_back)
        self._late: list[Job] | None = []  # that arrive while the pull is being closed
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def blocked(self) -> str | None:
        """Why nothing is pulled now, or None."""
        return self._intake.blocked

    # --- running --------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, grace: float) -> None:
        """Work until `stop` is set, then stop in order.

        Args:
            stop: set by the worker.
            grace: seconds that handlers may take to finish.
        """
        count = self._handling.concurrency
        handlers = Handlers(self.name, [self._handler() for _ in range(count)])
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._watch(), name=f"{self.name} watch"),
                    group.create_task(handlers.watch(), name=f"{self.name} handlers"),
                ]
                try:
                    await self._intake.open(self._arrived)
                    await stop.wait()
                finally:
                    await self._drain(grace, handlers)
                    for task in beside:
                        task.cancel()
                    self._handling.close()
        finally:
            await handlers.end(self.jobs)  # of a stop that was itself cancelled
            self.hanging = handlers.hanging
            if self._policy is not None:
                await self._policy.end()

    async def _drain(self, grace: float, handlers: Handlers) -> None:
        """Promise 5: stop pulling, finish, publish, acknowledge, hand back the rest."""
        self._stopping = True
        await self._intake.close()
        late, self._late = self._late or [], None
        aside = self._returned.give_up()  # first: it may put some of them into the mailbox
        await self._hand_back([*self._mailbox.empty(), *aside, *late])
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            log.warning("grace is over", stage=self.name, unfinished=len(self.jobs))
        await handlers.end(self.jobs)
        await self._hand_back(list(self.jobs.values()))
        await self.claims.told()

    async def _hand_back(self, jobs: Sequence[Job]) -> None:
        """Give to others what a stop leaves undone: it was no attempt."""
        if self._handling.runs_user_code:
            await self._ledger.handed_back([job for job in jobs if job.state is not SETTLED])
        for job in jobs:
            self._settler.hand_back(job)

    # --- taking and releasing -------------------------------------------------------------------

    def _arrived(self, delivery: Delivery) -> None:
        """A message from the read loop."""
        self.slots.arrive(delivery.size)
        self._pending = delivery.pending
        if self._policy is not None and not self._policy.admits(delivery):
            self.slots.release(delivery.size)
            self._settler.passed_over(delivery)
            self._intake.ask_soon()
            return
        earlier = self.jobs.get(delivery.sequence)
        if earlier is not None:
            # ack_wait ran out on it (this process was stopped, or the server restarted) while it
            # is still being worked on here: one handling serves both deliveries.
            self.slots.release(earlier.delivery.size)
            earlier.delivery = delivery
            earlier.pulsed = min(self._clock(), self._beat.sent_after)
            return
        now = self._clock()
        job = self.jobs[delivery.sequence] = Job(delivery, now, now)
        if self._stopping:
            if self._late is None:
                self._settler.hand_back(job)  # the pull is closed: few come after that
            else:
                self._late.append(job)
            return
        if delivery.attempt > 1:
            self._metrics.redelivered()
        if now - self._beat.sent_after > self.claims.due_after and not self.claims.takes(job, now):
            return
        self._empty.clear()
        self._enter(job)

    def _starved(self) -> None:
        """A handler waits: it is to hold more, if the stream has more."""
        if self._ahead is not None and self._pending and not self._mailbox:
            self._ahead.starved()
            self._allow()

    def _allow(self) -> None:
        if self._ahead is not None and self.slots.max_unhandled != self._ahead.allowed:
            self.slots.max_unhandled = self._ahead.allowed
            self._intake.ask_soon()

    def released(self, job: Job, storing: bool) -> None:
        """A job was settled; the settler calls this.

        Args:
            job: the job.
            storing: whether its handler was done before.
        """
        if self.jobs.pop(job.delivery.sequence, None) is None:
            return
        self.slots.release(job.delivery.size, handled=storing)
        self._handled += 1
        if not self.jobs:
            self._empty.set()
        self._intake.ask_soon()

    def again(self, job: Job, delay: float) -> None:
        """A job failed, and its message waits here for another attempt; the settler calls this."""
        assert self._policy is not None
        self.slots.again(handled=job.settle() is STORING)
        self.jobs[job.delivery.sequence] = again = Job(job.delivery, self._clock(), job.pulsed)
        self._policy.again(again, delay)
        if self._stopping:
            self._settler.hand_back(again)

    # --- handling -------------------------------------------------------------------------------

    async def _handler(self) -> None:
        """One of the stage's handlers: takes messages from the mailbox until cancelled."""
        task, mailbox = asyncio.current_task(), self._mailbox
        assert task is not None
        while not self._stopping:  # a handler may swallow the cancellation at the end
            batch = mailbox.pop() or await mailbox.take()
            if self._any_came_again(batch):
                ready = await self._returned.take(batch, task)
            else:
                ready = [job for job in batch if self._open(job)]
            if ready:
                await self._handle(ready, task)
            # There may be hundreds of handlers: one that waits must not keep its last message,
            # neither here nor as the context of its task.
            del batch, ready
            current.set(None)

    def _open(self, job: Job) -> bool:
        """Read a message; False when it is settled already."""
        try:
            if self._reader.read(job):
                return True
            self._settler.skipped(job)
        except Reject as error:
            self._settler.failed(job, error)
        return False

    def _any_came_again(self, jobs: Sequence[Job]) -> bool:
        """Whether one was delivered before; a sink spends no attempts and is never killed."""
        for job in jobs:  # noqa: SIM110 - a generator would cost more than the rest of the loop
            if job.delivery.attempt > 1 and self._handling.runs_user_code:
                return True
        return False

    async def _handle(self, jobs: Sequence[Job], task: asyncio.Task[object]) -> None:
        """Run the handler, in this task; an interruption cancels it, and that is ours to heed."""
        if self._policy is not None:  # one may have waited long for its turn
            jobs = [job for job in jobs if self._settler.holds(job)]
            if not jobs:
                return
        now = self._clock()
        if now - self._beat.last > self._beat.late:
            # Another handler blocked the loop: what it led to is said before the next one may.
            await self._beat.turns()
            now = self._clock()
            jobs = [job for job in jobs if job.state is not SETTLED]
            if not jobs:
                return
        for job in jobs:
            job.begin(task, now)
        cancelled = False
        try:
            await self._handling.run(jobs)
        except asyncio.CancelledError:
            # At most one cancellation is an interruption; where there is another the stage ends.
            if task.cancelling() > any(job.interrupted for job in jobs):
                raise
            cancelled = True
        else:
            # The handler is free for others; what is left of these is JetStream's to store.
            for job in jobs:
                if job.handled():
                    self.slots.handled()
        finally:
            interrupted = False
            for job in jobs:
                job.task = None
                interrupted |= job.interrupted is not None
            if interrupted:
                # Also where the handler swallowed it: what is left would reach its next message.
                task.uncancel()
        if cancelled:
            await self._cancelled(jobs, task)

    async def _cancelled(self, jobs: Sequence[Job], task: asyncio.Task[object]) -> None:
        """What becomes of messages whose handler was cancelled, other than for a stop."""
        if len(jobs) > 1:
            # One of them hangs, and the others must not pay for it with their attempts: each is
            # handled alone, with the whole timeout.
            for job in jobs:
                if job.state is HANDLING and not job.unpublished:
                    await self._handle([job], task)
            return
        (job,) = jobs
        if job.interrupted is Interruption.NOT_OURS:
            self._settler.hand_back(job)  # without a word, unless it is ours again by now
        elif job.interrupted in (Interruption.CANCELED, Interruption.EXPIRED):
            self._settler.unwanted(job, job.interrupted)
        elif job.interrupted is Interruption.LATE:
            self._settler.failed(job, too_late())
        elif job.interrupted is Interruption.TIMEOUT:
            text = (
                f"stage {self.name} took longer than its timeout of {self._limits.timeout} s; "
                "raise timeout=, or call ctx.progress() as the work advances"
            )
            self._settler.failed(job, HandlerTimeout(text))
        else:
            text = "the handler raised CancelledError, not being cancelled: it awaited what was"
            self._settler.failed(job, RuntimeError(text))

    # --- time -----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(TICK, self._limits.ack_wait / 6, self._limits.timeout / 2))
            self.tick(self._clock())
            await self._share()
            self._intake.look()

    async def _share(self) -> None:
        """Give to others what was taken while the handlers were quick, and would wait long."""
        if self._ahead is None or self._intake.blocked or not self._handling.runs_user_code:
            return  # what waits for a server waits here as well as anywhere
        count = self._ahead.too_many(self.slots.beyond, self._clock())
        jobs = self._mailbox.take_last(count) if count > 0 else []
        if not jobs:
            return
        if await self._ledger.handed_back(jobs) or self._stopping:
            handled = self._handled
            for job in jobs:
                self._settler.hand_back(job)
            self._handled = handled
            log.info("slower than before: gives back", stage=self.name, messages=len(jobs))
        else:
            for job in jobs:
                if job.state is not SETTLED:  # let go meanwhile
                    self._mailbox.put(job)

    def turned(self, seconds: float, blamed: Collection[asyncio.Task[object]]) -> None:
        """The loop turns again, after it stood still.

        Args:
            seconds: how long it did; no time of handlers that could do nothing about it.
            blamed: tasks that blocked it; none where that is not known.
        """
        self.claims.turned()
        self._mailbox.forget_settled()
        self._suspects.forget_settled()
        now = self._clock()
        for job in self.jobs.values() if blamed else ():
            if job.started is not None and job.task is not None and job.task not in blamed:
                job.started = min(now, job.started + seconds)

    def tick(self, now: float) -> None:
        """Pulse what is being worked on, and interrupt what takes too long or is not ours."""
        if self._ahead is not None:
            self._ahead.measured(self._handled, now)
            self._allow()
        self._handled = 0
        self.slots.aside = self._suspects.aside
        if self._policy is not None:
            self._policy.tick(now)
        found = overdue(self.jobs.values(), self._limits, self._policy, now)
        for job in found.silent:
            self.source.feed.progress(job.delivery)
            job.pulsed = now
        for job in found.lost:
            self.claims.let_go(job)
        if found.lost:
            self._mailbox.forget_settled()
            self._suspects.forget_settled()
        interrupt(self.jobs.values(), found.late)
        if self._handling.exhausted:
            raise HandlerTimeout(
                f"stage {self.name}: too many handlers hang in threads that cannot be stopped; "
                "the worker ends, to be started anew"
            )

    def __repr__(self) -> str:
        return f"Runner({self.name}, {self.slots!r}, blocked={self.blocked!r})"
