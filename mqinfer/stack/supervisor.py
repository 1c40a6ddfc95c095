"""The embedded stack: its servers started together, watched, stopped together."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from mqinfer.stack.clickhouse import ClickHouseServer
from mqinfer.stack.errors import StackConfigurationError, StackError
from mqinfer.stack.inferenceserver.server import server_of_models
from mqinfer.stack.nats import NatsServer, find_nats_server
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

    Attributes:
        settings: As given.
        dir: The folder, absolute.
        nats: The NATS server, or None if it is not wanted; so the other two.
        triton: The server of models, Triton or our own.
        clickhouse: The ClickHouse server.
    """

    def __init__(self, settings: StackSettings | None = None) -> None:
        self.settings = settings = settings or StackSettings()
        self.dir = settings.dir.absolute()
        logs = self.dir / "logs"
        password = self._password()
        self.nats: NatsServer | None = None
        self.triton: TritonServer | None = None
        self.clickhouse: ClickHouseServer | None = None
        if settings.nats:
            self.nats = NatsServer(
                self.dir / "nats",
                log=logs / "nats.log",
                port=settings.nats_port,
                monitor_port=settings.nats_monitor_port,
                max_payload=settings.nats_max_payload,
                extra_config=settings.nats_config,
                password=password,
            )
        if settings.triton:
            self.triton = server_of_models(settings.inference)(
                self.dir / "triton",
                log=logs / "triton.log",
                models=settings.models.absolute() if settings.models is not None else None,
                http_port=settings.triton_http_port,
                grpc_port=settings.triton_grpc_port,
                metrics_port=settings.triton_metrics_port,
                model_control=settings.triton_control,
            )
        if settings.clickhouse:
            self.clickhouse = ClickHouseServer(
                self.dir / "clickhouse",
                log=logs / "clickhouse.log",
                port=settings.clickhouse_port,
                password=settings.clickhouse_password or password,
            )
        self._lock: int | None = None

    def _password(self) -> str:
        """Give the password, and keep the folder to its owner if there is one."""
        if self.settings.password is not None:
            self.dir.mkdir(parents=True, exist_ok=True)
            self.dir.chmod(0o700)
        return resolve(self.settings.password, self.dir)

    @property
    def servers(self) -> list[Server]:
        """The servers that are part of this stack."""
        every: list[Server | None] = [self.nats, self.triton, self.clickhouse]
        return [server for server in every if server is not None]

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
            self._check()
            self.blobs.mkdir(parents=True, exist_ok=True)
            try:
                async with asyncio.TaskGroup() as group:
                    for server in self.servers:
                        group.create_task(self._bring_up(server), name=f"start {server.name}")
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

    async def watch(self, say: Callable[[str], None] | None = None) -> None:
        """Look after the servers until cancelled.

        Args:
            say: Gets a line when one died and will be started again, and when it is back.

        Raises:
            StackError: A server died (with ``restart``: died too often); the
                text has the end of its log.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    keep = self._keep(server, say or (lambda _line: None))
                    group.create_task(keep, name=f"watch {server.name}")
        except* StackError as errors:
            raise _first(errors) from None

    async def _keep(self, server: Server, say: Callable[[str], None]) -> None:
        lives = Lives()
        lives.begin(time.monotonic())
        while True:
            while not server.died:  # noqa: ASYNC110 - a process ends without an event of this loop
                await asyncio.sleep(_WATCH_SECONDS)
            died = time.monotonic()
            pause = lives.crash(died)
            if not self.settings.restart or lives.crashes > _RESTARTS:
                raise StackError(server.story())
            say(
                f"warning: {server.ending()}, and is started again in {pause:g} s; "
                f"its log is {server.log}"
            )
            await asyncio.sleep(pause)
            lives.begin(time.monotonic())
            try:
                await self._bring_up(server)
            except StackError:
                if server.died:
                    continue
                raise  # it runs, and does not become ready; or could not be started at all
            say(f"{server.name} is back, {time.monotonic() - died:.1f} s after it died")

    async def _bring_up(self, server: Server) -> None:
        await server.start()
        await server.wait_ready(self.settings.ready_timeout)

    def _check(self) -> None:
        if self.nats is not None:
            find_nats_server()
            require_free(self.nats.port, "NATS", "--nats-port")
            if self.nats.monitor_port:
                require_free(self.nats.monitor_port, "NATS monitoring", "--nats-monitor-port")
        if self.triton is not None:
            self.triton.check()
            require_free(self.triton.grpc_port, "Triton gRPC", "--triton-grpc-port")
            require_free(self.triton.http_port, "Triton HTTP", "--triton-http-port")
            if self.triton.metrics_port:
                require_free(self.triton.metrics_port, "Triton metrics", "--triton-metrics-port")
        if self.clickhouse is not None:
            self.clickhouse.check()
            require_free(self.clickhouse.port, "ClickHouse HTTP", "--clickhouse-port")

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
