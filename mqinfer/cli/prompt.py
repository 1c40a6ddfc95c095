"""Prompt: an interactive one, whose code runs on an event loop that turns all the time.

The loop is in a thread beside it: while a person thinks, connections are kept, and what was started
with `asyncio.create_task` goes on.
"""

from __future__ import annotations

import ast
import asyncio
import code
import concurrent.futures
import contextlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import CodeType
from typing import Any

# For the compiler: `await` stands wherever it is wanted.
AWAITS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

Opened = Callable[[], AbstractAsyncContextManager[dict[str, Any]]]


def prompt(opened: Opened, banner: str) -> None:
    """Read, run and print until the end of the input.

    Args:
        opened: gives the names that are known, while it is open.
        banner: what is printed first.

    Raises:
        MqinferError: it cannot be opened.
    """
    told: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Any]]
    told = concurrent.futures.Future()

    async def hold() -> None:
        async with opened() as names:
            ended = asyncio.Event()
            told.set_result((asyncio.get_running_loop(), ended, names))
            await ended.wait()

    def host() -> None:
        try:
            asyncio.run(hold())
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            if not told.done():
                told.set_exception(error)

    thread = threading.Thread(target=host, name="mqinfer-shell", daemon=True)
    thread.start()
    loop, ended, names = told.result()
    try:
        if sys.stdin.isatty() and importlib.util.find_spec("IPython") is not None:
            _ipython(loop, names, banner)
        else:
            _python(loop, names, banner)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10.0)


async def run(code: CodeType, names: dict[str, Any]) -> Any:
    """Run what was compiled with `AWAITS`, and what it awaits; its value."""
    found = eval(code, names)
    return await found if code.co_flags & inspect.CO_COROUTINE else found


def _ipython(loop: asyncio.AbstractEventLoop, names: dict[str, Any], banner: str) -> None:
    from IPython import start_ipython
    from traitlets.config import Config

    def runs(coroutine: Coroutine[Any, Any, Any]) -> Any:
        running = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            running.cancel()
            raise

    config = Config()
    config.InteractiveShell.autoawait = True
    config.InteractiveShell.loop_runner = runs
    config.TerminalInteractiveShell.banner2 = f"{banner}\n"
    start_ipython(argv=[], user_ns=names, config=config)


def _python(loop: asyncio.AbstractEventLoop, names: dict[str, Any], banner: str) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - history and editing of lines
    _Console(names, loop).interact(banner=banner, exitmsg="")


class _Console(code.InteractiveConsole):
    """Python's prompt, whose lines run on a loop."""

    def __init__(self, names: dict[str, Any], loop: asyncio.AbstractEventLoop):
        super().__init__(names)
        self.compile.compiler.flags |= AWAITS
        self._loop = loop

    def runcode(self, code: CodeType) -> None:
        """Run one statement; an error is printed."""

        async def guarded() -> SystemExit | None:
            try:
                await run(code, self.locals)
            except SystemExit as left:  # which would end the loop
                return left
            return None

        running = asyncio.run_coroutine_threadsafe(guarded(), self._loop)
        try:
            left = running.result()
        except KeyboardInterrupt:
            running.cancel()
            self.write("\nKeyboardInterrupt\n")
        except BaseException:  # noqa: BLE001 - whatever it is
            self.showtraceback()
        else:
            if left is not None:
                raise left
