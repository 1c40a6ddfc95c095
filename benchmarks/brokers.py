"""Redis and RabbitMQ for the rivals, durable as their docs say; on loopback, in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.debian import Provided, provide
from mqinfer.stack import probe
from mqinfer.stack.ports import HOST, free_port
from mqinfer.stack.server import Server

_REDIS = "usr/bin/redis-server"
# Below the wrapper that is on the PATH, which insists on a user of its own.
_RABBIT = "usr/lib/rabbitmq/bin/rabbitmq-server"
_AMQP = b"AMQP\x00\x00\x09\x01"


class Broker(Server):
    """A server with an address that Celery takes."""

    url: str


class RedisServer(Broker):
    """Redis with its append-only file, written to disk every second (its docs' advice)."""

    name = "Redis"

    def __init__(self, directory: Path, provided: Provided) -> None:
        super().__init__(directory / "log")
        self.directory = directory
        self.provided = provided
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"

    @classmethod
    async def make(cls, directory: Path) -> RedisServer:
        """Find or fetch the program.

        Raises:
            NotProvidedError: neither is possible.
        """
        return cls(directory, await provide(_REDIS, "redis-server"))

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def environment(self) -> Mapping[str, str]:
        return self.provided.environment()

    def command(self) -> list[str]:
        command = [str(self.provided.root / _REDIS), "--bind", HOST, "--port", str(self.port)]
        command += ["--dir", str(self.directory), "--save", ""]
        return [*command, "--appendonly", "yes", "--appendfsync", "everysec"]

    async def probe(self) -> bool:
        async with probe.connection(self.port, 2.0) as (reader, writer):
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"


class RabbitServer(Broker):
    """RabbitMQ, one node; its messages are as durable as queues and publishers ask for."""

    name = "RabbitMQ"

    def __init__(self, directory: Path, provided: Provided) -> None:
        super().__init__(directory / "log")
        self.directory = directory
        self.provided = provided
        self.port, self._between_nodes, self._names = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@{HOST}:{self.port}//"

    @classmethod
    async def make(cls, directory: Path) -> RabbitServer:
        """Find or fetch the program.

        Raises:
            NotProvidedError: neither is possible.
        """
        return cls(directory, await provide(_RABBIT, "rabbitmq-server"))

    @property
    def _config_file(self) -> Path:
        return self.directory / "rabbitmq.conf"

    @property
    def _plugins_file(self) -> Path:
        return self.directory / "plugins"

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._config_file.write_text(f"listeners.tcp.1 = {HOST}:{self.port}\n")
        self._plugins_file.write_text("[].\n")

    def environment(self) -> Mapping[str, str]:
        return {
            **self.provided.environment(),
            "HOME": str(self.directory),  # for the cookie of the node
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._between_nodes),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self._config_file),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._plugins_file),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_LOGS": "-",
        }

    def command(self) -> list[str]:
        return [str(self.provided.root / _RABBIT)]

    async def probe(self) -> bool:
        async with probe.connection(self.port, 2.0) as (reader, writer):
            writer.write(_AMQP)
            return bool(await reader.read(1))
