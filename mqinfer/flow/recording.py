"""Recording: what a message led to is stored before it ends, for whoever waits for all of it.

Records of messages that end in the same turn of the loop leave together, those of each root in one
message: the parts of a root come one behind the other, and so do the answers of the server to what
came of them. One that is alone leaves then, too, so nothing waits for company.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqinfer.completion.record import Outcome, Record
    from mqinfer.completion.recorder import Recorder
    from mqinfer.completion.roots import Root
    from mqinfer.flow.job import Job
    from mqinfer.ports import Broker


class TellsAtOnce(Protocol):
    """Who can tell those who wait for a root of a record that is all there is of it."""

    def tell(self, root: Root, one: Record, told: Callable[[bool], None]) -> bool:
        """Begin to tell them, if this record is all, and that is possible without waiting.

        Args:
            root: that it is of.
            one: the record, of the first attempt at a message.
            told: is called once, if the answer is True: whether they are told.
        """


class _Together:
    """Records of one root, and who is told when they are stored."""

    __slots__ = ("records", "size", "tell")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.size = 0
        self.tell: list[Callable[[Exception | None], None]] = []


class Recording:
    """Stores the records of one stage's messages.

    Args:
        recorder: makes them.
        broker: that publishes.
        at_once: tells of roots of which there is a single record; None where nobody does.
    """

    def __init__(self, recorder: Recorder, broker: Broker, at_once: TellsAtOnce | None = None):
        self._recorder = recorder
        self._broker = broker
        self._at_once = at_once
        self._held: dict[Root, _Together] = {}
        self._waits = False

    def store(
        self,
        job: Job,
        outcome: Outcome,
        error: tuple[str, str] | None,
        then: Callable[[Exception | None], None],
    ) -> None:
        """Store the records of a message, then go on: with None, or with why they are not stored.

        Where whoever waits can be told at once, they are not stored, and need not be.

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
        if not records:
            then(None)
            return
        job.unpublished += 1  # never let go: from now on nothing but `then` settles it

        def told(done: bool) -> None:
            if done:
                then(None)
            else:
                self._store(records, then)

        # Of an attempt before this one there may be a record with outputs that this one has not.
        alone = len(records) == 1 and outcome == "answered" and job.delivery.attempt == 1
        if self._at_once is None or not alone or not self._at_once.tell(*records[0], told):
            self._store(records, then)

    def _store(
        self,
        records: Sequence[tuple[Root, Record]],
        then: Callable[[Exception | None], None],
    ) -> None:
        parts = [(root, part) for root, one in records for part in self._recorder.encoded(one)]
        left, trouble = len(parts), None

        def stored(problem: Exception | None) -> None:
            nonlocal left, trouble
            left -= 1
            trouble = trouble or problem
            if not left:
                then(trouble)

        for root, part in parts:
            self._add(root, part, stored)

    def _add(self, root: Root, record: bytes, stored: Callable[[Exception | None], None]) -> None:
        held = self._held.get(root)
        if held is not None and held.size + len(record) > self._recorder.largest:
            del self._held[root]
            self._publish(root, held)
            held = None
        if held is None:
            held = self._held[root] = _Together()
        held.records.append(record)
        held.size += len(record)
        held.tell.append(stored)
        if not self._waits:
            self._waits = True
            self._recorder.soon(self._turned)

    def _turned(self) -> None:
        """The turn ends: what was held leaves."""
        self._waits = False
        held, self._held = self._held, {}
        for root, one in held.items():
            self._publish(root, one)

    def _publish(self, root: Root, held: _Together) -> None:
        def stored(problem: Exception | None, _repeat: bool) -> None:
            for tell in held.tell:
                tell(problem)

        self._broker.publish(*self._recorder.message(root, held.records), stored)
