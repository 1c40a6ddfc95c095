"""A hub and a leaf node of it, each with JetStream in a domain of its own, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings
from mqinfer.stack import NatsServer
from mqinfer.stack.ports import free_port
from mqinfer.testing import until


@dataclass(frozen=True)
class Leaf:
    """Both servers, and how they are reached.

    Attributes:
        hub: has the app's streams.
        leaf: is what the app's processes speak to.
        settings: by way of the leaf node, to the hub's JetStream.
        edge: by way of the leaf node, to its own.
        direct: to the hub.
    """

    hub: NatsServer
    leaf: NatsServer
    settings: Settings
    edge: Settings
    direct: Settings


@asynccontextmanager
async def hub_and_leaf(folder: Path, permissions: str = "") -> AsyncIterator[Leaf]:
    """Both servers, joined.

    Args:
        folder: for their data.
        permissions: of the user `app`, password `secret`, of the leaf node; "" lets everybody in.
    """
    port = free_port()
    users = f'{{user: "app", password: "secret", {permissions}}}'
    hub = NatsServer(
        folder / "hub",
        log=folder / "hub.log",
        server_name="hub",
        domain="hub",
        extra_config=f'leafnodes {{ listen: "127.0.0.1:{port}" }}',
    )
    leaf = NatsServer(
        folder / "leaf",
        log=folder / "leaf.log",
        server_name="leaf",
        domain="edge",
        extra_config=f'leafnodes {{ reconnect: 1, remotes: [{{url: "nats://127.0.0.1:{port}"}}] }}'
        + (f"\nauthorization {{ users: [{users}] }}" if permissions else ""),
    )

    def settings_of(server: NatsServer, domain: str) -> Settings:
        login = ("app", "secret") if permissions and server is leaf else (None, None)
        return Settings(
            nats_url=server.url,
            nats_user=login[0],
            nats_password=login[1],
            nats_domain=domain,
            blobs="nats://",
            inline_blob_bytes=0,
            grace=5.0,
        )

    try:
        await asyncio.gather(hub.start(), leaf.start())
        await asyncio.gather(hub.wait_ready(60), leaf.wait_ready(60))
        found = Leaf(
            hub,
            leaf,
            settings_of(leaf, "hub"),
            settings_of(leaf, "edge"),
            settings_of(hub, "hub"),
        )
        if not permissions:
            await until(lambda: reached(found.settings), "the leaf node has joined the hub")
        yield found
    finally:
        await asyncio.gather(hub.stop(), leaf.stop())


async def reached(settings: Settings, stream: str = "none") -> bool:
    """Whether JetStream answers, to a user who may ask about this stream."""
    async with JetStream(settings, name="test") as broker:
        try:
            await broker.stream_info(stream)
        except MqinferError:
            return False
        return True
