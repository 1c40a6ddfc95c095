"""A worker of `tests.support.state_app` that dies between two steps of the protocol of states.

`python -m tests.faults.stateworker POINT PASSAGES`: at that passage of the point it kills itself
with SIGKILL, so that nothing is cleaned up. Production code has no hooks for tests: the methods are
wrapped in this process alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from mqinfer import Worker
from mqinfer.cli.child import bind_to_supervisor
from mqinfer.settings import Settings
from mqinfer.state.memory import Memory
from mqinfer.state.states import States
from tests.support.state_app import app

POINTS = (
    "before the state is read",
    "handled, before outputs are published",
    "outputs are stored, before the state is written",
    "the write has left",
    "the state is written, before the acknowledgement",
    "acknowledged",
)


class Fuse:
    """Ends the process at a passage of a point."""

    def __init__(self, point: str, passages: int):
        self._point = point
        self._left = passages

    def passes(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def install(fuse: Fuse) -> None:
    """Wrap the steps of the protocol."""
    found, sealed, kept = States.at_hand, Memory.seal, Memory.keep

    def on_find(self: Any, job: Any) -> Any:
        fuse.passes(POINTS[0])
        return found(self, job)

    def on_seal(self: Any) -> None:
        sealed(self)
        fuse.passes(POINTS[1])

    def on_keep(self: Any, then: Callable[[Exception | None], None]) -> None:
        def after(error: Exception | None) -> None:
            fuse.passes(POINTS[4])
            then(error)
            asyncio.get_running_loop().call_later(0.001, fuse.passes, POINTS[5])

        fuse.passes(POINTS[2])
        kept(self, after)
        asyncio.get_running_loop().call_later(0.0005, fuse.passes, POINTS[3])

    States.at_hand = on_find  # type: ignore[method-assign]
    Memory.seal = on_seal  # type: ignore[method-assign]
    Memory.keep = on_keep  # type: ignore[method-assign]


def main() -> None:
    """Work until told to stop, or dead."""
    bind_to_supervisor()
    point, passages = sys.argv[1:]
    install(Fuse(point, int(passages)))
    worker = Worker(app, settings=Settings.load())

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
