"""The chdb engine behind the HTTP interface: sessions, settings, queries, inserts.

chdb is thread-safe as long as a connection has one statement at a time: every
connection is a session of its own, all share one engine and its files. A request
without a session gets a fresh connection (0.7 ms), so nothing it sets leaks.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from mqinfer.stack.clickhouse_access import Access
from mqinfer.stack.clickhouse_refuse import Refusal, Refused
from mqinfer.stack.clickhouse_statement import Insert, find_insert, output_format, quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CODE = re.compile(r"Code: (\d+)\.")
_IDENTIFIER_ERROR, _MULTI_STATEMENT, _READONLY = 36, 62, 164
_SESSION_NOT_FOUND, _SESSION_LOCKED, _ACCESS_DENIED = 372, 373, 497


class EngineError(Exception):
    """The engine's refusal, with ClickHouse's code and text."""

    def __init__(self, text: str, code: int | None = None) -> None:
        found = _CODE.search(text)
        # Poco and std exceptions have no code of their own; ClickHouse says 1001 then.
        self.code = code if code is not None else int(found[1]) if found else 1001
        if found is None:
            text = f"Code: {self.code}. DB::Exception: {text}"
        if "(version " not in text:
            text = f"{text} (version {chdb.engine_version})"
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Request:
    """One query as it came over HTTP.

    Attributes:
        query: The ``query`` URL parameter; the body may go on with it.
        body: The decompressed body.
        read_only: The request was a GET, which may change nothing.
    """

    query: bytes = b""
    body: bytes = b""
    database: str = ""
    default_format: str = "TabSeparated"
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    session_id: str = ""
    session_timeout: float = 60.0
    session_check: bool = False
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave."""

    data: bytes
    format: str
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed: float = 0.0
    changed_session: bool = False


@dataclass(slots=True)
class _Session:
    connection: Any
    expires: float
    busy: bool = True
    # What restores a setting or the database, by name; good until the next SET or USE.
    restore: dict[str, str] = field(default_factory=dict)


class Engine:
    """One open chdb directory; its methods may be called from any thread.

    Args:
        directory: Where the tables are; one process at a time may have it open.
    """

    def __init__(self, directory: Path) -> None:
        self._path = str(directory)
        # Beside the tables, so that it has their room; what a killed process left is removed.
        self._spool = directory.with_name(directory.name + "-inserts")
        shutil.rmtree(self._spool, ignore_errors=True)
        self._spool.mkdir(parents=True)
        self._access = Access(directory.with_name(directory.name + "-access"))
        # Held open throughout: the engine shuts down with its last connection.
        self._keeper = self._connect()
        self._access.settle(self._keeper)
        self._parser = self._connect()
        self._parser.query("SET max_query_size = 0")  # a client's own limit may be larger
        self._refusal = Refusal(self._render, self._access.refused)
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        self.version: str = chdb.engine_version
        self.timezone = self._keeper.query("SELECT timezone()", "TSVRaw").bytes().decode().strip()

    def close(self) -> None:
        """Close every connection and with the last one the files."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.connection.close()
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
            raise EngineError(f"{error} (ACCESS_DENIED)", _ACCESS_DENIED) from error

    def execute(self, request: Request) -> Answer:
        """Run one query or insert.

        Raises:
            EngineError: The engine refused it.
        """
        try:
            if request.session_id:
                return self._execute_in_session(request)
            connection = self._connect()
            try:
                self._apply(connection, request)
                return self._execute(connection, request)
            finally:
                connection.close()
        except RuntimeError as error:  # what chdb raises for everything
            raise EngineError(str(error)) from error

    def _execute_in_session(self, request: Request) -> Answer:
        """Run a query whose URL's settings hold for it alone, those of SET for the session."""
        session = self._enter(request)
        connection = session.connection
        try:
            self._remember(session, request)
            try:
                self._apply(connection, request)
                answer = self._execute(connection, request)
            finally:
                names = [*request.settings, *(["database"] if request.database else [])]
                for name in names:
                    statement = session.restore.get(name)
                    if statement is not None:
                        with suppress(RuntimeError):
                            connection.query(statement)
            if answer.changed_session:
                session.restore.clear()
            return answer
        finally:
            with self._lock:
                session.busy = False
                session.expires = time.monotonic() + request.session_timeout

    def _enter(self, request: Request) -> _Session:
        now = time.monotonic()
        with self._lock:
            expired = [
                (name, session)
                for name, session in self._sessions.items()
                if not session.busy and session.expires < now
            ]
            for name, _ in expired:
                del self._sessions[name]
            session = self._sessions.get(request.session_id)
            if session is not None:
                if session.busy:
                    raise EngineError(
                        f"Session {request.session_id} is locked by a concurrent client. "
                        "(SESSION_IS_LOCKED)",
                        _SESSION_LOCKED,
                    )
                session.busy = True
            elif request.session_check:
                raise EngineError(
                    f"Session {request.session_id} not found. (SESSION_NOT_FOUND)",
                    _SESSION_NOT_FOUND,
                )
            else:
                session = _Session(self._connect(), now)
                self._sessions[request.session_id] = session
        for _, old in expired:
            old.connection.close()
        return session

    @staticmethod
    def _remember(session: _Session, request: Request) -> None:
        """Note what restores the session after the settings of the request."""
        unknown = [name for name in request.settings if name not in session.restore]
        if unknown:
            names = ", ".join(quote(name) for name in unknown)
            rows = session.connection.query(
                f"SELECT name, changed, value FROM system.settings WHERE name IN ({names})", "TSV"
            )
            for line in rows.bytes().decode().splitlines():
                name, changed, value = line.split("\t", 2)
                # The value is escaped as TSV, which a literal's quotes understand.
                literal = f"'{value}'" if changed == "1" else "DEFAULT"
                session.restore[name] = f"SET {name} = {literal}"
        if request.database and "database" not in session.restore:
            rows = session.connection.query("SELECT currentDatabase()", "TSVRaw")
            current = rows.bytes().decode().rstrip("\n")
            session.restore["database"] = f"USE {_identifier(current)}"

    @staticmethod
    def _apply(connection: Any, request: Request) -> None:
        if request.database:
            connection.query(f"USE {_identifier(request.database)}")
        changes = []
        for name, value in request.settings.items():
            if not _NAME.match(name):
                raise EngineError(f"Bad setting name {name!r}. (BAD_ARGUMENTS)", _IDENTIFIER_ERROR)
            changes.append(f"{name} = {quote(value)}")
        if changes:
            connection.query("SET " + ", ".join(changes))

    def _execute(self, connection: Any, request: Request) -> Answer:
        text = request.query or request.body
        data = request.body if request.query else b""
        insert = find_insert(text)
        if insert is not None:
            if request.read_only:
                raise _read_only()
            self.refuse(f"{insert.statement} {insert.settings} FORMAT {insert.format}")
            inline = text[insert.data_start :]
            if inline and data:
                # ClickHouse reads the query of the URL and the body as one text.
                inline += b"\n" if insert.format == "Values" else b""
            return self._insert(connection, insert, inline + data, request.parameters)
        if data:
            text = text + b"\n" + data
        try:
            sql = text.decode()
        except UnicodeDecodeError as error:
            raise EngineError(
                f"Syntax error: the query is not UTF-8 ({error}). (SYNTAX_ERROR)", _MULTI_STATEMENT
            ) from error
        self.refuse(sql)
        changed_session = self._check(connection, sql, request)
        result = connection.query(sql, request.default_format, params=dict(request.parameters))
        return Answer(
            data=bytes(result.bytes()),
            format=output_format(text, request.default_format),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            elapsed=result.elapsed(),
            changed_session=changed_session,
        )

    @staticmethod
    def _check(connection: Any, sql: str, request: Request) -> bool:
        """Refuse what ClickHouse refuses over HTTP and chdb would allow.

        Returns:
            Whether the query changes the session itself (SET, USE).
        """
        facts = connection.classify_query(sql)
        if facts["statement_count"] > 1:
            raise EngineError(
                "Syntax error (Multi-statements are not allowed). (SYNTAX_ERROR)", _MULTI_STATEMENT
            )
        kind = facts["query_class"].name
        if request.read_only and kind not in ("READ_ONLY", "CONTROL"):
            raise _read_only()
        return bool(kind == "CONTROL")

    def _insert(
        self, connection: Any, insert: Insert, data: bytes, parameters: Mapping[str, str]
    ) -> Answer:
        """Insert data by way of a file.

        chdb's streaming insert reports what cannot be parsed, but not what goes wrong behind the
        parser (a violated constraint, a full disk): the rows would be gone and nobody told.
        """
        for name, value in parameters.items():
            if not _NAME.match(name):
                raise EngineError(
                    f"Bad parameter name {name!r}. (BAD_ARGUMENTS)", _IDENTIFIER_ERROR
                )
            connection.query(f"SET param_{name} = {quote(value)}")
        started = time.perf_counter()
        with tempfile.NamedTemporaryFile(dir=self._spool) as file:
            file.write(data)
            file.flush()
            result = connection.query(insert.from_file(file.name))
        return Answer(
            data=b"",
            format=insert.format,
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            elapsed=time.perf_counter() - started,
        )


def _read_only() -> EngineError:
    return EngineError(
        "default: Cannot execute query in readonly mode. For queries over HTTP, method GET "
        "implies readonly. You should use method POST for modifying queries. (READONLY)",
        _READONLY,
    )


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
