"""Running: a server of the stack for as long as a test uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from mqinfer.stack import Server

S = TypeVar("S", bound=Server)


@asynccontextmanager
async def running(server: S) -> AsyncIterator[S]:
    """Start it, and give it when it answers; it is stopped whatever happens."""
    try:
        await server.bring_up()
        yield server
    finally:
        await server.stop()
