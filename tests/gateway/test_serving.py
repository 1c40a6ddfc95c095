"""How it is served: pages of other origins, TLS, the page to try it, files from addresses."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from mqinfer.errors import ConfigurationError
from mqinfer.gateway.fetch import Fetch, NotFetched
from mqinfer.gateway.gateway import Gateway
from mqinfer.gateway.options import Options
from mqinfer.settings import Settings
from tests.support.gateway import JSON, serving
from tests.support.gateway_app import app
from tests.support.security import Authority

ASK = "/v1/endpoints/grade/requests"
PAGE = "https://page.example"


async def test_pages_that_are_allowed_may_ask(nats: Settings) -> None:
    async with serving(nats, origins=(PAGE,)) as served:
        ask = {"origin": PAGE, "access-control-request-method": "POST"}
        ask["access-control-request-headers"] = "content-type, idempotency-key, prefer"
        before = await served.http.options(ASK, headers=ask)
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == PAGE
        body = {"input": {"name": "a"}}
        headers = {"origin": PAGE, "sec-fetch-site": "cross-site"}
        asked = await served.http.post(ASK, json=body, headers=headers)
        assert asked.status_code == 202
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert "Location" in asked.headers["access-control-expose-headers"]
        for origin in ("https://evil.example", "https://page.example.evil", "null"):
            evil = ask | {"origin": origin}
            assert (await served.http.options(ASK, headers=evil)).status_code in (400, 403)
            refused = await served.http.post(ASK, json=body, headers={"origin": origin})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers


async def test_tls(nats: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    pair = authority.issue("gateway")
    options = Options(port=0, tls_cert=Path(pair.cert), tls_key=Path(pair.key))
    gateway = Gateway(app, options, nats)
    async with asyncio.TaskGroup() as group:
        started = asyncio.Event()
        group.create_task(gateway.run(lambda _: started.set()))
        await started.wait()
        assert gateway.url is not None
        assert gateway.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=authority.file)
        async with httpx.AsyncClient(verify=trusted, trust_env=False) as http:
            assert (await http.get(f"{gateway.url}/healthz")).text == "alive\n"
            with pytest.raises(httpx.TransportError):
                await http.get(f"http{gateway.url.removeprefix('https')}/healthz")
        gateway.stop()
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    gateway = Gateway(app, Options(port=0, tls_cert=wrong, tls_key=wrong), nats)
    with pytest.raises(BaseExceptionGroup) as caught:
        await gateway.run()
    assert caught.group_contains(ConfigurationError, match="certificate")


async def test_the_page_comes_from_here_alone(nats: Settings, tmp_path: Path) -> None:
    async with serving(nats) as served:
        page = await served.http.get("/docs")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "//" not in page.text.replace("<!", "").replace("//www.w3.org", "")
        for name in ("swagger-ui.css", "swagger-ui-bundle.js", "page.js", "openapi-3.0.json"):
            found = await served.http.get(f"/docs/{name}")
            assert found.status_code == 200
            assert len(found.content) > 50
        described = (await served.http.get("/openapi.json")).json()
        assert described["openapi"] == "3.1.0"
        assert ASK in described["paths"]
        browser = shutil.which("chromium")
        if browser is None:
            pytest.skip("no chromium")
        process = await asyncio.create_subprocess_exec(
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/b",
            "--virtual-time-budget=20000", "--dump-dom", f"{served.http.base_url}/docs",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(120):
                drawn, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = drawn.decode()
        assert "Unable to render" not in text
        assert "Ask grade" in text
        assert "How a request stands" in text
        assert "Ask an endpoint for every row of a file" in text


async def test_endpoints_tell_of_themselves(nats: Settings) -> None:
    async with serving(nats) as served:
        found = (await served.http.get("/v1/endpoints")).json()
        assert [one["name"] for one in found["endpoints"]] == ["grade", "see"]
        one = (await served.http.get("/v1/endpoints/grade")).json()
        assert one["input"] == {"$ref": "#/components/schemas/Photo"}
        assert "leaves" in one["components"]["schemas"]["Photo"]["properties"]
        assert set(one["answers"]) == {"grade", "size"}
        assert (one["deadline"], one["keep"]) == (120.0, 3600.0)
        head = await served.http.head("/v1/endpoints")
        assert (head.status_code, head.content) == (200, b"")


@asynccontextmanager
async def files() -> AsyncIterator[str]:
    """A server of files at this machine's loopback address."""

    async def small(_: web.Request) -> web.Response:
        return web.Response(body=b"a picture")

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 1000)

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound("/small")

    application = web.Application()
    application.router.add_get("/small", small)
    application.router.add_get("/endless", endless)
    application.router.add_get("/away", away)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_files_from_addresses(nats: Settings) -> None:
    async with (
        files() as url,
        serving(nats, fetch_from=("localhost",), private=True, max_upload=20_000) as served,
        served.harness.worker(),
    ):
        asked = await served.ask(name="a", wait=30, picture={"url": f"{url}/small"})
        assert [one["data"]["bytes"] for one in asked.json()["answers"]] == [9]
        for wrong in ("/endless", "/away", "/none"):
            refused = await served.ask(name="a", picture={"url": url + wrong})
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == "/input/picture/url"
        other = url.replace("localhost", "127.0.0.1")
        refused = await served.ask(name="a", picture={"url": f"{other}/small"})
        assert "not among the hosts" in refused.text
        both = await served.http.post(
            ASK, json={"input": {"name": 1, "picture": {"url": f"{url}/small"}}}, headers=JSON
        )
        assert both.json()["errors"][0]["pointer"] == "/input/name"


async def test_a_name_that_is_allowed_and_leads_inside() -> None:
    """DNS rebinding: what a name leads to is looked at, and connected to, once."""
    async with files() as url, Fetch.opened(("localhost", "*.localhost"), 1000) as fetch:
        for address in (
            url.replace("http:", "https:"),
            "https://localhost/small",
            "https://a.localhost/small",
        ):
            with pytest.raises(NotFetched) as caught:
                await fetch.get(address)
            assert "127.0.0.1" not in str(caught.value)
