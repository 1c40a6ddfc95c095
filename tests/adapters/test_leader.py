"""Who answers for a stream: its leader, and not a replica that was cut off and has come back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import nats
import pytest

from mqinfer.adapters import admin, leader
from mqinfer.adapters.jetstream import JetStream
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import Unavailable
from mqinfer.settings import Settings

SECOND = 1_000_000_000
# LEADER and LEADERLESS as servers of a cluster of three told it, beside one another, of a stream of
# 200 messages; the other two as they would, which is rarer.
LEADER = {
    "leader": "n1",
    "replicas": [{"name": "n2", "active": SECOND}, {"name": "n3", "active": 30 * SECOND}],
}
ALONE: dict[str, Any] = {"leader": "n1"}
LEADERLESS = {"replicas": [{"name": name, "active": 0} for name in ("n1", "n2", "n3")]}
FOLLOWER = {
    "leader": "n1",
    "replicas": [{"name": "n1", "active": SECOND}, {"name": "n2", "active": SECOND}],
}
# It has heard of nobody for longer than they take to elect another.
FORMER = {"leader": "n3", "replicas": [{"name": n, "active": 9 * SECOND} for n in ("n1", "n2")]}


@asynccontextmanager
async def told(nats_settings: Settings, *clusters: dict[str, Any]) -> AsyncIterator[JetStream]:
    """One after the other is what is told of a stream `s`, in a domain where no server is."""
    settings = replace(nats_settings, nats_domain="told")
    client = await nats.connect(settings.nats_url)
    left = list(clusters)

    async def answer(message: Any) -> None:
        cluster = left.pop(0) if len(left) > 1 else left[0]
        last = 200 if cluster in (LEADER, ALONE) else 100
        body = {"config": {"name": "s"}, "state": {"last_seq": last}, "cluster": cluster}
        await message.respond(json.dumps(body).encode())

    try:
        await client.subscribe("$JS.told.API.STREAM.INFO.s", cb=answer)
        await client.flush()
        async with JetStream(settings, name="told") as broker:
            yield broker
    finally:
        await client.close()


@pytest.mark.parametrize("others", [(LEADERLESS,), (FOLLOWER,), (FORMER, LEADERLESS, FOLLOWER), ()])
@pytest.mark.parametrize("last", [LEADER, ALONE], ids=["of three", "alone"])
async def test_what_the_leader_says_counts(
    nats: Settings, others: tuple[dict[str, Any], ...], last: dict[str, Any]
) -> None:
    async with told(nats, *others, last) as broker:
        info = await broker.stream_info("s")
        assert info is not None
        assert info["state"]["last_seq"] == 200


@pytest.mark.parametrize("other", [LEADERLESS, FOLLOWER, FORMER])
async def test_what_others_say_does_not(
    nats: Settings, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "PATIENCE", 0.1)
    async with told(nats, other) as broker:
        with pytest.raises(Unavailable, match="stream s has no leader now"):
            await broker.stream_info("s")
        with pytest.raises(Unavailable, match="stream s has no leader now"):
            await admin.subjects(broker.client, "s")


FOLLOWED = {
    "leader": "n1",
    "replicas": [
        {"name": "n2", "active": SECOND, "current": True},
        {"name": "n3", "active": 90 * SECOND, "current": False},
    ],
}
# What the leader says of one that is back and does not know of it yet, and of one that is away.
BACK = {
    "leader": "n1",
    "replicas": [{"name": "n2", "active": SECOND, "current": True}, {"name": "n3", "active": 0}],
}
AWAY = {
    "leader": "n1",
    "replicas": [
        {"name": "n2", "active": SECOND, "current": True},
        {"name": "n3", "active": 9 * SECOND, "current": True},
    ],
}


@asynccontextmanager
async def answered(
    settings: Settings, cluster: dict[str, Any], *found: bool
) -> AsyncIterator[tuple[Scanner, list[bool]]]:
    """One after the other is whether who says that it leads has the message; no replica has it."""
    client = await nats.connect(settings.nats_url)
    left = list(found)

    async def replica(message: Any) -> None:
        header = b"NATS/1.0 404 Message Not Found\r\n\r\n"
        broker.client.write(
            b"HPUB %b %d %d\r\n%b\r\n" % (message.reply.encode(), len(header), len(header), header)
        )

    async def said(message: Any) -> None:
        body: dict[str, Any] = {"error": {"code": 404, "err_code": 10037}}
        if left.pop(0) if len(left) > 1 else left[0]:
            body = {"message": {"subject": "s.a", "seq": 7, "time": "2026-05-01T00:00:00Z"}}
        await message.respond(json.dumps(body).encode())

    try:
        await client.subscribe("$JS.told.API.DIRECT.GET.s", cb=replica)
        await client.subscribe("$JS.told.API.STREAM.MSG.GET.s", cb=said)
        await client.flush()
        async with told(settings, cluster) as broker:
            yield Scanner(broker.client), left
    finally:
        await client.close()


@pytest.mark.parametrize("cluster", [BACK, AWAY], ids=["back", "away"])
async def test_that_there_is_none_counts_from_the_leader_alone(
    nats: Settings, cluster: dict[str, Any]
) -> None:
    async with answered(nats, cluster, False, False, True) as (scanner, _):
        found = [one.sequence async for one in scanner.messages("s", "s.>", last=7)]
        assert found == [7]


@pytest.mark.parametrize("cluster", [FOLLOWED, ALONE], ids=["of three", "alone"])
async def test_it_is_asked_once_where_nobody_else_can_lead(
    nats: Settings, cluster: dict[str, Any]
) -> None:
    async with answered(nats, cluster, False, True) as (scanner, left):
        assert await scanner.message("s", 7) is None
        assert left == [True]


async def test_it_is_not_asked_for_ever(nats: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "RETURNING", 0.1)
    async with answered(nats, BACK, False) as (scanner, _):
        assert await scanner.message("s", 7) is None
