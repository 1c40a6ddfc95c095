import asyncio
import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mqinfer.errors import ConfigurationError
from mqinfer.http import serve_http
from mqinfer.observe import Metrics


async def ask(port, path, *, accept="*/*", method="GET"):
    """Status, headers and body, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Accept: {accept}", "Connection: close"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    raw = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await writer.wait_closed()
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in headers)
    return int(status.split()[1]), fields, body.decode()


@pytest.fixture
async def server():
    """A running server whose state a test may change."""
    state = SimpleNamespace(live=None, ready=[], metrics=lambda: b"x 1\n", task=None)
    port = asyncio.get_running_loop().create_future()
    state.task = asyncio.create_task(
        serve_http(
            0,
            live=lambda: state.live,
            ready=lambda: state.ready,
            metrics=lambda: state.metrics(),
            started=port.set_result,
        )
    )
    state.port = await asyncio.wait_for(port, 60)
    yield state
    state.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await state.task


async def test_health(server):
    assert (await ask(server.port, "/healthz"))[::2] == (200, "alive\n")
    server.live = "the event loop is stuck"
    assert (await ask(server.port, "/healthz"))[::2] == (503, "the event loop is stuck\n")
    assert (await ask(server.port, "/readyz"))[::2] == (503, "the event loop is stuck\n")


async def test_readiness_says_why_not(server):
    assert (await ask(server.port, "/readyz"))[::2] == (200, "ready\n")
    server.ready = ["triton is not available for 3 s", "clickhouse is not available"]
    status, _, body = await ask(server.port, "/readyz")
    assert status == 503
    assert body == "triton is not available for 3 s\nclickhouse is not available\n"
    assert (await ask(server.port, "/healthz"))[0] == 200


async def test_readiness_as_json(server):
    status, headers, body = await ask(server.port, "/readyz", accept="application/json")
    assert headers["content-type"] == "application/json"
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    server.ready = ["no"]
    status, _, body = await ask(server.port, "/readyz", accept="application/json")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no"]})


async def test_metrics_are_what_prometheus_reads(server):
    metrics = Metrics("plants")
    metrics.stage("crop").done(0.1)
    server.metrics = metrics.render
    status, headers, body = await ask(server.port, "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'mqinfer_messages_total{app="plants",outcome="done",stage="crop"} 1.0' in body


async def test_other_paths_and_methods(server):
    assert (await ask(server.port, "/"))[0] == 404
    assert (await ask(server.port, "/healthz", method="POST"))[0] == 405
    status, _, body = await ask(server.port, "/healthz", method="HEAD")
    assert (status, body) == (200, "")


async def test_a_probe_that_fails_is_answered_and_the_server_goes_on(server):
    def broken():
        raise RuntimeError("no metrics today")

    server.metrics = broken
    status, _, body = await ask(server.port, "/metrics")
    assert (status, body) == (500, "RuntimeError: no metrics today\n")
    assert (await ask(server.port, "/healthz"))[0] == 200


async def test_many_at_once(server):
    answers = await asyncio.gather(*(ask(server.port, "/healthz") for _ in range(40)))
    assert {status for status, *_ in answers} == {200}


async def test_a_taken_port_is_a_configuration_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=f"cannot serve HTTP on 127.0.0.1:{port}: Addr"
        ):
            await serve_http(port, live=lambda: None, ready=list, metrics=bytes)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:99999: ports are numbers"):
        await serve_http(99999, live=lambda: None, ready=list, metrics=bytes)
    with pytest.raises(ConfigurationError, match=r"cannot serve HTTP on 192\.0\.2\.1"):
        await serve_http(0, host="192.0.2.1", live=lambda: None, ready=list, metrics=bytes)


async def test_cancelling_closes_the_port_also_with_a_client_that_stays():
    port = asyncio.get_running_loop().create_future()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            serve_http(0, live=lambda: None, ready=list, metrics=bytes, started=port.set_result)
        )
        number = await port
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        task.cancel()
    assert task.cancelled()
    assert await asyncio.wait_for(reader.read(), 60) is not None  # closed, not left hanging
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)


def test_the_web_server_is_loaded_when_it_serves():
    code = (
        "import mqinfer.http, sys;sys.exit('uvicorn' in sys.modules or 'starlette' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


async def test_pages_of_other_origins_are_turned_away(server):
    for header in ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"):
        status, fields, body = await ask(server.port, "/metrics", accept=f"*/*\r\n{header}")
        assert (status, "origin" in body) == (403, True)
        assert "access-control-allow-origin" not in fields
