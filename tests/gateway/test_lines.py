"""A long answer of lines: no faster than its client reads, and whole only if it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mqinfer.errors import BlobError
from mqinfer.gateway.jobs import lines as module
from mqinfer.gateway.jobs.lines import Lines

LINE = b"x" * 1023 + b"\n"


class Client:
    """Reads a part of an answer."""

    def __init__(self, most: int):
        self.sent: list[dict[str, Any]] = []
        self.most = most
        self.away = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.away.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if len(self.sent) > self.most:
            await asyncio.Event().wait()
        self.sent.append(message)


async def counted(
    seen: list[int], most: int, error: Exception | None = None
) -> AsyncIterator[bytes]:
    try:
        for number in range(most):
            seen.append(number)
            yield LINE
        if error is not None:
            raise error
    finally:
        seen.append(-1)


async def answer(made: Lines, client: Client) -> bool:
    """Give an answer; whether it is whole."""
    await made({}, client.receive, client.send)
    return not client.sent[-1].get("more_body", True)


async def test_all_of_it() -> None:
    seen, client = list[int](), Client(1000)
    assert await answer(Lines(counted(seen, 1000), 202), client)
    assert client.sent[0]["status"] == 202
    assert b"".join(one.get("body", b"") for one in client.sent) == LINE * 1000
    assert len(client.sent) < 20


async def test_so_many_bytes_and_no_more() -> None:
    for most in (0, 1, 1024, 100_000, 1024 * 1000):
        seen, client = list[int](), Client(1000)
        assert await answer(Lines(counted(seen, 1000), 206, {"etag": '"x"'}, most), client)
        assert b"".join(one.get("body", b"") for one in client.sent) == (LINE * 1000)[:most]
        assert (b"etag", b'"x"') in client.sent[0]["headers"]
        assert len(seen) <= most // 1024 + 3
        assert seen[-1] == -1


async def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEND", 0.05)
    seen, client = list[int](), Client(3)
    assert not await answer(Lines(counted(seen, 100_000), 200), client)
    assert seen[-1] == -1  # closed
    assert len(seen) < 400


async def test_a_client_that_goes_away() -> None:
    seen, client = list[int](), Client(100_000)
    client.away.set()
    assert not await answer(Lines(counted(seen, 100_000), 200), client)
    assert seen[-1] == -1
    assert len(seen) < 400


async def test_what_cannot_be_told_to_its_end_is_broken_off() -> None:
    seen, client = list[int](), Client(1000)
    assert not await answer(Lines(counted(seen, 100, BlobError("away")), 200), client)
    assert seen[-1] == -1
