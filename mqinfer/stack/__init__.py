"""The embedded stack: real NATS, Triton and ClickHouse servers from PyPI on loopback.

What runs here runs unchanged against production servers: they speak the same
protocols, and everything else finds them by URL (see `Stack.environment`).
"""

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
