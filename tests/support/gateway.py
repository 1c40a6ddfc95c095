"""A gateway in this process, on a free port, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from mqinfer.app import App
from mqinfer.gateway.gateway import Gateway
from mqinfer.gateway.options import Options
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.gateway_app import app

JSON = {"content-type": "application/json"}


@dataclass
class Served:
    """A gateway at work."""

    gateway: Gateway
    http: httpx.AsyncClient
    harness: Harness

    async def ask(self, endpoint: str = "grade", wait: int = 0, **fields: Any) -> httpx.Response:
        headers = {"prefer": f"wait={wait}"} if wait else {}
        where = f"/v1/endpoints/{endpoint}/requests"
        return await self.http.post(where, json={"input": fields}, headers=headers)

    async def ended(self, identity: str) -> dict[str, Any]:
        """The result, once there is one."""

        async def look() -> dict[str, Any] | None:
            found = await self.http.get(f"/v1/requests/{identity}/result")
            return found.json() if found.status_code == 200 else None

        return await until(look, "the end of a request")


@asynccontextmanager
async def serving(
    settings: Settings,
    served: App = app,
    *,
    key: str = "",
    beside: Settings | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve an app; requests of the client carry the key, and the harness has `beside`."""
    gateway = Gateway(served, Options(port=0, grace=5.0, **options), settings)
    async with Harness(served, beside or settings) as harness, asyncio.TaskGroup() as group:
        running = group.create_task(gateway.run())
        try:
            await until(lambda: gateway.url or running.done(), "a gateway")
            assert gateway.url is not None
            headers = {"authorization": f"Bearer {key}"} if key else {}
            # Without `verify` a client reads all authorities there are: 20 ms of a processor.
            async with httpx.AsyncClient(
                base_url=gateway.url, headers=headers, timeout=60, trust_env=False, verify=False
            ) as http:

                async def ready() -> bool:
                    return (await http.get("/readyz")).status_code == 200

                await until(ready, "a ready gateway")
                yield Served(gateway, http, harness)
        finally:
            gateway.stop()
