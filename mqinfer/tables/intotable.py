"""IntoTable: what a sink's runner does with messages: rows into a table, nothing out.

Only rows that ClickHouse refuses for their data are dead-lettered. A statement that it refuses for
another cause (a dropped table, a missing grant, a schema that conflicts) would be refused for
every row: that is for an operator to mend, so the rows wait, no attempt is spent, and readiness
says why.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from mqinfer.backoff import Backoff
from mqinfer.errors import ConflictError, PermissionDenied, Reject, TableError
from mqinfer.flow import deadletter
from mqinfer.flow.job import Job
from mqinfer.flow.settler import Settler
from mqinfer.identity import IDENTITY, MSG_ID, RUN, STAGE, header_number, header_text, safe_id
from mqinfer.message import Row
from mqinfer.ports import Delivery, Origin
from mqinfer.tables.origins import Batch
from mqinfer.tables.tables import DeadLetterRow

if TYPE_CHECKING:
    from mqinfer.stage import Limits
    from mqinfer.tables.sink import Sink

log = structlog.get_logger("mqinfer.sink")

MEND = Backoff(initial=1.0, maximum=15.0)

# What a stranger calls a stage may be of any length, and no text at all. There are few real ones.
known_stage = lru_cache(maxsize=256)(safe_id)


class IntoTable:
    """A table's sink as the `Handling` of its runner."""

    concurrency = 2
    runs_user_code = False
    exhausted = False
    weigh: Callable[[Job], int] | None = None  # a message is a row

    def __init__(self, sink: Sink, settler: Settler, limits: Limits):
        self._sink = sink
        self._settler = settler
        self.batch_size = limits.batch_size
        self.batch_wait = limits.batch_wait

    @property
    def blocked(self) -> str | None:
        """Why rows cannot be stored now, or None."""
        return self._sink.blocked

    async def run(self, jobs: Sequence[Job]) -> None:
        """Insert the rows; those that ClickHouse refuses for their data are dead-lettered."""
        refused = await self._write([_row(job) for job in jobs])
        for index, job in enumerate(jobs):
            reason = refused.get(index)
            if reason is None:
                self._settler.answered(job, ())
            else:
                self._settler.failed(job, Reject(reason))

    async def _write(self, rows: Batch | Sequence[tuple[Row, Origin]]) -> dict[int, str]:
        for attempt in itertools.count(1):
            try:
                refused = await self._sink.write(rows)
            except (TableError, ConflictError, PermissionDenied) as error:
                self._sink.trouble = f"table {self._sink.schema.name}: {error}"
                log.error("rows wait for an operator", reason=self._sink.trouble)  # noqa: TRY400
                self._sink.forget()  # the table may have to be made again
                await asyncio.sleep(MEND.delay(attempt))
            else:
                self._sink.trouble = None
                return refused
        raise AssertionError  # pragma: no cover - count() does not end

    def close(self) -> None:
        """Nothing to release."""


def _row(job: Job) -> tuple[Row, Origin]:
    context = job.context
    assert context is not None
    assert isinstance(job.message, Row)
    # Two stages may give up on one message: a dead letter's row goes by its own id.
    dead = isinstance(job.message, DeadLetterRow)
    return job.message, Origin(
        id=safe_id(context.headers[MSG_ID]) if dead else context.id,
        ancestors=job.ancestors,
        stage=known_stage(context.headers.get(STAGE, "")),
        # A run's dead letters are shown at once: they say in a column of their own whose they are.
        run="" if dead else context.run or "",
        models=context.models,
        sequence=context.sequence,
        published=job.delivery.published,
    )


def dead_letter_row(app: str, delivery: Delivery) -> DeadLetterRow:
    """The row of a dead letter; the payload stays in the dead-letter stream.

    Raises:
        Reject: the message on the dead-letter stream is none of ours.
    """
    headers = delivery.headers
    if MSG_ID not in headers or deadletter.STAGE not in headers:
        raise Reject("this message is no dead letter of mqinfer: it has no Mq-Dead headers")
    omitted = headers.get(deadletter.OMITTED)
    text = {name: header_text(value) for name, value in headers.items()}
    return DeadLetterRow(
        app=app,
        stage=text[deadletter.STAGE],
        time=datetime.datetime.fromtimestamp(delivery.published / 1e9, tz=datetime.UTC),
        kind=text.get(deadletter.KIND, ""),
        reason=text.get(deadletter.REASON, ""),
        error=text.get(deadletter.ERROR, ""),
        subject=text.get(deadletter.SUBJECT, ""),
        sequence=header_number(headers.get(deadletter.SEQUENCE)),
        attempts=header_number(headers.get(deadletter.ATTEMPTS)),
        message_id=text.get(IDENTITY, ""),
        run=text.get(RUN, ""),
        size=header_number(omitted) if omitted else len(delivery.data),
    )
