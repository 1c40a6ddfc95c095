"""The smallest clients that can tell whether a server answers; no adapter needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mqinfer.stack.ports import HOST


@contextlib.asynccontextmanager
async def connection(
    port: int, timeout: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a loopback port; everything inside must end within the timeout."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def http(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    timeout: float = 2.0,
) -> tuple[int, bytes]:
    """Make one HTTP request to a loopback port.

    Returns:
        The status code and the body.

    Raises:
        OSError: Nothing listens there, or it hung up.
        TimeoutError: No whole answer within the timeout.
    """
    lines = [f"{method} {path} HTTP/1.0", f"Host: {HOST}", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    async with connection(port, timeout) as (reader, writer):
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)
    if len(status) < 2 or not status[1].isdigit():
        raise ConnectionError(f"port {port} does not speak HTTP")
    return int(status[1]), body
