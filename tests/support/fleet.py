"""Worker processes that are killed and started anew."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from mqinfer.settings import Settings


class Fleet:
    """Worker processes of an app, `module:attribute`."""

    def __init__(self, settings: Settings, app: str, count: int):
        self._app = app
        self._environ = {
            **os.environ,
            "MQINFER_NATS_URL": settings.nats_url,
            "MQINFER_BLOBS": settings.blobs,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self._count = count
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Fleet:
        for _ in range(self._count):
            await self.one_more()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in self._processes))

    async def one_more(self) -> None:
        self._processes.append(
            await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "mqinfer", "worker", self._app, "--log-level=error"),
                env=self._environ,
                cwd=self._environ["PYTHONPATH"],
            )
        )

    async def kill_one(self) -> None:
        """Kill the eldest, and start another."""
        process = self._processes.pop(0)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await self.one_more()
