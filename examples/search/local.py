"""All of the image search on this machine: servers, and what `deploy.toml` says beside them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mqinfer
from examples.search.app import app
from mqinfer import Client, Settings, wiring
from mqinfer.ports import Database
from mqinfer.search.generations import Generations
from mqinfer.search.protocol import Holding
from mqinfer.search.roll import called
from mqinfer.stack import Stack, StackSettings
from mqinfer.stack.errors import StackError
from mqinfer.stack.ports import free_port
from mqinfer.stack.probe import http
from mqinfer.stack.server import Server

APP = "examples.search.app:app"
FILE = Path(__file__).with_name("deploy.toml")
WAIT = 120.0  # seconds for what a busy machine does; only what fails waits so long


class Deployed(Server):
    """`mqinfer deploy apply --target local`: it supervises all that the file says.

    Args:
        file: a `deploy.toml`.
        port: of the gateway in it.
        folder: where it renders.
        log: the file that gets what all processes print.
        environment: where the servers are.
    """

    name = "what deploy.toml says"

    def __init__(
        self, file: Path, port: int, folder: Path, *, log: Path, environment: Mapping[str, str]
    ):
        super().__init__(log)
        self.file = file
        self.port = port
        self.folder = folder
        self._environment = environment

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in a shell."""
        deploy = [sys.executable, "-m", "mqinfer", "deploy", "apply", APP, str(self.file)]
        return [*deploy, "--target=local", f"--out={self.folder}"]

    def environment(self) -> Mapping[str, str]:
        """Where the servers are."""
        return self._environment

    async def probe(self) -> bool:
        """Whether the gateway takes requests."""
        status, _ = await http(self.port, "/readyz")
        return status == 200


@dataclass(frozen=True, slots=True)
class Album:
    """Everything that runs.

    Attributes:
        stack: the servers.
        deployed: the processes.
        client: of the app, in this process.
        database: ClickHouse.
        url: of the gateway, and the page.
    """

    stack: Stack
    deployed: Deployed
    client: Client
    database: Database
    url: str

    async def command(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run `mqinfer` in a process of its own; what it prints.

        Raises:
            StackError: it ends with another exit code.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", *words),
            env={**os.environ, **self.stack.environment()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode not in codes:
            said = (err or out).decode().strip()[-500:]
            raise StackError(f"mqinfer {' '.join(words)} ended with {process.returncode}: {said}")
        return out.decode()

    async def facts(self, *words: str) -> Any:
        """Run `mqinfer ... --json`; the facts."""
        return json.loads(await self.command(*words, "--json", codes=(0, 1)))

    @property
    def generations(self) -> Generations:
        """Those of the index, as `mqinfer index` changes them."""
        return wiring.generations(app, self.client._services.broker)

    async def holdings(self) -> list[Holding]:
        """Which processes hold which shards, as they say now."""
        services = self.client._services
        assert services.core is not None
        return list((await called(app, services.core)).holdings)

    async def kill_holder(self, shard: int) -> int:
        """Kill a process that holds a shard (SIGKILL); which one.

        Raises:
            StackError: none does.
        """
        for one in await self.holdings():
            if any(each.shard == shard for each in one.shards):
                os.kill(one.pid, signal.SIGKILL)
                return one.pid
        raise StackError(f"no process holds shard {shard}")

    def edit(self, old: str, new: str) -> None:
        """Change the file that is deployed."""
        text = self.deployed.file.read_text()
        assert old in text, f"{old!r} is not in {self.deployed.file}"
        self.deployed.file.write_text(text.replace(old, new))


@asynccontextmanager
async def album(folder: Path, models: Path) -> AsyncIterator[Album]:
    """Servers, and all that the file says, ready; at the end they stop, the servers last.

    Args:
        folder: for data and logs; see `examples.plants.local.clear`.
        models: the model repository.

    Raises:
        StackError: one of them did not start.
    """
    async with AsyncExitStack() as exits:
        chosen = StackSettings.free_ports(
            folder, models=models, inference=Settings.load().inference
        )
        stack = await exits.enter_async_context(Stack(chosen))
        settings = Settings.load(stack.environment())
        port = free_port()
        file = folder / "deploy.toml"
        # The file as it is, on a port that is free here.
        file.write_text(FILE.read_text().replace("[gateway]\n", f"[gateway]\nport = {port}\n"))
        deployed = Deployed(
            file,
            port,
            folder / "deployed",
            log=stack.dir / "logs" / "deployed.log",
            environment=stack.environment(),
        )
        client = await exits.enter_async_context(mqinfer.connect(app, settings))
        database = wiring.clickhouse(settings)
        exits.push_async_callback(database.close)
        yield Album(stack, deployed, client, database, f"http://127.0.0.1:{port}")
