"""`mqinfer request` and `requests`, and what `check` says, on a real nats-server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from mqinfer.settings import Settings
from mqinfer.testing import Harness
from tests.support import requests_app

APP = "tests.support.requests_app:app"


async def test_ask_list_show_and_cancel(
    nats: Settings, told: Callable[..., Awaitable[str]]
) -> None:
    async with Harness(requests_app.app, nats) as harness:
        async with harness.worker():
            out = await told("request", APP, "grade", '{"n": 2}', "--wait", "60")
            truth = [{"n": one.n, "i": one.i} for one in requests_app.truth(2).answers]
            assert [json.loads(line) for line in out.splitlines()] == truth
            facts = json.loads(await told("request", APP, "grade", '{"n": 2}', "--json"))
            assert facts["status"] == requests_app.truth(2).status == "partial"
            assert facts["errors"] == [{"kind": "rejected", "reason": "too dark"}]
            assert [one["data"] for one in facts["answers"]] == truth
            assert "Expected `int`, got `str`" in await told(
                *("request", APP, "grade", '{"n": "x"}'), code=1
            )
            assert "has no endpoint 'other'" in await told("request", APP, "other", "{}", code=2)
        facts = json.loads(
            await told("request", APP, "grade", '{"n": 3}', "--wait", "0", "--key", "k", "--json")
        )
        assert facts["status"] == "open"
        assert f"{facts['id']} is open" in await told(
            *("request", APP, "grade", '{"n": 3}', "--wait", "50ms", "--key", "k"), code=1
        )
        listed = await told("requests", "list", APP)
        assert listed.endswith("3 requests\n")
        every = json.loads(await told("requests", "list", APP, "--json"))
        assert [one["status"] for one in every] == ["partial", "partial", "open"]
        only = json.loads(await told("requests", "list", APP, "--status", "open", "--json"))
        assert [one["id"] for one in only] == [facts["id"]]
        assert await told("requests", "cancel", APP, facts["id"]) == f"{facts['id']} is canceled\n"
        assert "had ended before" in await told("requests", "cancel", APP, every[0]["id"], code=1)
        shown = json.loads(await told("requests", "show", APP, facts["id"], "--json"))
        assert shown["status"] == "canceled"
        assert "no request" in await told("requests", "show", APP, "grade-" + "0" * 32, code=1)
        assert "mqinfer-requests-grade" in await told("status", APP, "--interval", "0")
        assert "grade" in await told("graph", APP)
        assert "requests.asked.push.grade.*.*" in await told(
            "permissions", APP, "--endpoint", "grade"
        )
        assert "goes without --stage" in await told(
            *("permissions", APP, "--endpoint", "*", "--stage", "cut"), code=2
        )
        assert "5 consumers" in await told("check", APP)
