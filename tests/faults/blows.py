"""Blows: what may befall a process, a server or a link; who deals them says for how long."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from mqinfer.stack.server import Server

from .processes import Proxy, Slot, until


async def die_at(slot: Slot, point: str, passage: int, release: Callable[[], None]) -> bool:
    """Have a process die at a passage of a point; False when it did not pass there in time.

    Args:
        slot: of the process, in whose hands it is meanwhile.
        point: that it dies at.
        passage: of the point.
        release: brings it more to do.
    """
    async with slot.held:
        pid = slot.pid
        slot.arm(point, passage)
        for _ in range(60):
            try:
                await until(lambda: slot.pid != pid, 0.5)
            except TimeoutError:
                release()  # it had nothing to do
            else:
                return True
        return False  # still armed: it dies there when it passes


async def terminate(slot: Slot) -> bool:
    """Stop a process in order; another takes its place."""
    async with slot.held:
        pid = slot.pid
        slot.signal(signal.SIGTERM)
        await until(lambda: slot.pid != pid, 120)
    return True


async def stand_still(slot: Slot, seconds: float) -> bool:
    """Stop a process for so many seconds, with all its connections open."""
    async with slot.held:
        slot.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        return slot.signal(signal.SIGCONT)


async def restart(server: Server, away: float) -> None:
    """Kill a server; `away` seconds later start it on the same port with the same data."""
    server.kill()
    await asyncio.sleep(away)
    await server.bring_up(120)


async def freeze(server: Server, seconds: float) -> bool:
    """Stop a server for so many seconds."""
    if server.pid is None:
        return False
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    return True


async def half_open(proxy: Proxy, seconds: float) -> bool:
    """Let nothing pass on the links that are open; so many seconds later they are closed."""
    hanging = proxy.hang()
    await asyncio.sleep(seconds)
    proxy.drop()
    return hanging > 0
