"""Inserts: the spans of a sink: one in the trace of what wrote the rows, and one of the block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqinfer.identity import TRACE
from mqinfer.rowpacks.unpack import Pack
from mqinfer.tracing.spans import Attributes, Tracing

if TYPE_CHECKING:
    from mqinfer.flow.handling import Handling
    from mqinfer.flow.job import Job


def of_inserts(handling: Handling, sink: str, tracing: Tracing | None) -> Handling:
    """The handling of a sink, in spans; None makes none."""
    if tracing is None:
        return handling
    return Inserts(handling, sink.removeprefix("sink-"), tracing)


class Inserts:
    """A sink's handling, in spans; where the server is away they are as long as that takes.

    Args:
        handling: of the sink.
        table: its name.
        tracing: makes them.
    """

    def __init__(self, handling: Handling, table: str, tracing: Tracing):
        self._handling = handling
        self._name = f"insert {table}"
        self._tracing = tracing
        self._told = {"db.system.name": "clickhouse", "db.collection.name": table}
        self.concurrency = handling.concurrency
        self.batch_size = handling.batch_size
        self.batch_wait = handling.batch_wait
        self.runs_user_code = handling.runs_user_code
        self.weigh = handling.weigh
        self.exhausted = handling.exhausted

    @property
    def blocked(self) -> str | None:
        """Why rows cannot be stored now, or None."""
        found: str | None = getattr(self._handling, "blocked", None)
        return found

    async def run(self, jobs: Sequence[Job]) -> None:
        """Insert the rows."""
        rows: Counter[str] = Counter()  # by whoever wrote them
        for job in jobs:
            if isinstance(job.message, Pack):
                rows.update(job.message.of_rows(TRACE, str))
            elif job.context is not None:
                rows[job.context.headers.get(TRACE, "")] += 1
        del rows[""]  # nobody's trace: it begins none
        spans = [
            self._tracing.span(
                self._name, "client", {TRACE: parent}, {**self._told, "mqinfer.rows": count}
            )
            for parent, count in rows.items()
        ]
        recorded = [span for span in spans if span.recorded]
        if not recorded:
            await self._handling.run(jobs)
            return
        told: Attributes = {**self._told, "mqinfer.messages": len(jobs)}
        error: BaseException | None = None
        try:
            with self._tracing.together(f"{self._name} (block)", "client", recorded, told):
                await self._handling.run(jobs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for span in spans:
                span.end(error)

    def close(self) -> None:
        """Nothing to release."""
        self._handling.close()
