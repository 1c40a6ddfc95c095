"""The queries under way, by the ids that clients gave them.

The engine makes ids of its own and takes none, but it shows each query's settings; so the client's
id travels in one that means nothing here, a view of ``system.processes`` shows it as the query's
id, and ``KILL QUERY`` finds by it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mqinfer.stack.clickhouse.errors import Code, EngineError
from mqinfer.stack.clickhouse.statement import Token, quote, tokens

# Names the application to servers that `remote` asks, which is refused here.
ID_SETTING = "chdb_client_name"
# As many as ClickHouse's own default for max_concurrent_queries.
MOST_QUERIES = 1000
_VIEW = "processes_of_clients"
_ID = f"if(Settings['{ID_SETTING}'] = '', query_id, Settings['{ID_SETTING}'])"
_KILL_MODES = (b"SYNC", b"ASYNC", b"TEST")


class Processes:
    """Who runs under which id.

    Args:
        connect: Opens a connection to the engine, which is closed after use.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def prepare(self, connection: Any) -> None:
        """Make the view; the database `system` is made anew at each start."""
        connection.query(
            f"CREATE VIEW IF NOT EXISTS system.{_VIEW} AS SELECT * REPLACE ({_ID} AS query_id, "
            f"{_ID} AS initial_query_id, mapFilter((k, v) -> k != '{ID_SETTING}', Settings) "
            "AS Settings) FROM system.processes"
        )

    def enter(self, query_id: str, *, replace: bool = False, patience: float = 5.0) -> None:
        """Note that a query begins.

        Args:
            query_id: Its id.
            replace: End another that runs under it, instead of refusing this one.
            patience: How long to wait for that, in seconds.

        Raises:
            EngineError: One runs under this id, or too many run.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                other = self._running.get(query_id)
                if other is None:
                    if len(self._running) >= MOST_QUERIES:
                        raise EngineError(
                            f"Too many simultaneous queries. Maximum: {MOST_QUERIES}",
                            Code.TOO_MANY_SIMULTANEOUS_QUERIES,
                        )
                    self._running[query_id] = threading.Event()
                    return
            if replace:
                self.kill(query_id)
            if not replace or (not other.wait(0.05) and time.monotonic() > deadline):
                raise EngineError(
                    f"Query with id = {query_id} is already running.",
                    Code.QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                )

    def leave(self, query_id: str) -> None:
        """Note that it ended."""
        with self._lock:
            self._running.pop(query_id).set()

    def kill(self, query_id: str) -> None:
        """Tell the engine to end what runs under an id, if anything does already."""
        self._kill(f"{_ID} = {quote(query_id)}")

    def _kill(self, which: str) -> None:
        connection = self._connect()
        try:
            with suppress(RuntimeError):  # it ended, or has not begun
                connection.query(f"KILL QUERY WHERE {which}")
        finally:
            connection.close()

    def end(self, query_id: str) -> None:
        """Kill until it has ended; the engine knows a query only from some moment on."""
        with self._lock:
            ended = self._running.get(query_id)
        wait = 0.05
        while ended is not None and not ended.is_set():
            self.kill(query_id)
            ended.wait(wait)
            wait = min(2 * wait, 2.0)

    def end_all(self, patience: float) -> bool:
        """End whatever runs, for a stop.

        Args:
            patience: How long to try, in seconds.

        Returns:
            Whether nothing runs any longer.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                ended = next(iter(self._running.values()), None)
            if ended is None or time.monotonic() > deadline:
                return ended is None
            self._kill(f"Settings['{ID_SETTING}'] != ''")
            ended.wait(0.1)


@dataclass(frozen=True, slots=True)
class Kill:
    """A ``KILL QUERY`` statement.

    Attributes:
        where: Its condition.
        mode: SYNC, ASYNC or TEST.
        tail: What follows: FORMAT, SETTINGS.
    """

    where: str
    mode: str
    tail: str

    def run(
        self, connection: Any, query_id: str, default_format: str, parameters: Mapping[str, str]
    ) -> Any:
        """Do it, and give the engine's answer as for its own statement.

        Args:
            connection: Which the statement came on.
            query_id: Of the statement itself, which does not end itself.
            default_format: Of the answer.
            parameters: For ``{name:Type}`` in the condition.
        """
        rows = connection.query(
            f"SELECT query_id FROM system.{_VIEW} WHERE ({self.where}) "
            f"AND query_id != {quote(query_id)}",
            "JSONEachRow",
            params=dict(parameters),
        )
        found = [json.loads(line)["query_id"] for line in rows.bytes().splitlines()]
        ids = "(" + ", ".join(map(quote, found or [""])) + ")"
        status = {"SYNC": "finished", "ASYNC": "waiting", "TEST": "unknown"}[self.mode]
        answer = connection.query(
            f"SELECT {quote(status)} AS kill_status, query_id, user, query "
            f"FROM system.{_VIEW} WHERE query_id IN {ids} {self.tail}",
            default_format,
        )
        if self.mode != "TEST" and found:
            with suppress(RuntimeError):  # they ended by themselves
                connection.query(f"KILL QUERY WHERE {_ID} IN {ids} {self.mode}")
        return answer


def find_kill(query: bytes) -> Kill | None:
    """Read a ``KILL QUERY``; None for any other statement."""
    found = list(tokens(query))
    if [token.word for token in found[:2]] != [b"KILL", b"QUERY"]:
        return None
    where = next((token for token in found if token.word == b"WHERE"), None)
    if where is None:
        return None
    mode, end, tail = "ASYNC", len(query), b""
    depth = 0
    for token in found:
        depth += (token.text == b"(") - (token.text == b")")
        if depth or token.start < where.end:
            continue
        if (
            token.word in _KILL_MODES
            or token.word in (b"FORMAT", b"SETTINGS")
            or token.text == b";"
        ):
            end = token.start
            start = token.end if token.word in _KILL_MODES else token.start
            mode = token.word.decode() if token.word in _KILL_MODES else mode
            tail = query[start:].rstrip().removesuffix(b";")
            break
    return Kill(query[where.end : end].decode(), mode, tail.decode())


def name_processes(query: bytes) -> bytes:
    """Let a query of ``system.processes`` read the view instead."""
    if b"processes" not in query:
        return query
    found = list(tokens(query))
    parts, position = [], 0
    for first, dot, second in zip(found, found[1:], found[2:], strict=False):
        if dot.text == b"." and _name(first) == b"system" and _name(second) == b"processes":
            parts += [query[position : second.start], _VIEW.encode()]
            position = second.end
    return b"".join([*parts, query[position:]])


def _name(token: Token) -> bytes:
    if token.kind == "quoted" and token.text[:1] in b'`"':
        return token.text[1:-1]
    return token.text if token.kind == "word" else b""
