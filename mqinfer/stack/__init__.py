"""The embedded stack: real NATS, Triton and ClickHouse servers from PyPI on loopback.

What runs here runs unchanged against production servers: they speak the same
protocols, and everything else finds them by URL (see `Stack.environment`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqinfer.stack.clickhouse.server import ClickHouseServer
    from mqinfer.stack.errors import StackConfigurationError, StackError
    from mqinfer.stack.inferenceserver.server import InferenceServer
    from mqinfer.stack.nats import NatsServer
    from mqinfer.stack.server import Server
    from mqinfer.stack.settings import StackSettings
    from mqinfer.stack.supervisor import Stack
    from mqinfer.stack.triton import ModelState, TritonServer
    from mqinfer.stack.up import run_up

__all__ = [
    "ClickHouseServer",
    "InferenceServer",
    "ModelState",
    "NatsServer",
    "Server",
    "Stack",
    "StackConfigurationError",
    "StackError",
    "StackSettings",
    "TritonServer",
    "run_up",
]

# Each server is a process of this package: one for ClickHouse has no use for NumPy and Triton's
# client, which were a fifth of its start.
_LAZY = {
    "ClickHouseServer": "mqinfer.stack.clickhouse.server",
    "InferenceServer": "mqinfer.stack.inferenceserver.server",
    "ModelState": "mqinfer.stack.triton",
    "NatsServer": "mqinfer.stack.nats",
    "Server": "mqinfer.stack.server",
    "Stack": "mqinfer.stack.supervisor",
    "StackConfigurationError": "mqinfer.stack.errors",
    "StackError": "mqinfer.stack.errors",
    "StackSettings": "mqinfer.stack.settings",
    "TritonServer": "mqinfer.stack.triton",
    "run_up": "mqinfer.stack.up",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is first asked for (PEP 562)."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mqinfer.stack' has no attribute {name!r}")
