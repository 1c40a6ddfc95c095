"""Heads: what is no request is told so, and nothing that a client sends without an end is held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
import pytest_asyncio

from mqinfer.settings import Settings
from tests.support.gateway import Served, serving

BODY = b'{"input": {"name": "a"}}'
POST = b"POST /v1/endpoints/grade/requests HTTP/1.1\r\nhost: localhost\r\n"
ASKED = POST + b"content-type: application/json\r\n"
WHOLE = ASKED + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = ASKED + b"transfer-encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
_MOST = 4 * 1024 * 1024  # bytes of what has no end


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats) as found:
        yield found
        assert (await found.http.get("/healthz")).status_code == 200


@asynccontextmanager
async def connected(
    served: Served,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    base = served.http.base_url
    reader, writer = await asyncio.open_connection(base.host, base.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def endless(served: Served, begin: bytes, more: Iterable[bytes]) -> tuple[int, bytes]:
    """The answer to what goes on and on; it comes before all of it could be sent."""
    async with connected(served) as (reader, writer), asyncio.TaskGroup() as group:

        async def send() -> int:
            sent = 0
            writer.write(begin)
            for piece in more:
                try:
                    writer.write(piece)
                    await writer.drain()
                except ConnectionError:
                    return sent
                sent += len(piece)
                assert sent < _MOST, "nobody stops it"
                await asyncio.sleep(0)
            return sent

        sending = group.create_task(send())
        try:
            return await answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return 0, b""  # reset, with what was sent behind the answer
        finally:
            await sending


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"x-a: " + b"a" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx-a: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"a" * 1000),
        (CHUNKED + b"1;", b"a" * 1000),
        (CHUNKED + CHUNK + b"0\r\n", b"x-a: " + b"a" * 1000 + b"\r\n"),
        (CHUNKED + CHUNK + b"0\r\nx-a: ", b"a" * 1000),
    ],
    ids=["address", "fields", "value", "name", "chunk", "trailer", "trailer's value"],
)
async def test_what_has_no_end_is_not_held(served: Served, begin: bytes, more: bytes) -> None:
    status, body = await endless(served, begin, repeat(more))
    # What stands behind a body that is whole is not waited for.
    assert status in (0, 202, 400, 408, 431)
    if status == 431:
        assert json.loads(body)["type"] == "urn:mqinfer:problem:malformed"


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        POST.replace(b"host: localhost\r\n", b"") + b"\r\n",
        WHOLE.replace(b"host: localhost", b"host: localhost\r\nhost: other"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/9.9"),
        ASKED + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ASKED + b"content-length: 24\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK + b"0\r\n\r\n",
        ASKED + b"content-length: +24\r\n\r\n" + BODY,
        ASKED + b"transfer-encoding: gzip\r\n\r\n" + BODY,
        CHUNKED + b"zz\r\n" + BODY,
        ASKED + b"x a: b\r\n\r\n",
        ASKED + b"x-a : b\r\n\r\n",
        ASKED + b"x-a: a\x00b\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_told_so(served: Served, raw: bytes) -> None:
    async with connected(served) as (reader, writer):
        writer.write(raw)
        status, body = await answer(reader)
        assert 400 <= status < 500
        assert json.loads(body)["status"] == status
        assert await reader.read() == b""  # and the connection is closed


async def test_requests_behind_each_other_are_answered_in_order(served: Served) -> None:
    async with connected(served) as (reader, writer):
        writer.write(WHOLE + b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" + WHOLE)
        assert (await answer(reader))[0] == 202
        assert await answer(reader) == (200, b"alive\n")
        assert (await answer(reader))[0] == 202


async def test_a_client_that_would_rather_speak_http_2_is_answered(served: Served) -> None:
    """As Java's does, with each request."""
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    raw = WHOLE.replace(b"host: localhost\r\n", b"host: localhost\r\n" + upgrade)
    async with connected(served) as (reader, writer):
        for _ in range(3):
            writer.write(raw)
            assert (await answer(reader))[0] == 202
        for at in range(0, len(raw), 7):  # however it is cut
            writer.write(raw[at : at + 7])
            await writer.drain()
        assert (await answer(reader))[0] == 202
        # What follows at once is read, too; and that it is the last.
        last = raw.replace(b"connection: Upgrade", b"connection: close, Upgrade")
        writer.write(raw + last)
        assert (await answer(reader))[0] == 202
        assert (await answer(reader))[0] == 202
        assert await reader.read() == b""


async def test_a_head_that_comes_byte_by_byte(served: Served) -> None:
    async with connected(served) as (reader, writer):
        for at in range(len(WHOLE)):
            writer.write(WHOLE[at : at + 1])
            await writer.drain()
        assert (await answer(reader))[0] == 202
