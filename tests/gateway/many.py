"""Thousands of clients who wait in one gateway, each for the events of a request of its own.

    python -m tests.gateway.many --clients 10000

The requests are made, and a stream is opened for each, while no worker runs; then the memory of the
gateway is measured, a worker begins, and everybody is to have all of their events: progress, the
right answer once, and the end. The clients are other processes, each with an address of its own, so
that no ports run out; the gateway is a process as `mqinfer gateway` starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from mqinfer.testing import Harness, nats_only, until
from tests.support.many_app import app

ROOT = Path(__file__).parents[2]
APP = "tests.support.many_app:app"
ASK = "/v1/endpoints/answer/requests"
_AT_ONCE = 32  # connections that are being opened, of one process
_OPEN = 900.0  # seconds
_LONG = 120.0


async def many(
    clients: int, processes: int = 4, *, idle: float = 20.0, timeout: float = 3600.0
) -> dict[str, Any]:
    """Have so many clients wait, and all be answered; the facts.

    Args:
        clients: how many.
        processes: that they are in.
        idle: seconds for which all wait before a worker begins.
        timeout: seconds for all of it.

    Returns:
        `clients`; `answered`, those that had all of their events; `base_mb` and `open_mb`, the
        gateway's memory of its own (USS) before and with all streams open, `pss_mb` with its share
        of what it shares, `peak_mb` when all were answered; `kb_each`; seconds to open and to
        answer, and of the gateway's processor a second (`idle_cpu`) while all wait.
    """
    _allow_files(2 * clients)
    with tempfile.TemporaryDirectory() as folder:
        async with asyncio.timeout(timeout), nats_only(Path(folder)) as settings:
            async with Harness(app, settings) as harness:
                await harness.drain()  # makes the stream: no worker ever ran
            environ = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "MQINFER_NATS_URL": settings.nats_url,
                "MQINFER_BLOBS": str(settings.blobs),
                "MQINFER_LOG_FORMAT": "json",
            }
            options = ("--http", "0", "--max-backlog", "0")
            async with _process(environ, "gateway", APP, *options) as (gateway, said):
                url = await until(lambda: _url(said), "a gateway", _LONG)
                return await _with(gateway.pid, url, environ, clients, processes, idle)


async def _with(
    gateway: int,
    url: str,
    environ: dict[str, str],
    clients: int,
    processes: int,
    idle: float,
) -> dict[str, Any]:
    seen = psutil.Process(gateway)
    base = seen.memory_full_info()
    share = [clients // processes + (at < clients % processes) for at in range(processes)]
    began = time.monotonic()
    crowd = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.gateway.many", "--crowd", url, str(at), str(count)),
            cwd=ROOT,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
        )
        for at, count in enumerate(share)
    ]
    try:
        opened = [await _line(one) for one in crowd]
        assert sum(one["open"] for one in opened) == clients, opened
        opening = time.monotonic() - began
        waiting = seen.memory_full_info()
        before, at = sum(seen.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(idle)
        used = (sum(seen.cpu_times()[:2]) - before) / (time.monotonic() - at)
        began = time.monotonic()
        async with _process(environ, "worker", APP):
            ended = [await _line(one) for one in crowd]
        after = seen.memory_full_info()
    finally:
        for one in crowd:
            if one.returncode is None:
                one.kill()
            await one.wait()
    mb = 1024.0 * 1024.0
    return {
        "clients": clients,
        "answered": sum(one["answered"] for one in ended),
        "wrong": [text for one in ended for text in one["wrong"]][:5],
        "base_mb": round(base.uss / mb, 1),
        "open_mb": round(waiting.uss / mb, 1),
        "pss_mb": round(waiting.pss / mb, 1),
        "peak_mb": round(after.uss / mb, 1),
        "kb_each": round((waiting.uss - base.uss) / clients / 1024, 1),
        "open_seconds": round(opening, 1),
        "answer_seconds": round(time.monotonic() - began, 1),
        "idle_cpu": round(used, 2),
    }


def _allow_files(count: int) -> None:
    """Let this process, and those that it starts, open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


@asynccontextmanager
async def _process(
    environ: dict[str, str], *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[bytes]]]:
    """A command of mqinfer, killed at the end, and what it logs."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqinfer", *arguments),
        cwd=ROOT,
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    said: list[bytes] = []

    async def read() -> None:
        assert running.stderr is not None
        async for line in running.stderr:
            said.append(line)  # noqa: PERF401 - others look at what came so far

    reading = asyncio.create_task(read())
    try:
        yield running, said
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        await reading


def _url(said: list[bytes]) -> str | None:
    """Where a gateway serves, once it is ready."""
    told = [json.loads(line) for line in said if line.startswith(b"{")]
    ready = any(one["event"] == "ready" for one in told)
    return next((str(one["url"]) for one in told if "url" in one), None) if ready else None


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "a process of clients died"
    found: dict[str, Any] = json.loads(line)
    return found


# --- the clients, in a process of their own ------------------------------------------------------


class Waiting(asyncio.Protocol):
    """One client that waits.

    Attributes:
        ended: once its connection was closed.
        begun: once the head of the answer came.
        heard: all that came.
    """

    __slots__ = ("begun", "ended", "heard", "number", "where")

    def __init__(self, number: int, where: str):
        loop = asyncio.get_running_loop()
        self.number = number
        self.where = where
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.heard = b""

    def connection_made(self, transport: Any) -> None:
        transport.write(f"GET {self.where} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if b"\r\n\r\n" in self.heard and not self.begun.done():
            self.begun.set_result(None)
        if self.heard.endswith(b"\r\n0\r\n\r\n") and not self.ended.done():
            self.ended.set_result(None)  # the end of a body in chunks

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def wrong(self) -> str:
        """What it lacks, or has too much; "" where it had all of its events."""
        events = [line for line in self.heard.split(b"\n") if line.startswith(b"event: ")]
        answers = self.heard.count(b'"data":{"n":%d}' % self.number)
        right = (
            self.heard.startswith(b"HTTP/1.1 200")
            and events.count(b"event: answer") == answers == 1
            and events[-1:] == [b"event: end"]
            and b'"status":"succeeded"' in self.heard
        )
        return "" if right else f"{self.number}: {self.heard[-300:]!r}"


async def crowd(url: str, place: int, count: int) -> None:
    """So many clients, which say on stdout when all wait, and how many had all of their events."""
    base = httpx.URL(url)
    numbers = range(place * 1_000_000, place * 1_000_000 + count)
    clients: list[Waiting] = []
    loop = asyncio.get_running_loop()
    left = iter(numbers)
    limits = httpx.Limits(max_connections=_AT_ONCE)
    async with (
        asyncio.timeout(_OPEN),
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=120, limits=limits) as http,
    ):

        async def some() -> None:
            for number in left:
                asked = await http.post(ASK, json={"input": {"n": number}})
                assert asked.status_code == 202, asked.text
                one = Waiting(number, asked.json()["links"]["events"])
                await loop.create_connection(
                    lambda one=one: one,  # type: ignore[misc]
                    base.host,
                    base.port,
                    local_addr=(f"127.0.0.{place + 2}", 0),
                )
                await one.begun
                clients.append(one)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())
    print(json.dumps({"open": sum(not one.ended.done() for one in clients)}), flush=True)
    await asyncio.gather(*(one.ended for one in clients))
    wrong = [text for one in clients if (text := one.wrong())]
    told = {"answered": len(clients) - len(wrong), "wrong": wrong[:5]}
    print(json.dumps(told), flush=True)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.crowd is not None:
        url, place, count = asked.crowd
        asyncio.run(crowd(url, int(place), int(count)))
        return
    print(json.dumps(asyncio.run(many(asked.clients, asked.processes))), flush=True)


if __name__ == "__main__":
    main()
