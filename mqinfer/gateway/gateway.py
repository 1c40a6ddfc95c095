"""Gateway: one process that serves an app's endpoints by HTTP until it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from mqinfer import wiring
from mqinfer.codec import Codec
from mqinfer.errors import ConfigurationError
from mqinfer.gateway import problems
from mqinfer.gateway.application import Front
from mqinfer.gateway.bodies import Room
from mqinfer.gateway.counting import Counting
from mqinfer.gateway.fetch import Fetch
from mqinfer.gateway.files import SPOOL
from mqinfer.gateway.inputs import Inputs
from mqinfer.gateway.load import Load
from mqinfer.gateway.options import Options
from mqinfer.gateway.site import Site
from mqinfer.gateway.tenants import Tenants
from mqinfer.gateway.validation import Validation
from mqinfer.requests import ended
from mqinfer.settings import Settings
from mqinfer.starting import Patience
from mqinfer.web.lifetime import Lifetime

if TYPE_CHECKING:
    from mqinfer.app import App
    from mqinfer.ports import Broker

log = structlog.get_logger("mqinfer.gateway")


class Gateway:
    """Serves an app's endpoints.

    Args:
        app: the app.
        options: where and how.
        settings: None reads the environment.

    Raises:
        ConfigurationError: the app has neither endpoint nor index, a file of keys cannot be used,
            or keys are needed and there is no secret.

    Attributes:
        counting: of what it does.
        broker: to NATS, once there is one.
    """

    def __init__(self, app: App, options: Options | None = None, settings: Settings | None = None):
        self.app = app
        self.options = options or Options()
        self.settings = settings or Settings.load()
        app.stages  # noqa: B018 - a mistake in the wiring is told before anything listens
        if not app.endpoints and not app.indexes:
            raise ConfigurationError(
                f"app {app.name} has no endpoint: declare one with app.endpoint(...)"
            )
        self._tenants = Tenants(self.options.keys)
        if self._tenants.needed and not self.settings.request_secret:
            raise ConfigurationError(
                "--keys needs MQINFER_REQUEST_SECRET, any long text, the same for all gateways: "
                "the ids of requests are made with it, and links to their events are signed"
            )
        self._validation = Validation(app)
        self.counting = Counting(app.name)
        self.broker: Broker | None = None
        self._lifetime = Lifetime(self.options, problems.unread)

    @property
    def url(self) -> str | None:
        """Where it serves, once it does."""
        return self._lifetime.url

    def stop(self) -> None:
        """Begin an orderly stop: what is under way is answered, streams are told to reconnect."""
        self._lifetime.stop()

    async def run(self, started: Callable[[str], None] = lambda _: None) -> None:
        """Serve until `stop` is called.

        Args:
            started: called with the address once requests are answered.

        Raises:
            ConfigurationError: the address or the certificate cannot be used.
            Unavailable: NATS closed the connection for good.
        """
        shared = self.settings.request_secret or ""
        secret = shared if self._tenants.needed else ""
        patience = Patience()
        front = Front(
            self.app, self.options, self._tenants, self.counting, secret, shared, time.time
        )
        front.waiting_for = lambda: patience.reason

        async def opening(stack: AsyncExitStack) -> Broker:
            return await self._open(stack, front, patience, secret)

        await self._lifetime.run(front.asgi(), opening, started)
        log.info("stopped", app=self.app.name)

    async def _open(
        self, stack: AsyncExitStack, front: Front, patience: Patience, secret: str
    ) -> Broker:
        """Connect, and let requests in."""
        services = await stack.enter_async_context(
            wiring.services(self.app, self.settings, "gateway", (), patience)
        )
        assert services.core is not None
        assert services.streams is not None
        assert services.store is not None
        broker, store = services.broker, services.store
        self.broker = broker
        requests = wiring.requests(self.app, services)
        await patience.answer(requests.ensure)
        jobs = wiring.jobs(self.app, services, Codec(store))
        await patience.answer(jobs.ensure)
        fetch = None
        if self.options.fetch_from:
            fetch = await stack.enter_async_context(
                Fetch.opened(
                    self.options.fetch_from,
                    self.options.max_upload,
                    private=self.options.private,
                )
            )
        site = Site(
            app=self.app,
            options=self.options,
            requests=requests,
            jobs=jobs,
            streams=services.streams,
            broker=broker,
            store=store,
            inputs=Inputs(
                self._validation,
                store,
                fetch,
                webhooks=ended.told(self.app),
                private=self.options.private,
            ),
            load=Load(self.app, broker, self.options.max_backlog),
            counting=self.counting,
            room=Room(),
            spool=Room(max(SPOOL, 2 * self.options.max_upload)),
            stopping=self._lifetime.stopping,
            secret=secret,
            inline_limit=services.inline_limit,
            searching=wiring.searching(self.app, services) if self.app.indexes else None,
            tracing=services.tracing,
        )
        front.open(site)
        log.info("ready", app=self.app.name, endpoints=list(self.app.endpoints))
        return broker
