"""The servers of a run: one NATS or a cluster of three, Triton, ClickHouse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from mqinfer.adapters.clickhouse import ClickHouse
from mqinfer.adapters.jetstream import JetStream
from mqinfer.errors import MqinferError, Unavailable
from mqinfer.settings import Settings
from mqinfer.stack import ClickHouseServer, NatsServer, TritonServer
from mqinfer.stack.ports import free_port
from mqinfer.stack.server import Server

from . import model, pipeline

_CLUSTER = """
cluster {{
  name: faults
  listen: "127.0.0.1:{port}"
  routes: [{routes}]
}}
"""


def nats_servers(folder: Path, count: int) -> list[NatsServer]:
    """One server, or a cluster; not started."""
    if count == 1:
        return [NatsServer(folder / "nats", log=folder / "nats.log")]
    ports = [free_port() for _ in range(count)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        NatsServer(
            folder / f"nats-{number}",
            log=folder / f"nats-{number}.log",
            server_name=f"n{number}",
            extra_config=_CLUSTER.format(port=port, routes=routes),
        )
        for number, port in enumerate(ports)
    ]


class Servers:
    """All servers of a run, as an async context manager.

    Args:
        folder: for their data and logs.
        cluster: how many NATS servers.
    """

    def __init__(self, folder: Path, *, cluster: int = 1):
        self.nats = nats_servers(folder, cluster)
        models = folder / "models"
        self.pace = model.build(models, pipeline.MODEL)
        self.triton = TritonServer(folder / "triton", log=folder / "triton.log", models=models)
        self.clickhouse = ClickHouseServer(folder / "clickhouse", log=folder / "clickhouse.log")
        self._blobs = folder / "blobs"

    @property
    def every(self) -> list[Server]:
        """All of them."""
        return [*self.nats, self.triton, self.clickhouse]

    async def __aenter__(self) -> Servers:
        try:
            await asyncio.gather(*(server.bring_up(120) for server in self.every))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(server.stop() for server in self.every))

    def settings(self, nats_url: str | None = None) -> Settings:
        """How to reach them."""
        return Settings.load(
            {},
            nats_url=nats_url or ",".join(server.url for server in self.nats),
            triton_url=self.triton.url,
            clickhouse_url=self.clickhouse.url,
            blobs=str(self._blobs),
            grace=10.0,
        )

    def environ(self, nats_url: str | None = None) -> dict[str, str]:
        """The same for a child process."""
        settings = self.settings(nats_url)
        names = ("nats_url", "triton_url", "clickhouse_url", "blobs", "grace")
        return {f"MQINFER_{name.upper()}": str(getattr(settings, name)) for name in names} | {
            "FAULTS_REPLICAS": str(len(self.nats)),
            "MQINFER_LOG_FORMAT": "console",
        }


class Observer:
    """A connection of the harness itself, to ask and to meddle as an operator would.

    Args:
        settings: how to reach the servers.
    """

    def __init__(self, settings: Settings):
        self._jetstream = JetStream(settings, name="observer")
        self.clickhouse = ClickHouse(settings.clickhouse_url)

    async def __aenter__(self) -> Observer:
        await self._jetstream.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._jetstream.close()
        await self.clickhouse.close()

    async def api(self, subject: str, body: Any = None) -> dict[str, Any]:
        """One question to JetStream's API."""
        return await self._jetstream.client.api(f"$JS.API.{subject}", body, timeout=2.0)

    async def patiently(
        self, ask: Callable[[], Coroutine[Any, Any, Any]], timeout: float = 90.0
    ) -> Any:
        """What `ask` gives, asked again while servers are away.

        Raises:
            AssertionError: they are away for too long.
        """
        last: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await ask()
                    except MqinferError as error:
                        last = error
                        await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"no answer in {timeout} s: {last}") from last

    async def lags(self, consumers: Sequence[str]) -> dict[str, int]:
        """Messages that are not done, by durable consumer; -1 where there is no such consumer."""
        found: dict[str, int] = {}
        for name in consumers:
            state = await self._jetstream.consumer_state(pipeline.app.name, name)
            found[name] = -1 if state is None else state.lag
        return found

    async def stream(self) -> dict[str, Any] | None:
        """The pipeline's stream."""
        return await self._jetstream.stream_info(pipeline.app.name)

    async def limit_stream(self, size: int) -> None:
        """Change how much the stream may hold; -1 is no limit.

        Raises:
            Unavailable: there is no stream yet: no worker has come so far.
        """
        if (info := await self.stream()) is None:
            raise Unavailable("no worker has made the stream yet")
        config = {**info["config"], "max_bytes": size}
        answer = await self.api(f"STREAM.UPDATE.{pipeline.app.name}", config)
        assert "error" not in answer, answer

    async def leader(self, rng: random.Random) -> str | None:
        """The server that leads the stream, a consumer, or the cluster; one of them."""
        what = rng.choice(("stream", "consumer", "meta"))
        if what == "consumer":
            answer = await self.api(f"CONSUMER.INFO.{pipeline.app.name}.judge")
        elif what == "stream":
            answer = await self.api(f"STREAM.INFO.{pipeline.app.name}")
        else:
            # Any server knows who leads the API: the answer says it came from there.
            answer = await self.api(f"STREAM.INFO.KV_{pipeline.app.name}-state")
        leader = answer.get("cluster", {}).get("leader")
        return None if leader is None else str(leader)

    async def dead_letters(self) -> list[dict[str, str]]:
        """The headers of every dead letter, and its sequence as `seq`."""
        import base64

        from mqinfer.identity import parse_header_block

        found: list[dict[str, str]] = []
        sequence = 1
        while True:
            body = {"seq": sequence, "next_by_subj": ">"}
            answer = await self.patiently(
                lambda body=body: self.api(f"STREAM.MSG.GET.{pipeline.app.name}-dead", body)
            )
            if "message" not in answer:
                return found
            message = answer["message"]
            sequence = message["seq"] + 1
            headers = parse_header_block(base64.b64decode(message.get("hdrs") or ""))
            found.append({**headers, "seq": str(message["seq"])})
