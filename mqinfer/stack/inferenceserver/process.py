"""The server's side of an instance: starts its process, hands it work, and notices that it died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mqinfer.stack.inferenceserver.instance import (
    Region,
    frame,
    length_of,
    places,
    shared_file,
)
from mqinfer.stack.inferenceserver.tensors import Tensor

_PROGRAM = Path(__file__).with_name("instance.py")
# Seconds that a process may take to end, which has nothing to do any more.
_ENDING = 2.0


class LoadFailed(Exception):
    """A model does not load; the text says why."""


class RunFailed(Exception):
    """The model refused what it was to run; the text is its own."""


class Died(Exception):
    """The process ended while it was at work."""


class Ran(NamedTuple):
    """What a run gave: its outputs, and nanoseconds for reading, running and writing."""

    outputs: list[Tensor]
    ns: Sequence[int]


class Instance:
    """One process with a model, which runs one thing at a time; it can be started again.

    Args:
        name: for texts.
        specification: what the process is told to load.
    """

    def __init__(self, name: str, specification: dict[str, Any]):
        self.name = name
        self._specification = specification
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._regions: tuple[Region, Region]

    async def start(self) -> None:
        """Start the process and have it load the model.

        Raises:
            LoadFailed: it does not load, or the process died of it.
        """
        ours, theirs = socket.socketpair()
        files = shared_file(), shared_file()
        self._regions = Region(files[0]), Region(files[1])
        try:
            inherited = (theirs.fileno(), *files)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(_PROGRAM)),
                *map(str, (*inherited, os.getpid())),
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
            )
            self._reader, self._writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            await self.end()
            raise
        finally:
            theirs.close()
        try:
            told = await self._ask(self._specification)
        except Died as error:
            await self.end()
            raise LoadFailed(f"the process of {self.name} died while it loaded: {error}") from None
        except BaseException:
            await self.end()
            raise
        if "error" in told:
            await self.end()
            raise LoadFailed(told["error"])

    async def run(self, inputs: Sequence[Sequence[Tensor]], outputs: Sequence[str]) -> Ran:
        """Run the model once.

        Args:
            inputs: each as the parts that make it, one behind the other: the requests of a batch.
            outputs: the names of those that are wanted.

        Raises:
            RunFailed: the model refused it.
            Died: the process ended meanwhile.
        """
        sizes = [sum(len(part.raw) for part in parts) for parts in inputs]
        offsets, end = places(sizes)
        memory = self._regions[0].room(end)
        told = []
        for parts, size, offset in zip(inputs, sizes, offsets, strict=True):
            first = parts[0]
            at = offset
            for part in parts:
                memory[at : at + len(part.raw)] = part.raw
                at += len(part.raw)
            shape = list(first.shape)
            if len(parts) > 1:
                shape[0] = sum(part.shape[0] for part in parts)
            told.append((first.name, first.datatype, shape, offset, size))
        reply = await self._ask({"inputs": told, "outputs": list(outputs)})
        if "error" in reply:
            raise RunFailed(reply["error"])
        last = max((offset + size for *_, offset, size in reply["outputs"]), default=0)
        memory = self._regions[1].room(last)
        found = [
            Tensor(name, datatype, tuple(shape), memory[offset : offset + size])
            for name, datatype, shape, offset, size in reply["outputs"]
        ]
        return Ran(found, reply["ns"])

    async def end(self) -> None:
        """End the process, whatever it is at, and give back what it had."""
        process, self._process = self._process, None
        if process is None:
            return
        if hasattr(self, "_writer"):
            self._writer.close()  # it ends by itself if it is idle
        try:
            async with asyncio.timeout(_ENDING):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for region in self._regions:
            region.close()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _ask(self, message: object) -> Any:
        """Send a message and await its answer.

        Raises:
            Died: there is none.
        """
        try:
            self._writer.write(frame(message))
            head = await self._reader.readexactly(4)
            return json.loads(await self._reader.readexactly(length_of(head)))
        except (OSError, asyncio.IncompleteReadError):
            raise Died(await self._how()) from None

    async def _how(self) -> str:
        process = self._process
        if process is None:
            return "it was stopped"
        process_ended = await process.wait()
        if process_ended < 0:
            return f"ended by {signal.Signals(-process_ended).name}"
        return f"ended with exit code {process_ended}"
