"""One server process: start, readiness, stop, kill; the same for all three."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from mqinfer.stack.errors import StackError
from mqinfer.supervise import guard
from mqinfer.supervise.lives import ended_by

_GUARD = Path(guard.__file__)
_POLL_SECONDS = 0.03
_LOG_LIMIT = 32 * 1024 * 1024
# A server that crashes so often as it starts, one time after another, does not start.
_STARTS = 3
# What ends a program by its own fault; other signals are sent by somebody.
_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")


class Server(ABC):
    """A server of the stack, usable on its own.

    It may be killed and started again, on the same port with the same data, as
    often as one likes. It is bound to no event loop.

    Attributes:
        name: What messages call it.
        log: The file that gets everything the server prints.
        program: The one on the PATH that it is; None for an embedded one.
        version: As it says itself; empty until it was asked.
    """

    name: str

    def __init__(self, log: Path) -> None:
        self.log = log
        self.program: Path | None = None
        self.version = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._stopping = False
        self._killed = False

    # What each server says about itself.

    def check(self) -> None:  # noqa: B027 - nothing can be wrong with most of them
        """Refuse what cannot work, before anything is started.

        Raises:
            StackConfigurationError: The text says what to do.
        """

    def ports(self) -> Mapping[int, tuple[str, str]]:
        """Give the ports that have to be free: what for, and the flag that changes it."""
        return {}

    @abstractmethod
    def prepare(self) -> None:
        """Write configuration and folders; called before every start."""

    @abstractmethod
    def command(self) -> list[str]:
        """Give the command line that runs the server."""

    def environment(self) -> Mapping[str, str]:
        """Give what is added to the environment of the server."""
        return {}

    @abstractmethod
    async def probe(self) -> bool:
        """Ask the server whether it can do its work now.

        May raise OSError or TimeoutError, which mean no.
        """

    def leftovers(self) -> str:
        """Give a glob of files that a killed server leaves behind, for the guard to remove."""
        return ""

    # What is the same for all.

    @property
    def label(self) -> str:
        """Which program it is, for a message."""
        return str(self.program) if self.program is not None else f"the embedded {self.name}"

    @property
    def pid(self) -> int | None:
        """The process id of the server itself while it runs."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the process lives (ready or not)."""
        return self._process is not None and self._process.poll() is None

    @property
    def died(self) -> bool:
        """Whether the process ended without having been asked to by :meth:`stop`."""
        return self._process is not None and not self._stopping and not self.running

    async def start(self) -> None:
        """Start the process; :meth:`wait_ready` tells when it answers.

        Raises:
            StackError: It runs already, or cannot be started.
        """
        if self._process is not None:
            # Killed a moment ago, by whomever: what is left of it still holds the port.
            if not await self._ended(10.0 if self._killed else 0.5):
                raise StackError(f"{self.name} is running already (process {self._pid})")
            self._forget()
        self._remove_leftovers()
        self.prepare()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".old.log"))
        self._stopping = self._killed = False
        with self.log.open("ab") as log:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            log.write(f"--- {stamp} mqinfer starts {self.name}\n".encode())
            log.flush()
            # -I -S: the guard needs the standard library alone and starts in 10 ms.
            process = subprocess.Popen(  # noqa: ASYNC220 - a fork and an exec, a millisecond
                [sys.executable, "-I", "-S", str(_GUARD), self.leftovers(), *self.command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment()},
            )
        self._process = process
        assert process.stdout is not None
        self._pid = await self._reported_pid(process.stdout.fileno())

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server answers its probe.

        Raises:
            StackError: The process ended, or did not answer in time; the text
                has the end of the log.
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise StackError(self.story())
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                if await self.probe():
                    return
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.name} was not ready within {timeout:g} s; "
                    f"the end of {self.log}:\n{self.log_tail()}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def bring_up(
        self, timeout: float = 60.0, say: Callable[[str], None] | None = None
    ) -> None:
        """Start it and wait until it is ready; anew where it crashes meanwhile.

        Triton does so now and then as it starts the process of a Python model, by a lock in shared
        memory (github.com/triton-inference-server/server/issues/5949); the next start is well.

        Args:
            timeout: How long each start may take, in seconds.
            say: Gets a line for each crash after which it is started again.

        Raises:
            StackError: It cannot be started, ended, or was not ready in time.
        """
        for crashes in range(1, _STARTS + 1):
            await self.start()
            try:
                await self.wait_ready(timeout)
            except StackError:
                if self._ended_by() not in _CRASHES or crashes == _STARTS:
                    raise
                if say is not None:
                    say(
                        f"warning: {self.ending()} as it started, and is started again; "
                        f"its log is {self.log}"
                    )
            else:
                return

    async def stop(self, timeout: float = 10.0) -> None:
        """Stop the server in order; kill it when it takes longer than the timeout."""
        process = self._process
        if process is None:
            return
        self._stopping = True
        try:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                await self._ended(timeout)
        finally:
            # Also when this is cancelled: the guard kills everything at end of file.
            self._hang_up()
        if not await self._ended(6.0):
            process.kill()
            await self._ended(2.0)
        self._forget()

    def kill(self) -> None:
        """Kill the server and its helpers at once, as a crash would."""
        if self._pid is not None and self.running:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end of the process and give its exit code."""
        await self._ended(float("inf"))
        return self._process.returncode if self._process is not None else 0

    def ending(self) -> str:
        """Tell how the server ended."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return f"{self.name} is not running"
        if (by := self._ended_by()) is not None:
            return f"{self.name} was ended by {by}"
        return f"{self.name} ended with exit code {code}"

    def story(self) -> str:
        """Tell how the server ended, with the end of its log."""
        return f"{self.ending()}; the end of {self.log}:\n{self.log_tail()}"

    def log_tail(self, lines: int = 12) -> str:
        """Give the last lines of the log of the latest start, indented."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16_384))
                text = log.read().decode(errors="replace").splitlines()
        except OSError:
            return "  (no log)"
        return "\n".join("  " + line for line in text[-lines:])

    def __repr__(self) -> str:
        state = f"process {self._pid}" if self.running else "not running"
        return f"<{type(self).__name__} {state}>"

    async def _reported_pid(self, pipe: int) -> int:
        """Read what the guard reports; not in a thread, as the pool may be all in use."""
        os.set_blocking(pipe, False)
        report = b""
        deadline = time.monotonic() + 10.0
        while not report.endswith(b"\n") and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                part = os.read(pipe, 64)
                if not part:
                    break
                report += part
                continue
            await asyncio.sleep(0.002)
        if not report.endswith(b"\n"):
            raise StackError(f"{self.name} could not be started:\n{self.log_tail()}")
        return int(report)

    def _ended_by(self) -> str | None:
        """Name the signal that ended the server; None if it runs, or ended by itself."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return None
        # The guard says 128 and more for the server's; below zero it was the guard's own.
        return ended_by(128 - code if code > 128 else code)

    async def _ended(self, timeout: float) -> bool:
        """Wait for the guard, which ends after everything it guards."""
        deadline = time.monotonic() + timeout
        while self._process is not None and self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        if self._process is not None and self._process.returncode < 0 and self._pid is not None:
            # The guard itself was killed; the kernel took the server, not its helpers.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            self._remove_leftovers()
        return True

    def _remove_leftovers(self) -> None:
        """Do the guard's last duty where it could not."""
        for left in glob.glob(self.leftovers()) if self.leftovers() else ():  # noqa: PTH207
            Path(left).unlink(missing_ok=True)

    def _hang_up(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _forget(self) -> None:
        if self._process is not None:
            self._hang_up()
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process = self._pid = None
