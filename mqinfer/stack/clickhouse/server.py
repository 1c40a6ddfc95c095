"""ClickHouse: the engine of the package chdb, served over its HTTP interface."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from mqinfer.stack import probe
from mqinfer.stack.errors import StackConfigurationError
from mqinfer.stack.ports import HOST, free_port
from mqinfer.stack.server import Server


class ClickHouseServer(Server):
    """A process that serves one chdb directory on loopback.

    Args:
        directory: Where the tables are kept.
        log: Where its output goes.
        port: The HTTP port; 0 takes a free one.
        user: The one user.
        password: Empty by default, as in a fresh ClickHouse.
    """

    name = "ClickHouse"

    def __init__(
        self,
        directory: Path,
        *,
        log: Path,
        port: int = 0,
        user: str = "default",
        password: str = "",
    ) -> None:
        super().__init__(log)
        self.directory = directory
        self.port = port or free_port()
        self.user = user
        self._password = password

    @property
    def url(self) -> str:
        """The address for clients, with user and database."""
        login = quote(self.user, safe="")
        if self._password:
            login += ":" + quote(self._password, safe="")
        return f"http://{login}@{HOST}:{self.port}/default"

    def check(self) -> None:
        """Refuse what cannot work before anything is started.

        Raises:
            StackConfigurationError: chdb is not installed, or would misread the folder's path.
        """
        if importlib.util.find_spec("chdb") is None:
            raise StackConfigurationError(
                "the embedded ClickHouse needs the package chdb: pip install "
                "'mqinfer[embedded]', or use a ClickHouse of your own with "
                "MQINFER_CLICKHOUSE_URL and start the stack with --no-clickhouse"
            )
        path = str(self.directory.resolve())
        if "?" in path or "&" in path:
            raise StackConfigurationError(
                f"the embedded ClickHouse cannot keep its tables in {path}: choose a folder "
                "without ? and & in its path with --dir"
            )

    def ports(self) -> Mapping[int, tuple[str, str]]:
        """Give the one."""
        return {self.port: ("ClickHouse HTTP", "--clickhouse-port")}

    def prepare(self) -> None:
        """Create the folder."""
        self.check()
        self.directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Give the command line."""
        return [
            sys.executable,
            "-m",
            "mqinfer.stack.clickhouse",
            f"--directory={self.directory.resolve()}",
            f"--port={self.port}",
            f"--user={self.user}",
        ]

    def environment(self) -> Mapping[str, str]:
        """Hand over the password where others cannot read it."""
        return {"MQINFER_STACK_CLICKHOUSE_PASSWORD": self._password, "PYTHONUNBUFFERED": "1"}

    async def probe(self) -> bool:
        """Ask for a ping and for the answer of a query."""
        status, body = await probe.http(self.port, "/ping")
        if (status, body) != (200, b"Ok.\n"):
            return False
        headers = {"X-ClickHouse-User": self.user, "X-ClickHouse-Key": self._password}
        status, body = await probe.http(self.port, "/?query=SELECT%20version()", headers=headers)
        self.version = body.decode(errors="replace").strip() if status == 200 else ""
        return bool(self.version)
