"""Jobs by HTTP: a file is sent to a gateway, and a job of it asked for, and waited for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from .client import AWAY, WAIT
from .tenants import POSTS, key_of

_TIMEOUT = aiohttp.ClientTimeout(total=WAIT + 12, sock_connect=3)
_OPEN = ("planning", "running")


class Posting:
    """One who has jobs done.

    Args:
        http: to speak by.
        gateways: their addresses.
        rng: draws gateways and pauses.
    """

    def __init__(self, http: aiohttp.ClientSession, gateways: Sequence[str], rng: random.Random):
        self._http = http
        self._gateways = gateways
        self._rng = rng

    async def submit(self, data: bytes, key: str) -> str:
        """The id of a job of the rows of this CSV.

        Raises:
            AssertionError: a gateway said what it must not say.
        """

        def form() -> dict[str, Any]:
            made = aiohttp.FormData()
            made.add_field("rows", data, filename="rows.csv", content_type="text/csv")
            return {"data": made}

        status, told = await self._call("POST", "/v1/files", form)
        assert status == 201, f"sent a file, and was told {status} {told[:500]}"
        path = json.loads(told)["files"]["rows"]["path"]
        body = {"endpoint": "grade", "file": path, "format": "csv", "chunk": 16}
        headers = {"idempotency-key": key}
        status, told = await self._call("POST", "/v1/jobs", lambda: {"json": body}, headers)
        assert status in (200, 202), f"asked for a job, and was told {status} {told[:500]}"
        return str(json.loads(told)["id"])

    async def ended(self, identity: str) -> None:
        """Wait for the end of a job by long polls.

        Raises:
            AssertionError: a gateway said what it must not say.
        """
        headers = {"prefer": f"wait={WAIT}"}
        while True:
            status, told = await self._call("GET", f"/v1/jobs/{identity}", dict, headers)
            assert status == 200, f"asked how a job stands, and was told {status} {told[:500]}"
            if json.loads(told)["status"] not in _OPEN:
                return

    async def results(self, identity: str) -> list[dict[str, Any]]:
        """The lines of the results of a job that has ended.

        Raises:
            AssertionError: a gateway said what it must not say.
        """
        status, told = await self._call("GET", f"/v1/jobs/{identity}/results", dict)
        assert status == 200, f"asked for the results, and was told {status} {told[:500]}"
        return [json.loads(line) for line in told.splitlines()]

    async def _call(
        self,
        method: str,
        path: str,
        body: Callable[[], Mapping[str, Any]],
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Status and text of an answer, asked for until there is one; a form is of one use."""
        while True:
            url = self._rng.choice(self._gateways) + path
            try:
                async with self._http.request(
                    *(method, url),
                    headers={**key_of(POSTS), **(headers or {})},
                    timeout=_TIMEOUT,
                    **body(),
                ) as answer:
                    text = await answer.text()
                    if answer.status not in AWAY:
                        return answer.status, text
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass  # under its key nothing is done twice
            await asyncio.sleep(self._rng.uniform(0.05, 0.6))
