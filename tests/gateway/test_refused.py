"""What is refused: each with its status, and the gateway alive."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from mqinfer.gateway import bodies
from mqinfer.gateway.tenants import new_key
from mqinfer.settings import Settings
from mqinfer.web import server
from tests.support.gateway import JSON, Served, serving

ASK = "/v1/endpoints/grade/requests"
SECRET = "a secret that all gateways share"


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats, max_body=20_000, max_upload=50_000) as found:
        yield found
        assert (await found.http.get("/healthz")).status_code == 200
        assert (await found.http.get("/readyz")).status_code == 200


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:mqinfer:problem:{kind}"
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    return told


async def test_everything_that_is_wrong_with_a_body_is_told_at_once(served: Served) -> None:
    body = {"input": {"name": "", "leaves": 1000, "picture": {"base": ""}}, "other": 1}
    told = problem(await served.http.post(ASK, json=body), 422, "validation")
    assert {one["pointer"] for one in told["errors"]} == {
        "/input/name",
        "/input/leaves",
        "/input/picture/base",
        "/other",
    }
    told = problem(await served.http.post(ASK, json={}), 422, "validation")
    assert told["errors"] == [{"pointer": "/input", "detail": "is missing"}]
    broken = {"input": {"name": "a", "picture": {"base64": "%"}}}
    told = problem(await served.http.post(ASK, json=broken), 422, "validation")
    assert told["errors"][0]["pointer"].startswith("/input")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"input": NaN}', b'{"input": "\\ud800"}', b"[" * 5000, b"nul"],
)
async def test_bodies_that_are_no_json(served: Served, body: bytes) -> None:
    answer = await served.http.post(ASK, content=body, headers=JSON)
    problem(answer, 400, "malformed")


async def test_bodies_of_other_types(served: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        answer = await served.http.post(ASK, content=b"{}", headers={"content-type": kind})
        problem(answer, 415, "content-type")
    form = {"content-type": "multipart/form-data"}
    problem(await served.http.post(ASK, content=b"{}", headers=form), 400, "malformed")


async def test_addresses_and_methods(served: Served) -> None:
    problem(await served.http.get("/nothing"), 404, "unknown")
    problem(await served.http.get("/v1/endpoints/none"), 404, "unknown")
    problem(await served.http.post("/v1/endpoints/none/requests", json={}), 404, "unknown")
    problem(await served.http.get("/docs/..%2f..%2fetc%2fpasswd"), 404, "unknown")
    problem(await served.http.put(ASK), 405, "method")
    for identity in ("x", "grade-" + "0" * 32, "grade-*", "..%2f..", "grade-" + "0" * 31 + ">"):
        for tail in ("", "/result", "/events"):
            problem(await served.http.get(f"/v1/requests/{identity}{tail}"), 404, "unknown")
        problem(await served.http.post(f"/v1/requests/{identity}/cancel"), 404, "unknown")
        problem(await served.http.delete(f"/v1/requests/{identity}"), 404, "unknown")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00e4".encode("latin1"), b"\x7f"])
async def test_idempotency_keys_that_are_none(served: Served, key: Any) -> None:
    answer = await served.http.post(
        ASK, json={"input": {"name": "a"}}, headers={"idempotency-key": key}
    )
    problem(answer, 400, "malformed")


async def test_bodies_that_are_too_large(served: Served) -> None:
    large = {"input": {"name": "a", "hold": "x" * 30_000}}
    problem(await served.http.post(ASK, json=large), 413, "too-large")

    async def unsaid() -> AsyncIterator[bytes]:
        yield b'{"input": "'
        for _ in range(100):
            yield b"x" * 1000

    problem(await served.http.post(ASK, content=unsaid(), headers=JSON), 413, "too-large")
    files = {"picture": ("a.png", b"x" * 60_000)}
    problem(await served.http.post(ASK, files=files), 413, "too-large")
    problem(await served.http.post("/v1/files", files=files), 413, "too-large")
    key = await served.http.post("/v1/endpoints/see/requests", json={"input": {"id": "x" * 2000}})
    told = problem(key, 422, "validation")
    assert told["errors"][0]["pointer"] == "/input/id"


async def test_bodies_that_come_too_slowly(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bodies.chunks, "__kwdefaults__", bodies.chunks.__kwdefaults__ | {"pause": 0.2}
    )

    # By hand: httpx reads no answer before it has sent its body.
    reader, writer = await asyncio.open_connection(
        served.http.base_url.host, served.http.base_url.port
    )
    writer.write(
        f"POST {ASK} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        "content-length: 1000\r\n\r\n{".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_connection_on_which_nothing_is_asked_is_closed(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.serve, "__kwdefaults__", {"head": 0.2})
    async with serving(nats) as served:
        host, port = served.http.base_url.host, served.http.base_url.port
        for sent in (b"", b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: "):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 120) == b""
            writer.close()
        # Nor is a second request waited for that never comes to its end.
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"alive\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        assert await asyncio.wait_for(reader.read(), 120) == b""
        writer.close()


async def test_parts_that_are_malformed(served: Served) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="input"\r\n\r\n'
    for body in (
        b"",
        b"--b",
        b"garbage",
        head + b"{}",  # no end
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nno header at all\r\n\r\nx\r\n--b--\r\n",
        head + b"{}\r\n" + head + b"{}\r\n--b--\r\n",  # twice
        b"--b\r\nX: " + b"y" * 10_000 + b"\r\n\r\nx\r\n--b--\r\n",
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n
            for n in range(100)
        ),
    ):
        problem(await served.http.post(ASK, content=body, headers=kind), 400, "malformed")
    body = head + b"[]\r\n--b--\r\n"
    problem(await served.http.post(ASK, content=body, headers=kind), 422, "validation")
    body = head + b"not json\r\n--b--\r\n"
    problem(await served.http.post(ASK, content=body, headers=kind), 400, "malformed")
    empty = head + b"{}\r\n--b--\r\n"
    problem(await served.http.post("/v1/files", content=empty, headers=kind), 400, "malformed")


@pytest.mark.parametrize(
    "path",
    ["../secret", "uploads/../../secret", "/etc/passwd", "sha256/aa/bb", "uploads", "uploads/",
     "other/a.png", "uploads/none.png", "uploads/./a", "uploads//a", "uploads\\..\\a", "a\x00b"],
)  # fmt: skip
async def test_paths_that_are_not_ones_own(served: Served, path: str) -> None:
    told = problem(await served.ask(name="a", picture=path), 422, "validation")
    assert told["errors"][0]["pointer"].startswith("/input")


async def test_addresses_are_not_fetched_from_unless_that_is_allowed(served: Served) -> None:
    told = problem(
        await served.ask(name="a", picture={"url": "https://example.org/a.png"}), 422, "validation"
    )
    assert told["errors"][0]["pointer"] == "/input/picture/url"


async def test_pages_of_other_origins(served: Served) -> None:
    evil = {"origin": "https://evil.example"}
    assert (await served.http.post(ASK, json={}, headers=evil)).status_code == 403
    rebound = {"host": "evil.example"}
    assert (await served.http.get("/v1/endpoints", headers=rebound)).status_code == 403


async def test_another_tenants_requests_and_files_do_not_exist(
    nats: Settings, tmp_path: Path
) -> None:
    (one, of_one), (two, of_two) = new_key(), new_key()
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[acme]\nkeys = ["{of_one}"]\n[zeta]\nkeys = ["{of_two}"]\n')
    settings = replace(nats, request_secret=SECRET)
    async with serving(settings, key=one, keys=keys) as served:
        http, other = served.http, {"authorization": f"Bearer {two}"}
        for headers in ({}, {"x-api-key": "x"}, {"authorization": f"Basic {one}"}):
            bare = httpx.AsyncClient(base_url=http.base_url, headers=headers, trust_env=False)
            async with bare:
                told = await bare.post(ASK, json={"input": {"name": "a"}})
                problem(told, 401, "key")
                assert told.headers["www-authenticate"] == "Bearer"
                problem(await bare.get("/metrics"), 401, "key")
                assert (await bare.get("/openapi.json")).status_code == 200
        again = {"idempotency-key": "same"}
        mine = (await http.post(ASK, json={"input": {"name": "a"}}, headers=again)).json()
        links = mine["links"]
        plain = links["events"].partition("?")[0]
        for where in (links["self"], links["result"], plain):
            problem(await http.get(where, headers=other), 404, "unknown")
        problem(await http.post(links["cancel"], headers=other), 404, "unknown")
        problem(await http.delete(links["self"], headers=other), 404, "unknown")
        theirs = await http.post(ASK, json={"input": {"name": "b"}}, headers=again | other)
        assert theirs.status_code == 202
        assert theirs.json()["id"] != mine["id"]
        # A file of one is none of the other's.
        upload = await http.post("/v1/files", files={"p": ("a.png", b"picture")})
        assert upload.status_code == 201
        path = upload.json()["files"]["p"]["path"]
        assert path.startswith("tenants/acme/")
        body = {"input": {"name": "a", "picture": path}}
        problem(await http.post(ASK, json=body, headers=other), 422, "validation")
        assert (await http.post(ASK, json=body)).status_code == 202
        # The link to the events opens them without a key, and nothing else.
        async with httpx.AsyncClient(base_url=http.base_url, trust_env=False) as bare:
            async with bare.stream("GET", links["events"]) as stream:
                assert stream.status_code == 200
            token = links["events"].partition("?token=")[2]
            problem(await bare.get(f"{links['self']}?token={token}"), 401, "key")
            theirs_events = theirs.json()["links"]["events"].partition("?")[0]
            problem(await bare.get(f"{theirs_events}?token={token}"), 401, "key")
            problem(await bare.get(f"{plain}?token=1.acme.{'0' * 64}"), 401, "key")


async def test_what_is_sent_as_base64_or_part_or_path_is_one_and_the_same(served: Served) -> None:
    data = b"a picture"
    upload = await served.http.post("/v1/files", files={"p": ("a.png", data)})
    path = upload.json()["files"]["p"]["path"]
    files = {"picture": ("a.png", data)}
    encoded = base64.b64encode(data).decode()
    async with served.harness.worker():
        for asked in (
            served.ask(name="a", wait=30, picture=path),
            served.ask(name="a", wait=30, picture={"base64": encoded}),
            served.http.post(ASK, files=files, data={"name": "a", "leaves": "0"},
                             headers={"prefer": "wait=30"}),
            served.http.post(ASK, files={"f": ("b", data)}, headers={"prefer": "wait=30"},
                             data={"input": '{"name": "a", "picture": {"part": "f"}}'}),
        ):  # fmt: skip
            answer = await asked
            assert answer.status_code == 200, answer.text
            assert [one["data"] for one in answer.json()["answers"]] == [{"name": "a", "bytes": 9}]
    missing = {"input": '{"name": "a", "picture": {"part": "g"}}'}
    answer = await served.http.post(ASK, files={"f": ("b", data)}, data=missing)
    problem(answer, 422, "validation")
