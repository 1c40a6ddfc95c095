"""All of the study on this machine: servers, workers, and the producer as a process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect

from examples.plants.local import Pipeline, pipeline
from mqinfer.stack.errors import StackError

APP = "examples.mlwatch.app:app"
CORES_A_WORKER = 4  # decoding is in threads, and the models have processes of their own


def running(folder: Path, models: Path, photographs: Path) -> AbstractAsyncContextManager[Pipeline]:
    """Servers and workers, ready.

    Args:
        folder: for data and logs; see `examples.plants.local.clear`.
        models: the model repository.
        photographs: the folder that paths lead into.
    """
    count = max(1, (os.cpu_count() or 1) // CORES_A_WORKER)
    workers: dict[str, list[str]] = {f"worker-{number + 1}": [] for number in range(count)}
    return pipeline(folder, models, APP, workers, variables(photographs))


def variables(photographs: Path) -> dict[str, str]:
    """What every process of the study has in its environment, beside where the servers are."""
    return {"MQINFER_BLOBS": str(photographs)}


def pids(pipeline: Pipeline) -> dict[str, int]:
    """The processes of each part."""
    stack = pipeline.stack
    servers = {"NATS": stack.nats, "models": stack.triton, "ClickHouse": stack.clickhouse}
    found = {name: one.pid for name, one in servers.items() if one is not None}
    found |= {one.name: one.pid for one in pipeline.workers}
    return {name: pid for name, pid in found.items() if pid is not None}


@dataclass(frozen=True)
class Producer:
    """The process that publishes.

    Attributes:
        process: itself.
    """

    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    async def done(self) -> None:
        """Wait until all is published.

        Raises:
            StackError: it was not.
        """
        if code := await self.process.wait():
            raise StackError(f"the producer ended with exit code {code}; see producer.log")


@asynccontextmanager
async def producer(
    environment: Mapping[str, str], log: Path, **options: Any
) -> AsyncIterator[Producer]:
    """`python -m examples.mlwatch.publisher`, ended at the end.

    Args:
        environment: where the servers are.
        log: the file that gets what it prints.
        options: of its command line.
    """
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.mlwatch.publisher", *words),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is the demo's to heed
        )
    try:
        yield Producer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Database:
    """The tables, asked from an event loop.

    Args:
        url: of ClickHouse.
    """

    def __init__(self, url: str):
        # A session takes one question at a time; without one there may be several.
        self._client = clickhouse_connect.get_client(dsn=url, autogenerate_session_id=False)

    async def ask(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of an answer."""
        found = await asyncio.to_thread(self._client.query, sql, parameters=parameters)
        return [tuple(row) for row in found.result_rows]

    async def count(self, condition: str = "1", **parameters: Any) -> int:
        """Rows of the predictions, as the table shows them."""
        sql = f"SELECT count() FROM prediction WHERE {condition}"
        ((found,),) = await self.ask(sql, **parameters)
        return int(found)

    def close(self) -> None:
        """Release the connection."""
        self._client.close()
