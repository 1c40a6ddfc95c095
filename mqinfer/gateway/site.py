"""Site: what serves one app: its requests, and all that is needed to take and to tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mqinfer.gateway.bodies import Gone, Room
from mqinfer.gateway.problems import Problem, not_found
from mqinfer.web import signing

if TYPE_CHECKING:
    from starlette.requests import Request

    from mqinfer.app import App
    from mqinfer.blob import BlobStore
    from mqinfer.endpoint import Endpoint
    from mqinfer.gateway.counting import Counting
    from mqinfer.gateway.inputs import Inputs
    from mqinfer.gateway.load import Load
    from mqinfer.gateway.options import Options
    from mqinfer.jobs.jobs import Jobs
    from mqinfer.ports import Broker
    from mqinfer.requests.requests import Requests
    from mqinfer.requests.state import State
    from mqinfer.search.searching import Searching
    from mqinfer.streams import Streams
    from mqinfer.tracing.spans import Tracing
    from mqinfer.web.stopping import Stopping

_TOKEN = 3600.0  # seconds beyond a request's deadline for which the link to its events opens
# Seconds in which nobody looks whether a client is still there: most are answered by then, and a
# task for each would cost more than an answer that nobody reads.
_SOON = 0.1

_T = TypeVar("_T")


class _Followed(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def deadline(self) -> float: ...


@dataclass(slots=True)
class Site:
    """What serves one app.

    Attributes:
        app: whose endpoints.
        options: of this gateway.
        requests: of the app.
        jobs: of the app.
        streams: to read what came of those that are open.
        broker: to NATS.
        store: of blobs.
        inputs: reads bodies.
        load: of the endpoints.
        counting: what is done.
        room: for bodies.
        spool: for uploads, on the disk here.
        stopping: of the gateway.
        secret: that all replicas share; "" where no keys are needed.
        inline_limit: bytes of a blob that ride in a message.
        searching: of the app's indexes; None where it has none.
        tracing: makes spans; None makes none.
    """

    app: App
    options: Options
    requests: Requests
    jobs: Jobs
    streams: Streams
    broker: Broker
    store: BlobStore
    inputs: Inputs
    load: Load
    counting: Counting
    room: Room
    spool: Room
    stopping: Stopping
    secret: str
    inline_limit: int
    searching: Searching | None = None
    tracing: Tracing | None = None

    def endpoint(self, request: Request) -> Endpoint[Any]:
        """The endpoint that an address names.

        Raises:
            Problem: there is none.
        """
        name = request.path_params["name"]
        found = self.app.endpoints.get(name)
        if found is None:
            known = ", ".join(self.app.endpoints) or "none"
            detail = f"there is no endpoint {name[:60]!r}; there are: {known}"
            raise Problem(404, "unknown", detail, headers={"connection": "close"})
        return found

    def token(self, state: _Followed) -> str:
        """What opens the events of a request, or a job, where no header can be sent."""
        if not self.secret:
            return ""
        return signing.sign(self.secret, state.id, state.tenant, state.deadline + _TOKEN)

    async def progress(self, state: State) -> tuple[int, int] | None:
        """Messages that came of an open request: settled, and open; None: nothing came yet."""
        if not state.open:
            return None
        settled, left = await self.requests.progress(state)
        return (settled, left) if settled or left else None

    async def waited(self, request: Request, state: State, seconds: float) -> State:
        """A request once it has ended, or as it is after so many seconds, or when we stop.

        Errors as of `until_ended`.
        """
        return await self.requests.wait(
            state.id, seconds, tenant=state.tenant, race=partial(self.until_ended, request)
        )

    async def until_ended(
        self, request: Request, state: State, ended: Callable[[], Coroutine[Any, Any, State]]
    ) -> State:
        """A request as it is when `ended` returns it, or when we stop.

        Args:
            request: of the client that waits.
            state: of the request, as it is now.
            ended: waits for its end.

        Raises:
            Gone: the client went away.
            Problem: it was forgotten meanwhile.
        """
        found = await self.meanwhile(request, ended())
        if found is not None:
            return found
        found = await self.requests.find(state.id, tenant=state.tenant)
        if found is None:
            raise not_found()
        return found

    async def meanwhile(
        self, request: Request, work: Coroutine[Any, Any, _T], seconds: float | None = None
    ) -> _T | None:
        """What some work gives; None where it takes so many seconds, or until we stop.

        Raises:
            Gone: the client went away.
        """
        self.counting.waiting += 1
        gone: asyncio.Task[None] | None = None

        def end(_: asyncio.Future[None]) -> None:
            with suppress(RuntimeError):  # it has ended
                waiting.reschedule(0.0)

        def look() -> None:
            nonlocal gone
            gone = asyncio.create_task(_gone(request), name="gone")
            gone.add_done_callback(end)

        later = asyncio.get_running_loop().call_later(_SOON, look)
        try:
            with self.stopping.told() as stop:
                # Whichever comes first ends the waiting; a task for the work would cost more.
                async with asyncio.timeout(seconds) as waiting:
                    stop.add_done_callback(end)
                    return await work
        except TimeoutError:
            if not waiting.expired():
                raise
            if gone is not None and gone.done():
                raise Gone from None
            return None
        finally:
            self.counting.waiting -= 1
            later.cancel()
            if gone is not None:
                gone.cancel()


async def _gone(request: Request) -> None:
    """Return when the client went away; its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
