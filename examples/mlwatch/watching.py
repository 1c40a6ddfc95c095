"""Watching: `mqinfer monitor` in a process of its own, which looks every other second."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from examples.mlwatch.local import APP
from mqinfer.stack.errors import StackError

WINDOW = "90s"  # of what verdicts are about
LIMIT = 1 << 24  # bytes of a look


class Watching:
    """What the monitor said last.

    Attributes:
        looks: so many.
        last: the newest, as `mqinfer monitor --json` has it.
        trouble: what it said last instead of one.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.last: dict[str, Any] = {"series": [], "alarms": 0}
        self.trouble = ""

    def heard(self, line: bytes) -> None:
        """One more look."""
        if line.startswith(b"{"):
            self.last = json.loads(line)
            self.looks += 1
        else:
            self.trouble = line.decode(errors="replace").strip()

    def alarms(self) -> list[dict[str, Any]]:
        """Series of which an alarm stands, as the monitor tells of them."""
        return [one for one in self.last["series"] if one["alarms"]]


@asynccontextmanager
async def watching(environment: Mapping[str, str]) -> AsyncIterator[Watching]:
    """`mqinfer monitor APP --watch`, ended at the end."""
    found = Watching()
    process = await asyncio.create_subprocess_exec(
        *command("show", "--watch", "--interval=2", f"--window={WINDOW}", "--json"),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=LIMIT,
        start_new_session=True,  # Ctrl-C is the demo's to heed
    )
    output = process.stdout
    assert output is not None

    async def listen() -> None:
        while line := await output.readline():
            found.heard(line)

    listening = asyncio.create_task(listen())
    try:
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def said(environment: Mapping[str, str], *words: str) -> tuple[int, str]:
    """Exit code and text of `mqinfer monitor`.

    Raises:
        StackError: it was asked wrongly, or could not ask; with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command(*words),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    text = output.decode().strip()
    if process.returncode not in (0, 1) or text.startswith("error"):
        raise StackError(f"mqinfer monitor {' '.join(words)}: {text}")
    return process.returncode, text


def command(word: str, *words: str) -> list[str]:
    """`mqinfer monitor`, as it would be typed."""
    return [sys.executable, "-m", "mqinfer", "monitor", word, APP, *words]
