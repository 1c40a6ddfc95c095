"""`Expect: 100-continue` (RFC 9110, 10.1.1): who asks before it sends a body is told before."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from mqinfer.gateway.tenants import new_key
from mqinfer.settings import Settings
from tests.support.gateway import Served, serving

ASK = "/v1/endpoints/grade/requests"
BODY = json.dumps({"input": {"name": "a", "leaves": 1}}).encode()


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats, max_body=20_000, max_upload=50_000_000) as found:
        yield found


class Client:
    """A connection on which a client says what it would send, and waits."""

    def __init__(self, url: httpx.URL):
        self._url = url

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(self._url.host, self._url.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def head(self, path: str, length: int, *more: str, method: str = "POST") -> None:
        lines = (
            f"{method} {path} HTTP/1.1", "host: localhost", "expect: 100-continue",
            "content-type: application/json", f"content-length: {length}", *more, "", "",
        )  # fmt: skip
        self.writer.write("\r\n".join(lines).encode())
        await self.writer.drain()

    async def status(self) -> int:
        """That of the next answer, whose head and body are read."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            said = dict(line.partition(": ")[::2] for line in head.split("\r\n"))
            await self.reader.readexactly(int(said.get("content-length", "0")))
            return int(head.split()[1])


async def test_a_body_is_sent_once_it_is_wanted(served: Served) -> None:
    async with Client(served.http.base_url) as client:
        for _ in range(3):  # on one connection
            await client.head(ASK, len(BODY))
            assert await client.status() == 100
            client.writer.write(BODY)
            assert await client.status() == 202


async def test_a_client_that_does_not_wait(served: Served) -> None:
    """curl sends its body after a second, whatever it was told, or not."""
    async with Client(served.http.base_url) as client:
        for _ in range(3):
            await client.head(ASK, len(BODY))
            client.writer.write(BODY)
            status = await client.status()
            assert (await client.status() if status == 100 else status) == 202


async def test_a_body_that_is_refused_is_not_asked_for(nats: Settings, tmp_path: Path) -> None:
    key, told = new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[acme]\nkeys = ["{told}"]\n')
    settings = replace(nats, request_secret="a secret that all gateways share")
    bearer = f"authorization: Bearer {key}"
    async with serving(settings, key=key, keys=keys, max_body=20_000, max_backlog=1) as served:
        url = served.http.base_url
        for status, path, length, more in (
            (401, ASK, 10, ()),
            (401, "/v1/files", 10, ()),
            (401, "/v1/jobs", 10, ()),
            (413, ASK, 30_000, (bearer,)),
            (413, "/v1/jobs", 30_000, (bearer,)),
            (404, "/v1/endpoints/none/requests", 10, (bearer,)),
            (404, "/v1/nothing", 10, (bearer,)),
            (405, "/v1/requests/x", 10, (bearer,)),
            (415, "/v1/files", 10, (bearer,)),
            (403, ASK, 10, (bearer, "origin: https://evil.example")),
        ):
            async with Client(url) as client:
                await client.head(path, length, *more)
                assert await client.status() == status, path
                # What the client then does with this connection nobody can tell: it is closed.
                async with asyncio.timeout(120):
                    assert await client.reader.read() == b"", path
        assert (await served.ask(name="a")).status_code == 202

        async def full() -> int:
            async with Client(url) as client:
                await client.head(ASK, 10, bearer)
                return await client.status()

        async with asyncio.timeout(60):
            while (status := await full()) != 429:  # what the backlog is, is looked at now and then
                assert status == 100


async def test_what_reads_no_body_answers_at_once(served: Served) -> None:
    async with Client(served.http.base_url) as client:
        await client.head("/v1/requests/x/cancel", 10)
        assert await client.status() == 404
    async with Client(served.http.base_url) as client:
        await client.head("/healthz", 10, method="GET")
        assert await client.status() == 200
        async with asyncio.timeout(120):
            assert await client.reader.read() == b""


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
async def test_curl(served: Served, tmp_path: Path) -> None:
    """It asks by itself where the body has more than a megabyte."""
    file = tmp_path / "rows.csv"
    file.write_bytes(b"name\n" + b"a\n" * 4_000_000)

    async def curl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--noproxy", "*", "-m", "60", "-w", "\n%{http_code} %{time_total}"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        return said.decode()

    url = str(served.http.base_url).rstrip("/")
    said = await curl("-F", f"rows=@{file}", f"{url}/v1/files")
    assert '"size":8000005' in said
    assert said.splitlines()[-1].startswith("201 ")
    json_type = "content-type: application/json"
    said = await curl("--data-binary", f"@{file}", "-H", json_type, f"{url}{ASK}")
    assert said.splitlines()[-1].startswith("413 ")
