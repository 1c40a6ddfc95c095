"""A real Prometheus where there is one: on the PATH, or where PROMETHEUS says."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from mqinfer.http import serve_http
from mqinfer.stack.ports import HOST, free_port
from mqinfer.testing import until

PROGRAM = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
WHY_NOT = "there is no prometheus on the PATH, and PROMETHEUS names none"
EVERY = "500ms"  # between two scrapes, and two looks at the rules


class Prometheus:
    """Its API.

    Args:
        http: a client with its address.
    """

    def __init__(self, http: httpx.AsyncClient):
        self._http = http

    async def series(self, query: str) -> list[dict[str, Any]]:
        """What a query gives now: a metric and a value each.

        Raises:
            AssertionError: it refuses the query, with what it says.
        """
        answer = (await self._http.get("/api/v1/query", params={"query": query})).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state, its health and its alerts."""
        answer = (await self._http.get("/api/v1/rules")).json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    async def firing(self) -> set[str]:
        """The alerts that fire: a name, and of whom."""
        alerts = (await self._http.get("/api/v1/alerts")).json()["data"]["alerts"]
        found = [one["labels"] for one in alerts if one["state"] == "firing"]
        whose = ("stage", "group", "index")
        return {
            " ".join([one["alertname"], *(one[by] for by in whose if by in one)]) for one in found
        }


@asynccontextmanager
async def prometheus(
    folder: Path, rules: Mapping[str, Any], *targets: str
) -> AsyncIterator[Prometheus]:
    """Run it.

    Args:
        folder: for its files.
        rules: a file of rules.
        targets: hosts with their ports, of which /metrics is scraped.
    """
    assert PROGRAM is not None
    (folder / "rules.yml").write_text(json.dumps(rules))
    scraped = {"job_name": "mqinfer", "static_configs": [{"targets": targets}]}
    often = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
    wanted = {"global": often, "rule_files": ["rules.yml"], "scrape_configs": [scraped]}
    (folder / "prometheus.yml").write_text(json.dumps(wanted))
    address = f"{HOST}:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            found = Prometheus(http)

            async def scrapes() -> bool:
                assert process.returncode is None, (folder / "prometheus.log").read_text()
                try:
                    up = await found.series("count_over_time(up[1m]) > 1 and up == 1")
                except (httpx.HTTPError, ValueError):  # not yet
                    return False
                return len(up) == len(targets)

            await until(scrapes, "two scrapes of each")
            yield found
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def exposed(metrics: Callable[[], bytes]) -> AsyncIterator[str]:
    """Serve metrics as processes do; gives the host with its port."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_http(0, live=lambda: None, ready=list, metrics=metrics, started=port.set_result)
    )
    try:
        yield f"{HOST}:{await port}"
    finally:
        serving.cancel()
        await asyncio.wait({serving})
