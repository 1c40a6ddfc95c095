"""What a statement must not reach: a file that is not to be read, folders in which nothing may
appear, a program that leaves a trace, a port to which nobody may connect."""

from __future__ import annotations

import secrets
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from mqinfer.stack import ClickHouseServer


class Trap:
    """Laid beside a server's folder."""

    def __init__(self, folder: Path, server: ClickHouseServer) -> None:
        self.folder = folder
        self.server = server
        self.token = f"canary{secrets.token_hex(8)}"
        self.contacts = 0
        folder.mkdir()
        self.file = folder / "canary.csv"
        self.file.write_text(f"{self.token}\n")
        self.program = folder / "program"
        self.program.write_text(f"#!/bin/sh\necho ran > {folder}/ran\necho {self.token}\n")
        self.program.chmod(0o755)
        self.schema = folder / "schema.proto"
        self.schema.write_text(f'syntax = "proto3"; message M {{ string {self.token} = 1; }}\n')
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        self._before = self._files()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x.csv"

    def close(self) -> None:
        self._listener.close()

    def bait(self, text: str) -> str:
        """Fill in what is to be reached, where a text has `{file}` and the like."""
        for name in ("file", "folder", "program", "schema", "url", "port"):
            text = text.replace(f"{{{name}}}", str(getattr(self, name)))
        return text.replace("{new}", str(self.folder / "new"))

    def ask(self, query: str, *, post: bool = True, **parameters: str) -> tuple[int, bytes]:
        """Send a statement; nothing may have been reached. Gives status and answer."""
        status, body = ask(self.server.port, query, post=post, **parameters)
        case = (query, parameters)
        assert self.token.encode() not in body, case
        assert not self.contacts, case
        assert self._files() == self._before, (case, self._files() - self._before)
        return status, body

    def ask_all(self, queries: Iterable[str]) -> int:
        """Send many at once, and look through everything afterwards. Gives their number."""

        def tried(query: str) -> None:
            # Some of what is put together has no end.
            self.ask(query, max_rows_to_read="100000", max_execution_time="1")

        with ThreadPoolExecutor(4) as threads:
            count = sum(1 for _ in threads.map(tried, queries))
        self.look_through()
        return count

    def look_through(self) -> None:
        """Nothing may have got into any table, and the server still serves its own."""
        assert self.file.read_text() == f"{self.token}\n"
        tables = (
            "SELECT concat('`', database, '`.`', name, '`') FROM system.tables WHERE engine != "
            "'GenerateRandom' AND lower(database) NOT IN ('system', 'information_schema') "
            "FORMAT TSVRaw"
        )
        for table in self.ask(tables)[1].decode().splitlines():
            self.ask(f"SELECT * FROM {table} LIMIT 1000")
        assert self.ask("SELECT b FROM t WHERE a = 1") == (200, b"x\n")

    def _files(self) -> set[str]:
        """Those beside the canary, and where a relative path would lead."""
        here = {path.name for path in Path().iterdir() if not path.name.startswith(".")}
        return here | {path.name for path in self.folder.iterdir()}

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.close()
            self.contacts += 1


@asynccontextmanager
async def trapped(folder: Path) -> AsyncIterator[Trap]:
    """A server with a table of one row, and the trap beside it."""
    server = ClickHouseServer(folder / "data", log=folder / "clickhouse.log")
    trap = Trap(folder / "outside", server)
    await server.start()
    try:
        await server.wait_ready()
        trap.ask("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
        trap.ask("INSERT INTO t VALUES (1, 'x')")
        yield trap
    finally:
        await server.stop()
        trap.close()


def ask(port: int, query: str, *, post: bool = True, **parameters: str) -> tuple[int, bytes]:
    """Send one statement to the HTTP interface; its status and answer."""
    if not post:
        parameters["query"] = query
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/?{urllib.parse.urlencode(parameters)}",
        data=query.encode() if post else None,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
