"""Malformed bodies, heads, headers, parts and paths: a 4xx each, and the gateway is alive.

`MQINFER_MALFORMED=2000` tries so many of each.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx
import hypothesis
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from mqinfer.settings import Settings
from tests.gateway import malformed
from tests.support.gateway import JSON, Served, serving

ASK = "/v1/endpoints/grade/requests"
VALID = json.dumps({"input": {"name": "a", "leaves": 3, "picture": {"base64": "AAAA"}}}).encode()
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\n{"name": "a"}\r\n'
    b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\nxyz\r\n--b--\r\n"
)
many = settings(max_examples=int(os.environ.get("MQINFER_MALFORMED", "60")))


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats, max_body=100_000, max_upload=100_000) as found:
        yield found
        assert (await found.http.get("/readyz")).status_code == 200
        asked = await found.http.post(ASK, content=VALID, headers=JSON)
        assert asked.status_code == 202


def edited(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes, with pieces taken out, put in, and doubled."""

    def edit(value: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for place, length, piece in edits:
            at = place % (len(value) + 1)
            value = value[:at] + piece + value[at + length :]
        return value

    place = st.tuples(st.integers(0, 10_000), st.integers(0, 20), st.binary(max_size=8))
    return st.builds(edit, st.just(data), st.lists(place, min_size=1, max_size=6))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
BODIES = (
    st.binary(max_size=2000)
    | edited(VALID)
    | VALUES.map(lambda value: json.dumps({"input": value}).encode("utf-8", "surrogatepass"))
    | VALUES.map(lambda value: json.dumps({"input": {"name": value, "picture": value}}).encode())
    | st.integers(1, 3000).map(lambda depth: b'{"input":' + b'{"picture":[' * depth)
    | st.integers(1, 3000).map(lambda n: b'{"input":{"picture":' + b"[" * n + b"]" * n + b"}}")
)
# What h11 lets a client send in a value.
VALUE = st.binary(max_size=200).filter(lambda v: not set(v) & {0, 10, 13} and v.strip() == v)
NAMES = (
    "accept", "authorization", "content-type", "cookie", "expect", "idempotency-key", "if-match",
    "if-none-match", "last-event-id", "origin", "prefer", "range", "transfer-encoding",
    "x-api-key", "x-forwarded-for", "sec-fetch-site", "host", "access-control-request-method",
)  # fmt: skip


def on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result(120)


async def test_bodies(served: Served) -> None:
    loop = asyncio.get_running_loop()

    @many
    @given(BODIES)
    def check(body: bytes) -> None:
        answer = on(loop, served.http.post(ASK, content=body, headers=JSON))
        assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text

    await asyncio.to_thread(check)


async def test_parts(served: Served) -> None:
    loop = asyncio.get_running_loop()

    @many
    @given(edited(FORM), st.sampled_from(["b", "", "B", '"b"', "b; charset=x"]))
    def check(body: bytes, boundary: str) -> None:
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        for where in (ASK, "/v1/files"):
            answer = on(loop, served.http.post(where, content=body, headers=headers))
            accepted = answer.status_code in (201, 202)
            assert accepted or 400 <= answer.status_code < 500, answer.text

    await asyncio.to_thread(check)


async def test_headers(served: Served) -> None:
    loop = asyncio.get_running_loop()
    told = (await served.http.post(ASK, content=VALID, headers=JSON)).json()

    @many
    @given(st.lists(st.tuples(st.sampled_from(NAMES), VALUE), max_size=4))
    def check(headers: list[tuple[str, bytes]]) -> None:
        for method, where in (("POST", ASK), ("GET", told["links"]["self"])):
            content = VALID if method == "POST" else None
            request = served.http.build_request(method, where, content=content, headers=headers)
            try:
                answer = on(loop, served.http.send(request))
            except (httpx.LocalProtocolError, httpx.RemoteProtocolError):
                continue  # not to be sent; or so that the server closed the connection
            assert answer.status_code in (200, 202, 304) or 400 <= answer.status_code < 500
            assert b"Traceback" not in answer.content

    await asyncio.to_thread(check)


async def test_heads(served: Served) -> None:
    loop = asyncio.get_running_loop()
    base = served.http.base_url
    head = f"POST {ASK} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    whole = head.encode() + b"content-length: %d\r\n\r\n" % len(VALID) + VALID

    async def send(raw: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(base.host, base.port)
        try:
            writer.write(raw)
            writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    @many
    @given(edited(whole) | edited(head.encode()) | st.binary(max_size=300))
    def check(raw: bytes) -> None:
        first = on(loop, send(raw)).partition(b"\r\n")[0]
        assert not first or first.split()[1][:1] in (b"2", b"4"), first

    await asyncio.to_thread(check)


async def test_paths(served: Served) -> None:
    loop = asyncio.get_running_loop()
    pieces = st.lists(
        st.sampled_from(["v1", "requests", "endpoints", "grade", "result", "events", "docs", "..",
                         "%2e%2e", "%00", "grade-" + "0" * 32, "*", ">", "$JS", "a.b"])
        | st.text(max_size=20),
        max_size=6,
    )  # fmt: skip

    @many
    @given(pieces, st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"]))
    def check(parts: list[str], method: str) -> None:
        try:
            request = served.http.build_request(method, "/" + "/".join(parts))
        except (httpx.InvalidURL, UnicodeError):
            hypothesis.reject()
        answer = on(loop, served.http.send(request))
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text

    await asyncio.to_thread(check)


async def test_what_no_gateway_may_accept_is_a_4xx(served: Served) -> None:
    """Ten thousand of these: `python -m tests.gateway.malformed`."""
    counts = await malformed.through(served, malformed.made(600, seed=7))
    assert counts.total() == 600
