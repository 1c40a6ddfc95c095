"""Gateways as processes: one is killed while clients wait, and another answers; an orderly stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx_sse

from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.cli import TIMEOUT, command, event

ROOT = Path(__file__).parents[2]
APP = "tests.support.gateway_app:app"
ASK = "/v1/endpoints/grade/requests"


@contextmanager
def process(nats: Settings, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of mqinfer, killed at the end."""
    environ = {"MQINFER_NATS_URL": nats.nats_url, "MQINFER_BLOBS": nats.blobs}
    environ |= {"PYTHONPATH": str(ROOT), "MQINFER_LOG_FORMAT": "json", "MQINFER_GRACE": "10"}
    running = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait(TIMEOUT)
        assert running.stderr is not None
        running.stderr.close()


@asynccontextmanager
async def gateway(
    nats: Settings, *options: str, app: str = APP
) -> AsyncIterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    with process(nats, "gateway", app, "--http", "0", *options) as running:
        url = (await asyncio.to_thread(event, running, "serving HTTP"))["url"]
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as http:

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await until(ready, "a ready gateway")
            yield running, http


async def follow(http: httpx.AsyncClient, where: str, seen: list[Any], last: str = "") -> None:
    headers = {"last-event-id": last} if last else {}
    async with httpx_sse.aconnect_sse(http, "GET", where, headers=headers) as source:
        async for one in source.aiter_sse():
            if one.event != "message":
                seen.append(one)  # noqa: PERF401 - others look at what came so far


async def test_a_gateway_is_killed_while_clients_wait_and_another_answers(
    nats: Settings, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with gateway(nats) as (victim, http), gateway(nats) as (_, other):
        with process(nats, "worker", APP):
            body = {"input": {"name": "a", "leaves": 3, "hold": str(hold)}}
            key = {"idempotency-key": "one"}
            told = (await http.post(ASK, json=body, headers=key)).json()
            links, seen = told["links"], list[Any]()
            waiting = [
                asyncio.create_task(follow(http, links["events"], seen)),
                asyncio.create_task(http.get(links["self"], headers={"prefer": "wait=60"})),
                asyncio.create_task(http.get(links["result"], headers={"prefer": "wait=60"})),
                asyncio.create_task(
                    http.post(ASK, json=body, headers={**key, "prefer": "wait=60"})
                ),
            ]
            await until(lambda: any(one.event == "answer" for one in seen), "the first answer")

            async def all_wait() -> bool:
                return b'waiting{app="asked"} 3.0' in (await http.get("/metrics")).content

            await until(all_wait, "those who wait")
            victim.send_signal(signal.SIGKILL)
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, httpx.TransportError) for one in ended), ended

            # What they do then, each gets its answer from the other one.
            rest = list[Any]()
            going_on = asyncio.create_task(follow(other, links["events"], rest, seen[-1].id))
            poll = asyncio.create_task(other.get(links["self"], headers={"prefer": "wait=60"}))
            again = asyncio.create_task(
                other.post(ASK, json=body, headers={**key, "prefer": "wait=60"})
            )
            hold.unlink()
            assert (await poll).json()["status"] == "succeeded"
            answer = await again
            assert answer.headers["idempotent-replayed"] == "true"
            assert answer.json()["id"] == told["id"]
            assert len(answer.json()["answers"]) == 3
            await going_on
            answers = [one.json()["id"] for one in (*seen, *rest) if one.event == "answer"]
            assert len(answers) == len(set(answers)) == 3
            assert rest[-1].event == "end"


async def test_a_worker_is_killed_meanwhile_and_nobody_notices(
    nats: Settings, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with gateway(nats) as (_, http):
        seen = list[Any]()
        with process(nats, "worker", APP) as worker:
            body = {"input": {"name": "a", "leaves": 3, "hold": str(hold)}}
            links = (await http.post(ASK, json=body)).json()["links"]
            following = asyncio.create_task(follow(http, links["events"], seen))
            result = asyncio.create_task(http.get(links["result"], headers={"prefer": "wait=60"}))
            await until(lambda: any(one.event == "answer" for one in seen), "the first answer")
            worker.send_signal(signal.SIGKILL)
        hold.unlink()
        with process(nats, "worker", APP):
            while (found := await result).status_code == 202:  # `ack_wait`, on a busy machine
                result = asyncio.create_task(
                    http.get(links["result"], headers={"prefer": "wait=60"})
                )
            await following
        assert len(found.json()["answers"]) == 3
        answers = [one.json()["id"] for one in seen if one.event == "answer"]
        assert len(answers) == len(set(answers)) == 3


async def test_an_orderly_stop_answers_all_that_is_under_way(
    nats: Settings, tmp_path: Path
) -> None:
    """No worker runs: nothing ends meanwhile."""
    hold = tmp_path / "hold"
    async with gateway(nats) as (running, http):
        body = {"input": {"name": "a", "leaves": 2, "hold": str(hold)}}
        links = (await http.post(ASK, json=body)).json()["links"]
        seen = list[Any]()
        waiting = [
            asyncio.create_task(http.get(links["self"], headers={"prefer": "wait=60"})),
            asyncio.create_task(http.post(ASK, json=body, headers={"prefer": "wait=60"})),
        ]
        following = asyncio.create_task(follow(http, links["events"], seen))

        async def all_wait() -> bool:
            return b'waiting{app="asked"} 2.0' in (await http.get("/metrics")).content

        await until(all_wait, "those who wait")

        async def streams() -> bool:
            return b'streams{app="asked"} 1.0' in (await http.get("/metrics")).content

        await until(streams, "the stream")
        running.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*waiting)
        assert [one.status_code for one in answers] == [200, 202]
        await following
        assert seen[-1].event == "reconnect"
        assert await asyncio.to_thread(running.wait, TIMEOUT) == 0
