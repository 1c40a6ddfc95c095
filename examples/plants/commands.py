"""The real command line in processes beside the demo, as one would type it in another shell."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mqinfer.stack.errors import StackError
from mqinfer.stack.server import Server

_SECONDS = 120.0


class Commands:
    """Runs `mqinfer` commands that end by themselves.

    Args:
        environment: where the servers are.
    """

    def __init__(self, environment: Mapping[str, str]):
        self._environment = {**os.environ, **environment, "NO_COLOR": "1"}

    async def text(self, *words: str) -> str:
        """What a command prints.

        Raises:
            StackError: it failed; with what it said.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer", *words),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            raise StackError(f"{_line(words)} took more than {_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = err.decode(errors="replace").strip()
            raise StackError(f"{_line(words)} ended with {process.returncode}: {said}")
        return out.decode()

    async def facts(self, *words: str) -> Any:
        """What a command says with `--json`.

        Raises:
            StackError: it failed.
        """
        return json.loads(await self.text(*words, "--json"))


def _line(words: tuple[str, ...]) -> str:
    return " ".join(("mqinfer", *words))


class Replay(Server):
    """`mqinfer replay`, which cannot outlive the demo; its `--json` lines go to the log.

    Args:
        words: what follows `mqinfer replay`.
        log: the file that gets what it prints.
        environment: where the servers are.
    """

    name = "replay"

    def __init__(self, *words: str, log: Path, environment: Mapping[str, str]):
        super().__init__(log)
        self._words = words
        self._environment = environment

    def prepare(self) -> None:
        """Nothing to write."""

    def command(self) -> list[str]:
        """What one would type in another shell."""
        replay = [sys.executable, "-m", "mqinfer", "replay", *self._words]
        return [*replay, "--json", "--log-format=console"]

    def environment(self) -> Mapping[str, str]:
        """The three URLs and the blob store."""
        return self._environment

    async def probe(self) -> bool:
        """Whether the run is made."""
        return bool(self.events())

    def events(self) -> list[dict[str, Any]]:
        """Everything that it has told."""
        lines = self.log.read_text(errors="replace").splitlines()
        # What it logs as text goes there, too; the last line may be half written.
        return [json.loads(line) for line in lines if line[:1] == "{" and line[-1:] == "}"]

    def done(self) -> int:
        """How many messages of the range are settled, as last told."""
        return max((event.get("done", 0) for event in self.events()), default=0)

    async def ended(self) -> list[dict[str, Any]]:
        """Wait for the end of the run; everything it has told.

        Raises:
            StackError: it did not come to its end; with the end of its log.
        """
        if await self.wait():
            raise StackError(self.story())
        return self.events()
