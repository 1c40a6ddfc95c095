"""Accepting, without a server: what is kept is told, and what is not known yet is looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mqinfer.backoff import Backoff
from mqinfer.errors import Unavailable
from mqinfer.requests import requests as module
from mqinfer.requests.requests import Accepted, Requests
from tests.support.bucket import Memory
from tests.support.requests_app import app

BODY = b'{"n": 1}'


class Broker:
    """Stores what is published."""

    max_payload = 1024 * 1024

    def __init__(self, bucket: Memory):
        self._bucket = bucket
        self.published = 0

    def bucket(self, _name: str, **_settings: Any) -> Memory:
        return self._bucket

    def publish(self, *message: Any, timeout: float | None = None) -> None:
        del timeout
        self.published += 1
        message[3](None, False)


class Core:
    """Nobody says anything."""

    @asynccontextmanager
    async def listen(self, *_subject_and_heard: Any) -> AsyncIterator[None]:
        yield


class Pending(Memory):
    """Of a cluster: a copy of each write is on its way, and the next ones are refused till then."""

    def __init__(self, refused: int):
        super().__init__()
        self.refused = refused

    async def save(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        self.refused -= 1
        return 0 if self.refused >= 0 else await super().save(key, value, revision, ttl=ttl)


class Lost(Memory):
    """It takes what is written, and then there is an outage."""

    async def load(self, key: str) -> tuple[bytes, int] | None:
        raise Unavailable(f"{key}: no answer")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", Backoff(initial=0.001))


async def accept(bucket: Memory, **options: Any) -> tuple[Accepted, Broker]:
    broker = Broker(bucket)
    requests = Requests(app, broker=broker, core=Core(), streams=None)  # type: ignore[arg-type]
    found = await requests.accept("grade", "asked.photo", BODY, "application/json", **options)
    return found, broker


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_a_cluster_does_not_show_yet_is_tried_again(key: str | None) -> None:
    bucket = Pending(3)
    found, broker = await accept(bucket, key=key)
    assert found.state.open
    assert not found.replayed
    assert (len(bucket.values), broker.published) == (1, 1)


async def test_what_it_never_takes_is_no_conflict() -> None:
    """A client that heard of a conflict would not ask again."""
    with pytest.raises(Unavailable):
        await accept(Pending(99), key="k")


async def test_an_outage_behind_the_acceptance_hides_no_request() -> None:
    found, broker = await accept(Lost(), wait=0.01)
    assert found.state.open
    assert broker.published == 1
