"""Sessions of the HTTP interface: a connection each, for one query at a time.

A request without a session gets a fresh connection (0.7 ms), so nothing it sets leaks. In a session
the settings of a URL hold for their query alone, those of SET until the session's end.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.processes import ID_SETTING
from mqinfer.stack.clickhouse.statement import identifier, quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_DEFAULTS = {
    # chDB formats a block at a time: an answer of wide rows takes memory for some blocks of this
    # many. ClickHouse's 65,409 took 420 MB for rows of a kilobyte; this takes 70 and is as quick.
    "max_block_size": "8192",
    # chDB's own default takes a misspelt statement for an expression.
    "implicit_select": "0",
}


@dataclass(slots=True)
class Session:
    """A connection that is kept, and what restores it after a query with settings of its own.

    Attributes:
        restore: A statement for each setting, and for the database; good until the next SET or USE.
        changed: The query at work is one.
    """

    connection: Any
    expires: float
    busy: bool = True
    restore: dict[str, str] = field(default_factory=dict)
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """The connection that a request asks for.

    Attributes:
        session_id: Empty for a fresh one.
        timeout: How long the session is kept after this request, in seconds.
        check: Whether the session must be there already.
        close: Whether it ends with this request.
        query_id: Of the query.
        database: Empty for the session's or the default one.
        settings: For this query.
    """

    query_id: str
    session_id: str = ""
    timeout: float = 60.0
    check: bool = False
    close: bool = False
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


class Sessions:
    """Gives connections to queries; its methods may be called from any thread.

    Args:
        connect: Opens a connection.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every session."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.connection.close()

    @contextmanager
    def connection(self, wanted: Wanted) -> Iterator[tuple[Any, Session | None]]:
        """Give a connection with the request's settings; the session is locked meanwhile.

        Raises:
            EngineError: The session is at work, or not there; a setting is refused.
        """
        if not wanted.session_id:
            connection = self._connect()
            try:
                _apply(connection, wanted, _DEFAULTS)
                yield connection, None
            finally:
                connection.close()
            return
        session = self._enter(wanted)
        try:
            _remember(session, wanted)
            try:
                _apply(session.connection, wanted, {})
                yield session.connection, session
            finally:
                names = [*wanted.settings, *(["database"] if wanted.database else [])]
                for name in names:
                    statement = session.restore.get(name)
                    if statement is not None:
                        with suppress(RuntimeError):
                            session.connection.query(statement)
                if session.changed:
                    session.restore.clear()
                    session.changed = False
        finally:
            self._give_up(wanted, session)

    def _enter(self, wanted: Wanted) -> Session:
        now = time.monotonic()
        with self._lock:
            expired = [
                (name, session)
                for name, session in self._sessions.items()
                if not session.busy and session.expires < now
            ]
            for name, _ in expired:
                del self._sessions[name]
            session = self._sessions.get(wanted.session_id)
            if session is not None:
                if session.busy:
                    raise EngineError(
                        f"Session {wanted.session_id} is locked by a concurrent client.",
                        Code.SESSION_IS_LOCKED,
                    )
                session.busy = True
            elif wanted.check:
                raise EngineError(f"Session {wanted.session_id} not found.", Code.SESSION_NOT_FOUND)
            else:
                session = Session(self._connect(), now)
                _set(session.connection, _DEFAULTS)
                self._sessions[wanted.session_id] = session
        for _, old in expired:
            old.connection.close()
        return session

    def _give_up(self, wanted: Wanted, session: Session) -> None:
        with self._lock:
            session.busy = False
            session.expires = time.monotonic() + wanted.timeout
            # `close` of the engine may have taken it away meanwhile.
            ends = wanted.close and self._sessions.pop(wanted.session_id, None) is session
        if ends:
            session.connection.close()


def _remember(session: Session, wanted: Wanted) -> None:
    """Note what restores the session after the settings of the request."""
    unknown = [name for name in wanted.settings if name not in session.restore]
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
    if wanted.database and "database" not in session.restore:
        rows = session.connection.query("SELECT currentDatabase()", "TSVRaw")
        current = rows.bytes().decode().rstrip("\n")
        session.restore["database"] = f"USE {identifier(current)}"


def _apply(connection: Any, wanted: Wanted, defaults: Mapping[str, str]) -> None:
    if wanted.database:
        connection.query(f"USE {identifier(wanted.database)}")
    settings = {**defaults, **wanted.settings, ID_SETTING: wanted.query_id}
    _set(connection, settings)


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    changes = []
    for name, value in settings.items():
        if not _NAME.match(name):
            raise EngineError(f"Bad setting name {name!r}.", Code.BAD_ARGUMENTS)
        changes.append(f"{name} = {quote(value)}")
    connection.query("SET " + ", ".join(changes))
