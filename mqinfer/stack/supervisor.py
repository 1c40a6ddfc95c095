"""The embedded stack: its servers started together, watched, stopped together."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mqinfer.stack.choice import clickhouse_part, left_behind, nats_part, triton_part
from mqinfer.stack.clickhouse.server import ClickHouseServer
from mqinfer.stack.errors import StackConfigurationError, StackError
from mqinfer.stack.nats import NatsServer
from mqinfer.stack.parts import Part
from mqinfer.stack.password import resolve
from mqinfer.stack.ports import require_free
from mqinfer.stack.server import Server
from mqinfer.stack.settings import StackSettings
from mqinfer.stack.triton import TritonServer
from mqinfer.supervise.lives import Lives

_WATCH_SECONDS = 0.1
# A server that dies so often one time after another, each within seconds, is not started again.
_RESTARTS = 5

_S = TypeVar("_S", bound=Server)


class Stack:
    """The real servers under one folder, as an async context manager.

    On entry everything is started and ready; on exit everything has stopped. If
    this process is killed, everything is killed with it. In between each server
    may be killed and started again on its own: ``stack.nats.kill()``,
    ``await stack.nats.start()``, ``await stack.nats.wait_ready()``.

    Args:
        settings: What to start.
        say: Gets a line for the user when a program is here but not taken, when
            a server died and will be started again, and when it is back.

    Attributes:
        settings: As given.
        dir: The folder, absolute.
    """

    def __init__(
        self,
        settings: StackSettings | None = None,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings = settings or StackSettings()
        self._say = say or (lambda _line: None)
        self.dir = settings.dir.absolute()
        password = self._password()
        self._nats = nats_part(settings, password) if settings.nats else None
        self._triton = triton_part(settings) if settings.triton else None
        self._clickhouse = clickhouse_part(settings, password) if settings.clickhouse else None
        self._lock: int | None = None

    def _password(self) -> str:
        """Give the password, and keep the folder to its owner if there is one."""
        if self.settings.password is not None:
            self.dir.mkdir(parents=True, exist_ok=True)
            self.dir.chmod(0o700)
        return resolve(self.settings.password, self.dir)

    @property
    def nats(self) -> NatsServer | None:
        """The NATS server, or None if it is not wanted; so the other two."""
        return None if self._nats is None else self._nats.server

    @property
    def triton(self) -> TritonServer | None:
        """The server of models."""
        return None if self._triton is None else self._triton.server

    @property
    def clickhouse(self) -> ClickHouseServer | None:
        """The ClickHouse server."""
        return None if self._clickhouse is None else self._clickhouse.server

    @property
    def servers(self) -> list[Server]:
        """The servers that are part of this stack."""
        return [part.server for part in self._parts]

    @property
    def _parts(self) -> list[Part[Any]]:
        every: list[Part[Any] | None] = [self._nats, self._triton, self._clickhouse]
        return [part for part in every if part is not None]

    @property
    def nats_url(self) -> str:
        """Where clients of NATS connect.

        Raises:
            StackError: NATS is not part of this stack; so for the other two.
        """
        return _part(self.nats, "NATS").url

    @property
    def triton_url(self) -> str:
        """Triton's gRPC address, ``host:port``."""
        return _part(self.triton, "Triton").url

    @property
    def triton_http_url(self) -> str:
        """Triton's HTTP address."""
        return _part(self.triton, "Triton").http_url

    @property
    def clickhouse_url(self) -> str:
        """ClickHouse's HTTP address with user and database."""
        return _part(self.clickhouse, "ClickHouse").url

    @property
    def blobs(self) -> Path:
        """The folder for blobs."""
        return self.dir / "blobs"

    def environment(self) -> dict[str, str]:
        """Give the settings with which workers find this stack."""
        values = {"MQINFER_BLOBS": str(self.blobs)}
        if self.nats is not None:
            values["MQINFER_NATS_URL"] = self.nats.url
        if self.triton is not None:
            values["MQINFER_TRITON_URL"] = self.triton.url
        if self.clickhouse is not None:
            values["MQINFER_CLICKHOUSE_URL"] = self.clickhouse.url
        return values

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every server and wait until all are ready.

        Raises:
            StackConfigurationError: Nothing was started: a port is taken, the
                folder is in use, an extra is missing.
            StackError: A server did not become ready; the others are stopped again.
        """
        self._take_lock()
        try:
            for part in self._parts:
                await part.choose(self._say)
            for server in self.servers:
                for port, (what, flag) in server.ports().items():
                    require_free(port, what, flag)
            if self.clickhouse and (warning := left_behind(self.settings, self.clickhouse)):
                self._say(f"warning: {warning}")
            self.blobs.mkdir(parents=True, exist_ok=True)
            try:
                async with asyncio.TaskGroup() as group:
                    for part in self._parts:
                        start = part.start(self.settings.ready_timeout, self._say)
                        group.create_task(start, name=f"start {part.server.name}")
            except* StackError as errors:
                raise _first(errors) from None
        except BaseException:  # also cancellation: nothing may stay behind
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every server in order and give the folder back."""
        try:
            await asyncio.gather(*(server.stop() for server in self.servers))
        finally:
            self._release_lock()

    def kill(self) -> None:
        """Kill every server at once, as a crash of the machine would."""
        for server in self.servers:
            server.kill()

    async def watch(self) -> None:
        """Look after the servers until cancelled.

        Raises:
            StackError: A server died (with ``restart``: died too often); the
                text has the end of its log.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    group.create_task(self._keep(server), name=f"watch {server.name}")
        except* StackError as errors:
            raise _first(errors) from None

    async def _keep(self, server: Server) -> None:
        lives = Lives()
        lives.begin(time.monotonic())
        while True:
            while not server.died:  # noqa: ASYNC110 - a process ends without an event of this loop
                await asyncio.sleep(_WATCH_SECONDS)
            died = time.monotonic()
            pause = lives.crash(died)
            if not self.settings.restart or lives.crashes > _RESTARTS:
                raise StackError(server.story())
            self._say(
                f"warning: {server.ending()}, and is started again in {pause:g} s; "
                f"its log is {server.log}"
            )
            await asyncio.sleep(pause)
            lives.begin(time.monotonic())
            try:
                await server.start()
                await server.wait_ready(self.settings.ready_timeout)
            except StackError:
                if server.died:
                    continue
                raise  # it runs, and does not become ready; or could not be started at all
            self._say(f"{server.name} is back, {time.monotonic() - died:.1f} s after it died")

    def _take_lock(self) -> None:
        """Take the folder for this process; the kernel gives it back however it ends."""
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StackConfigurationError(
                f"cannot write to {self.dir} ({error.strerror}): choose another folder with --dir"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).decode(errors="replace").strip()
            os.close(lock)
            raise StackConfigurationError(
                f"{self.dir} is in use by another stack (process {owner or 'unknown'}): stop "
                "that one, or choose another folder with --dir"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _part(server: _S | None, name: str) -> _S:
    if server is None:
        raise StackError(f"{name} is not part of this stack: turn it on in StackSettings")
    return server


def _first(errors: BaseExceptionGroup[StackError]) -> StackError:
    """Give the first of the errors; the others follow from the cancellation."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
