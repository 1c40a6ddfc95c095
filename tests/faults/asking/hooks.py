"""Webhooks: an address for each client, which may refuse at first; what it is told is kept."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import standardwebhooks
from aiohttp import web

from mqinfer.gateway.webhooks import secret_of

from .tenants import SECRET, TENANTS, tenant_of


@dataclass(frozen=True)
class Heard:
    """One webhook that an address took.

    Attributes:
        id: of the request that has ended.
        status: of it.
        answers: of it.
        errors: of it.
    """

    id: str
    status: str
    answers: Sequence[Mapping[str, Any]]
    errors: Sequence[Mapping[str, str]]


class Hooks:
    """The addresses of all clients.

    Attributes:
        heard: what each address took, by the number of its client.
        odd: what was told that nobody may be told, by the number of the client.
        refused: how often an address took nothing.
    """

    def __init__(self) -> None:
        self.heard: dict[int, list[Heard]] = defaultdict(list)
        self.odd: list[tuple[int, str]] = []
        self.refused = 0
        self._turned_away: set[int] = set()
        self._secrets = {
            name: standardwebhooks.Webhook(secret_of(SECRET, name)) for name in TENANTS
        }
        self._port = 0

    @classmethod
    @asynccontextmanager
    async def served(cls) -> AsyncIterator[Hooks]:
        """Inside, they are there."""
        hooks = cls()
        application = web.Application(client_max_size=2**26)
        application.router.add_post("/{tenant}/{number}", hooks._take)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hooks._port = runner.addresses[0][1]
        try:
            yield hooks
        finally:
            await runner.cleanup()

    def url(self, number: int) -> str:
        """Of a client's address."""
        return f"http://127.0.0.1:{self._port}/{tenant_of(number)}/{number}"

    async def _take(self, request: web.Request) -> web.Response:
        tenant, number = request.match_info["tenant"], int(request.match_info["number"])
        data = await request.read()
        if number % 5 == 0 and number not in self._turned_away:
            self._turned_away.add(number)
            self.refused += 1
            return web.Response(status=503 if number % 2 else 500)
        try:
            # Each tenant has a secret of its own: what is another's fails here.
            self._secrets[tenant].verify(data, dict(request.headers))
        except (standardwebhooks.WebhookVerificationError, KeyError) as error:
            self.odd.append((number, f"{tenant} was told what is not signed for it: {error!r}"))
            return web.Response(status=204)
        told = json.loads(data)["data"]
        if request.headers["webhook-id"] != told["id"]:
            self.odd.append((number, f"{told['id']} was told as {request.headers['webhook-id']}"))
        answers = [one["data"] for one in told["answers"]]
        self.heard[number].append(Heard(told["id"], told["status"], answers, told["errors"]))
        return web.Response(status=204)
