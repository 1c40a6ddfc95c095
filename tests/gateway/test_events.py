"""Events: progress and answers as they come, gone on with where they broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx_sse
import pytest
import pytest_asyncio

from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.gateway import Served, serving


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats) as found, found.harness.worker():
        yield found


async def follow(
    served: Served, where: str, headers: dict[str, str] | None = None
) -> AsyncIterator[httpx_sse.ServerSentEvent]:
    async with httpx_sse.aconnect_sse(served.http, "GET", where, headers=headers or {}) as source:
        assert source.response.headers["cache-control"] == "no-store"
        assert source.response.headers["x-accel-buffering"] == "no"
        async for event in source.aiter_sse():
            if event.event != "message":  # `retry:` alone
                yield event


async def all_of(events: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in events]


async def test_answers_come_as_they_are_made_and_then_the_end(
    served: Served, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    told = (await served.ask(name="a", leaves=3, hold=str(hold))).json()
    seen = []
    async for event in follow(served, told["links"]["events"]):
        seen.append(event)
        if event.event == "answer":
            hold.unlink(missing_ok=True)  # the first one comes while the others are held
    answers = [one.json()["data"]["number"] for one in seen if one.event == "answer"]
    assert answers[0] == 0
    assert sorted(answers) == [0, 1, 2]
    end = seen[-1]
    assert (end.event, end.json()["status"]) == ("end", "succeeded")
    assert end.id.endswith(".end")
    numbers = [int(one.id.partition("+")[0]) for one in seen[:-1]]
    assert numbers == sorted(numbers)


async def test_going_on_behind_the_last_event(served: Served) -> None:
    told = (await served.ask(name="a", leaves=4, wait=30)).json()
    where = told["links"]["events"]
    whole = await all_of(follow(served, where))
    assert len({one.id for one in whole}) == len(whole) >= 5
    for place, event in enumerate(whole[:-1]):
        rest = await all_of(follow(served, where, {"last-event-id": event.id}))
        ids = [one.id for one in whole[place + 1 :]]
        assert [one.id for one in rest] == ids
        again = await all_of(follow(served, f"{where}?after={quote(event.id)}"))
        assert [one.id for one in again] == ids
    # Who has heard the end is told not to come again: a browser would for ever.
    done = await served.http.get(where, headers={"last-event-id": whole[-1].id})
    assert done.status_code == 204


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "9" * 30, "1.end2", "1+", "\u0661"])
async def test_an_id_that_was_never_given_is_refused(served: Served, bad: str) -> None:
    told = (await served.ask(name="a")).json()
    headers = {"last-event-id": bad.encode()}
    found = await served.http.get(told["links"]["events"], headers=headers)
    assert found.status_code == 400


async def test_an_orderly_stop_tells_open_streams_to_come_again(
    served: Served, nats: Settings, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with serving(nats) as other:
        told = (await served.ask(name="a", leaves=3, hold=str(hold))).json()
        where = told["links"]["events"]
        stream = follow(other, where)
        seen = [await anext(stream)]
        poll = asyncio.create_task(
            other.http.get(told["links"]["self"], headers={"prefer": "wait=60"})
        )
        waiting = other.gateway
        await until(lambda: b'gateway_waiting{app="asked"} 1.0' in metrics(waiting), "the poll")
        other.gateway.stop()
        seen += [one async for one in stream]
        assert seen[-1].event == "reconnect"
        assert seen[-1].retry is not None
        # Nor is somebody who polls kept waiting, or cut off.
        assert (await poll).json()["status"] in ("queued", "running")
    last = next(one.id for one in reversed(seen) if one.event != "reconnect")
    hold.unlink()
    rest = [one async for one in follow(served, where, {"last-event-id": last})]
    answers = [one.json()["id"] for one in (*seen, *rest) if one.event == "answer"]
    assert len(answers) == len(set(answers)) == 3
    assert rest[-1].event == "end"


def metrics(gateway: Any) -> bytes:
    found: bytes = gateway.counting.render()
    return found


async def test_a_client_that_goes_away_leaves_nothing_behind(
    served: Served, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    told = (await served.ask(name="a", leaves=2, hold=str(hold))).json()
    stream = follow(served, told["links"]["events"])
    await anext(stream)
    counting = served.gateway.counting
    assert counting.streams == 1
    await stream.aclose()
    await until(lambda: counting.streams == 0, "the end of the stream")
    hold.unlink()
