"""PacksIntoTable: what a sink does with packs of rows; see `rowpacks`.

A pack is one message: it is acknowledged when each of its rows is stored, or is a dead letter of
its own. Where a worker dies in between, all of it comes again, and the table keeps each row once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mqinfer.errors import MqinferError, Reject
from mqinfer.flow.job import Job
from mqinfer.identity import STAGE
from mqinfer.rowpacks import layout
from mqinfer.rowpacks.unpack import Pack
from mqinfer.tables.intotable import IntoTable, known_stage
from mqinfer.tables.origins import Batch, Origins

if TYPE_CHECKING:
    from mqinfer.flow.settler import Settler
    from mqinfer.stage import Limits
    from mqinfer.tables.sink import Sink


class PacksIntoTable(IntoTable):
    """A table's sink as the `Handling` of the runner that reads packs."""

    def __init__(self, sink: Sink, settler: Settler, limits: Limits):
        super().__init__(sink, settler, limits)
        self.weigh = _rows_in

    async def run(self, jobs: Sequence[Job]) -> None:
        """Insert the rows; those that cannot be read or stored are dead-lettered."""
        batch = Batch()
        packs = [_add(job, batch) for job in jobs]
        refused = await self._write(batch) if len(batch) else {}
        end = 0
        for job, pack in zip(jobs, packs, strict=True):
            first, end = end, end + len(pack.rows) - len(pack.refused)
            if not refused and not pack.refused:
                self._settler.answered(job, ())
                continue
            places = [place for place in range(len(pack.rows)) if place not in pack.refused]
            bad: dict[int, MqinferError] = dict(pack.refused)
            for index in range(first, end):
                if index in refused:
                    bad[places[index - first]] = Reject(refused[index])
            self._settler.answered_but(job, _parts(job, pack, bad))


def _rows_in(job: Job) -> int:
    return layout.count(job.delivery.data)


def _add(job: Job, batch: Batch) -> Pack:
    """Put the rows of a pack, but for those that cannot be read, into a batch."""
    found: Any = job.message
    pack: Pack = found
    context = job.context
    assert context is not None
    count = len(pack.rows)
    published = job.delivery.published
    origins = Origins(
        id=pack.ids,
        ancestors=pack.ancestors(),
        stage=[known_stage(context.headers.get(STAGE, ""))] * count,
        run=[context.run or ""] * count,
        models=pack.models(),
        sequence=[context.sequence] * count,
        # They share a place in the stream: what tells their order is the nanosecond.
        published=list(range(published, published + count)),
    )
    rows = [row for row in pack.rows if row is not None] if pack.refused else pack.rows
    if pack.refused:
        origins = origins.only([place for place in range(count) if place not in pack.refused])
    batch.rows += rows  # type: ignore[arg-type]
    batch.origins.extend(origins)
    return pack


def _parts(job: Job, pack: Pack, bad: dict[int, MqinferError]) -> list[tuple[Job, MqinferError]]:
    """Rows of a pack as messages of their own, with what is wrong with each."""
    if not bad:
        return []
    singles = pack.singles(bad, job.delivery)
    return [
        (Job(single, job.received, job.received), error)
        for single, error in zip(singles, bad.values(), strict=True)
    ]
