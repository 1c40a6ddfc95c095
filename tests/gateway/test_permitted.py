"""A gateway runs under the permissions that are printed for it, and could do nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import mqinfer
from mqinfer.errors import MqinferError
from mqinfer.operate.permissions import requester
from mqinfer.testing import Harness, nats_only
from tests.joins.test_joins_permitted import config, of_user
from tests.support.gateway import serving
from tests.support.gateway_app import Grade, app


async def test_a_gateway_runs_under_its_permissions(tmp_path: Path) -> None:
    users = {"web": requester(app, gateway=True, inbox_prefix="_INBOX_web")}
    async with nats_only(tmp_path, nats_config=config(users)) as plain:
        admin = of_user(plain, "admin")
        async with Harness(app, admin) as harness:
            await harness.drain()  # makes streams, consumers and buckets
        web = of_user(plain, "web")
        async with serving(web, beside=admin) as served, served.harness.worker():
            asked = await served.ask(name="a", leaves=2, wait=60)
            assert asked.json()["status"] == "succeeded"
            links = asked.json()["links"]
            async with served.http.stream("GET", links["events"]) as events:
                told = [line async for line in events.aiter_lines()]
            assert told.count("event: answer") == 2
            again = (await served.ask(name="a")).json()["links"]
            for path in (again["self"], again["result"]):
                assert (await served.http.get(path)).status_code in (200, 202)
            assert (await served.http.delete(again["self"])).status_code == 204
            broker = served.gateway.broker
            assert broker is not None
            assert not broker.denied  # type: ignore[attr-defined]
            # The path by which answers come is nobody's to write from outside.
            async with mqinfer.connect(app, web) as client:
                with pytest.raises(MqinferError):
                    await client.publish(Grade("a", 1), timeout=2)
