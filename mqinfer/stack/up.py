"""What ``mqinfer up`` does: the stack in the foreground, until a signal or a death."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable

from mqinfer import signals
from mqinfer.stack.errors import StackConfigurationError, StackError
from mqinfer.stack.modelreport import ModelReport
from mqinfer.stack.server import Server
from mqinfer.stack.settings import StackSettings
from mqinfer.stack.supervisor import Stack

EXIT_DONE, EXIT_FAILED, EXIT_CONFIGURATION = 0, 1, 2


async def run_up(settings: StackSettings, *, out: Callable[[str], None]) -> int:
    """Run the stack until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        settings: What to start.
        out: Gets each line for the user. The readiness line begins with ``ready``.

    Returns:
        The exit code: 0 stopped as asked, 1 a server failed, 2 it could not
        start as configured.
    """
    stack: Stack | None = None
    stop = asyncio.Event()

    def kill() -> None:
        if stack is not None:
            stack.kill()

    try:
        with signals.handed_to(stop.set, kill):
            stack = Stack(settings, say=out)
            return await _serve(stack, stop, out)
    except StackConfigurationError as error:
        out(f"error: {error}")
        return EXIT_CONFIGURATION
    except StackError as error:
        out(f"error: {error}")
        return EXIT_FAILED


async def _serve(stack: Stack, stop: asyncio.Event, out: Callable[[str], None]) -> int:
    began = time.monotonic()
    stopped = asyncio.create_task(stop.wait(), name="signal")
    tasks: list[asyncio.Task[object]] = [stopped]
    try:
        start = asyncio.create_task(stack.start(), name="start")
        tasks.append(start)
        if await _first_of(start, stopped) is start:
            models = _models(stack, out)
            if models is not None:
                await models.look()
                tasks.append(asyncio.create_task(models.watch(), name="models"))
            _report(stack, out, time.monotonic() - began)
            watch = asyncio.create_task(stack.watch(), name="watch")
            tasks.append(watch)
            await _first_of(watch, stopped)
        out("stopping")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stack.stop()
    out("stopped")
    return EXIT_DONE


async def _first_of(work: asyncio.Task[None], stopped: asyncio.Task[bool]) -> asyncio.Task[object]:
    """Wait for one of the two; an error of the work is raised here."""
    await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
        return work
    return stopped


def _models(stack: Stack, out: Callable[[str], None]) -> ModelReport | None:
    """Who tells of models that are not served, where there is a server for them."""
    server = stack.triton
    return None if server is None else ModelReport(server.name, server.model_states, out)


def _report(stack: Stack, out: Callable[[str], None], seconds: float) -> None:
    addresses = []
    if stack.nats is not None:
        addresses.append(f"NATS {stack.nats.url} {_which(stack.nats)}")
    if stack.triton is not None:
        addresses.append(f"{stack.triton.name} {stack.triton.url} {_which(stack.triton)}")
    if stack.clickhouse is not None:
        addresses.append(f"ClickHouse {stack.clickhouse.url} {_which(stack.clickhouse)}")
    if stack.settings.password is not None:
        for name, value in stack.environment().items():
            out(f"export {name}={shlex.quote(value)}")
        if stack.triton is not None:
            out(
                "warning: Triton has no users: everybody on this machine can call its models and "
                "have it load their own, as you; see docs/security.md, or --no-triton"
            )
    out(f"ready in {seconds:.1f} s: {', '.join(addresses)}; logs and data in {stack.dir}")


def _which(server: Server) -> str:
    """Which program it is, and its version."""
    which = "embedded" if server.program is None else str(server.program)
    return f"({which}, version {server.version})"
