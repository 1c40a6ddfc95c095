"""Job: one job as a user of the library holds it: its id, how far it is, its rows and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mqinfer.errors import RequestError

if TYPE_CHECKING:
    from mqinfer.codec import Codec
    from mqinfer.jobs.chunk import Failure
    from mqinfer.jobs.jobs import Jobs
    from mqinfer.jobs.part import Line
    from mqinfer.jobs.state import State, Status, Stop
    from mqinfer.message import Message
    from mqinfer.requests.state import Answer


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Attributes:
        status: "open", or its end: "completed", all rows have succeeded; "partial", some have;
            "failed", none has, or more failed than may; "canceled"; "expired".
        stopping: the end that an open job comes to, once what is under way has ended; or None.
        rows: that it has.
        succeeded: rows that are done, with all that came of them.
        partial: those of which something died, and that have answers.
        failed: those that have none.
    """

    status: Status
    stopping: Stop | None
    rows: int
    succeeded: int
    partial: int
    failed: int

    @property
    def done(self) -> int:
        """Rows of which it is known how they ended."""
        return self.succeeded + self.partial + self.failed


@dataclass(frozen=True, slots=True)
class JobRow:
    """What came of one row.

    Attributes:
        row: its number, from 1.
        custom_id: as whoever submitted it calls it, or "".
        status: "succeeded", "partial" or "failed".
        answers: in the order of their causes.
        errors: in that order, too.
    """

    row: int
    custom_id: str
    status: Literal["succeeded", "partial", "failed"]
    answers: tuple[Message, ...]
    errors: tuple[Failure, ...]


class Job:
    """A job; made by `client.submit(...)`, `client.job(id)` and `client.jobs()`.

        job = await client.submit("grade", "photos.csv")
        async for progress in job:
            print(progress.done, "of", progress.rows)

    Attributes:
        replayed: whether it was there before, under its key.
    """

    def __init__(self, jobs: Jobs, state: State, codec: Codec, *, replayed: bool = False):
        self.replayed = replayed
        self._jobs = jobs
        self._state = state
        self._codec = codec

    @property
    def id(self) -> str:
        """By which any process finds it."""
        return self._state.id

    @property
    def endpoint(self) -> str:
        """That is asked."""
        return self._state.endpoint

    @property
    def progress(self) -> JobStatus:
        """How far it was when it was last looked at."""
        state = self._state
        counts = state.counts
        return JobStatus(
            state.status,
            state.stopping if state.open else None,
            state.rows,
            counts.succeeded,
            counts.partial,
            counts.failed,
        )

    async def status(self) -> JobStatus:
        """How far it is.

        Raises:
            JobUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        self._state = await self._jobs.get(self.id, tenant=self._state.tenant)
        return self.progress

    async def wait(self) -> JobStatus:
        """Its end, once it has come; an outage of NATS is waited out.

        Raises:
            JobUnknown: it is forgotten.
            Unavailable: NATS does not answer, for longer than anybody would wait for the job.
        """
        async for _ in self:
            pass
        return self.progress

    async def __aiter__(self) -> AsyncGenerator[JobStatus]:
        """How far it is, now and whenever it is further, to its end; errors as of `wait`."""
        known = self._state
        async for state in self._jobs.follow(self.id, tenant=known.tenant, known=known):
            self._state = state
            yield self.progress

    async def results(self) -> AsyncIterator[JobRow]:
        """What came of its rows so far, in their order; rows that are not done are left out.

        Raises:
            JobUnknown: it is forgotten.
            BlobError: its results cannot be read.
            Unavailable: NATS or the blob store does not answer, for longer than anybody would wait.
        """
        await self._look()
        async for line in self._jobs.lines(self._state):
            yield self._row(line)

    async def errors(self) -> AsyncIterator[JobRow]:
        """Those of the results that have errors."""
        async for row in self.results():
            if row.errors:
                yield row

    async def cancel(self) -> JobStatus:
        """Cancel it; where something is under way it is still open, and ends with that.

        Raises:
            JobUnknown: it is forgotten.
            Unavailable: NATS does not answer.
        """
        self._state = await self._jobs.cancel(self.id, tenant=self._state.tenant)
        return self.progress

    async def retry_failed(self) -> JobStatus:
        """Open it again, for rows that failed otherwise than by being no message, or never ran.

        Raises:
            MqinferError: it has not ended, or there is no such row.
            Unavailable: NATS does not answer.
        """
        self._state = await self._jobs.retry(self.id, tenant=self._state.tenant)
        return self.progress

    def facts(self) -> dict[str, Any]:
        """All that is known of it, of plain types."""
        from mqinfer.jobs.listing import facts

        return facts(self._state)

    async def text(self, *, errors: bool = False, after: int = 0) -> AsyncIterator[bytes]:
        """Its results as lines of JSON, some bytes at a time, for a file or another program.

        Once it has ended they lie in the blob store, at the path which `facts` tells.

        Args:
            errors: only those that have errors.
            after: only those of rows behind this one.

        Raises:
            JobUnknown: it is forgotten.
            BlobError: its results cannot be read.
            Unavailable: NATS or the blob store does not answer, for longer than anybody would wait.
        """
        await self._look()
        async for data in self._jobs.text(self._state, errors=errors, after=after):
            yield data

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Its results as `results` gives them, of plain types."""
        left = b""
        async for data in self.text():
            *whole, left = (left + data).split(b"\n")
            for line in whole:
                yield msgspec.json.decode(line)

    async def _look(self) -> None:
        self._state = await self._jobs.look(self._state)

    def _row(self, line: Line) -> JobRow:
        answers = tuple(map(self._decoded, line.answers))
        return JobRow(line.row, line.custom_id, line.status, answers, line.errors)

    def _decoded(self, answer: Answer) -> Message:
        endpoint = self._jobs.app.endpoints[self.endpoint]
        kinds = {kind.__mqinfer__.subject: kind for kind in endpoint.answers}
        kind = kinds.get(answer.type)
        if kind is None:
            raise RequestError(
                f"job {self.id}: it has an answer of type {answer.type!r}, which endpoint "
                f"{self.endpoint} does not answer with any more"
            )
        decoded: Message = self._codec.decode(kind, answer.body.payload, answer.body.content_type)
        return decoded

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self._state.status})"
