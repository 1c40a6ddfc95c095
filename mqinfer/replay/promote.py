"""Promote: show a run's rows instead of those they supersede; undo it; throw a run away.

What a table shows follows from the promoted runs alone: a row is shown if it belongs to the last
promoted run that covers it, or is live and covered by none. A run covers a row that one of its
stages made from a message that it has answered: that the run has no row for it hides it as well.
What it could not answer (dead letters) it does not cover.

So promoting and undoing are one statement a table, `reconcile`: insert again, with the next
generation, every row that is not shown as it should be. A statement that was killed half way, or
is run twice, leaves or finds the rest; rows that arrive late with generation 0 never win against
one that was inserted again.

The order of steps makes a kill harmless: first the run's state says what is wanted, then the
tables follow, then the state says that they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from mqinfer import plan
from mqinfer.completion import roots
from mqinfer.completion.waited import joins_of
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.monitor.looking import adopt
from mqinfer.replay import consumers, coverage, runs
from mqinfer.replay.run import DISCARD, ERASE, PROMOTE, UNDO, Run, State, moved
from mqinfer.tables.migrate import ensure_table
from mqinfer.tables.sql import quoted, text_literal
from mqinfer.tables.tables import generation_sql, schema_of, version_sql

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.message import Row
    from mqinfer.ports import Broker, Database
    from mqinfer.replay.runs import Runs

log = structlog.get_logger("mqinfer.replay")

_PATIENCE = 40.0  # seconds that workers of a run may take to end before it is discarded
# The order of the rows that answer one message; those of a pack share their sequence.
ANSWERED = "_sequence, _published, _id"
COVERED = quoted(schema_of(coverage.RunInput).storage)


def texts(values: Sequence[str]) -> str:
    """An array of strings as SQL."""
    return "[" + ", ".join(map(text_literal, values)) + "]"


def stages_of(run: Run) -> tuple[str, ...]:
    """The stages whose rows a run makes anew, also if the app has lost or renamed them since."""
    return run.stages or (run.stage,)


def inputs_sql(app: App, run: str) -> str:
    """SQL for the identities of the messages that a run has answered."""
    return (
        f"SELECT input FROM {COVERED} FINAL WHERE app = {text_literal(app.name)} "
        f"AND run = {text_literal(run)} AND skipped = ''"
    )


def owner_sql(app: App, lineage: str, promoted: Sequence[Run]) -> str:
    """SQL for the last of the promoted runs that covers a row, as `mq_row` and `mq_owner`.

    A row that none covers is left out.

    Args:
        app: whose runs they are.
        lineage: SQL for `mq_id`, `mq_stage` and `mq_ancestor` of rows.
        promoted: the latest last.
    """
    if not promoted:
        return "SELECT '' AS mq_row, '' AS mq_owner WHERE 0"
    names = texts([one.name for one in promoted])
    takes = "[" + ", ".join(texts(stages_of(one)) for one in promoted) + "]"
    return (
        "SELECT l.mq_id AS mq_row, argMax(c.mq_run, c.mq_rank) AS mq_owner "
        f"FROM ({lineage}) AS l INNER JOIN ("
        f"SELECT input AS mq_input, run AS mq_run, indexOf({names}, run) AS mq_rank "
        f"FROM {COVERED} FINAL "
        f"WHERE app = {text_literal(app.name)} AND has({names}, run) AND skipped = ''"
        ") AS c ON l.mq_ancestor = c.mq_input "
        f"WHERE has(arrayElement({takes}, c.mq_rank), l.mq_stage) GROUP BY l.mq_id"
    )


def promoted_of(every: Sequence[Run]) -> list[Run]:
    """The promoted runs, the latest last."""
    return sorted((run for run in every if run.state is State.PROMOTED), key=lambda run: run.order)


def reconcile_sql(
    app: App, storage: str, columns: Sequence[str], run: Run, promoted: Sequence[Run]
) -> str:
    """The statement that shows and hides the rows of one table that `run` covers.

    Args:
        app: whose runs they are.
        storage: the table behind the view.
        columns: all of its columns.
        run: whose range is looked at; what it does not cover is left alone.
        promoted: the runs that are to be shown, the latest last.
    """
    table = quoted(storage)
    ours = f"has({texts(stages_of(run))}, _stage)"
    chosen = {
        "_visible": "toUInt8(mq_shown)",
        "_version": version_sql(f"{generation_sql()} + 1"),
    }
    selected = ", ".join(
        f"{chosen[name]} AS {quoted(f'mq{name}')}" if name in chosen else quoted(name)
        for name in columns
    )
    lineage = (
        "SELECT _id AS mq_id, _stage AS mq_stage, arrayJoin(_ancestors) AS mq_ancestor "
        f"FROM {table} FINAL WHERE {ours}"
    )
    covered = f"SELECT mq_id FROM ({lineage}) WHERE mq_ancestor IN ({inputs_sql(app, run.name)})"
    return (
        f"INSERT INTO {table} ({', '.join(map(quoted, columns))}) "
        f"SELECT {selected} FROM ("
        "SELECT t.*, _run = o.mq_owner AS mq_shown "
        f"FROM (SELECT * FROM {table} FINAL WHERE {ours} AND _id IN ({covered})) AS t "
        f"LEFT JOIN ({owner_sql(app, lineage, promoted)}) AS o ON t._id = o.mq_row"
        ") WHERE _visible != mq_shown SETTINGS insert_deduplicate = 0, join_use_nulls = 0, "
        "max_partitions_per_insert_block = 0"
    )


class Promotions:
    """Promotes, undoes and discards the runs of one app.

    Args:
        app: the app.
        store: its runs.
        db: its tables; None where no run has any.
    """

    def __init__(self, app: App, store: Runs, db: Database | None):
        self._app = app
        self._runs = store
        self._db = db

    @property
    def db(self) -> Database:
        """The tables.

        Raises:
            ConfigurationError: there are none.
        """
        if self._db is None:
            raise ConfigurationError(f"app {self._app.name} has no tables")
        return self._db

    async def promote(self, name: str) -> Run:
        """Show the run's rows; the latest promotion wins. Done again, it mends what is missing.

        Raises:
            ConfigurationError: the run is not done, or writes to no table.
        """
        order = 1 + max((run.order for run in await self._runs.all()), default=0)

        def wish(run: Run) -> Run:
            if not coverage.row_types(self._app, run):
                raise ConfigurationError(f"run {name} writes to no table: nothing to promote")
            if run.state is State.PROMOTED:
                return msgspec.structs.replace(run, applied=False)
            return moved(run, PROMOTE, order=order, applied=False)

        run = await self._apply(await self._runs.change(name, wish))
        await adopt(self._app, self.db, name, time.time())
        return run

    async def undo(self, name: str) -> Run:
        """Show again what was shown before the run was promoted; does nothing if it was not.

        Raises:
            ConfigurationError: the run is not done, or discarded.
        """

        def wish(run: Run) -> Run:
            if run.state is State.DONE:
                return run  # undone before, perhaps half, or never promoted
            return moved(run, UNDO, order=0, applied=False)

        return await self._apply(await self._runs.change(name, wish))

    async def _apply(self, run: Run) -> Run:
        if run.applied:
            return run
        promoted = promoted_of(await self._runs.all())
        await ensure_table(self.db, coverage.RunInput)
        for row in coverage.row_types(self._app, run).values():
            schema = await ensure_table(self.db, row, self._app.name)
            columns = await self.db.query(
                "SELECT name FROM system.columns WHERE database = currentDatabase() "
                "AND table = {table:String} ORDER BY position",
                {"table": schema.storage},
            )
            names = [str(column["name"]) for column in columns]
            for table in (schema.storage, schema_of(coverage.RunInput).storage):
                await self.db.settle(table)
            await self.db.command(reconcile_sql(self._app, schema.storage, names, run, promoted))
        return await self._runs.change(
            run.name,
            lambda now: (
                msgspec.structs.replace(now, applied=True)
                if (now.state, now.order) == (run.state, run.order)
                else now
            ),
        )

    async def discard(self, name: str) -> Run:
        """Delete the run's rows, messages, states and consumers; its name stays taken.

        Done again, it also takes what a handler that was still busy has left behind.

        Raises:
            ConfigurationError: the run is promoted: undo that first.
            MqinferError: its workers do not end.
        """

        def wish(run: Run) -> Run:
            if run.state is State.PROMOTED or not run.applied:
                raise ConfigurationError(
                    f"run {name} is promoted, its rows are shown: undo that first "
                    f"(mqinfer runs undo APP {name})"
                )
            return run if run.state is State.DISCARDED else moved(run, DISCARD)

        run = await self._runs.change(name, wish)
        stream, prefix = self._app.name, consumers.consumer_prefix(run)
        await self._ended(stream, prefix)
        await self._runs.store.erase(stream, prefix, f"{stream}.run.{name}.>")
        records = roots.stream(self._app)
        if joins_of(self._app) and await self._runs.store.bounds(records) is not None:
            await self._runs.store.erase(records, prefix, roots.subject(self._app, name))
        memory = plan.memory_bucket(self._app)
        await self._runs.store.purge(f"KV_{memory}", f"$KV.{memory}.run.{name}.>")
        written: list[type[Row]] = list(coverage.row_types(self._app, run).values())
        if written:
            written.append(coverage.RunInput)
        for row in written:
            schema = await ensure_table(self.db, row, self._app.name)
            await self.db.command(
                f"ALTER TABLE {quoted(schema.storage)} DELETE WHERE _run = {text_literal(name)} "
                f"AND {_own(self._app, run, row)} SETTINGS mutations_sync = 2"
            )
        return await self._runs.change(name, lambda now: moved(now, ERASE))

    async def _ended(self, stream: str, prefix: str) -> None:
        """Wait until the run's workers, which see that it is over, have stopped asking."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while pulling := await self._runs.store.pulling(stream, prefix):
                    log.info("waiting for the run's workers to end", consumers=pulling)
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise MqinferError(
                "workers of the run still ask for messages: stop them, and discard it again"
            ) from None

    async def rows(self, run: Run) -> dict[str, dict[str, Any]]:
        """For each table: the run's rows, those shown, and the rows of others that it hides."""
        found = {}
        for table, row in coverage.row_types(self._app, run).items():
            schema = await ensure_table(self.db, row, self._app.name)
            await ensure_table(self.db, coverage.RunInput)
            mine = f"_run = {text_literal(run.name)} AND {_own(self._app, run, row)}"
            storage = quoted(schema.storage)
            (counts,) = await self.db.query(
                f"SELECT countIf({mine}) AS rows, countIf({mine} AND _visible = 1) AS shown "
                f"FROM {storage} FINAL"
            )
            (hidden,) = await self.db.query(
                f"SELECT uniqExact(_id) AS hidden FROM (SELECT _id, arrayJoin(_ancestors) AS a "
                f"FROM {storage} FINAL WHERE _visible = 0 AND _run = '' "
                f"AND has({texts(stages_of(run))}, _stage)) "
                f"WHERE a IN ({inputs_sql(self._app, run.name)})"
            )
            found[table] = {**counts, "live_hidden": hidden["hidden"]}
        return found

    async def covered(self, run: Run) -> int:
        """How many messages the run has answered."""
        await ensure_table(self.db, coverage.RunInput)
        (found,) = await self.db.query(
            f"SELECT count() AS n FROM ({inputs_sql(self._app, run.name)})"
        )
        return int(found["n"])


def _own(app: App, run: Run, row: type[Row]) -> str:
    """SQL that tells a run's rows from those of another app's run of the same name."""
    if row is coverage.RunInput:
        return f"app = {text_literal(app.name)}"
    return f"has({texts(stages_of(run))}, _stage)"


def remembered(app: App, run: Run) -> str | None:
    """What promoting a run leaves as it is, where its stages remember; or None."""
    names = [task.name for task in runs.taken(app, run) if task.remembers is not None]
    if not names:
        return None
    return (
        f"the live states of {', '.join(names)} stay as they are: the run's own are shown by "
        f"`mqinfer state APP {names[0]} --run {run.name}`, and go when it is discarded"
    )


async def late(app: App, run: Run, broker: Broker) -> str | None:
    """Why live rows may still come that a promotion now cannot hide, or None."""
    (task,) = plan.tasks(app, [run.stage])
    if task.ordered:
        return None  # its consumers count in another stream
    for spec in plan.consumer_specs(app, task):
        state = await broker.consumer_state(spec.stream, spec.name)
        if state is None or (state.lag and state.acknowledged_floor < run.end):
            break
    else:
        return None
    return (
        f"the live stage {run.stage} has not answered all of the range yet: promote the run again "
        "when it has, or its late rows are shown as well"
    )
