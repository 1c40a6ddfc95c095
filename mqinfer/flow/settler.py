"""Settler: what becomes of a message once its handler is done.

Promise 1: a message is acknowledged only when all its outputs are acknowledged by JetStream, or
its dead letter is. Promise 4: the last attempt ends in the dead-letter stream.

Everything here is synchronous: publishing calls back, so no await lies between an acknowledgement
from the stream and the one we send.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from mqinfer.flow.burying import Burying
from mqinfer.flow.deadletter import kind_of
from mqinfer.flow.emitter import Emitter
from mqinfer.flow.job import SETTLED, STORING, Interruption, Job
from mqinfer.flow.outcome import Dead, outcome
from mqinfer.flow.past import Past
from mqinfer.flow.recording import Recording, TellsAtOnce
from mqinfer.identity import ONLY

if TYPE_CHECKING:
    from mqinfer.completion.record import Outcome
    from mqinfer.flow.ledger import Ledger
    from mqinfer.flow.policy import Policy, SetsTimers
    from mqinfer.message import Message, Wire
    from mqinfer.observe import StageMetrics
    from mqinfer.ports import Broker, Delivery
    from mqinfer.rowpacks.gather import Gatherer, Group
    from mqinfer.stage import Limits

log = structlog.get_logger("mqinfer.stage")

# The pause after which a message is delivered again whose dead letter cannot be stored.
DEAD_LETTER_RETRY = 30.0


class Settler:
    """Acknowledges, gives back or dead-letters the messages of one stage.

    Args:
        stage: its name.
        limits: attempts and backoff.
        broker: to publish and acknowledge.
        emitter: for outputs.
        ledger: where the end of a delivery without an answer is written down.
        dead_subject: where dead letters go; None for what reads them: they only end.
        metrics: of the stage.
        released: called for every job that leaves, however it does, and with whether its outputs
            were being stored.
        clock: monotonic seconds.
        run: the replay run, or None.
        policy: of ordered or replayed work; None is plain work.
        timers: sets what handlers asked for with `ctx.later`; None where they cannot.
        at_once: tells who waits for what is answered whole by one message; None where nobody does.
        again: called for a job that the policy keeps here, with the seconds it is to wait.
    """

    def __init__(
        self,
        stage: str,
        limits: Limits,
        *,
        broker: Broker,
        emitter: Emitter,
        ledger: Ledger,
        dead_subject: str | None,
        metrics: StageMetrics,
        released: Callable[[Job, bool], None],
        clock: Callable[[], float],
        run: str | None = None,
        policy: Policy | None = None,
        timers: SetsTimers | None = None,
        at_once: TellsAtOnce | None = None,
        again: Callable[[Job, float], None] = lambda _job, _delay: None,
    ):
        self._stage = stage
        self._limits = limits
        self._broker = broker
        self.emitter = emitter
        self._recorder = recorder = emitter.recorder
        self._recording = None if recorder is None else Recording(recorder, broker, at_once)
        self._ledger = ledger
        self._burying = Burying(
            *(stage, dead_subject, broker, emitter), metrics=metrics, run=run, policy=policy
        )
        self._metrics = metrics
        self._released = released
        self._again = again
        self._clock = clock
        self._policy = policy
        self._timers = timers

    def holds(self, job: Job) -> bool:
        """Whether there is still something to be said about a message: it is open, and ours."""
        if job.state is SETTLED:
            return False
        if self._policy is None or self._policy.owns(job, self._clock()):
            return True
        log.warning(
            "lease lost",
            stage=self._stage,
            id=job.id,
            sequence=job.delivery.sequence,
            attempt=job.delivery.attempt,
        )
        self._leave(job)
        return False

    # --- answered -------------------------------------------------------------------------------

    def answered(
        self, job: Job, outputs: Sequence[Message], first: int = 0, sent: int | None = None
    ) -> None:
        """The handler is done: publish `outputs`, then acknowledge.

        An output that cannot be encoded or is too large makes the message fail.

        Args:
            job: the message.
            outputs: that have not left.
            first: the number of the first of them.
            sent: outputs that left before by `emit_some`; None is `first`. Where there are any,
                `job.unpublished` counts one more, which held the job open and is let go here.
        """
        if not self.holds(job):
            return
        if sent is None:
            sent = first
        beside: Sequence[Message] = ()
        if self._policy is not None:
            beside = self._policy.after_answer(job, sent + len(outputs))
        if not outputs and not beside and job.unpublished == 0:
            self._stored(job)
            return
        if sent == 0:
            job.unpublished += 1  # held until all are sent: an early answer must not settle it
        self.emit_some(job, outputs, first)
        if beside and job.problem is None:
            self.emit_some(job, beside, -len(beside))
        self._published(job, None, False)

    def emit_some(self, job: Job, outputs: Sequence[Message], first: int) -> None:
        """Publish outputs of a handler that is still running."""
        rows: Sequence[tuple[Gatherer, Wire, Group]] = ()
        try:
            if self.emitter.packs:
                messages, rows = self.emitter.make_packed(job, outputs, first)
            else:
                messages = self.emitter.make(job, outputs, first)
        except Exception as error:  # noqa: BLE001 - user types may fail to encode in any way
            job.problem = job.problem or error
            return
        done = partial(self._published, job)
        job.unpublished += len(messages) + len(rows)
        if first >= 0:  # what is beside an answer is no output
            self._metrics.outputs(len(outputs))
            if self._recorder is not None:
                self._recorder.note(job, outputs, first)
        for subject, header, payload in messages:
            self._broker.publish(subject, header, payload, done)
        for gatherer, wire, group in rows:
            gatherer.add(wire, group, partial(self._packed, job, len(group.ids)))

    def _packed(self, job: Job, rows: int, error: Exception | None, repeat: bool) -> None:
        if repeat:
            self._metrics.duplicates(rows - 1)
        self._published(job, error, repeat)

    def _published(self, job: Job, error: Exception | None, repeat: bool) -> None:
        job.unpublished -= 1
        if repeat:
            self._metrics.duplicates()
        if error is not None and job.problem is None:
            job.problem = error
        if job.unpublished == 0 and job.state is not SETTLED:
            if job.problem is None:
                self._stored(job)
            else:
                self.failed(job, job.problem)
        elif job.unpublished == 2 and job.after is not None:
            after, job.after = job.after, None
            after()

    def _stored(self, job: Job) -> None:
        """All outputs are stored: now timers may be set, so that no attempt that fails sets one."""
        if self._timers is not None and (wishes := self._timers.take(job)):
            job.unpublished += 1
            self._timers.set(job, wishes, partial(self._published, job))
        else:
            self._done(job)

    def _done(self, job: Job) -> None:
        """Nothing is left but to say so: the record of it, then the state of its key, then the end.

        The state comes last: what it has seen is not handled again, so all else must be stored.
        """
        if not self.holds(job):
            return
        if self._recorder is not None and not job.recorded:
            self._record(job, "answered", None, partial(self._done, job))
            return
        if job.memory is not None:
            memory, job.memory = job.memory, None
            job.unpublished += 1  # held until the state is written
            memory.keep(partial(self._kept, job))
            return
        job.tell(None)
        self._broker.ack(job.delivery)
        now = self._clock()
        self._metrics.done(now - (job.started or job.received), job.delivery.published)
        self._end(job)

    def _kept(self, job: Job, error: BaseException | None) -> None:
        """The state is written, or is not."""
        job.unpublished -= 1
        if error is None:
            self._done(job)
        else:
            self.failed(job, error)

    def repeated(self, job: Job) -> None:
        """The message was answered before, and its acknowledgement lost: acknowledge it again.

        Its timers are set and its record is stored: the state that has seen it was written later.
        """
        job.recorded = True
        self._done(job)

    def skipped(self, job: Job) -> None:
        """The message is for another consumer: acknowledge it without an answer."""
        if self.holds(job):
            self._broker.ack(job.delivery)
            self._metrics.skipped()
            log.info(
                "passed over: it is for another consumer",
                stage=self._stage,
                id=job.id,
                sequence=job.delivery.sequence,
                only=job.delivery.headers.get(ONLY),
            )
            self._end(job)

    def unwanted(self, job: Job, why: Interruption) -> None:
        """The request that the message came of has ended: acknowledge it without an answer.

        Whoever else waits for what came of it is told that it was passed over.
        """
        if not self.holds(job):
            return
        job.unpublished += 1  # never let go: from now on nothing but `ended` settles it

        def ended() -> None:
            self._broker.ack(job.delivery)
            self._metrics.skipped()
            self._end(job)

        if self._recorder is None:
            ended()
        else:
            self._record(job, "dead", (why.value, f"the request is {why.value}"), ended)

    def passed_over(self, delivery: Delivery) -> None:
        """The policy does not admit the message: acknowledge it, it never was a job."""
        self._broker.ack(delivery)
        self._metrics.skipped()

    # --- not answered ---------------------------------------------------------------------------

    def failed(self, job: Job, error: BaseException) -> None:
        """Give the message back for another delivery, or dead-letter it; see `outcome`."""
        if not self.holds(job):
            return
        if job.memory is not None:
            self._void(job, error)
            return
        found = outcome(
            *(error, job.past, job.delivery.attempt, self._limits),
            now=time.time(),
            random=random.random(),
        )
        job.tell(error)
        if isinstance(found, Dead):
            self.dead(job, found.error)
            return
        (log.info if found.snoozed else log.warning)(
            "snooze" if found.snoozed else "retry",
            stage=self._stage,
            id=job.id,
            sequence=job.delivery.sequence,
            failures=found.past.failures,
            attempts=self._limits.attempts,
            after=round(found.delay, 3),
            error=f"{type(error).__name__}: {error}",
        )
        self._give_back(job, found.past, found.delay)

    def _void(self, job: Job, error: BaseException) -> None:
        """Its state is not to be; the message fails when those before it of its key are done."""
        assert job.memory is not None
        memory, job.memory = job.memory, None
        job.unpublished += 1  # held until then

        def told(problem: BaseException | None) -> None:
            job.unpublished -= 1
            self.failed(job, problem or error)

        memory.drop(error, told)

    def _give_back(self, job: Job, past: Past, delay: float) -> None:
        """Write down how the delivery ended, then give the message back."""
        job.unpublished += 1  # never let go: from now on nothing but `written` settles it
        snoozed = past.snoozed > 0
        if self._policy is not None:
            past = self._policy.noted(job, past, delay)

        def written() -> None:
            if self.holds(job):
                self._comes_again(job, delay, snoozed=snoozed)

        def write() -> None:
            self._ledger.ended(job, past, written)

        if self._recorder is not None and job.noted:  # what left early stays on the stream
            self._record(job, "failed", None, write)
        else:
            write()

    def dead(self, job: Job, error: BaseException) -> None:
        """Publish the dead letter; the message ends when JetStream has it."""
        if not self.holds(job):
            return
        job.unpublished += 1  # never let go: from now on nothing but `stored` settles it

        def stored(problem: Exception | None) -> None:
            if not self.holds(job):
                return
            if problem is not None:
                self._not_buried(job, problem)
                return
            if self._recorder is not None and job.context is not None:
                self._record(job, "dead", (kind_of(error), str(error)), ended)
            else:
                ended()

        def ended() -> None:
            self._burying.ended(job, error)
            self._end(job)

        self._burying.store(job, error, stored)

    def _record(
        self,
        job: Job,
        outcome: Outcome,
        error: tuple[str, str] | None,
        then: Callable[[], None],
    ) -> None:
        """Store what a message led to, for whoever waits for all of it; then go on."""
        assert self._recording is not None

        def stored(problem: Exception | None) -> None:
            if not self.holds(job):
                return
            if problem is None:
                then()
            else:
                self._not_buried(job, problem, what="the record of a message")

        self._recording.store(job, outcome, error, stored)

    def answered_but(self, job: Job, parts: Sequence[tuple[Job, BaseException]]) -> None:
        """The message held several, and all but these are answered: these are dead letters.

        Args:
            job: the message; it is acknowledged when JetStream has the dead letters.
            parts: of it, each as a message of its own, with what is wrong with it.
        """
        if not parts:
            self.answered(job, ())
            return
        if not self.holds(job):
            return
        job.unpublished += len(parts)

        def stored(part: Job, error: BaseException, problem: Exception | None) -> None:
            job.unpublished -= 1
            if problem is None:
                self._burying.stored(part, error)
            else:
                job.problem = job.problem or problem
            if job.unpublished or not self.holds(job):
                return
            if job.problem is None:
                self._done(job)
            else:
                self._not_buried(job, job.problem)

        for part, error in parts:
            self._burying.store(part, error, partial(stored, part, error))

    def _not_buried(self, job: Job, problem: Exception, what: str = "the dead letter") -> None:
        """A dead letter, or a record, cannot be stored: the message comes again later."""
        log.error(
            f"{what} cannot be stored",
            stage=self._stage,
            sequence=job.delivery.sequence,
            error=str(problem),
        )
        self._comes_again(job, DEAD_LETTER_RETRY)

    def hand_back(self, job: Job, delay: float = 0.0) -> None:
        """Nothing was done with the message: another worker may have it, after so many seconds."""
        if self.holds(job):
            self._broker.nak(job.delivery, delay)
            self._leave(job)

    def let_go(self, job: Job) -> None:
        """The message may be another worker's by now: nothing is said about it, but counted."""
        self._metrics.lapsed()
        self._leave(job)

    def _comes_again(self, job: Job, delay: float, *, snoozed: bool = False) -> None:
        """Another attempt, after `delay` seconds: by any worker, or by this one."""
        self._metrics.retried(snoozed=snoozed)
        if self._policy is not None and self._policy.keeps(job):
            self._again(job, delay)
        else:
            self._broker.nak(job.delivery, delay)
            self._leave(job)

    def _end(self, job: Job) -> None:
        """Nobody handles the message any more."""
        if self._policy is not None:
            self._policy.settled(job)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        storing = job.settle() is STORING
        if self._policy is not None:
            self._policy.left(job)
        self._released(job, storing)
