"""All of it on this machine: the classes packed, the servers, a worker and a gateway."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.gatewayprocess import GatewayProcess
from examples.plants.local import WorkerProcess
from mqinfer import App, Settings
from mqinfer.catalog import app_of
from mqinfer.catalog.packing import Done, pack_all
from mqinfer.catalog.reading import read
from mqinfer.stack import Stack, StackSettings
from mqinfer.stack.errors import StackError

HERE = Path(__file__).parent
SITE = HERE / "site"
CLASSES = ("models.toml", "iris.py", "oddity.py")
# Loading two scikit-learns at once takes a while on a busy machine.
READY_SECONDS = 300.0


@dataclass(frozen=True)
class Running:
    """Everything that runs.

    Attributes:
        file: the `models.toml`.
        app: that comes of it.
        stack: the servers.
        worker: that does the work.
        gateway: that takes requests.
        settings: with which clients find the servers.
        environment: the same, for commands.
    """

    file: Path
    app: App
    stack: Stack
    worker: WorkerProcess
    gateway: GatewayProcess
    settings: Settings
    environment: Mapping[str, str]

    async def watch(self) -> None:
        """Look after all of it until cancelled.

        Raises:
            StackError: something died; with the end of its log.
        """

        async def watch_ours() -> None:
            while True:
                for one in (self.worker, self.gateway):
                    if one.died:
                        raise StackError(one.story())
                await asyncio.sleep(0.1)

        await asyncio.gather(self.stack.watch(), watch_ours())


def prepare(
    folder: Path, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, list[Done], float]:
    """Copy the file and its classes, and pack them.

    The first time on a machine the environments of the models are made, from the package index.

    Returns:
        The file, what was packed, and the seconds that it took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLASSES:
        shutil.copyfile(HERE / name, folder / name)
    began = time.monotonic()
    done = pack_all(read(folder / "models.toml"), say=say)
    return folder / "models.toml", done, time.monotonic() - began


@asynccontextmanager
async def running(file: Path, folder: Path) -> AsyncIterator[Running]:
    """Servers, a worker and a gateway, ready.

    Args:
        file: the `models.toml`, whose models are packed.
        folder: for data and logs.

    Raises:
        StackError: one of them did not start; with the end of its log.
    """
    app = app_of(file)
    async with AsyncExitStack() as exits:
        stack = Stack(
            StackSettings.free_ports(
                folder,
                models=file.parent / "triton_models",
                clickhouse=False,
                inference=Settings.load().inference,
                ready_timeout=READY_SECONDS,
            )
        )
        await exits.enter_async_context(stack)
        environment = stack.environment()
        logs = stack.dir / "logs"
        worker = WorkerProcess(
            "all", str(file), [], log=logs / "worker.log", environment=environment
        )
        log = logs / "gateway.log"
        gateway = GatewayProcess(str(file), SITE, log=log, environment=environment)
        for one in (worker, gateway):
            exits.push_async_callback(one.stop, 12.0)
            await one.start()
        await asyncio.gather(*(one.wait_ready(READY_SECONDS) for one in (worker, gateway)))
        settings = Settings.load(environment)
        yield Running(file, app, stack, worker, gateway, settings, environment)
