"""A worker process that can be told to die at a named point.

Production code has no hooks for tests: this script wraps the engine's methods in its own process.
SIGUSR1 arms what stands in the file `<slot>.point` ("point passages"): at that passage of the
point the process kills itself with SIGKILL, so that nothing is cleaned up.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mqinfer import Worker, plan, signals
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.cli.options import configure_logs
from mqinfer.counts import SinkMetrics
from mqinfer.flow import handling, settler
from mqinfer.metrics import StageMetrics
from mqinfer.settings import Settings
from mqinfer.tables import intotable, packsintotable

from . import pipeline
from .counters import Counters
from .fuse import Fuse
from .ordinary import ACK_WAIT

SINKS = ("sink-answer", "sink-oddity", "sink-word")
HANDLERS = ("split", "square", "cube", "score", "judge", "carry", "speak", "note")
# Where a process may be told to die, and which of its stages pass there.
POINTS = {
    "after handling, before publish": HANDLERS,
    "in the middle of publishing": HANDLERS,
    "between publish and ack": HANDLERS,
    "in the middle of a batch": ("judge",),
    "between insert and ack": SINKS,
    "in the middle of the acks of an insert": SINKS,
}


def install(fuse: Fuse, counters: Counters) -> None:
    """Wrap the engine's methods with the points and the counters."""
    answered, done = settler.Settler.answered, settler.Settler._done
    emit, batch = settler.Settler.emit_some, handling.InBatches.run
    rows, packs = intotable.IntoTable.run, packsintotable.PacksIntoTable.run
    left: dict[str, int] = {}  # answers until the death in the middle of a batch

    def counting_down(point: str) -> None:
        if point in left:
            left[point] -= 1
            if left[point] <= 0:
                fuse.burn()

    def on_answered(self: Any, job: Any, *outputs: Any) -> None:
        counters.add("handled")
        if not self._stage.startswith("sink-"):
            fuse.passes("after handling, before publish")
            counting_down("in the middle of a batch")
        answered(self, job, *outputs)

    def on_done(self: Any, job: Any) -> None:
        if self._stage.startswith("sink-"):
            fuse.passes("between insert and ack")
            counting_down("in the middle of the acks of an insert")
        else:
            fuse.passes("between publish and ack")
        done(self, job)

    def on_emit(self: Any, *arguments: Any) -> None:
        emit(self, *arguments)
        if fuse.reached("in the middle of publishing"):
            # Nothing of it has left this process yet; some of it will have by then.
            asyncio.get_running_loop().call_later(0.001, fuse.burn)

    def half(point: str, original: Callable[..., Any]) -> Callable[..., Any]:
        async def on_batch(self: Any, jobs: Any) -> None:
            if len(jobs) > 1 and fuse.reached(point):
                left[point] = len(jobs) // 2
            await original(self, jobs)

        return on_batch

    settler.Settler.answered = on_answered  # type: ignore[method-assign]
    settler.Settler._done = on_done  # type: ignore[method-assign]
    settler.Settler.emit_some = on_emit  # type: ignore[method-assign]
    handling.InBatches.run = half("in the middle of a batch", batch)  # type: ignore[method-assign]
    acks = "in the middle of the acks of an insert"
    intotable.IntoTable.run = half(acks, rows)  # type: ignore[method-assign]
    packsintotable.PacksIntoTable.run = half(acks, packs)  # type: ignore[method-assign]

    redelivered, duplicates = StageMetrics.redelivered, StageMetrics.duplicates

    def on_redelivered(self: Any) -> None:
        counters.add("redelivered")
        redelivered(self)

    def on_duplicates(self: Any, count: int = 1) -> None:
        counters.add("duplicates", count)
        duplicates(self, count)

    inserted = SinkMetrics.inserted

    def on_inserted(self: Any, rows: int, seconds: float) -> None:
        counters.add("inserted", rows)
        inserted(self, rows, seconds)

    SinkMetrics.inserted = on_inserted  # type: ignore[method-assign]
    StageMetrics.redelivered = on_redelivered  # type: ignore[method-assign]
    StageMetrics.duplicates = on_duplicates  # type: ignore[method-assign]


async def _run(stages: list[str], folder: Path, slot: str) -> None:
    counters = Counters(folder / f"{slot}.counters")
    fuse = Fuse(lambda: counters.add("reached"))
    install(fuse, counters)
    # The sink's own limits are for production; here a message comes back within seconds.
    plan.SINK_LIMITS = dataclasses.replace(plan.SINK_LIMITS, ack_wait=ACK_WAIT, batch_wait=0.2)
    worker = Worker(pipeline.app, stages=stages, settings=Settings.load())
    task = asyncio.ensure_future(worker.run())
    point = folder / f"{slot}.point"
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: fuse.arm(point.read_text())
    )
    with signals.handed_to(worker.stop, task.cancel):
        (folder / f"{slot}.ready").write_text(str(os.getpid()))
        await task


def main() -> None:
    """Run the stages named on the command line until SIGTERM."""
    bind_to_supervisor()
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", action="append", default=[])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slot", required=True)
    arguments = parser.parse_args()
    configure_logs(Settings.load())
    asyncio.run(_run(arguments.stage, arguments.folder, arguments.slot))


if __name__ == "__main__":
    main()
