"""The console as the demo starts it: `mqinfer console`, in a process of its own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from examples.mlwatch.local import APP
from mqinfer.stack.ports import free_port
from mqinfer.stack.probe import http
from mqinfer.stack.server import Server

TOKEN = secrets.token_urlsafe(24)


class ConsoleProcess(Server):
    """`mqinfer console`, which cannot outlive this process.

    Args:
        log: the file that gets what it prints.
        environment: where the servers and the photographs are.

    Attributes:
        url: where it answers.
    """

    name = "console"

    def __init__(self, *, log: Path, environment: Mapping[str, str]):
        super().__init__(log)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = {**environment, "MQINFER_CONSOLE_TOKEN": TOKEN}

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in another shell."""
        return [sys.executable, "-m", "mqinfer", "console", APP, f"--http=127.0.0.1:{self._port}"]

    def environment(self) -> Mapping[str, str]:
        """Where everything is, and the token."""
        return self._environment

    async def probe(self) -> bool:
        """Whether it answers."""
        status, _ = await http(self._port, "/healthz")
        return status == 200
