"""What tests of a cluster of three wait for: leaders, of the cluster and of one stream."""

from __future__ import annotations

from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import MqinferError
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until


async def has_leader(settings: Settings) -> bool:
    """Whether JetStream answers."""
    async with JetStream(settings, name="test") as broker:
        try:
            await broker.stream_info("none")
        except MqinferError:
            return False
        return True


async def leader(harness: Harness, stream: str) -> str:
    """The server that leads a stream, once there is one."""
    broker = harness.services.broker
    assert isinstance(broker, JetStream)

    async def known() -> str:
        try:
            info = await broker.stream_info(stream)
        except MqinferError:
            return ""  # an election
        assert info is None or info["config"]["num_replicas"] == 3
        return str((info or {}).get("cluster", {}).get("leader") or "")

    return str(await until(known, f"a leader of {stream}", timeout=60))
