"""Sink: rows into one table; keeps promises 1 (nothing lost) and 3 (outages mean waiting).

`write` returns when every row it was given is in ClickHouse or refused for a reason:

* rows go as one insert, cut only where they are more than `max_bytes`;
* rows whose values do not fit their columns are found before anything is sent, and those that the
  server itself refuses without storing any (see `sift`); the others go as one insert all the same.
  Where that cannot be, a refused insert is halved until the rows at fault stand alone;
* while ClickHouse does not answer the sink waits. An insert whose answer was lost is sent again:
  under the same deduplication token, and should that have been forgotten, the table keeps one row
  for each identity anyway (see `tables`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from mqinfer.backoff import Backoff
from mqinfer.counts import SinkMetrics
from mqinfer.errors import BadRows, MqinferError, TableError, Unavailable
from mqinfer.flow.availability import Availability
from mqinfer.message import Row
from mqinfer.metrics import Metrics
from mqinfer.ports import Database, Origin
from mqinfer.split import Split
from mqinfer.tables.block import Block, build_block
from mqinfer.tables.migrate import ensure_table, without_days
from mqinfer.tables.origins import Batch
from mqinfer.tables.sift import sift
from mqinfer.tables.tables import TableSchema, schema_of

log = structlog.get_logger("mqinfer.sink")

# Below this many rows a thread costs more than the work it takes off the event loop.
_INLINE_ROWS = 500
# Seconds after which an insert without an answer is told of; the call itself ends later.
_SILENT = 10.0
# After this many refusals in a row by a server that answers pings, try with less at once.
_PATIENCE = 4
# Workers that lost the server together do not come back together.
PROBES = Backoff(initial=0.25, maximum=1.0, jitter=0.2)


class Sink:
    """Writes the rows of one type to its table.

    Calls of `write` may overlap. A cancelled `write` leaves it unknown which rows were stored;
    writing them again is safe.

    Args:
        db: where to.
        row_type: of the rows.
        app: whose table it is; None does not ask.
        max_bytes: one insert holds about this many bytes at most.
        metrics: of the app; None counts for itself.
        availability: shared by those who talk to the same server; None makes one.
        probe: the waits between the pings of an outage.
        clock: monotonic seconds.

    Attributes:
        trouble: what an operator has to mend before rows can be stored, or None; set by those who
            write rows, of which there are two.

    Raises:
        WiringError: `row_type` cannot be a table.
    """

    def __init__(
        self,
        db: Database,
        row_type: type[Row],
        *,
        app: str | None = None,
        max_bytes: int = 32 * 1024 * 1024,
        metrics: Metrics | None = None,
        availability: Availability | None = None,
        probe: Backoff = PROBES,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.schema: TableSchema = schema_of(row_type)
        self.row_type = row_type
        self.metrics = SinkMetrics() if metrics is None else metrics.sink(self.schema.name)
        self.trouble: str | None = None
        self._db = db
        self._app = app
        self._max_bytes = max_bytes
        self._availability = availability or Availability("clickhouse")
        self._probe = probe
        self._clock = clock
        self._ready = self._told = False
        self._preparing = asyncio.Lock()
        # Tokens are of this sink and of one call: a token made of the rows' ids alone would make
        # ClickHouse ignore rows that were deleted (a discarded run) and are written anew.
        self._token = uuid.uuid4().hex
        self._calls = itertools.count()

    @property
    def blocked(self) -> str | None:
        """Why rows cannot be stored now, or None."""
        return self._availability.blocked or self.trouble

    def forget(self) -> None:
        """Look at the table again before the next block: it may have been dropped or changed."""
        self._ready = False

    async def prepare(self) -> None:
        """Create or check the table, waiting while ClickHouse does not answer; `write` does it too.

        Raises:
            ConflictError: the table is another app's, or differs in what cannot be changed.
            TableError: ClickHouse refused a statement.
            PermissionDenied: these credentials may not.
        """
        try:
            async with self._preparing:
                failures = 0
                while not self._ready:
                    try:
                        self.schema = await ensure_table(self._db, self.row_type, self._app)
                    except Unavailable as error:
                        if not failures:
                            log.warning(
                                "waiting for ClickHouse",
                                table=self.schema.name,
                                reason=str(error),
                            )
                        failures += 1
                        await self._wait(str(error), failures)
                    else:
                        if failures:
                            log.info("ClickHouse answers", table=self.schema.name)
                        if not (self.schema.by_days or self._told):
                            self._told = True
                            log.info("its view merges all parts", reason=without_days(self.schema))
                        self._availability.up()
                        self._ready = True
        except asyncio.CancelledError:
            # Nobody is left to look whether the server is back: let the next call find out.
            self._availability.up()
            raise

    async def write(self, items: Batch | Sequence[tuple[Row, Origin]]) -> dict[int, str]:
        """Store rows; returns index -> reason for those that can never be stored.

        Raises:
            ConflictError: the table is another app's, or differs in what cannot be changed.
            TableError: ClickHouse refused the statement, for another cause than the rows.
            PermissionDenied: these credentials may not.
        """
        if not items:
            return {}
        try:
            return await self._write(items)
        except asyncio.CancelledError:
            self._availability.up()  # as in `prepare`
            raise

    async def _write(self, items: Batch | Sequence[tuple[Row, Origin]]) -> dict[int, str]:
        call = next(self._calls)
        if not self._ready:
            await self.prepare()
        if len(items) <= _INLINE_ROWS:
            block, split = self._build(items)
        else:
            block, split = await asyncio.to_thread(self._build, items)
        refused = dict(block.refused)
        sifting = True
        while part := split.take():
            rows = block.only(part)
            # The number tells a part from the one it was before rows were taken out of it.
            reason = await self._store(rows, f"{call}-{part[0]}-{part[-1] + 1}-{len(part)}")
            if reason is None:
                continue
            bad: dict[int, str] = {}
            if isinstance(reason, BadRows) and len(part) > 1 and sifting:
                bad = await self._sift(rows)
                sifting = bool(bad)  # else it is something that no rehearsal shows
            if bad:
                refused |= {rows.index[row]: why for row, why in bad.items()}
                split.again([row for at, row in enumerate(part) if at not in bad])
                continue
            for row in split.refused(part):
                if isinstance(reason, BadRows):
                    refused[block.index[row]] = str(reason)
                else:
                    split.again(part)
        self.metrics.refused(len(refused))
        return refused

    async def _sift(self, block: Block) -> dict[int, str]:
        """Rows at fault, found without storing any; none where that cannot be."""
        for failures in range(1, _PATIENCE + 1):
            try:
                async with self._db.rehearsal(
                    self.schema.storage, block.names, block.types
                ) as rehearse:
                    found = await sift(block, rehearse)
            except Unavailable as error:
                await self._wait(str(error), failures)
            except MqinferError as error:
                log.info("no rehearsal: halving", table=self.schema.name, why=str(error))
                break
            else:
                self._availability.up()
                return found
        return {}

    def _build(self, items: Batch | Sequence[tuple[Row, Origin]]) -> tuple[Block, Split[int]]:
        """The block, and the parts of it to be stored, as ranges of its rows."""
        block = build_block(self.schema, items)
        try:
            bounds = list(block.cut(self._max_bytes))
        except Exception:  # noqa: BLE001 - a value without a size: the insert finds whose it is
            bounds = [(0, len(block))]
        return block, Split(range(*part) for part in bounds)

    async def _store(self, block: Block, name: str) -> BadRows | Unavailable | None:
        """Store one block; what is returned is a reason to try again with half of it."""
        failures = 0
        remade = False
        while True:
            started = self._clock()
            try:
                await self._insert(block, f"{self._token}-{name}")
            except BadRows as error:
                return error
            except TableError:
                if remade:
                    raise
                # An operator may have dropped the table, or a column of it: make it again, once.
                remade = True
                self._ready = False
                await self.prepare()
            except Unavailable as error:
                failures += 1
                self.metrics.retries += 1
                answered = await self._wait(str(error), failures)
                if answered and failures >= _PATIENCE:
                    # It answers, but not to this: perhaps it is too much for its memory or time.
                    return error
            else:
                self.metrics.inserted(len(block), self._clock() - started)
                return None

    async def _insert(self, block: Block, token: str) -> None:
        """Insert a block; a server that is silent for long counts as away until it answers."""
        silent = asyncio.get_running_loop().call_later(
            _SILENT, self._availability.down, f"an insert had no answer for {_SILENT:g} s"
        )
        try:
            await self._db.insert(
                *(self.schema.storage, block.names, block.types, block.data), token=token
            )
        except Unavailable:
            raise
        except BaseException:
            self._availability.up()
            raise
        else:
            self._availability.up()
        finally:
            silent.cancel()

    async def _wait(self, reason: str, failures: int) -> bool:
        """Wait until the server answers a ping; True when the first one was answered.

        A server that answers, but refuses for load, is given time too: the pause grows with the
        failures in a row.
        """
        self._availability.down(reason)
        for attempt in itertools.count(failures):
            await asyncio.sleep(self._probe.delay(attempt, random.random()))
            try:
                await self._db.ping()
            except Unavailable as error:
                self._availability.down(str(error))
            else:
                return attempt == failures
        raise AssertionError  # pragma: no cover - count() does not end

    def __repr__(self) -> str:
        state = self.blocked or f"{self.metrics.rows} rows"
        return f"Sink({self.schema.name}: {state})"
