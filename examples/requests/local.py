"""All of the small backend on this machine: servers, a worker and a gateway, a process each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.gatewayprocess import GatewayProcess
from examples.plants.local import WorkerProcess
from mqinfer import Settings
from mqinfer.stack import Stack, StackSettings

APP = "examples.requests.app:app"
SITE = Path(__file__).parent / "site"


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
            APP,
            SITE,
            log=logs / "gateway.log",
            environment=environment,
            options=[f"--max-backlog={max_backlog}"],
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
