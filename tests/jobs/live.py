"""Live requests without a job, and while one of very many rows runs on the same endpoint.

    python -m tests.jobs.live --rows 100000 [--model]

Requests are sent at a fixed rate, whatever comes back, and timed from when they were due.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mqinfer
from mqinfer.client import Client
from mqinfer.jobs.job import Job
from mqinfer.packed.kinds import PythonClass
from mqinfer.packed.pack import Place, pack
from mqinfer.stack import InferenceServer
from tests.jobs.processes import process, served
from tests.support.bulk_app import MODEL, SLOW, Item, app

APP = "tests.support.bulk_app:app"
WARM = 2.0  # seconds that are not counted


@dataclass(frozen=True)
class Live:
    """How long live requests took; times in milliseconds.

    Attributes:
        count: how many.
        p50: the median.
        p99: that of the slowest hundredth.
        most: of the slowest.
    """

    count: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True)
class Beside:
    """What was found.

    Attributes:
        alone: without a job.
        beside: while one ran.
        rows: of the job a second, meanwhile.
    """

    alone: Live
    beside: Live
    rows: float


async def requests(client: Client, rate: float, seconds: float) -> Live:
    """Ask at a rate for so many seconds.

    Args:
        client: of the app.
        rate: requests a second.
        seconds: for which, after some that are not counted.
    """
    times: list[float] = []

    async def one(number: int, due: float, counted: bool) -> None:
        request = await client.request(Item(number), wait=120)
        assert request.status == "succeeded", request
        if counted:
            times.append((time.perf_counter() - due) * 1e3)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int((WARM + seconds) * rate)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due, due >= began + WARM))
    times.sort()
    return Live(
        len(times),
        *(round(times[min(len(times) - 1, int(q * len(times)))], 1) for q in (0.5, 0.99, 1.0)),
    )


async def measure(
    folder: Path, *, rows: int = 100_000, rate: float = 20.0, seconds: float = 20.0, model: bool
) -> Beside:
    """Both, one after the other, with one worker in a process of its own.

    Args:
        folder: for all files.
        rows: of the job.
        rate: live requests a second.
        seconds: of each of the two; the second ends with the job, if that comes first.
        model: whether the handler calls a model that takes some milliseconds.
    """
    async with contextlib.AsyncExitStack() as stack:
        triton = await stack.enter_async_context(_models(folder)) if model else ""
        settings = await stack.enter_async_context(served(folder, triton=triton))
        environ = {"BULK_MODEL": "1"} if model else {}
        out = folder / "worker"
        await stack.enter_async_context(process(settings, "worker", APP, out=out, environ=environ))
        client = await stack.enter_async_context(mqinfer.connect(app, settings))
        await client.request(Item(0), wait=120)
        alone = await requests(client, rate, seconds)
        job = await client.submit("double", ({"n": n} for n in range(rows)))
        await _begun(job)
        before, began = job.progress.done, time.monotonic()
        beside = await requests(client, rate, seconds)
        found = await job.status()
        assert found.status == "open", "the job was too short"
        speed = (found.done - before) / (time.monotonic() - began)
        await job.cancel()
        await job.wait()
        return Beside(alone, beside, round(speed))


async def _begun(job: Job) -> None:
    async for progress in job:
        if progress.done > 2_000:
            return


@contextlib.asynccontextmanager
async def _models(folder: Path) -> Any:
    """The address of a server of the model."""
    source = folder / "slow.py"
    source.write_text(SLOW)
    place = Place(to=folder / "models" / MODEL, python=sys.executable, max_batch=64)
    await asyncio.to_thread(pack, PythonClass(f"{source}:Slow"), place)
    server = InferenceServer(folder / "triton", log=folder / "triton.log", models=folder / "models")
    await server.start()
    try:
        await server.wait_ready(120)
        yield server.url
    finally:
        await server.stop()


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--model", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            measure(
                Path(folder),
                rows=asked.rows,
                rate=asked.rate,
                seconds=asked.seconds,
                model=asked.model,
            )
        )
    print(json.dumps(asdict(found), indent=2), flush=True)


if __name__ == "__main__":
    main()
