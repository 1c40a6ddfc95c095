"""Suspects: workers that are killed again and again, with and without a message that does it."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

from mqinfer.settings import Settings
from mqinfer.testing import Harness, until

from .support import done

COUNT = 64
ATTEMPTS = 3
APP = """
import asyncio, os
from pathlib import Path
from mqinfer import App, Message
from mqinfer.backoff import Backoff

class Number(Message, subject="number"):
    value: int

class Double(Message, subject="double"):
    value: int

app = App("night")
begun = os.open("begun.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.stage(ack_wait=1.0, attempts={attempts}, backoff=Backoff(initial=0.05))
async def double(number: Number) -> Double:
    os.write(begun, f"{{os.getpid()}} {{number.value}}\\n".encode())
    {body}
    return Double(number.value)
"""
HOLD = 'while not Path("go").exists():\n        await asyncio.sleep(0.05)'
KILL = "await asyncio.sleep(0.1)\n    if number.value in {killers}: os._exit(9)"


class Night:
    """An app in a folder, and one worker at a time that is started anew when it died.

    Attributes:
        deaths: of workers.
    """

    def __init__(self, folder: Path, nats: Settings, body: str):
        self.deaths = 0
        self._folder = folder
        self._environ = {**os.environ, "MQINFER_NATS_URL": nats.nats_url}
        (folder / "night.py").write_text(APP.format(attempts=ATTEMPTS, body=body))

    def module(self) -> ModuleType:
        """The app, as this process sees it."""
        before = Path.cwd()
        sys.path.insert(0, str(self._folder))
        os.chdir(self._folder)
        try:
            return importlib.import_module("night")
        finally:
            os.chdir(before)
            sys.path.remove(str(self._folder))
            sys.modules.pop("night", None)

    def begun(self, process: asyncio.subprocess.Process) -> list[int]:
        """Values that a worker began with."""
        lines = (self._folder / "begun.txt").read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == str(process.pid)]

    async def life(
        self, then: Callable[[asyncio.subprocess.Process], Awaitable[object]] | None = None
    ) -> None:
        """A worker, until it dies or `then` is over, when it is killed."""
        with (self._folder / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mqinfer", "worker", "night:app",
                cwd=self._folder, env=self._environ, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            if then is not None:
                await then(process)
                process.kill()
            assert await process.wait() in (9, -9), (self._folder / "worker.log").read_text()
            self.deaths += 1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_deaths_that_no_message_caused_leave_the_work_wide(
    nats: Settings, tmp_path: Path
) -> None:
    night = Night(tmp_path, nats, HOLD)
    app = night.module()
    async with Harness(app.app, nats) as harness:
        await harness.publish(*(app.Number(value) for value in range(COUNT)))

        async def wide(process: asyncio.subprocess.Process) -> None:
            await until(lambda: len(night.begun(process)) >= width, f"{width} at work", 60)

        # Not before the third death is it known who was at work, and that was everyone.
        for width in (COUNT, COUNT, COUNT, COUNT // 2):  # noqa: B007 - `wide` reads it
            await night.life(wide)
        assert night.deaths > ATTEMPTS

        async def others(process: asyncio.subprocess.Process) -> None:
            """New messages are all at work though half of the suspects wait; then all go on."""
            await harness.publish(*(app.Number(COUNT + value) for value in range(COUNT)))
            new = set(range(COUNT, 2 * COUNT))
            await until(lambda: new <= set(night.begun(process)), "the new ones at work", 60)
            (tmp_path / "go").touch()
            await done(harness, "double", timeout=300)

        await night.life(others)
        answers = sorted(m.value for m in await harness.messages(app.Double))
        assert answers == list(range(2 * COUNT))
        assert await harness.dead() == []


async def test_killers_among_many_are_found(nats: Settings, tmp_path: Path) -> None:
    killers, count = (1, 5), 8
    night = Night(tmp_path, nats, KILL.format(killers=killers))
    app = night.module()
    async with Harness(app.app, nats) as harness:
        await harness.publish(*(app.Number(value) for value in range(count)))

        async def forever() -> None:
            while True:
                await night.life()

        async with asyncio.TaskGroup() as group:
            lives = group.create_task(forever())
            try:
                await done(harness, "double", timeout=900)
            finally:
                lives.cancel()
        letters = await harness.dead()
        assert {letter.kind for letter in letters} == {"killed"}
        assert sorted(letter.data for letter in letters) == sorted(
            b'{"value":%d}' % killer for killer in killers
        )
        answers = sorted(m.value for m in await harness.messages(app.Double))
        assert answers == [value for value in range(count) if value not in killers]
        # Each as one of many, by halves, and alone.
        halvings = count.bit_length() - 1
        assert night.deaths <= len(killers) * (2 + 1 + halvings + ATTEMPTS)
