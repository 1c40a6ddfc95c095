"""Burying: a message that could not be answered ends when its dead letter is stored.

A policy may have something else stored in its place: a shadow says that it passed the message over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from mqinfer.flow.deadletter import dead_letter, kind_of

if TYPE_CHECKING:
    from mqinfer.flow.emitter import Emitter
    from mqinfer.flow.job import Job
    from mqinfer.flow.policy import Policy
    from mqinfer.message import Message
    from mqinfer.observe import StageMetrics
    from mqinfer.ports import Broker

log = structlog.get_logger("mqinfer.stage")


class Burying:
    """Stores the dead letters of one stage.

    Args:
        stage: its name.
        subject: where they go; None for what reads them: they only end.
        broker: that publishes.
        emitter: makes what a policy has stored in place of a letter.
        metrics: of the stage.
        run: the replay run, or None.
        policy: of ordered or replayed work; None is plain work.
    """

    def __init__(
        self,
        stage: str,
        subject: str | None,
        broker: Broker,
        emitter: Emitter,
        *,
        metrics: StageMetrics,
        run: str | None,
        policy: Policy | None = None,
    ):
        self._stage = stage
        self._subject = subject
        self._broker = broker
        self._emitter = emitter
        self._policy = policy
        self._metrics = metrics
        self._run = run

    def store(
        self, job: Job, error: BaseException, then: Callable[[Exception | None], None]
    ) -> None:
        """Publish a dead letter, and go on when it is stored, or why it is not."""
        if instead := self._instead(job, error):
            self._store(job, instead, then)
            return
        if self._subject is None:
            self._metrics.dropped += 1
            then(None)
            return
        header, payload = dead_letter(
            job, self._stage, error, max_payload=self._broker.max_payload, run=self._run
        )

        def stored(problem: Exception | None, _repeat: bool) -> None:
            then(problem)

        self._broker.publish(self._subject, header, payload, stored)

    def _instead(self, job: Job, error: BaseException) -> Sequence[Message]:
        if self._policy is None or job.context is None:
            return ()
        return self._policy.instead(job, error)

    def _store(
        self, job: Job, messages: Sequence[Message], then: Callable[[Exception | None], None]
    ) -> None:
        """Publish what stands in place of a letter, and go on when all of it is stored."""
        made = self._emitter.make(job, messages, -len(messages))
        left, first = len(made), None

        def stored(problem: Exception | None, _repeat: bool) -> None:
            nonlocal left, first
            left, first = left - 1, first or problem
            if not left:
                then(first)

        for subject, header, payload in made:
            self._broker.publish(subject, header, payload, stored)

    def ended(self, job: Job, error: BaseException) -> None:
        """The letter, or what stands in its place, is stored: the message ends."""
        if self._instead(job, error):
            self._broker.ack(job.delivery)
            self._metrics.skipped()
            return
        self._broker.term(job.delivery, f"dead letter: {kind_of(error)}")
        self.stored(job, error)

    def stored(self, job: Job, error: BaseException) -> None:
        """A letter is: count it, and say so."""
        kind = kind_of(error)
        self._metrics.dead(kind)
        log.error(
            "dead letter",
            stage=self._stage,
            id=job.id,
            sequence=job.delivery.sequence,
            attempts=job.past.attempt,
            kind=kind,
            reason=str(error),
            exc_info=error if kind == "failed" else None,
        )
