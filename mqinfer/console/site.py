"""Site: what the console's pages look with, and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import HTMLResponse, Response

from mqinfer import wiring
from mqinfer.console import rendering
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from starlette.requests import Request

    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.console.deeds import Deeds
    from mqinfer.console.entry import Entry
    from mqinfer.console.looks import Looks
    from mqinfer.inference.aliases import Aliases
    from mqinfer.jobs.jobs import Jobs
    from mqinfer.ports import Broker, Core, Database, ModelVersion
    from mqinfer.replay.runs import Runs
    from mqinfer.requests.requests import Requests
    from mqinfer.settings import Settings
    from mqinfer.shadow.canary import Canaries
    from mqinfer.shadow.shadows import Shadows
    from mqinfer.streams import Streams


class Repository(Protocol):
    """What knows the versions of models; Triton does."""

    async def versions(self) -> list[ModelVersion]:
        """All that there are."""


@dataclass(slots=True)
class Site:
    """What pages look with.

    Attributes:
        app: that is looked at.
        settings: addresses of servers.
        entry: who may act.
        looks: that are shared.
        deeds: that were begun on a page, and take their time.
        broker: to NATS.
        core: what is said without a stream.
        streams: to look into what is stored.
        store: of blobs.
        requests: of the app.
        jobs: of the app.
        closing: where what is opened later is closed.
        memory: what the next look compares with, as for rates; nothing that has to be there.
    """

    app: App
    settings: Settings
    entry: Entry
    looks: Looks
    deeds: Deeds
    broker: Broker
    core: Core
    streams: Streams
    store: BlobStore
    requests: Requests
    jobs: Jobs
    closing: AsyncExitStack
    memory: dict[str, object] = field(default_factory=dict)
    _database: Database | None = None
    _triton: Repository | None = None

    @property
    def runs(self) -> Runs:
        """The replay runs."""
        return wiring.runs(self.app, self.broker)

    @property
    def aliases(self) -> Aliases:
        """The aliases of models."""
        return wiring.aliases(self.app, self.broker)

    @property
    def shadows(self) -> Shadows:
        """The shadows of models."""
        return wiring.shadows(self.app, self.broker)

    @property
    def canaries(self) -> Canaries:
        """The canaries of models."""
        return wiring.canaries(self.app, self.broker)

    @property
    def database(self) -> Database:
        """ClickHouse, connected when it is first asked.

        Raises:
            ConfigurationError: the app has no table.
        """
        if not self.app.rows:
            raise ConfigurationError(f"app {self.app.name} has no table")
        if self._database is None:
            opened = self._database = wiring.clickhouse(self.settings)
            self.closing.push_async_callback(opened.close)
        return self._database

    @property
    def triton(self) -> Repository:
        """Triton, connected when it is first asked."""
        if self._triton is None:
            opened = self._triton = wiring.triton(self.settings)
            self.closing.push_async_callback(opened.close)
        return self._triton

    # --- answers --------------------------------------------------------------------------------

    def render(self, request: Request, template: str, /, **values: Any) -> Response:
        """A part of a page, from a template of its own."""
        return HTMLResponse(rendering.page(template, self.context(request, values)))

    def context(self, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
        """What every template knows."""
        return {"app": self.app, "can_act": self.entry.can_act(request), **values}

    def said(
        self,
        request: Request,
        text: str,
        *,
        bad: bool = False,
        more: tuple[str, ...] = (),
        enters: str | None = None,
    ) -> Response:
        """What an action did, in words; the page itself shows what became of it.

        Args:
            request: that asked for it.
            text: what was done.
            bad: whether something was not.
            more: further lines.
            enters: where the token is asked for, if that is what is missing.
        """
        return self.render(request, "said.html", text=text, bad=bad, more=more, enters=enters)
