"""stage_loop: messages a second through one stage, beside the hand-written limit.

Repetitions alternate between the contenders, so that a noisy machine is noisy for all. After each
the output stream is counted: every message, no duplicates.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mqinfer.adapters import admin
from mqinfer.adapters.jetstream import JetStream
from mqinfer.engine.ports import StreamSpec
from mqinfer.identity import header_block
from mqinfer.settings import Settings
from mqinfer.testing import nats_only

# How many messages each handles in a repetition: the slow ones fewer, their rate is what counts.
SHARE = {"naive": 0.05, "faststream": 0.2}


@dataclass
class Row:
    """One contender's repetitions."""

    name: str
    loop: str
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median messages a second."""
        return statistics.median(self.rates)

    @property
    def microseconds(self) -> float:
        """Median processor microseconds a message, of the contender's own process."""
        return statistics.median(self.cpu)


async def run(folder: Path, rows: list[Row], *, messages: int, size: int, repeat: int) -> None:
    """Measure every row `repeat` times, in turns."""
    async with nats_only(folder) as settings, JetStream(settings, name="bench") as jetstream:
        for repetition in range(repeat):
            for row in rows:
                count = max(500, int(messages * SHARE.get(row.name, 1)))
                stream = f"{row.name}-{row.loop}-{repetition}"
                await preload(jetstream, stream, count, size)
                wall, cpu = await contend(row, settings, stream, count)
                await check(jetstream, stream, count)
                await admin.ask(jetstream.client, f"STREAM.DELETE.{stream}", None, stream)
                row.rates.append(count / wall)
                row.cpu.append(1e6 * cpu / count)
                print(f"  {row.name} ({row.loop}): {count / wall:,.0f} messages/s", flush=True)


async def preload(jetstream: JetStream, stream: str, count: int, size: int) -> None:
    """Fill the stream that a contender drains."""
    await jetstream.ensure_stream(
        StreamSpec(name=stream, subjects=(f"{stream}.>",), max_age=604800)
    )
    text = "x" * size
    left, done = count, asyncio.Event()

    def stored(error: Exception | None, _repeat: bool) -> None:
        nonlocal left
        if error is not None:
            raise error
        left -= 1
        if left == 0:
            done.set()

    for number in range(count):
        if jetstream.full:
            await jetstream.room()
        payload = json.dumps({"n": number, "text": text}).encode()
        header = header_block({"Nats-Msg-Id": f"in-{number}"})
        jetstream.publish(f"{stream}.in", header, payload, stored)
    await done.wait()


async def contend(row: Row, settings: Settings, stream: str, count: int) -> tuple[float, float]:
    """Run a contender in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.contenders",
        row.name,
        settings.nats_url,
        stream,
        str(count),
        row.loop,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(300):
        out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{row.name}: {err.decode()[-2000:]}")
    found = json.loads(out.decode().strip().splitlines()[-1])
    return found["wall"], found["cpu"]


async def check(jetstream: JetStream, stream: str, count: int) -> None:
    """Every input has one output."""
    info = await admin.ask(
        jetstream.client,
        f"STREAM.INFO.{stream}",
        {"subjects_filter": f"{stream}.out"},
        stream,
    )
    outputs = (info["state"].get("subjects") or {}).get(f"{stream}.out", 0)
    if outputs != count:
        raise RuntimeError(f"{stream}: {count} messages in, {outputs} out")
