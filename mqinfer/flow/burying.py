"""Burying: a message that could not be answered ends when its dead letter is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from mqinfer.flow.deadletter import dead_letter, kind_of

if TYPE_CHECKING:
    from mqinfer.flow.job import Job
    from mqinfer.observe import StageMetrics
    from mqinfer.ports import Broker

log = structlog.get_logger("mqinfer.stage")


class Burying:
    """Stores the dead letters of one stage.

    Args:
        stage: its name.
        subject: where they go; None for what reads them: they only end.
        broker: that publishes.
        metrics: of the stage.
        run: the replay run, or None.
    """

    def __init__(
        self,
        stage: str,
        subject: str | None,
        *,
        broker: Broker,
        metrics: StageMetrics,
        run: str | None,
    ):
        self._stage = stage
        self._subject = subject
        self._broker = broker
        self._metrics = metrics
        self._run = run

    def store(
        self, job: Job, error: BaseException, then: Callable[[Exception | None], None]
    ) -> None:
        """Publish a dead letter, and go on when it is stored, or why it is not."""
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

    def stored(self, job: Job, error: BaseException) -> None:
        """It is: count it, and say so."""
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
