"""Recording: what a message led to is stored before it ends, for whoever waits for all of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mqinfer.completion.record import Outcome
    from mqinfer.completion.recorder import Recorder
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker


class Recording:
    """Stores the records of one stage's messages.

    Args:
        recorder: makes them.
        broker: that publishes.
    """

    def __init__(self, recorder: Recorder, broker: Broker):
        self._recorder = recorder
        self._broker = broker

    def store(
        self,
        job: Job,
        outcome: Outcome,
        error: tuple[str, str] | None,
        then: Callable[[Exception | None], None],
    ) -> None:
        """Store the records of a message, then go on: with None, or with why they are not stored.

        Its outputs are stored by now, or were not to be: of one that failed or died those that left
        early may be on their way, and are waited for. (`unpublished` is then one for whoever calls
        this, one that `Settler.answered` would have let go, and theirs.)
        """
        job.recorded = True
        if outcome != "answered":
            if job.unpublished > 2:
                job.after = partial(self.store, job, outcome, error, then)
                return
            if job.problem is not None:
                job.noted = None  # some are not stored, and nothing says which
        records = self._recorder.ended(job, outcome, error)
        left, trouble = len(records), None
        if not records:
            then(None)
            return
        job.unpublished += 1  # never let go: from now on nothing but `stored` settles it

        def stored(problem: Exception | None, _repeat: bool) -> None:
            nonlocal left, trouble
            left -= 1
            trouble = trouble or problem
            if not left:
                then(trouble)

        for subject, header, payload in records:
            self._broker.publish(subject, header, payload, stored)
