"""The gateway of an example, as its demo starts and kills it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mqinfer.stack.ports import free_port
from mqinfer.stack.probe import http
from mqinfer.stack.server import Server


class GatewayProcess(Server):
    """`mqinfer gateway` with a page, in a process of its own, which cannot outlive this one.

    It may be killed and started again, at the same address.

    Args:
        app: as a command line names it.
        site: the folder of the page.
        log: the file that gets what it prints.
        environment: where the servers are.
        options: further ones of the command.

    Attributes:
        url: where it answers.
    """

    name = "gateway"

    def __init__(
        self,
        app: str,
        site: Path,
        *,
        log: Path,
        environment: Mapping[str, str],
        options: Sequence[str] = (),
    ):
        super().__init__(log)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._given = (app, f"--site={site}", *options)
        self._environment = environment

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in another shell."""
        gateway = [sys.executable, "-m", "mqinfer", "gateway", *self._given]
        return [*gateway, f"--http={self.port}", "--log-format=console"]

    def environment(self) -> Mapping[str, str]:
        """Where NATS and the blob store are."""
        return self._environment

    async def probe(self) -> bool:
        """Whether it takes requests."""
        status, _ = await http(self.port, "/readyz")
        return status == 200
