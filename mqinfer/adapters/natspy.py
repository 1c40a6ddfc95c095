"""nats-py, imported without aiohttp, which it wants for WebSockets alone.

Where it is installed, as with the extra `gateway`, importing aiohttp is a quarter of the time that
a worker takes to start. So it is hidden while nats-py looks for it, and brought for an address that
begins with `ws`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """An import of this module finds none, unless it has been imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # what `import` takes for not there
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("aiohttp"):
    import nats.errors
    from nats.aio import transport
    from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
    from nats.aio.subscription import Subscription
    from nats.aio.transport import TcpTransport
    from nats.protocol.command import unsub_cmd
    from nats.protocol.parser import AWAITING_CONTROL_LINE

__all__ = [
    "AWAITING_CONTROL_LINE",
    "DEFAULT_BUFFER_SIZE",
    "Client",
    "Srv",
    "Subscription",
    "TcpTransport",
    "nats",
    "unsub_cmd",
    "websockets",
]


def websockets() -> None:
    """Let nats-py have what it needs for WebSockets; if it is not installed, connecting says so."""
    for name in ("aiohttp", "multidict"):
        try:
            setattr(transport, name, importlib.import_module(name))
        except ImportError:
            return
