"""A console in this process, on a free port, with a client for it and the app's harness."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from mqinfer.app import App
from mqinfer.console.console import Console
from mqinfer.console.options import Options
from mqinfer.settings import Settings
from mqinfer.testing import Harness, until
from tests.support.console_app import app

TOKEN = "a token that nobody would guess"


@dataclass
class Served:
    """A console at work.

    Attributes:
        console: itself.
        http: a client that knows the token.
        stranger: one that does not.
        harness: of the app.
    """

    console: Console
    http: httpx.AsyncClient
    stranger: httpx.AsyncClient
    harness: Harness

    @property
    def url(self) -> str:
        assert self.console.url is not None
        return self.console.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@asynccontextmanager
async def running(settings: Settings, served: App = app, **options: Any) -> AsyncIterator[Console]:
    """A console that answers."""
    console = Console(served, Options(**{"port": 0, "token": TOKEN, **options}), settings)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(console.run())
        try:
            await until(lambda: console.ready or task.done(), "a console")
            yield console
        finally:
            console.stop()


@asynccontextmanager
async def serving(settings: Settings, served: App = app, **options: Any) -> AsyncIterator[Served]:
    """A console, with clients."""
    async with (
        Harness(served, settings) as harness,
        running(settings, served, **options) as console,
    ):
        assert console.url is not None
        # Without `verify` a client reads all authorities there are: 20 ms of a processor.
        plain = {"base_url": console.url, "timeout": 60, "trust_env": False, "verify": False}
        async with (
            httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, **plain) as http,
            httpx.AsyncClient(**plain) as stranger,
        ):
            yield Served(console, http, stranger, harness)
