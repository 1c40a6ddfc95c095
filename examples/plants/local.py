"""The whole pipeline on this machine: the embedded stack, and worker processes beside it.

What the demos share: where things are, how they start, how they end.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import nats
from rich.console import Console

import mqinfer
from examples.plants.app import app
from examples.plants.materials import MaterialsError
from mqinfer import App, MqinferError, Settings, plan
from mqinfer.stack import Stack, StackSettings
from mqinfer.stack.errors import StackError
from mqinfer.stack.ports import free_port
from mqinfer.stack.probe import http
from mqinfer.stack.server import Server
from stages.plants import DISEASES

APP = "examples.plants.app:app"
MODELS = Path(__file__).parents[2] / "triton_models"
GRADERS = [f"grade_{disease}" for disease in DISEASES]
WORKERS = {
    "crop": ["crop"],
    "graders": GRADERS,
    # All that asks no model: what watches the field, and the sinks.
    "tables": [task.name for task in plan.tasks(app) if task.name not in ("crop", *GRADERS)],
}
STALLED_SECONDS = 60.0
READY_SECONDS = 300.0  # for a worker on a busy machine; one that dies is told at once

T = TypeVar("T")


class Broken(Exception):
    """A promise of the demo does not hold."""


class WorkerProcess(Server):
    """`mqinfer worker` in a process of its own, which cannot outlive this one.

    Args:
        name: what messages and the log file call it.
        app: `module:attribute`.
        stages: what it runs.
        log: the file that gets what it prints.
        environment: where the servers are.
    """

    def __init__(
        self,
        name: str,
        app: str,
        stages: list[str],
        *,
        log: Path,
        environment: Mapping[str, str],
    ):
        super().__init__(log)
        self.name = f"worker {name}"
        self.port = free_port()
        self._arguments = [app, *(f"--stage={stage}" for stage in stages)]
        self._environment = {**environment, "MQINFER_GRACE": "8"}

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in another shell."""
        worker = [sys.executable, "-m", "mqinfer", "worker", *self._arguments]
        return [*worker, f"--http={self.port}", "--log-format=console"]

    def environment(self) -> Mapping[str, str]:
        """The three URLs and the blob store."""
        return self._environment

    async def probe(self) -> bool:
        """Whether it can pull and publish."""
        status, _ = await http(self.port, "/readyz")
        return status == 200


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything that runs.

    Attributes:
        stack: the servers.
        workers: the worker processes.
        settings: with which clients find the servers.
    """

    stack: Stack
    workers: list[WorkerProcess]
    settings: Settings


@asynccontextmanager
async def pipeline(
    folder: Path,
    models: Path,
    app: str,
    workers: Mapping[str, list[str]],
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Pipeline]:
    """Servers and workers, ready; at the end the workers stop first.

    Args:
        folder: for data and logs; see `clear`.
        models: the Triton model repository.
        app: `module:attribute`.
        workers: names of processes and the stages that each runs.
        variables: of the workers' environment, beside where the servers are.

    Raises:
        StackError: a server or worker did not start, or died while the block ran; with the end of
            its log.
    """
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            Stack(
                StackSettings.free_ports(folder, models=models, inference=Settings.load().inference)
            )
        )
        environment = {**stack.environment(), **(variables or {})}
        processes = [
            WorkerProcess(
                name, app, stages, log=stack.dir / "logs" / f"{name}.log", environment=environment
            )
            for name, stages in workers.items()
        ]
        for process in processes:
            exits.push_async_callback(process.stop, 12.0)
            await process.start()
        await asyncio.gather(*(process.wait_ready(READY_SECONDS) for process in processes))
        yield Pipeline(stack, processes, Settings.load(environment))


async def die_together(running: Pipeline) -> None:
    """Look after servers and workers until cancelled.

    Raises:
        StackError: one of them died; with the end of its log.
    """

    async def watch_workers() -> None:
        while True:
            for worker in running.workers:
                if worker.died:
                    raise StackError(worker.story())
            await asyncio.sleep(0.1)

    await asyncio.gather(running.stack.watch(), watch_workers())


async def while_alive(running: Pipeline, work: Coroutine[Any, Any, T]) -> T:
    """Do something that needs servers and workers; it is cancelled when one of them dies.

    Raises:
        StackError: one of them died; with the end of its log.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(die_together(running))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return await task
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def clear(folder: Path) -> None:
    """Remove what an earlier run left; a folder that is in use or is somebody else's stays.

    Raises:
        StackError: naming the folder and why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "lock").exists() and any(folder.iterdir()):
        raise StackError(f"{folder} is not empty and no stack made it: choose another with --dir")
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"{folder} is in use: choose another with --dir") from None
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


async def all_done(app: App, settings: Settings, look: Callable[[], object]) -> None:
    """Wait until no message of the app is left undone.

    A stage acknowledges a message when all that it wrote is in the stream. So when stages and sinks
    are asked in the order in which messages pass, and each in turn has nothing left, all is done.

    Args:
        app: whose stages and sinks.
        settings: where NATS is.
        look: called between looks, to show progress.

    Raises:
        StackError: nothing moved for a minute; names the stage.
    """
    async with mqinfer.connect(app, settings) as client:
        for name in _in_order(app):
            left, moved = -1, time.monotonic()
            while left != 0:
                now = await client.lag(name)
                if now != left:
                    left, moved = now, time.monotonic()
                elif time.monotonic() - moved > STALLED_SECONDS:
                    raise StackError(f"{name} does not go on: {left} messages wait for it")
                look()
                await asyncio.sleep(0.1 if left else 0)


def _in_order(app: App) -> list[str]:
    """Stages and sinks, each after those that write what it reads."""
    # What waits for a deadline is not left undone.
    tasks = [task for task in plan.tasks(app) if not task.dead and task.deadline is None]
    depth = {task.name: len(plan.upstream(app, [task])) for task in tasks}
    return sorted(depth, key=lambda name: depth[name])


async def dead_letters(app: App, settings: Settings) -> int:
    """How many messages could not be answered."""
    connection = await nats.connect(settings.nats_servers)
    try:
        info = await connection.jetstream().stream_info(f"{app.name}-dead")
        return info.state.messages
    finally:
        await connection.close()


async def load_version(stack: Stack, model: str, version: str) -> float:
    """Copy a version into the repository that Triton watches, and wait until it is served.

    Args:
        stack: whose repository is not `MODELS` itself.
        model: its name.
        version: that `MODELS` has.

    Returns:
        Seconds until it was served.

    Raises:
        StackError: Triton does not take it up.
    """
    assert stack.triton is not None
    fresh = stack.dir / f"{model}-{version}"
    await asyncio.to_thread(shutil.copytree, MODELS / model / version, fresh)
    # Renamed, so that Triton never finds half of it.
    fresh.rename(stack.triton.models / model / version)
    began = time.monotonic()
    triton = stack.triton

    async def served() -> bool:
        with suppress(OSError, TimeoutError):
            for one in await triton.model_states():
                if (one.name, one.version, one.state) == (model, version, "READY"):
                    return True
        return False  # too busy to say

    while not await served():
        if time.monotonic() - began > STALLED_SECONDS:
            raise StackError(f"Triton does not take up {model} {version}; see {stack.triton.log}")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


def say_where(running: Pipeline, console: Console) -> None:
    """The addresses of the servers and the processes of the workers."""
    stack = running.stack
    console.print(f"NATS {stack.nats_url}, Triton {stack.triton_url}")
    console.print(f"ClickHouse {stack.clickhouse_url}")
    for worker in running.workers:
        console.print(f"{worker.name}: process {worker.pid}")


def machine() -> str:
    """What it runs on, for those who read its rates."""
    may_use = getattr(os, "sched_getaffinity", None)  # Linux
    cores = os.cpu_count() if may_use is None else len(may_use(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cores} cores, {memory:.0f} GB, {platform.machine()}"


def conclude(
    figures: dict[str, Any], broken: Sequence[str], folder: Path, seconds: float, console: Console
) -> None:
    """Keep the figures of a demo that has ended, and say where.

    Raises:
        Broken: a promise does not hold; the text names those that do not.
    """
    figures["seconds"] = round(seconds, 1)
    report = folder / "report.json"
    report.write_text(json.dumps(figures, indent=2, default=str) + "\n")
    console.print(f"report: {report}    logs: {folder / 'logs'}")
    console.print(f"everything stopped after {figures['seconds']:.0f} s")
    if broken:
        raise Broken("; ".join(broken))


def run_to_exit(work: Coroutine[Any, Any, object]) -> int:
    """Run a demo; the exit code: 0 if every promise holds."""
    try:
        asyncio.run(_until_told(work))
    except Broken as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except (MqinferError, StackError, MaterialsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; everything stopped", file=sys.stderr)
        return 130
    return 0


async def _until_told(work: Coroutine[Any, Any, object]) -> None:
    """Let SIGTERM stop everything in order, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task
