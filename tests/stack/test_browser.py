"""A page of another origin, in a real browser, can neither read nor write anything of the stack."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nats
import pytest

pytest.importorskip("chdb")
from mqinfer.http import serve_http
from mqinfer.stack import Stack, StackConfigurationError, StackSettings
from mqinfer.stack.triton import find_triton
from mqinfer.testing import until
from tests.support.trap import ask

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGE = Path(__file__).parents[1] / "support" / "attack.html"
# Of another site altogether, and of this one but for the port.
ORIGINS = ("evil.example", "127.0.0.1", "localhost")
TIMEOUT = 180.0

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")


class Web:
    """The page's own server, or one that lets everybody in: to see that the page does its worst."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.report: list[str] | None = None
        self.ports: list[int] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"", PAGE.read_text().replace("%PORTS%", json.dumps(web.ports)))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/report":
                    web.report = json.loads(body)
                self._answer(body, "")

            def _answer(self, body: bytes, text: str) -> None:
                web.requests.append((self.command, self.path, body))
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@contextmanager
def served() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        thread.join(120)
        web.server.server_close()


@asynccontextmanager
async def browser(profile: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
        # Newer browsers ask before a page of the internet reaches this machine. Not all are new.
        "--disable-features=LocalNetworkAccessChecks",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all of its helpers
        await process.wait()


def can_run_triton() -> bool:
    with suppress(StackConfigurationError):
        return bool(find_triton())
    return False


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    settings = StackSettings.free_ports(tmp_path / "stack", triton=can_run_triton())
    async with Stack(settings) as stack:
        assert stack.clickhouse is not None
        ask(stack.clickhouse.port, "CREATE TABLE t (a UInt64, b String) ENGINE = Memory")
        ask(stack.clickhouse.port, "INSERT INTO t VALUES (1, 'mine')")
        yield stack


@pytest.fixture
async def metrics() -> AsyncIterator[int]:
    """A worker's `/metrics`."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve_http(
            0,
            live=lambda: None,
            ready=list,
            metrics=lambda: b"secret 1\n",
            started=port.set_result,
        )
    )
    yield await asyncio.wait_for(port, 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def state(stack: Stack) -> dict[str, object]:
    assert stack.clickhouse is not None
    assert stack.nats is not None
    port = stack.clickhouse.port
    tables = "SELECT groupArray((database, name)) FROM system.tables WHERE database = 'default'"
    client = await nats.connect(stack.nats_url)
    try:
        streams = await client.jetstream().streams_info()
    finally:
        await client.close()
    return {
        "tables": await asyncio.to_thread(ask, port, tables),
        "rows": await asyncio.to_thread(ask, port, "SELECT * FROM t"),
        "streams": [stream.config.name for stream in streams],
        "models": await stack.triton.model_states() if stack.triton is not None else [],
    }


async def test_a_page_of_another_origin(stack: Stack, metrics: int, tmp_path: Path) -> None:
    assert stack.clickhouse is not None
    assert stack.nats is not None
    ports = [stack.clickhouse.port, stack.nats.port, metrics]
    if stack.triton is not None:
        ports += [stack.triton.http_port, stack.triton.grpc_port]
    before = await state(stack)
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(message.data)  # type: ignore[attr-defined]

    client = await nats.connect(stack.nats_url)
    try:
        await client.subscribe("evil.>", cb=hear)
        await client.subscribe("evil", cb=hear)
        await client.flush()
        for origin in ORIGINS:
            with served() as page, served() as naive:
                page.ports = [naive.port, *ports]
                async with browser(tmp_path / origin, f"http://{origin}:{page.port}/"):
                    await until(lambda: page.report is not None, "the page's report", TIMEOUT)
            assert page.report is not None
            # The page did its worst: a server that lets everybody in was written to and read.
            assert any(b"evil" in body for _, _, body in naive.requests)
            assert any("DROP" in path for _, path, _ in naive.requests)
            assert [line for line in page.report if f":{naive.port}" in line]
            ours = [line for line in page.report if f":{naive.port}" not in line]
            assert (origin, ours) == (origin, [])
            await client.flush()
            assert (origin, heard) == (origin, [])
            assert (origin, await state(stack)) == (origin, before)
    finally:
        await client.close()


async def test_a_name_that_leads_here(stack: Stack, metrics: int, tmp_path: Path) -> None:
    """DNS rebinding: for the browser, the page and the server are of one origin."""
    assert stack.clickhouse is not None
    for port, path, secret in (
        (stack.clickhouse.port, "/?query=SELECT+b+FROM+t+FORMAT+JSON", "mine"),
        (metrics, "/metrics", "secret"),
    ):
        seen = {}
        for host in ("evil.example", "127.0.0.1"):
            url = f"http://{host}:{port}{path}"
            async with browser(tmp_path / f"{host}-{port}", "--dump-dom", url) as process:
                out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
            seen[host] = out.decode()
        assert secret in seen["127.0.0.1"]
        assert secret not in seen["evil.example"]
        assert "not a name of this machine" in seen["evil.example"]
