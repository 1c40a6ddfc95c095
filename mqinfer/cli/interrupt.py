"""Ctrl-C ends a command, whatever it waits for."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from mqinfer.cli.errors import ExitCode

T = TypeVar("T")

# A library may swallow the cancellation; this often it is told again, and after LAST it is enough.
AGAIN, LAST = 0.5, 5.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in which an interrupt is repeated until it is heeded.

    Raises:
        KeyboardInterrupt: `main` was interrupted, and has cleaned up.
    """
    interrupted = False

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            nonlocal interrupted
            if not interrupted:
                interrupted = True
                end = threading.Timer(LAST, os._exit, (ExitCode.INTERRUPTED,))
                end.daemon = True
                end.start()
            if not task.done():
                task.cancel()
                loop.call_later(AGAIN, cancel)

        loop.add_signal_handler(signal.SIGINT, cancel)
        return await main

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
