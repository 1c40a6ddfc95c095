"""Asking by HTTP: an id at once, then status, answers and errors by it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mqinfer import bucket
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.errors import Unavailable
from mqinfer.requests.requests import Requests
from mqinfer.settings import Settings
from mqinfer.testing import until
from tests.support.gateway import Served, serving


@pytest_asyncio.fixture
async def served(nats: Settings) -> AsyncIterator[Served]:
    async with serving(nats) as found, found.harness.worker():
        yield found


async def test_an_id_at_once_then_status_and_answers(served: Served) -> None:
    asked = await served.ask(name="a", leaves=3)
    assert asked.status_code == 202
    told = asked.json()
    assert asked.headers["location"] == told["links"]["self"] == f"/v1/requests/{told['id']}"
    assert asked.headers["retry-after"] == "1"
    assert told["status"] == "queued"
    result = await served.ended(told["id"])
    assert result["status"] == "succeeded"
    assert [one["data"]["number"] for one in result["answers"]] == [0, 1, 2]
    assert {one["type"] for one in result["answers"]} == {"grade"}
    assert result["errors"] == []
    shown = (await served.http.get(told["links"]["self"])).json()
    assert shown["status"] == "succeeded"
    assert "answers" not in shown


async def test_waiting_for_the_answer(served: Served) -> None:
    asked = await served.ask(name="a", leaves=2, wait=30)
    assert asked.status_code == 200
    assert asked.headers["preference-applied"] == "wait=30"
    told = asked.json()
    assert told["status"] == "succeeded"
    assert len(told["answers"]) == 2
    keyed = await served.ask("see", wait=30, id="a b/c.*>")
    assert [one["data"] for one in keyed.json()["answers"]] == [{"id": "a b/c.*>"}]


async def test_errors_are_told_as_far_as_they_may_leave(served: Served) -> None:
    bad = (await served.ask(name="bad", wait=30)).json()
    assert bad["status"] == "failed"
    assert [(one["kind"], one["reason"]) for one in bad["errors"]] == [
        ("rejected", "no photograph of a plant")
    ]
    broken = await served.ask(name="broken", wait=30)
    assert [one["kind"] for one in broken.json()["errors"]] == ["internal"]
    assert "secret" not in broken.text
    partly = (await served.ask(name="partly", leaves=3, wait=30)).json()
    assert partly["status"] == "partial"
    assert [one["data"]["number"] for one in partly["answers"]] == [0, 2]
    assert [one["reason"] for one in partly["errors"]] == ["no leaf"]


async def test_what_came_so_far(served: Served, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    told = (await served.ask(name="a", leaves=3, hold=str(hold))).json()
    where = told["links"]["result"]

    async def first() -> bool:
        found = await served.http.get(where)
        assert found.status_code == 202
        return len(found.json()["answers"]) == 1

    await until(first, "the first answer")
    shown = (await served.http.get(told["links"]["self"])).json()
    assert shown["status"] == "running"
    assert shown["progress"]["open"] >= 2
    hold.unlink()
    assert len((await served.ended(told["id"]))["answers"]) == 3


async def test_a_long_poll_ends_with_the_request(served: Served, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    told = (await served.ask(name="a", leaves=2, hold=str(hold))).json()
    where = told["links"]["self"]

    async def settled() -> bool:
        return (await served.http.get(where)).json().get("progress", {}).get("settled", 0) >= 3

    await until(settled, "all that is not held")
    before = await served.http.get(where)
    known = {"if-none-match": before.headers["etag"], "prefer": "wait=1"}
    assert (await served.http.get(where, headers=known)).status_code == 304
    known["prefer"] = "wait=60"
    poll = asyncio.create_task(served.http.get(where, headers=known))
    result = asyncio.create_task(
        served.http.get(told["links"]["result"], headers={"prefer": "wait=60"})
    )

    async def both_wait() -> bool:
        # A poll that came later would be told of progress, and not of the end.
        return (
            re.search(r"waiting\{.*\} 2\.0", (await served.http.get("/metrics")).text) is not None
        )

    await until(both_wait, "the poll and the result wait")
    hold.unlink()
    ended = await poll
    assert (ended.status_code, ended.json()["status"]) == (200, "succeeded")
    assert ended.headers["preference-applied"] == "wait=60"
    assert len((await result).json()["answers"]) == 2
    # Who knows something else is told at once.
    assert (await served.http.get(where, headers=known)).status_code == 200
    known["if-none-match"] = f'W/"x", {ended.headers["etag"]}'
    assert (await served.http.get(where, headers=known)).status_code == 304


async def test_a_key_asks_once(served: Served) -> None:
    where, key = "/v1/endpoints/grade/requests", {"idempotency-key": "k-1"}
    first = await served.http.post(where, json={"input": {"name": "a", "leaves": 1}}, headers=key)
    again = await served.http.post(where, json={"input": {"leaves": 1, "name": "a"}}, headers=key)
    assert first.json()["id"] == again.json()["id"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await served.http.post(where, json={"input": {"name": "b"}}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:mqinfer:problem:key-reused")
    assert len((await served.ended(first.json()["id"]))["answers"]) == 1


async def test_canceling(served: Served, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    told = (await served.ask(name="a", leaves=3, hold=str(hold))).json()
    canceled = await served.http.post(told["links"]["cancel"])
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    again = await served.http.post(told["links"]["cancel"])
    assert (again.status_code, again.json()["type"]) == (409, "urn:mqinfer:problem:ended")
    assert (await served.ended(told["id"]))["answers"] == []


async def test_forgetting(served: Served) -> None:
    told = (await served.ask(name="a", leaves=1, wait=30)).json()
    where = told["links"]["self"]
    assert (await served.http.delete(where)).status_code == 204
    for gone in (where, told["links"]["result"], told["links"]["events"]):
        assert (await served.http.get(gone)).status_code == 404
    assert (await served.http.delete(where)).status_code == 404


async def test_an_outage_while_it_waits_hides_no_request(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker runs. A client without a key that heard of no id could only ask for another one."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("no answer")

    async with serving(nats) as served:
        with monkeypatch.context() as outage:
            outage.setattr(Requests, "find", away)
            answer = await served.ask(name="a", wait=1)
        assert answer.status_code == 202
        found = await served.http.get(answer.headers["location"])
        assert (found.status_code, found.json()["status"]) == (200, "queued")


async def test_what_others_change_all_the_time_is_to_be_asked_for_again(
    nats: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(nats) as served:
        told = (await served.ask(name="a", leaves=1)).json()
        job = {"endpoint": "grade", "rows": [{"name": "a"}]}
        bulk = (await served.http.post("/v1/jobs", json=job)).json()

        async def too_late(*_: object, **__: object) -> int:
            return 0

        with monkeypatch.context() as patch:
            patch.setattr(bucket, "_TRIES", 3)
            patch.setattr(JetStreamBucket, "save", too_late)
            for method, where in (
                ("POST", told["links"]["cancel"]),
                ("DELETE", told["links"]["self"]),
                ("POST", bulk["links"]["cancel"]),
                ("DELETE", bulk["links"]["self"]),
            ):
                found = await served.http.request(method, where)
                assert found.status_code == 503, (method, where, found.text)
                assert found.headers["retry-after"] == "2"
                problem = found.json()
                assert problem["type"] == "urn:mqinfer:problem:unavailable"
                assert "keeps changing: try again" in problem["detail"]
        # Nothing has become of it, and asked again it is done.
        assert (await served.http.get(told["links"]["self"])).json()["status"] == "queued"
        assert (await served.http.post(told["links"]["cancel"])).json()["status"] == "canceled"
        assert (await served.http.post(bulk["links"]["cancel"])).json()["status"] == "canceled"
