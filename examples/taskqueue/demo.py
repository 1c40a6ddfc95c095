"""The case study from end to end on this machine; `make demo-taskqueue` runs it.

    python -m examples.taskqueue.demo

Packs the classes that `models.toml` lists, starts NATS, Triton, a worker and a gateway, and asks as
people do: in Python, in JavaScript, in a browser, and by a job over a file of 100,000 rows. Prints
what it finds; exit code 1 if one thing is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

import mqinfer
from examples.plants.local import clear, conclude, machine, run_to_exit
from examples.taskqueue import data, facts
from examples.taskqueue.browser import pages
from examples.taskqueue.facts import Facts
from examples.taskqueue.local import Running, prepare, running

console = Console(highlight=False, soft_wrap=True)


async def demo(rows: int, folder: Path) -> dict[str, Any]:
    """Run it all.

    Raises:
        Broken: something is not as it must be.
        StackError: something died or did not start.
    """
    began = time.monotonic()
    clear(folder)
    console.print("packing the model classes (the first time, their libraries are fetched) ...")
    file, done, seconds = await asyncio.to_thread(prepare, folder / "service", console.print)
    console.print(f"packed {', '.join(one.model for one in done)} in {seconds:.1f} s")
    told = Facts(console)
    told.figures |= {"machine": machine(), "packing_seconds": round(seconds, 1)}
    async with running(file, folder) as all_of_it:
        console.print(
            f"NATS {all_of_it.stack.nats_url}, Triton {all_of_it.stack.triton_url}, "
            f"worker: process {all_of_it.worker.pid}, gateway {all_of_it.gateway.url}"
        )
        await _while_alive(all_of_it, _study(all_of_it, rows, told))
    conclude(told.figures, told.broken, folder, time.monotonic() - began, console)
    return told.figures


async def _study(all_of_it: Running, rows: int, told: Facts) -> None:
    async with mqinfer.connect(all_of_it.app, all_of_it.settings) as client:
        await facts.both_at_once(client, told)
        await facts.errors_by_library(client, all_of_it, told)
    await facts.described(all_of_it, told)
    await facts.by_javascript(all_of_it, told)
    await pages(all_of_it.gateway.url, told)
    path = all_of_it.stack.dir / "irises.csv"
    written = await asyncio.to_thread(data.write, path, rows)
    await facts.job(all_of_it, path, written, told)
    path = path.with_stem("fewer")
    written = await asyncio.to_thread(data.write, path, max(rows // 10, 2000))
    await facts.job_by_http(all_of_it, path, written, told)


async def _while_alive(all_of_it: Running, work: Coroutine[Any, Any, None]) -> None:
    """Do something that needs all of it; it is cancelled when a part dies.

    Raises:
        StackError: one did; with the end of its log.
    """
    task, watch = asyncio.create_task(work), asyncio.create_task(all_of_it.watch())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        await task
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def main() -> int:
    """Run the demo; 0 if everything is as it must be."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.taskqueue.demo",
        description="The study of a task queue for model classes, end to end.",
    )
    parser.add_argument("--rows", type=int, default=100_000, help="of the job")
    parser.add_argument(
        "--dir", type=Path, default=Path(".mqinfer/taskqueue"), help="cleared first"
    )
    options = parser.parse_args()
    return run_to_exit(demo(options.rows, options.dir.absolute()))


if __name__ == "__main__":
    sys.exit(main())
