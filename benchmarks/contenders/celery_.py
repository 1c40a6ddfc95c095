"""Celery: one worker with two processes, on Redis or RabbitMQ.

Filled and watched from here: a worker begins to work before it can say that it is there, so the
times are of what was done after the first output was seen.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.contenders import Drained, Job, text

_LOOK = 0.02  # seconds between looks at the queue


async def drain(job: Job) -> Drained:
    return await asyncio.to_thread(_drain, job)


def _drain(job: Job) -> Drained:
    os.environ["MQINFER_BENCH_BROKER"] = job.url
    from benchmarks.contenders.celery_app import app, work

    with app.connection_for_write() as connection, connection.channel() as channel:
        waiting, out = (app.amqp.queues[name](channel) for name in ("in", "out"))
        for queue in (waiting, out):
            queue.declare()
            queue.purge()
        with app.amqp.producer_pool.acquire() as producer:
            for number in range(job.messages):
                arguments = {"n": number, "text": text(number, job.size)}
                work.apply_async(
                    kwargs=arguments, queue="in", task_id=f"in-{number}", producer=producer
                )
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.contenders.celery_app"]
        command += ["worker", "--pool=prefork", f"--concurrency={job.processes}", "--queues=in"]
        command += ["--loglevel=ERROR", "--without-gossip", "--without-mingle"]
        worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            drained = _watch(worker, out, job.messages)
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        outputs = _outputs(out)
    return Drained(drained.messages, drained.wall, drained.cpu, outputs)


def _watch(worker: subprocess.Popen[bytes], out: Any, messages: int) -> Drained:
    """Wait until all are done."""
    before, began, cpu = 0, 0.0, 0.0
    while True:
        if worker.poll() is not None:
            raise RuntimeError(f"Celery's worker ended with exit code {worker.returncode}")
        done = out.queue_declare().message_count
        if done and not before:
            before, began, cpu = done, time.perf_counter(), _processor(worker.pid)
        if done >= messages:
            wall = time.perf_counter() - began
            return Drained(messages - before, wall, _processor(worker.pid) - cpu)
        time.sleep(_LOOK)


def _processor(pid: int) -> float:
    """Processor seconds of a process and its children until now."""
    import psutil

    parent = psutil.Process(pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def _outputs(out: Any) -> list[int]:
    """The number of each output."""
    found: list[int] = []
    while (message := out.get(no_ack=True)) is not None:
        found.append(int(message.headers["id"].removeprefix("out-")))
    return found
