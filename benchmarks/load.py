"""What the benchmarks share: a stream filled quickly, and worker processes watched from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mqinfer.adapters import admin
from mqinfer.adapters.jetstream import JetStream
from mqinfer.ports import StreamSpec
from mqinfer.settings import Settings
from mqinfer.stack import Stack, StackSettings

CHUNK = 1000
LOOK = 0.005
ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def servers(folder: Path, **chosen: Any) -> AsyncIterator[tuple[Settings, JetStream]]:
    """The embedded servers on free ports, NATS alone unless told, and a connection to it.

    Args:
        folder: for their data.
        chosen: fields of `mqinfer.stack.StackSettings`.
    """
    wanted = {"triton": False, "clickhouse": False, **chosen}
    async with Stack(StackSettings.free_ports(folder, **wanted)) as stack:
        settings = Settings.load(stack.environment())
        async with JetStream(settings, name="bench") as jetstream:
            yield settings, jetstream


async def create(jetstream: JetStream, stream: str, *, replicas: int = 1) -> None:
    """A stream as an app of this name makes it."""
    spec = StreamSpec(
        name=stream,
        subjects=(f"{stream}.>",),
        max_age=7 * 86400,
        replicas=replicas,
        duplicate_window=120,
    )
    config = admin.stream_config(spec)
    await admin.ask(jetstream.client, f"STREAM.CREATE.{stream}", config, stream)


async def drop(jetstream: JetStream, stream: str) -> None:
    """Delete a stream."""
    answer = await jetstream.client.api(f"$JS.API.STREAM.DELETE.{stream}", timeout=60)
    if "error" in answer:
        raise RuntimeError(f"{stream} cannot be deleted: {answer['error']}")


async def fill(jetstream: JetStream, subject: str, payloads: Iterable[bytes]) -> int:
    """Publish many messages without headers; how many.

    One in a thousand asks for its acknowledgement. A stream stores what one connection sends in
    order, so that one says the others are stored; the caller compares the count in the end.
    """
    client, head = jetstream.client, b"PUB %b " % subject.encode()
    asked: list[asyncio.Task[object]] = []
    count = size = 0
    parts: list[bytes] = []

    async def flush(last: bytes) -> None:
        client.write(b"".join(parts))
        parts.clear()
        asked.append(asyncio.create_task(client.request(subject, last, timeout=60)))
        if len(asked) > 2:
            await asked.pop(0)

    for payload in payloads:
        count += 1
        size += len(payload)
        if count % CHUNK and size < 8_000_000:
            parts.append(b"%b%d\r\n%b\r\n" % (head, len(payload), payload))
        else:
            await flush(payload)
            size = 0
    if parts:
        # The last one once more would be one too many: a flush, then the server's own count.
        client.write(b"".join(parts))
    for task in asked:
        await task
    await jetstream.flush()
    return count


async def stored(jetstream: JetStream, stream: str, subject: str) -> int:
    """How many messages of one subject lie in a stream."""
    answer = await jetstream.client.api(
        f"$JS.API.STREAM.INFO.{stream}", {"subjects_filter": subject}, timeout=30
    )
    return int((answer["state"].get("subjects") or {}).get(subject, 0))


async def expect(jetstream: JetStream, stream: str, subject: str, count: int) -> None:
    """Check how many messages of a subject a stream holds; asked again while some are on their way.

    Raises:
        RuntimeError: it is another number.
    """
    deadline = time.monotonic() + 30
    while (found := await stored(jetstream, stream, subject)) != count:
        if found > count or time.monotonic() > deadline:
            raise RuntimeError(f"{subject}: {found:,} messages instead of {count:,}")
        await asyncio.sleep(0.05)


def items(first: int, count: int, size: int = 180) -> Iterable[bytes]:
    """Payloads of `apps.Item`, about 200 bytes each."""
    text = b"x" * size
    return (b'{"n":%d,"text":"%b"}' % (n, text) for n in range(first, first + count))


class Process:
    """A process that is measured."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path):
        self.process = process
        self.log = log

    def check(self) -> None:
        """Raise RuntimeError if it has failed; that it was ended as asked is none."""
        if self.process.returncode not in (None, 0, -signal.SIGTERM):
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the process ended with {self.process.returncode}: {tail}")

    def memory(self) -> tuple[float, float]:
        """What it has in memory now and had at most, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        return int(found["VmRSS"]) / 1e3, int(found["VmHWM"]) / 1e3

    def cpu(self) -> float:
        """The processor seconds it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def process(
    log: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """`python -m <arguments>`, ended by SIGTERM at the end.

    Raises:
        RuntimeError: it failed, with the end of what it printed.
    """
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = Process(child, log)
    try:
        yield running
        running.check()
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                async with asyncio.timeout(30):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()
    running.check()


def processor() -> float:
    """Seconds of processor time that all processes under this one have used."""
    import psutil

    found = 0.0
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            found += times.user + times.system
    return found


def environ(settings: Settings, app: str, replicas: int = 1) -> dict[str, str]:
    """How a worker finds the servers, and what its app is called."""
    names = ("nats_url", "triton_url", "clickhouse_url", "blobs")
    found = {f"MQINFER_{name.upper()}": str(getattr(settings, name)) for name in names}
    return found | {
        "BENCH_APP": app,
        "BENCH_REPLICAS": str(replicas),
        "MQINFER_LOG_LEVEL": "warning",
    }


async def drained(
    jetstream: JetStream,
    stream: str,
    consumer: str,
    *,
    done: int,
    begun: int = 0,
    total: int | None = None,
    process: Process | None = None,
    timeout: float = 300.0,
    look: float = LOOK,
) -> tuple[float, float, int]:
    """Watch a consumer: when it had begun, when it was through, and how much that was.

    Args:
        jetstream: to ask; the server answers in a sixth of a millisecond.
        stream: of the consumer.
        consumer: its name; it need not be there yet.
        done: acknowledged messages that end it.
        begun: acknowledged messages that count as the beginning; 0 is the first delivery.
        total: messages there are for it. None where they are still coming: then its own count is
            taken, which is right as long as none is delivered twice.
        process: that does it; when it fails there is no need to wait.
        timeout: seconds until it has to be through.
        look: seconds between two looks, each of which costs the server and this process as much as
            some messages.

    Returns:
        Seconds (`time.perf_counter`) of the beginning and of the end, and how many messages were
        acknowledged in between.
    """
    start: tuple[float, int] | None = None
    last = time.perf_counter(), 0
    async with asyncio.timeout(timeout):
        while True:
            info = await admin.consumer_info(jetstream.client, stream, consumer)
            now = time.perf_counter()
            if info is not None:
                acknowledged = int(info["ack_floor"]["consumer_seq"])
                delivered = int(info["delivered"]["consumer_seq"])
                # One of a cluster that was just made says that nothing waits for it.
                if total is not None and delivered:
                    acknowledged = total - info["num_pending"] - info["num_ack_pending"]
                if start is None and (acknowledged >= begun if begun else delivered > 0):
                    # Where all of it lies between two looks, the earlier one is the beginning.
                    start = (now, acknowledged) if acknowledged < done else last
                if start is not None and acknowledged >= done:
                    return start[0], now, acknowledged - start[1]
                last = now, acknowledged
            if process is not None:
                process.check()
            await asyncio.sleep(look)
