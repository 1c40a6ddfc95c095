"""Accounts of one nats-server: each test has one for itself, and no server to start.

An account sees nothing of the others: subjects, streams and buckets are its own. Whoever is still
connected for a test that has ended is with what that test left, which nobody is given again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import nats

from mqinfer.stack import NatsServer

# After so many another server begins: none grows old, or has to be told of new accounts.
_ACCOUNTS = 64
_PASSWORD = "tests"


class Accounts:
    """Accounts of nats-servers with JetStream that are started when they are needed.

    Args:
        folder: for the data of the servers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[NatsServer] = []
        self._free: list[str] = []

    async def take(self) -> str:
        """The URL of an account that nobody has had, with its user."""
        if not self._free:
            names = [f"test{number}" for number in range(_ACCOUNTS)]
            server = await self._start(names)
            login = f"{{}}:{_PASSWORD}@".format
            self._free = [server.url.replace("//", f"//{login(name)}") for name in names]
        return self._free.pop()

    async def _start(self, names: list[str]) -> NatsServer:
        folder = self._folder / str(len(self._servers))
        accounts = "\n".join(
            f"{name} {{ jetstream: enabled, users: [{{ user: {name}, password: {_PASSWORD} }}] }}"
            for name in names
        )
        server = NatsServer(
            folder / "nats",
            log=folder / "nats.log",
            # Who is slow to log in is on a busy machine, no stranger.
            extra_config=f"authorization {{ timeout: 120 }}\naccounts {{\n{accounts}\n}}",
        )
        self._servers.append(server)
        await server.start()
        await server.wait_ready()
        return server

    async def close(self) -> None:
        """Stop the servers."""
        for server in self._servers:
            await server.stop()


async def hang_up(url: str) -> None:
    """End the connections of this event loop to the server, as if it had stopped.

    One that was closed with much to send stays until that is sent, or the loop's end.
    """
    for transport in [*getattr(asyncio.get_running_loop(), "_transports", {}).values()]:
        peer = transport.get_extra_info("peername")
        if peer and peer[1] == urlsplit(url).port:
            transport.abort()
    await asyncio.sleep(0)


async def empty(url: str) -> None:
    """Delete the streams of an account, with buckets and what is reserved for them."""
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        for found in await stream.streams_info():
            await stream.delete_stream(str(found.config.name))
    finally:
        await client.close()
        await hang_up(url)
