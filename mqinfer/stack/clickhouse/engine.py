"""The chdb engine behind the HTTP interface: what a query does, from its statement to its answer.

chdb is thread-safe as long as a connection has one statement at a time. An answer is fetched block
by block, as it is read, so that its size does not matter.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import GEN_CLOSED, getgeneratorstate
from pathlib import Path
from typing import Any

from mqinfer.stack.clickhouse.access import Access
from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.external import ExternalTable
from mqinfer.stack.clickhouse.native import NativeBlocks
from mqinfer.stack.clickhouse.processes import Processes, find_kill, name_processes
from mqinfer.stack.clickhouse.refuse import Refusal, Refused
from mqinfer.stack.clickhouse.sessions import Session, Sessions, Wanted
from mqinfer.stack.clickhouse.statement import Insert, output_format, quote, tokens

_PATIENCE_AT_CLOSE = 3.0
# Statements that a GET may say though they are no queries: they change the session at most.
_HARMLESS = ([b"SET"], [b"USE"], [b"CREATE", b"TEMPORARY"], [b"DROP", b"TEMPORARY"])


@dataclass(frozen=True, slots=True)
class Request:
    """One query as it came over HTTP.

    Attributes:
        statement: Its text, of an INSERT without the data.
        insert: An INSERT with data, and in ``data`` the file that has them.
        wanted: The session, database and settings.
        default_format: Of the answer, where the statement names none.
        parameters: For ``{name:Type}``.
        tables: What came along as tables.
        revision: Of the protocol, for answers in Native; 0 for none.
        read_only: The request was a GET, which may change nothing.
        replace: Another query with this id is ended.
    """

    statement: bytes
    wanted: Wanted
    insert: Insert | None = None
    data: str = ""
    default_format: str = "TabSeparated"
    parameters: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[ExternalTable, ...] = ()
    revision: int = 0
    read_only: bool = False
    replace: bool = False


class Engine:
    """One open chdb directory; its methods may be called from any thread.

    Args:
        directory: Where the tables are; one process at a time may have it open.
    """

    def __init__(self, directory: Path) -> None:
        self._path = str(directory)
        # Beside the tables, so that it has their room; what a killed process left is removed.
        self.spool = directory.with_name(directory.name + "-inserts")
        shutil.rmtree(self.spool, ignore_errors=True)
        self.spool.mkdir(parents=True)
        self._access = Access(directory.with_name(directory.name + "-access"))
        # Held open throughout: the engine shuts down with its last connection.
        self._keeper = self._connect()
        self._access.settle(self._keeper)
        self._parser = self._connect()
        self._parser.query("SET max_query_size = 0")  # a client's own limit may be larger
        self._refusal = Refusal(self._render, self._access.refused)
        self.sessions = Sessions(self._connect)
        self.processes = Processes(self._connect)
        self.processes.prepare(self._keeper)
        self.timezone = self._keeper.query("SELECT timezone()", "TSVRaw").bytes().decode().strip()

    def close(self) -> None:
        """Close every connection and with the last one the files, unless a query does not end."""
        if not self.processes.end_all(_PATIENCE_AT_CLOSE):
            return
        self.sessions.close()
        self._parser.close()
        self._keeper.close()

    def _connect(self) -> Any:
        return self._access.connect(self._path)

    def _render(self, statement: str) -> str:
        query = f"SELECT formatQuerySingleLine({quote(statement)})"
        try:
            return str(self._parser.query(query, "TSVRaw").bytes().decode())
        except RuntimeError as error:
            text, inside, _ = str(error).partition(": In scope SELECT formatQuery")
            raise EngineError(f"{text} (SYNTAX_ERROR)" if inside else text) from error

    def refuse(self, statement: str) -> None:
        """Refuse a statement that reaches beyond the tables; an INSERT without its data.

        Raises:
            EngineError: It does, or the engine cannot parse it.
        """
        try:
            self._refusal.check(statement)
        except Refused as error:
            raise EngineError(str(error), Code.ACCESS_DENIED) from error

    def open(self, request: Request) -> Query:
        """Begin a query; nothing is executed before its first `read`.

        Raises:
            EngineError: Another one has its id.
        """
        return Query(self, request)


class Query:
    """One query under way: to be read to its end, and closed.

    `read` and `close` may come from different threads, one after the other.

    Attributes:
        format: Of the answer, known after the first `read`; empty for what has none.
        ended: It has been read to its end.
        over: It has ended or failed: to close it does not wait.
        folder: For files of the answer's size.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._id = request.wanted.query_id
        engine.processes.enter(self._id, replace=request.replace)
        self.format = ""
        self.ended = self.over = False
        self.folder = engine.spool
        self._reads_only = False
        self._started = time.perf_counter()
        self._progress: dict[str, int] = {}
        self._counts = dict.fromkeys(
            ("read_rows", "read_bytes", "written_rows", "written_bytes", "result_rows",
             "result_bytes"), 0
        )  # fmt: skip
        self._abandoned = self._closed = False
        self._turn = threading.Lock()
        self._pieces = self._run()

    def read(self, enough: int) -> bytes:
        """Give the next part of the answer; nothing at its end.

        Args:
            enough: Wait for as many bytes, or for the end.

        Raises:
            EngineError: The engine refused the query, or it failed on its way.
        """
        parts, size = [], 0
        with self._turn:
            try:
                for piece in self._pieces:
                    parts.append(piece)
                    size += len(piece)
                    if size >= enough:
                        break
                else:
                    self.ended = True
            except RuntimeError as error:  # what chdb raises for everything
                raise EngineError(str(error)) from error
            finally:
                self.over = getgeneratorstate(self._pieces) == GEN_CLOSED
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abandon(self) -> None:
        """Nobody waits for the answer: end it, unless it changes something; from any thread.

        As in ClickHouse what changes something is done as far as it can be: a client that went
        away has no way to learn how far that was.
        """
        self._abandoned = True
        if self._reads_only:
            self._engine.processes.end(self._id)

    def close(self) -> None:
        """Give back what it holds; ends it if it has not been read to its end."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            try:
                with suppress(RuntimeError):
                    self._pieces.close()
            finally:
                self._engine.processes.leave(self._id)

    def summary(self) -> dict[str, str]:
        """What it did so far, as ClickHouse writes it: numbers as texts."""
        counts = self._counts | {
            name: value for name, value in self._progress.items() if name in self._counts and value
        }
        counts["result_rows"] = counts["result_rows"] or counts["written_rows"]
        counts["result_bytes"] = counts["result_bytes"] or counts["written_bytes"]
        total = self._progress.get("total_rows_to_read", 0)
        elapsed = int((time.perf_counter() - self._started) * 1e9)
        return {
            **{name: str(counts[name]) for name in list(counts)[:4]},
            "total_rows_to_read": str(total),
            "result_rows": str(counts["result_rows"]),
            "result_bytes": str(counts["result_bytes"]),
            "elapsed_ns": str(elapsed),
        }

    def _run(self) -> Generator[bytes]:
        wanted = self._request.wanted
        read_only = wanted.settings.get("readonly", "0")
        settings = {name: value for name, value in wanted.settings.items() if name != "readonly"}
        with self._engine.sessions.connection(replace(wanted, settings=settings)) as (
            connection,
            session,
        ):
            try:
                for table in self._request.tables:
                    table.create(connection, self._engine.refuse)
                # In a session it could not be taken back, so there `_check` alone holds to it.
                if read_only != "0" and session is None:
                    connection.query(f"SET readonly = {quote(read_only)}")
                connection.set_progress_callback(self._progress.update)
                if self._request.insert is not None:
                    self._insert(connection, self._request.insert)
                else:
                    yield from self._execute(connection, session, read_only != "0")
            finally:
                connection.set_progress_callback(None)
                for table in self._request.tables:
                    table.drop(connection)

    def _execute(
        self, connection: Any, session: Session | None, read_only: bool
    ) -> Generator[bytes]:
        request = self._request
        statement = request.statement
        self._engine.refuse(_text(statement))
        self._check(connection, session, read_only)
        if self._abandoned and self._reads_only:
            raise EngineError("Query was cancelled.", Code.QUERY_WAS_CANCELLED)
        kill = find_kill(statement)
        if self._reads_only or kill is not None:  # no other statement has an answer
            self.format = output_format(statement, request.default_format)
        blocks = NativeBlocks(request.revision) if self.format == "Native" else None
        sql = _text(name_processes(statement))
        options = {"params": dict(request.parameters)}
        if kill is not None:
            result = kill.run(connection, self._id, request.default_format, request.parameters)
            yield self._taken(result, blocks)
            return
        try:
            stream = connection.send_query(sql, request.default_format, **options)
        except RuntimeError as error:
            if "Streaming query is not supported" not in str(error):
                raise
            result = connection.query(sql, request.default_format, **options)
            yield self._taken(result, blocks)
            return
        ended = False
        try:
            while True:
                if self._abandoned:
                    raise EngineError("Query was cancelled.", Code.QUERY_WAS_CANCELLED)
                result = connection.streaming_fetch_result(stream)
                if not result.size() and not result.rows_read():
                    ended = True
                    return
                yield self._taken(result, blocks)
        except RuntimeError:
            ended = True
            raise
        finally:
            if not ended:
                connection.streaming_cancel_query(stream)

    def _insert(self, connection: Any, insert: Insert) -> None:
        """Insert the data by way of their file.

        chdb's streaming insert reports what cannot be parsed, but not what goes wrong behind the
        parser (a violated constraint, a full disk): the rows would be gone and nobody told.
        """
        if self._request.read_only:
            raise _read_only()
        self._engine.refuse(f"{insert.statement} {insert.settings} FORMAT {insert.format}")
        for name, value in self._request.parameters.items():
            if not name.isidentifier():
                raise EngineError(f"Bad parameter name {name!r}.", Code.BAD_ARGUMENTS)
            connection.query(f"SET param_{name} = {quote(value)}")
        self._taken(connection.query(insert.from_file(self._request.data)), None)

    def _taken(self, result: Any, blocks: NativeBlocks | None) -> bytes:
        """Count a part of the answer and give its bytes."""
        rows = result.rows_read()
        for name, value in (
            ("read_rows", result.storage_rows_read()),
            ("read_bytes", result.storage_bytes_read()),
            ("written_rows", result.rows_written()),
            ("written_bytes", result.bytes_written()),
            ("result_rows", rows),
            ("result_bytes", result.bytes_read()),
        ):
            self._counts[name] += value
        data = bytes(result.bytes())
        return data if blocks is None else blocks.convert(data, rows)

    def _check(self, connection: Any, session: Session | None, read_only: bool) -> None:
        """Refuse what ClickHouse refuses over HTTP and chdb would allow."""
        facts = connection.classify_query(_text(self._request.statement))
        if facts["statement_count"] > 1:
            raise EngineError("Syntax error (Multi-statements are not allowed).", Code.SYNTAX_ERROR)
        kind = facts["query_class"].name
        words = [token.word for token in tokens(self._request.statement)][:2]
        self._reads_only = kind == "READ_ONLY"
        # What cannot be parsed is for the engine to word.
        if facts["statement_count"] and not self._reads_only:
            harmless = any(words[: len(known)] == known for known in _HARMLESS)
            if read_only or (self._request.read_only and not harmless):
                raise _read_only()
        if session is not None:
            session.changed = words[:1] in ([b"SET"], [b"USE"])


def _text(statement: bytes) -> str:
    try:
        return statement.decode()
    except UnicodeDecodeError as error:
        raise EngineError(
            f"Syntax error: the query is not UTF-8 ({error}).", Code.SYNTAX_ERROR
        ) from error


def _read_only() -> EngineError:
    return EngineError(
        "default: Cannot execute query in readonly mode. For queries over HTTP, method GET "
        "implies readonly. You should use method POST for modifying queries.",
        Code.READONLY,
    )
