"""mqinfer in one or more processes: typed decode, identity, lineage, metrics, pulse.

Each process stops short of its first pull until all are there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contenders import Clock, Drained, Job

_LOOK = 0.005  # seconds between looks at the count


async def drain(job: Job) -> Drained:
    return await asyncio.to_thread(_drain, job)


def _drain(job: Job) -> Drained:
    context: Any = multiprocessing.get_context("spawn")
    together = context.Barrier(job.processes + 1)
    counts, cpu = context.Array("q", job.processes), context.Array("d", job.processes)
    stop = context.Event()
    workers = [
        context.Process(
            target=_process, args=(job, number, together, stop, counts, cpu), daemon=True
        )
        for number in range(job.processes)
    ]
    for worker in workers:
        worker.start()
    together.wait(timeout=60)
    began = time.perf_counter()
    while sum(counts) < job.messages:
        if dead := [worker for worker in workers if not worker.is_alive()]:
            raise RuntimeError(f"a worker ended with exit code {dead[0].exitcode}")
        time.sleep(_LOOK)
    wall = time.perf_counter() - began
    stop.set()
    for worker in workers:
        worker.join(timeout=30)
        if worker.exitcode:
            raise RuntimeError(f"a worker ended with exit code {worker.exitcode}")
    return Drained(job.messages, wall, sum(cpu))


def _process(job: Job, number: int, together: Any, stop: Any, counts: Any, cpu: Any) -> None:
    factory = None
    if job.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_work(job, number, together, stop, counts, cpu))


async def _work(job: Job, number: int, together: Any, stop: Any, counts: Any, cpu: Any) -> None:
    from mqinfer import App, Message, Settings, Worker
    from mqinfer.collector import tune_collector
    from mqinfer.observe import configure_logging

    configure_logging("warning", "console")
    tune_collector()  # as `mqinfer worker` does
    clock = Clock()

    @asynccontextmanager
    async def all_are_here() -> AsyncIterator[None]:
        nonlocal clock
        await asyncio.to_thread(together.wait, 60)
        clock = Clock()
        yield

    app = App(job.stream)

    class In(Message):
        n: int
        text: str

    class Out(Message):
        n: int
        text: str

    @app.stage(lifespan=all_are_here)
    async def work(item: In) -> Out:
        return Out(item.n, item.text)

    worker = Worker(app, settings=Settings.load({}, nats_url=job.url))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        while not stop.is_set():
            # Looked at here, not by what `mqinfer.testing` has: that imports NumPy, whose threads
            # spin for a tenth of a second.
            if worker.engine and worker.engine.runners:
                counts[number] = int(worker.services.metrics.stage("work").completed)
            cpu[number] = clock.read(0).cpu
            await asyncio.sleep(_LOOK)
        worker.stop()
