"""What boards and rules ask, a real Prometheus answers of real processes; alerts come and go."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mqinfer import App
from mqinfer.operate.alerts import Group, Running, rules
from mqinfer.operate.boards import board
from mqinfer.running import Worker
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.search.support import clustered, holding, messages, seen
from tests.support.gateway import serving
from tests.support.prometheus import PROGRAM, WHY_NOT, Prometheus, exposed, prometheus
from tests.support.search_app import app as searched
from tests.support.traced_app import app
from tests.support.triton import with_affine as settings

__all__ = ["settings"]

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=WHY_NOT)

DEPLOYED = {
    app: Running((Group("all", tuple(app.stages), 1, 3),)),
    searched: Running((), {"pictures": 1}),
}


def at_once(of: App) -> list[dict[str, Any]]:
    """The rules of an app, which nothing has to last for."""
    found: list[dict[str, Any]] = rules(of, None, DEPLOYED[of])["groups"]
    for group in found:
        for rule in group["rules"]:
            rule["for"] = "0s"
    return found


@asynccontextmanager
async def worked_on(settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(app, settings=settings)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        try:
            await until(lambda: not worker.not_ready(), "a worker")
            yield worker
        finally:
            worker.stop()


# What happens seldom has no line before it does; here there are dead letters, and nothing else.
SELDOM = {"Blocked event loops"}


async def shown(asked: Prometheus, of: App, kind: str) -> None:
    """Every line of every panel of metrics of a kind is there, as its legend wants to name it."""
    for panel in board(of, DEPLOYED[of])["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m")
            if kind not in query:
                continue
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))

            async def found(query: str = query) -> list[dict[str, Any]]:
                series = await asked.series(query)
                return [one for one in series if math.isfinite(float(one["value"][1]))]

            if panel["title"] in SELDOM:
                lines = await found()
            else:
                lines = await until(found, f"{panel['title']}: {query}")
            assert all(named == one["metric"].keys() for one in lines), (panel["title"], lines)


async def test_boards_and_alerts(settings: Settings, tmp_path: Path) -> None:
    written = {"groups": [*at_once(app), *at_once(searched)]}
    vectors = clustered(20)
    async with (
        serving(settings, app) as served,
        Harness(searched, settings) as harness,
        holding(harness) as keeping,
        exposed(keeping.metrics) as held,
        AsyncExitStack() as stack,
    ):
        worker = await stack.enter_async_context(worked_on(settings))
        worked = await stack.enter_async_context(exposed(worker.services.metrics.render))
        gateway = served.http.base_url.netloc.decode()
        async with prometheus(tmp_path, written, worked, held, gateway) as asked:

            async def asked_for() -> None:
                answer = await served.ask(name="a", leaves=3, wait=30)
                assert answer.status_code == 200, answer.text
                await seen(harness, len(vectors))

            async def fire(*alerts: str) -> bool:
                return set(alerts) <= await asked.firing()

            async def calm() -> bool:
                # The other app has a sink, and no worker.
                return await asked.firing() == {"MqinferNoWorker"}

            await until(calm, "nothing but that")
            await harness.publish(*messages(vectors))
            await asked_for()
            await served.harness.publish_bytes(f"{app.name}.leaf", b"no JSON")
            letter = partial(fire, "MqinferDeadLetters grade", "MqinferDeadLetters shape")
            await until(letter, "the first dead letter of a stage")
            # Versions of models, and indexes, are known from their first request on: it was seen.
            await asked_for()
            await shown(asked, app, "mqinfer_")
            await shown(asked, searched, "mqinfer_index_")

            await stack.aclose()  # the worker's end
            await until(partial(fire, "MqinferFewProcesses all"), "that nobody is there")
            said = await asked.rules()
            assert len(said) == sum(len(group["rules"]) for group in written["groups"])
            assert {(rule["health"], rule.get("lastError")) for rule in said} == {("ok", None)}
