"""All of the small backend on this machine: servers, a worker and a gateway, a process each."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.plants.local import WorkerProcess
from mqinfer import Settings
from mqinfer.stack import Stack, StackSettings
from mqinfer.stack.ports import free_port
from mqinfer.stack.probe import http
from mqinfer.stack.server import Server

APP = "examples.requests.app:app"
SITE = Path(__file__).parent / "site"


class GatewayProcess(Server):
    """`mqinfer gateway` with the page, in a process of its own, which cannot outlive this one.

    It may be killed and started again, at the same address.

    Args:
        log: the file that gets what it prints.
        environment: where the servers are.
        max_backlog: messages that may be open behind an endpoint.
    """

    name = "gateway"

    def __init__(self, *, log: Path, environment: Mapping[str, str], max_backlog: int):
        super().__init__(log)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment
        self._max_backlog = max_backlog

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in another shell."""
        gateway = [sys.executable, "-m", "mqinfer", "gateway", APP, f"--site={SITE}"]
        gateway += [f"--http={self.port}", f"--max-backlog={self._max_backlog}"]
        return [*gateway, "--log-format=console"]

    def environment(self) -> Mapping[str, str]:
        """The URL of NATS and the blob store."""
        return self._environment

    async def probe(self) -> bool:
        """Whether it takes requests."""
        status, _ = await http(self.port, "/readyz")
        return status == 200


@dataclass(frozen=True, slots=True)
class Backend:
    """Everything that runs.

    Attributes:
        stack: the servers.
        worker: the one worker.
        gateway: the one gateway.
    """

    stack: Stack
    worker: WorkerProcess
    gateway: GatewayProcess


@asynccontextmanager
async def backend(
    folder: Path, models: Path, *, keep: str, max_backlog: int
) -> AsyncIterator[Backend]:
    """Servers, worker and gateway, ready; at the end they stop, the servers last.

    Args:
        folder: for data and logs; see `examples.plants.local.clear`.
        models: the model repository.
        keep: for how long answers can be fetched.
        max_backlog: messages that may be open behind an endpoint.

    Raises:
        StackError: one of them did not start, or died while the block ran.
    """
    async with AsyncExitStack() as exits:
        chosen = StackSettings.free_ports(
            folder, models=models, clickhouse=False, inference=Settings.load().inference
        )
        stack = await exits.enter_async_context(Stack(chosen))
        environment = {**stack.environment(), "REQUESTS_KEEP": keep}
        logs = stack.dir / "logs"
        worker = WorkerProcess("all", APP, [], log=logs / "worker.log", environment=environment)
        gateway = GatewayProcess(
            log=logs / "gateway.log", environment=environment, max_backlog=max_backlog
        )
        for process in (worker, gateway):
            exits.push_async_callback(process.stop, 12.0)
            await process.start()
        await asyncio.gather(worker.wait_ready(), gateway.wait_ready())
        yield Backend(stack, worker, gateway)


def browser() -> str | None:
    """The Chromium of the PATH, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)
