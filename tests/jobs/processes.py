"""Processes of a measurement of jobs: a nats-server, workers, and the memory of each over time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from mqinfer.settings import Settings
from mqinfer.stack import NatsServer

ROOT = Path(__file__).parents[2]
EVERY = 0.5  # seconds between samples


@asynccontextmanager
async def served(folder: Path, blobs: str = "", triton: str = "") -> AsyncIterator[Settings]:
    """Settings for a nats-server that is there while inside.

    Args:
        folder: for its data, and for blobs.
        blobs: where these are instead.
        triton: the address of a server of models.
    """
    server = NatsServer(folder / "nats", log=folder / "nats.log")
    await server.start()
    try:
        await server.wait_ready(60)
        more = {"triton_url": triton} if triton else {}
        yield Settings.load(
            {}, nats_url=server.url, blobs=blobs or str(folder / "blobs"), grace=5.0, **more
        )
    finally:
        await server.stop()


@asynccontextmanager
async def process(
    settings: Settings, *arguments: str, out: Path, environ: dict[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`mqinfer ...`, which is ended at last; what it prints goes into a file."""
    told = {
        "MQINFER_NATS_URL": settings.nats_url,
        "MQINFER_BLOBS": str(settings.blobs),
        "MQINFER_GRACE": "5",
        **({"MQINFER_TRITON_URL": settings.triton_url} if settings.triton_url else {}),
        **(environ or {}),
    }
    with out.open("wb") as file:
        made = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", *arguments),
            cwd=ROOT,
            env={**os.environ, **told},
            stdout=file,
            stderr=file,
        )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.send_signal(signal.SIGTERM)
        await made.wait()


class Memory:
    """What a process takes over time; its children left out.

    Attributes:
        samples: MB of each.
    """

    def __init__(self, pid: int):
        self.samples: list[float] = []
        self._process = psutil.Process(pid)

    async def watch(self) -> None:
        """Look again and again, until the process ends."""
        try:
            while True:
                # Pages of files that the kernel keeps mapped are not its own.
                info = self._process.memory_info()
                self.samples.append((info.rss - getattr(info, "shared", 0)) / 1e6)
                await asyncio.sleep(EVERY)
        except psutil.NoSuchProcess:
            pass

    def told(self) -> str:
        """The most in each fifth of the time."""
        found = self.samples
        if not found:
            return "nothing"
        fifths = [found[at * len(found) // 5 : (at + 1) * len(found) // 5] for at in range(5)]
        return " ".join(f"{max(one):.0f}" for one in fifths if one) + " MB"
