"""Console: one process that serves the pages of an app until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from mqinfer import wiring
from mqinfer.codec import Codec
from mqinfer.console.application import Front
from mqinfer.console.deeds import Deeds
from mqinfer.console.entry import Entry
from mqinfer.console.looks import Looks
from mqinfer.console.options import Options
from mqinfer.console.pages import PAGES
from mqinfer.console.site import Site
from mqinfer.settings import Settings
from mqinfer.starting import Patience
from mqinfer.web.lifetime import Lifetime

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker

log = structlog.get_logger("mqinfer.console")


class Console:
    """Serves the pages of an app.

    Args:
        app: the app.
        options: where and how.
        settings: None reads the environment.

    Raises:
        ConfigurationError: the app's wiring is wrong.

    Attributes:
        front: what answers.
    """

    def __init__(self, app: App, options: Options | None = None, settings: Settings | None = None):
        self.app = app
        self.options = options or Options()
        self.settings = settings or Settings.load()
        app.stages  # noqa: B018 - a mistake in the wiring is told before anything listens
        self._entry = Entry(app.name, self.options)
        self._lifetime = Lifetime(self.options)
        self.front = Front(app, self.options, self._entry, PAGES, self._lifetime.stopping)

    @property
    def url(self) -> str | None:
        """Where it serves, once it does."""
        return self._lifetime.url

    @property
    def ready(self) -> bool:
        """Whether it serves, and has reached NATS."""
        return self.url is not None and self.front.opened

    @property
    def link(self) -> str:
        """The address that opens the console to whoever has it, once it serves."""
        return f"{self.url}/enter?token={self._entry.token}"

    def stop(self) -> None:
        """Begin an orderly stop: streams are told to come back, to whoever is there then."""
        self._lifetime.stop()

    async def run(self, started: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` is called.

        Args:
            started: called with the address once requests are answered.

        Raises:
            ConfigurationError: the address or the certificate cannot be used.
            Unavailable: NATS closed the connection for good.
        """
        patience = Patience()
        self.front.waiting_for = lambda: patience.reason

        async def opening(stack: AsyncExitStack) -> Broker:
            return await self._open(stack, patience)

        await self._lifetime.run(self.front.asgi(), opening, started)
        log.info("stopped", app=self.app.name)

    async def _open(self, stack: AsyncExitStack, patience: Patience) -> Broker:
        """Connect, and let requests in."""
        services = await stack.enter_async_context(
            wiring.services(self.app, self.settings, "console", (), patience)
        )
        broker, store = services.broker, services.store
        assert services.core is not None
        assert services.streams is not None
        assert store is not None
        requests = wiring.requests(self.app, services)
        jobs = wiring.jobs(self.app, services, Codec(store))
        # Before what uses it: what is opened later is closed once nothing looks any more.
        opened = await stack.enter_async_context(AsyncExitStack())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        deeds, looks = Deeds(group), Looks(group)
        stack.callback(deeds.close)
        stack.callback(looks.close)
        site = Site(
            app=self.app,
            settings=self.settings,
            entry=self._entry,
            looks=looks,
            deeds=deeds,
            broker=broker,
            core=services.core,
            streams=services.streams,
            store=store,
            requests=requests,
            jobs=jobs,
            closing=opened,
        )
        self.front.open(site)
        log.info("ready", app=self.app.name)
        return broker
