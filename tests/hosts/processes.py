"""Processes on hosts: nats-servers of a cluster, and workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mqinfer.adapters.jetstream import JetStream
from mqinfer.settings import Settings
from mqinfer.stack.nats import find_nats_server
from mqinfer.starting import Patience

from .network import Host

ROOT = Path(__file__).parents[2]
PORT, ROUTES = 4222, 6222
_INSIDE = 9000  # of a server that listens on the loopback of its host


class Process:
    """A process on a host, as a context manager; killed at the end if it still runs.

    Args:
        host: where.
        command: of it.
        log: where its output goes.
        environ: added to this process's environment.
    """

    def __init__(
        self,
        host: Host,
        command: Sequence[str],
        log: Path,
        environ: Mapping[str, str] | None = None,
    ):
        self.log = log
        self._command = host.command(*command)
        self._environ = {**os.environ, **(environ or {})}

    def __enter__(self) -> Process:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """End it in order; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)


@contextlib.contextmanager
def cluster(hosts: Sequence[Host], folder: Path) -> Iterator[str]:
    """A nats-server on each host, several of them in one cluster; their URLs."""
    routes = json.dumps([f"nats://{host.address}:{ROUTES}" for host in hosts])
    with contextlib.ExitStack() as stack:
        for host in hosts:
            config = folder / f"{host.name}.conf"
            config.write_text(
                f"server_name: {host.name}\n"
                f'listen: "{host.address}:{PORT}"\n'
                # It hears of a host that is gone as soon as its clients do of it.
                f"ping_interval: 1s\nping_max: 2\n"
                f"jetstream {{ store_dir: {json.dumps(str(folder / host.name))} }}\n"
            )
            if len(hosts) > 1:
                joined = f'listen: "{host.address}:{ROUTES}", routes: {routes}'
                with config.open("a") as file:
                    file.write(f"cluster {{ name: hosts, {joined} }}\n")
            command = [str(find_nats_server()), "--config", str(config)]
            stack.enter_context(Process(host, command, folder / f"{host.name}.log"))
        yield ",".join(f"nats://{host.address}:{PORT}" for host in hosts)


@contextlib.contextmanager
def triton(host: Host, models: Path, folder: Path) -> Iterator[str]:
    """A server of Triton's protocol on a host; its address."""
    folder.mkdir()
    command = ["-m", "mqinfer.stack.inferenceserver", f"--models={models}", "--model-control=none"]
    ports = [f"--grpc-port={_INSIDE}", f"--http-port={_INSIDE + 1}"]
    server = Process(host, [sys.executable, *command, *ports], folder / "server.log")
    with server, _relay(host, 8001, folder):
        yield f"{host.address}:8001"


@contextlib.contextmanager
def clickhouse(host: Host, folder: Path) -> Iterator[str]:
    """The embedded ClickHouse on a host; its URL."""
    folder.mkdir()
    command = ["-m", "mqinfer.stack.clickhouse", f"--directory={folder / 'data'}"]
    server = Process(host, [sys.executable, *command, f"--port={_INSIDE}"], folder / "server.log")
    with server, _relay(host, 8123, folder):
        yield f"http://default@{host.address}:8123/default"


def _relay(host: Host, port: int, folder: Path) -> Process:
    command = [sys.executable, "-m", "tests.hosts.relay", host.address, str(port), str(_INSIDE)]
    return Process(host, command, folder / "relay.log")


def worker(host: Host, app: str, settings: Settings, folder: Path) -> Process:
    """`mqinfer worker` on a host; not started."""
    environ = {
        f"MQINFER_{name.upper()}": str(getattr(settings, name))
        for name in ("nats_url", "triton_url", "clickhouse_url", "blobs", "grace")
    }
    command = [sys.executable, "-m", "mqinfer", "worker", app]
    return Process(host, command, folder / f"{host.name}.log", environ)


async def connected(settings: Settings) -> None:
    """Wait until JetStream answers, which a cluster does once it has a leader."""

    async def once() -> None:
        async with JetStream(settings, name="test") as broker:
            await broker.stream_info("none")

    await Patience().answer(once)
