"""Worker processes that are started again when they end, and a link that can hang half open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .counters import Counters

ROOT = Path(__file__).parents[2]
_SUPERVISOR = "MQINFER_SUPERVISOR"  # see mqinfer.cli.child: a child ends with its supervisor

TOO_LONG = 124  # as timeout(1) says it


async def until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait for a state of other processes.

    Raises:
        TimeoutError: it does not come.
    """
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - what happens elsewhere sets no event here
            await asyncio.sleep(0.02)


class Slot:
    """A place for one process; whenever it ends before its time, another takes the place.

    Args:
        name: of the place, and of its files.
        module: in this package, run with `-m`.
        arguments: for it; `--slot` with its name and turn is added.
        folder: of the run.
        environ: added to this process's environment.
        steady: no fault and no deployment ends its process.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
        *,
        steady: bool = False,
    ):
        self.name = name
        self.steady = steady
        self.exits: Counter[int] = Counter()
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / f"{name}.log"
        self.held = asyncio.Lock()  # while a fault or a deployment has the process in its hands
        self._turn = 0  # a successor that begins beside its predecessor has files of its own
        self._module = module
        self._arguments = list(arguments)
        self._folder = folder
        self._environ = {**os.environ, **environ, _SUPERVISOR: f"{os.getpid()}:0"}
        self._wanted = True

    def counted(self, name: str) -> int:
        """What its processes counted."""
        found = 0
        for path in self._folder.glob(f"{self.name}*.counters"):
            counters = Counters(path)
            found += counters.get(name)
            counters.close()
        return found

    @property
    def pid(self) -> int | None:
        """Of the process, while one runs."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def ready(self) -> bool:
        """Whether the process has begun to work (its signal handlers are in place)."""
        return self.process is not None and self._is_ready(self.process, self._turn)

    async def run(self) -> None:
        """Keep a process running until `stop`; one that ended with 0 by itself is not replaced."""
        try:
            while self._wanted:
                process = self.process = await self._start(self._turn)
                while True:
                    code = await process.wait()
                    self.exits[code] += 1
                    if self.process is process:
                        break
                    process = self.process  # its successor
                if self._module == "producer" and code == 0:
                    return
                if self._wanted and code > 0:
                    await asyncio.sleep(0.5)  # a server it needs is away
        finally:
            self._kill()

    async def replace(self, environ: Mapping[str, str]) -> int | None:
        """Start a successor beside the process, and end that in order once it is at work.

        Args:
            environ: what changes in the environment of this and later processes.

        Returns:
            The exit code of the predecessor, `TOO_LONG` if it had to be killed; None when the
            successor died before its turn.
        """
        self._environ.update(environ)
        turn = 1 - self._turn
        successor = await self._start(turn)
        try:
            await until(
                lambda: successor.returncode is not None or self._is_ready(successor, turn), 120
            )
            # Whoever began a moment ago would die of the signal.
            await until(lambda: successor.returncode is not None or self.ready, 120)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                successor.kill()
            raise
        if successor.returncode is not None:
            self.exits[successor.returncode] += 1
            return None
        predecessor = self.process
        assert predecessor is not None
        self.process, self._turn = successor, turn
        with contextlib.suppress(ProcessLookupError):
            predecessor.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(90):
                return await predecessor.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                predecessor.kill()
            return TOO_LONG

    def signal(self, number: int) -> bool:
        """Send a signal; False when no process runs."""
        if self.pid is None or self.process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return True

    def arm(self, point: str, passage: int) -> None:
        """Tell the process where to kill itself."""
        (self._folder / f"{self.name}.{self._turn}.point").write_text(f"{passage} {point}")
        self.signal(signal.SIGUSR1)

    async def stop(self, timeout: float) -> int:
        """End it in order, once it is `ready`; its exit code (killed when it takes too long)."""
        self._wanted = False
        process = self.process
        if process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                return await process.wait()
        except TimeoutError:
            self._kill()
            return await process.wait()

    async def _start(self, turn: int) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"tests.faults.{self._module}",
                *self._arguments,
                f"--slot={self.name}.{turn}",
                cwd=ROOT,
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _is_ready(self, process: asyncio.subprocess.Process, turn: int) -> bool:
        path = self._folder / f"{self.name}.{turn}.ready"
        return process.returncode is None and path.exists() and path.read_text() == str(process.pid)

    def _kill(self) -> None:
        self._wanted = False
        self.signal(signal.SIGKILL)

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Proxy:
    """A TCP link to a port on loopback that can hang: open, but nothing passes any more.

    Args:
        port: where connections are passed on to.
    """

    def __init__(self, port: int):
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.close()
        await asyncio.gather(*(link.done.wait() for link in list(self._links)))

    def hang(self) -> int:
        """Stop passing anything on the links that are open; new ones work. How many hang."""
        links = [link for link in self._links if not link.hangs]
        for link in links:
            link.hangs = True
        return len(links)

    def drop(self) -> None:
        """Close the links that hang."""
        for link in list(self._links):
            if link.hangs:
                link.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            link.close()
        else:
            link.writers.append(far_writer)
            pumps = [
                asyncio.create_task(link.pump(reader, far_writer)),
                asyncio.create_task(link.pump(far_reader, writer)),
            ]
            link.pumps = pumps
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            link.close()
        finally:
            self._links.discard(link)
            link.done.set()


class _Link:
    """One connection through the proxy."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.hangs = False
        self.writers = [writer]
        self.pumps: list[asyncio.Task[None]] = []
        self.done = asyncio.Event()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, until an end closes or the link hangs (then: nothing, for ever)."""
        with contextlib.suppress(OSError):
            while data := await reader.read(256 * 1024):
                if self.hangs:
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        if self.hangs:
            await asyncio.Event().wait()

    def close(self) -> None:
        """Close both ends at once."""
        for writer in self.writers:
            writer.transport.abort()
        for pump in self.pumps:
            pump.cancel()
