"""The internal update path is nobody's to call: shown to a real server, by its own permissions.

The small backend had an address by which its worker wrote an answer, and anybody could. Here what
asks has a user of NATS that may ask, and nothing of what makes a request what it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client as Connection

import mqinfer
from examples.requests.app import Number, Product, app
from mqinfer.completion import roots
from mqinfer.operate.permissions import permissions, requester
from mqinfer.requests import places
from mqinfer.settings import Settings
from mqinfer.testing import FakeModels, Harness, nats_only, until
from tests.joins.test_joins_permitted import config, of_user
from tests.support.requests_example import lite0

FALSE = b'{"n": 5, "digits": 1, "first": "7", "last": "7", "zeros": 0, "seconds": 0}'


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A bare connection with a user's name, and what the server refuses it."""
    refused: list[str] = []

    async def heard(error: Exception) -> None:
        refused.append(str(error))

    connection = await nats.connect(
        settings.nats_servers,
        user=settings.nats_user,
        password=settings.nats_password,
        error_cb=heard,
    )
    try:
        yield connection, refused
    finally:
        await connection.close()


@pytest.mark.parametrize("user", ["gateway", "other-stage"])
async def test_nobody_but_a_worker_writes_answers(tmp_path: Path, user: str) -> None:
    users = {
        "gateway": requester(app, gateway=True, inbox_prefix="_INBOX_gateway"),
        "worker": permissions(app, inbox_prefix="_INBOX_worker"),
        "other-stage": permissions(app, ["cover"], inbox_prefix="_INBOX_other-stage"),
    }
    with FakeModels({"lite0": lite0}):
        async with nats_only(tmp_path, nats_config=config(users)) as plain:
            await _try(plain, user)


async def _try(plain: Settings, user: str) -> None:
    async with Harness(app, of_user(plain, "admin")) as harness:
        await harness.drain()  # makes streams, consumers and buckets
    async with mqinfer.connect(app, of_user(plain, "gateway")) as client:
        request = await client.request(Number(5), endpoint="factorial")
        found = await (await client.requests()).find(request.id)
        assert found is not None
        root = places.root_of(request.id, found.created)
        forbidden = [
            app.subject(Product),  # the answer
            places.event(app, root),  # what is told of it
            places.pushed_event(app, root),
            places.pushed_state(app, request.id),
            f"$KV.{roots.bucket(app)}.{root.token}",  # how far it is
            f"{app.name}-dead.factorial",
            # Who asks changes the state (accepts, cancels, forgets); a stage says of what it
            # has done that it is done.
            roots.subject_of(app, root)
            if user == "gateway"
            else f"$KV.{places.bucket(app)}.{places.key_of(request.id)}",
        ]
        async with connected(of_user(plain, user)) as (connection, refused):
            for subject in forbidden:
                await connection.publish(subject, FALSE)
            await connection.flush()
            await until(lambda: len(refused) == len(forbidden), "what is refused")
            told = " ".join(refused).lower()
            for subject in forbidden:
                assert f'permissions violation for publish to "{subject}"'.lower() in told

        # And so it has the one true answer, of a worker that is no more than one.
        async with Harness(app, of_user(plain, "worker")) as at_work, at_work.worker():
            (product,) = await request.result(wait=60)
            assert (product.n, product.first) == (5, "120")
