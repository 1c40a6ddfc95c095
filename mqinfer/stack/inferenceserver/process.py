"""The server's side of an instance: starts its process, hands it work, and notices that it died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

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


class Ran(NamedTuple):
    """What a run gave: its outputs, where they lie, and nanoseconds for reading, running, writing.

    They lie there until the instance runs again.
    """

    outputs: list[Tensor]
    ns: Sequence[int]


class RunFailed(NamedTuple):
    """The model refused what it was to run; the text is its own."""

    text: str


class Died(NamedTuple):
    """The process ended while it was at work."""


Outcome = Ran | RunFailed | Died


class Instance:
    """One process with a model, which runs one thing at a time; it can be started again.

    Args:
        name: for texts.
        specification: what the process is told to load.

    Attributes:
        lost: is called when the process has ended while it had nothing to do.
    """

    def __init__(self, name: str, specification: dict[str, Any]):
        self.name = name
        self.lost: Callable[[], None] = _nothing
        self._specification = specification
        self._process: asyncio.subprocess.Process | None = None
        self._link = _Link(_nothing)
        self._regions: list[Region] = []

    async def start(self) -> dict[str, Any]:
        """Start the process and have it load the model.

        Returns:
            The model's configuration, completed from its file.

        Raises:
            LoadFailed: it does not load, or the process died of it.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Any] = loop.create_future()
        ours, theirs = socket.socketpair()
        files = shared_file(), shared_file()
        self._regions = [Region(file) for file in files]
        try:
            inherited = (theirs.fileno(), *files)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(_PROGRAM)),
                *map(str, (*inherited, os.getpid())),
                # For whoever looks at the list of processes.
                "{name}/{version}".format_map(self._specification),
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
            )
            self._link = _Link(lambda: self.lost())
            await loop.create_unix_connection(lambda: self._link, sock=ours)
            self._link.ask(self._specification, lambda told: _set(loaded, told))
            theirs.close()
            told = await loaded
        except BaseException:
            ours.close()
            await self.end()
            raise
        finally:
            theirs.close()
        if told is None or "error" in told:
            how = await self.end()
            raise LoadFailed(
                f"the process of {self.name} died while it loaded: {how}"
                if told is None
                else told["error"]
            )
        completed: dict[str, Any] = told["config"]
        return completed

    def run(
        self,
        inputs: Sequence[Sequence[Tensor]],
        outputs: Sequence[str],
        done: Callable[[Outcome], None],
    ) -> None:
        """Run the model once.

        Args:
            inputs: each as the parts that make it, one behind the other: the requests of a batch.
            outputs: the names of those that are wanted.
            done: gets what came of it.
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

        def read(reply: Any) -> None:
            if reply is None:
                return done(Died())
            if "error" in reply:
                return done(RunFailed(reply["error"]))
            last = max((offset + size for *_, offset, size in reply["outputs"]), default=0)
            memory = memoryview(self._regions[1].room(last))
            found = [
                Tensor(name, datatype, tuple(shape), memory[offset : offset + size])
                for name, datatype, shape, offset, size in reply["outputs"]
            ]
            return done(Ran(found, reply["ns"]))

        self._link.ask({"inputs": told, "outputs": outputs}, read)

    async def end(self) -> str:
        """End the process, whatever it is at, and give back what it had; how it ended."""
        process, self._process = self._process, None
        self._link.close()  # a process that is idle ends by itself
        if process is not None:
            try:
                async with asyncio.timeout(_ENDING):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        for region in self._regions:
            region.close()
        self._regions = []
        return "it was not started" if process is None else _how(process.returncode or 0)


class _Link(asyncio.Protocol):
    """The socket to a process: one question at a time, one answer.

    Args:
        lost: is called when the process has ended, and nothing was asked.
    """

    def __init__(self, lost: Callable[[], None]):
        self._on_lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: Callable[[Any], None] | None = None
        self._lost = False

    def ask(self, message: object, answer: Callable[[Any], None]) -> None:
        """Send a message; `answer` gets the reply, or None when the process died."""
        self._answer = answer
        if self._lost or self._transport is None:
            asyncio.get_running_loop().call_soon(self._reply, None)
        else:
            self._transport.write(frame(message))

    def close(self) -> None:
        """Hang up."""
        self._answer = None
        self._on_lost = _nothing
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`; so for the others."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is only like one

    def data_received(self, data: bytes) -> None:
        """The reply, or a part of it."""
        self._buffer += data
        if len(self._buffer) < 4:
            return
        end = 4 + length_of(bytes(self._buffer[:4]))
        if len(self._buffer) >= end:
            reply = json.loads(self._buffer[4:end])
            del self._buffer[:end]
            self._reply(reply)

    def connection_lost(self, _error: Exception | None) -> None:
        """The process has ended."""
        self._lost = True
        if self._answer is None:
            self._on_lost()
        self._reply(None)

    def _reply(self, reply: Any) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(reply)


def _nothing() -> None:
    pass


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _how(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
