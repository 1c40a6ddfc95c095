"""A job of very many rows: what memory worker and submitter take, and how many rows a second.

    python -m tests.jobs.big --rows 1000000

Each of the two is a process of its own, and so is whoever reads the results. Every row is looked
at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import mqinfer
from mqinfer.settings import Settings
from tests.jobs.processes import Memory, process, served
from tests.support.bulk_app import app

APP = "tests.support.bulk_app:app"


def write(path: Path, rows: int) -> None:
    """A file of so many rows."""
    with path.open("w") as file:
        for n in range(rows):
            file.write(f'{{"custom_id":"row-{n}","n":{n}}}\n')


def check(path: Path, rows: int) -> None:
    """Each row is there once, in its place, with its answer.

    Raises:
        AssertionError: it is not.
    """
    count = 0
    with path.open() as file:
        for n, text in enumerate(file):
            line = json.loads(text)
            assert (line["row"], line["custom_id"]) == (n + 1, f"row-{n}"), line
            assert line["answers"][0]["data"] == {"n": n, "y": 2.0 * n}, line
            count += 1
    assert count == rows, count


async def run(rows: int, folder: Path, workers: int, blobs: str = "") -> dict[str, Any]:
    """Do it; seconds and MB of each part."""
    source = folder / "rows.jsonl"
    write(source, rows)
    facts: dict[str, Any] = {"rows": rows, "workers": workers}
    async with served(folder, blobs) as settings:
        began = time.monotonic()
        arguments = ("job", "submit", APP, "double", str(source))
        await _watched(settings, facts, "submit", *arguments, out=folder / "submit")
        identity = (folder / "submit").read_text().split()[0]
        facts["rows/s, submitted"] = round(rows / (time.monotonic() - began))
        async with asyncio.TaskGroup() as group:
            memories = []
            async with contextlib.AsyncExitStack() as stack:
                for number in range(workers):
                    out = folder / f"worker-{number}"
                    worker = await stack.enter_async_context(
                        process(settings, "worker", APP, out=out)
                    )
                    memories.append(Memory(worker.pid))
                    group.create_task(memories[-1].watch())
                await _followed(settings, identity, facts)
        facts["MB of the workers"] = [one.told() for one in memories]
        arguments = ("job", "results", APP, identity)
        began = time.monotonic()
        await _watched(settings, facts, "results", *arguments, out=folder / "results")
        facts["rows/s, read"] = round(rows / (time.monotonic() - began))
        check(folder / "results", rows)
    return facts


async def _watched(
    settings: Settings, facts: dict[str, Any], name: str, *arguments: str, out: Path
) -> None:
    """A command to its end, and its memory."""
    async with process(settings, *arguments, out=out) as one:
        memory = Memory(one.pid)
        await memory.watch()
        assert await one.wait() == 0, await asyncio.to_thread(out.read_text)
    facts[f"MB of {name}"] = memory.told()


async def _followed(settings: Settings, identity: str, facts: dict[str, Any]) -> None:
    async with mqinfer.connect(app, settings) as client:
        job = await client.job(identity)
        began, told = time.monotonic(), 0.0
        done = 0.0
        async for progress in job:
            now = time.monotonic()
            if progress.done == progress.rows and not done:
                done = now - began
            if now - told > 5.0 or progress.status != "open":
                told = now
                rate = progress.done / max(1e-9, now - began)
                print(f"{progress.done:,} of {progress.rows:,}, {rate:,.0f} a second", flush=True)
        assert job.progress.status == "completed", job.progress
        facts["seconds"] = round(time.monotonic() - began, 1)
        facts["of these, for the files"] = round(facts["seconds"] - done, 1)
        facts["rows/s"] = round(job.progress.rows / done)


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--blobs", default="", help="instead of a folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = asyncio.run(run(asked.rows, Path(folder), asked.workers, asked.blobs))
    print(json.dumps(facts, indent=2), flush=True)


if __name__ == "__main__":
    main()
