"""Webhooks: signed, told again until they are taken, never into a private network."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from aiohttp import web

from mqinfer import App, Message, Reject
from mqinfer.backoff import Backoff
from mqinfer.gateway.addresses import refusal
from mqinfer.gateway.webhooks import webhooks
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.gateway import Served, serving

SECRET = "a secret of gateways and workers"


class Word(Message):
    text: str
    times: int = 1


class Length(Message):
    text: str


def make(**options: Any) -> App:
    app = App("told")

    @app.stage(attempts=1)
    async def measure(word: Word) -> Length:
        if word.text == "bad":
            raise Reject("no word")
        return Length(word.text * word.times)

    app.endpoint("measure", Word, answers=Length)
    webhooks(app, backoff=Backoff(initial=0.05, maximum=0.05), **options)
    return app


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[tuple[str, list[Any]]]:
    """Answers with these statuses, then with 204; gives its address and what it was told."""
    told: list[Any] = []
    answers = list(statuses)

    async def take(request: web.Request) -> web.Response:
        told.append((dict(request.headers), await request.read()))
        status = answers.pop(0) if answers else 204
        return web.Response(status=status, headers={"location": "http://127.0.0.1:1/"})

    application = web.Application(client_max_size=10**8)
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/hook", told
    finally:
        await runner.cleanup()


@asynccontextmanager
async def told(nats: Settings, monkeypatch: pytest.MonkeyPatch, app: App) -> AsyncIterator[Served]:
    monkeypatch.setenv("MQINFER_REQUEST_SECRET", SECRET)
    settings = dataclasses.replace(nats, request_secret=SECRET)
    async with serving(settings, app, private=True) as served, served.harness.worker():
        yield served


async def ask(served: Served, url: str, **fields: Any) -> dict[str, Any]:
    body = {"input": fields, "webhook": {"url": url}}
    answer = await served.http.post("/v1/endpoints/measure/requests", json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_end_is_told_signed_and_again_until_it_is_taken(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        receiver(500, 302) as (url, got),
        told(nats, monkeypatch, make(private=True)) as served,
    ):
        asked = await ask(served, url, text="abc")
        await until(lambda: len(got) == 3, "the third attempt")
        secret = (await served.http.get("/v1/webhook-secret")).json()["secret"]
        for headers, body in got:
            found = standardwebhooks.Webhook(secret).verify(body, headers)
            assert headers["webhook-id"] == asked["id"]
            assert found["type"] == "request.ended"
            assert found["data"]["id"] == asked["id"]
            assert found["data"]["status"] == "succeeded"
            assert [one["data"] for one in found["data"]["answers"]] == [{"text": "abc"}]
        assert await served.harness.dead() == []


async def test_every_end_is_told_also_large_answers_and_failures(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as (url, got), told(nats, monkeypatch, make(private=True)) as served:
        large = await ask(served, url, text="abcdefghij", times=20_000)
        bad = await ask(served, url, text="bad")
        await until(lambda: len(got) == 2, "both")
        found = {data["id"]: data for data in (json.loads(body)["data"] for _, body in got)}
        assert len(found[large["id"]]["answers"][0]["data"]["text"]) == 200_000
        assert found[bad["id"]]["status"] == "failed"
        assert found[bad["id"]]["errors"] == [{"kind": "rejected", "reason": "no word"}]


async def test_an_address_that_is_gone_has_a_dead_letter(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(410) as (url, got), told(nats, monkeypatch, make(private=True)) as served:
        asked = await ask(served, url, text="a")
        await until(served.harness.dead, "the dead letter")
        assert len(got) == 1
        assert (await served.ended(asked["id"]))["status"] == "succeeded"


async def test_private_networks_are_told_nothing(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway lets private addresses pass here, so that the stage itself has to refuse."""
    async with receiver() as (url, got), told(nats, monkeypatch, make()) as served:
        port = url.rpartition(":")[2]
        for address in (url, f"https://127.0.0.1:{port}", f"https://localhost:{port}"):
            await ask(served, address, text="a")

        async def dead() -> bool:
            return len(await served.harness.dead()) == 3

        await until(dead, "the dead letters")
        assert got == []


async def test_addresses_are_refused_at_the_gateway(nats: Settings) -> None:
    settings = dataclasses.replace(nats, request_secret=SECRET)
    async with serving(settings, make()) as served:
        for url in ("http://example.org/", "https://10.0.0.1/", "ftp://a", "", "https://a@b/"):
            body = {"input": {"text": "a"}, "webhook": {"url": url}}
            answer = await served.http.post("/v1/endpoints/measure/requests", json=body)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == "/webhook/url"
    async with serving(settings) as served:  # of an app that tells none
        body = {"input": {"name": "a"}, "webhook": {"url": "https://example.org/"}}
        answer = await served.http.post("/v1/endpoints/grade/requests", json=body)
        assert answer.status_code == 422
        assert (await served.http.get("/v1/webhook-secret")).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0/", "https://[::1]/",
        "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest", "https://127.0.0.1./",
        "https://\uff11\uff12\uff17.0.0.1/", "https://%31%32%37.0.0.1/", "https://a\\@127.0.0.1/",
        "https://example.org@127.0.0.1/", "https://exam ple.org/", "https://example.org:0/",
        "https://example.org:x/", "https:///path", "//example.org/", "javascript:alert(1)",
        "file:///etc/passwd", "https://[fe80::1%25eth0]/", "https://\u2460.com/", "http://example.org/",
        "https://example.org/" + "x" * 2000,
    ],
)  # fmt: skip
def test_addresses_that_lead_inside(url: str) -> None:
    assert refusal(url, private=False) is not None


@pytest.mark.parametrize(
    "url", ["https://example.org", "https://8.8.8.8/a?b=c", "https://a-b.c:8443/x"]
)
def test_addresses_that_may_be_told(url: str) -> None:
    assert refusal(url, private=False) is None


async def test_a_worker_without_the_secret_does_not_start(
    nats: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MQINFER_REQUEST_SECRET", raising=False)
    from mqinfer.running import Worker

    async with asyncio.timeout(60):
        with pytest.raises(Exception) as caught:
            await Worker(make(), stages=["webhooks"], settings=nats).run()
    assert "MQINFER_REQUEST_SECRET" in repr(caught.value)
