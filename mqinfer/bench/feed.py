"""Feed: publishes copies of messages, in a process of its own: it costs the measured one nothing.

`python -m mqinfer.bench.feed URL` reads an `Order` at a time as msgpack from its standard input,
each behind its length in four bytes; when all is stored it says "ok", else what went wrong.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from mqinfer.ports import Broker

_LIMIT = 60.0  # seconds that it may take beyond its schedule


class Template(Struct, frozen=True):
    """A message to be copied: where it goes, its content type and its bytes.

    `rows` is how many a pack of rows holds; 1 for a message.
    """

    subject: str
    content_type: str
    payload: bytes
    rows: int = 1


class Order(Struct, frozen=True):
    """What to publish.

    Attributes:
        templates: that are taken in turn.
        count: of messages.
        name: what their ids begin with.
        rate: messages a second; 0 is as fast as the server takes them.
    """

    templates: list[Template]
    count: int
    name: str
    rate: float = 0.0


class Feeder:
    """The process; an async context manager.

    Args:
        url: of NATS.
    """

    def __init__(self, url: str):
        self._url = url
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Feeder:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqinfer.bench.feed", self._url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to heed
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, whatever it is at."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def feed(
        self, templates: Sequence[Template], count: int, name: str, rate: float = 0.0
    ) -> None:
        """Publish copies of messages in turn; return when all is stored.

        Raises:
            RuntimeError: they could not be.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        order = msgspec.msgpack.encode(Order(list(templates), count, name, rate))
        process.stdin.write(len(order).to_bytes(4, "big") + order)
        async with asyncio.timeout(_LIMIT + (count / rate if rate else 0.0)):
            await process.stdin.drain()
            said = (await process.stdout.readline()).decode().strip()
        if said != "ok":
            raise RuntimeError(f"messages could not be published: {said or 'the process ended'}")


async def serve(url: str) -> None:
    """Publish what is ordered until nothing more is; whoever orders may be gone."""
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.settings import Settings

    async with JetStream(Settings.load({}, nats_url=url), name="bench feed") as broker:
        while size := await asyncio.to_thread(sys.stdin.buffer.read, 4):
            data = await asyncio.to_thread(sys.stdin.buffer.read, int.from_bytes(size, "big"))
            try:
                await _publish(broker, msgspec.msgpack.decode(data, type=Order))
            except Exception as error:  # noqa: BLE001 - told to whoever ordered
                print(" ".join(f"{type(error).__name__}: {error}".split()), flush=True)
            else:
                print("ok", flush=True)


async def _publish(broker: Broker, order: Order) -> None:
    from mqinfer.identity import CONTENT_TYPE, MSG_ID, header_block

    left = order.count
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stored(error: Exception | None, _repeat: bool) -> None:
        nonlocal left
        left -= 1
        if error is not None and not done.done():
            done.set_exception(error)
        elif not left and not done.done():
            done.set_result(None)

    began = time.perf_counter()
    for number in range(order.count):
        if order.rate and (ahead := began + number / order.rate - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        if broker.full:
            await broker.room()
        template = order.templates[number % len(order.templates)]
        headers = {MSG_ID: f"{order.name}:{number}"}
        if template.content_type:
            headers[CONTENT_TYPE] = template.content_type
        broker.publish(
            template.subject, header_block(headers), template.payload, stored, timeout=30.0
        )
    if order.count:
        await done


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
