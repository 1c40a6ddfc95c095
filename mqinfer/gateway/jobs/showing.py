"""Showing: how a job stands, what came of its rows, and its end by whoever submitted it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from mqinfer.errors import JobUnknown
from mqinfer.gateway import answers, preferences
from mqinfer.gateway.jobs import ranges, views
from mqinfer.gateway.jobs.describing import EVENT, LAST_ROW, LISTED, MOST_LISTED
from mqinfer.gateway.jobs.lines import MEDIA_TYPE, Lines
from mqinfer.gateway.problems import Problem, not_found
from mqinfer.gateway.views import encode
from mqinfer.jobs import places
from mqinfer.jobs import state as states
from mqinfer.web.sse import EventStream, Frame

if TYPE_CHECKING:
    from starlette.requests import Request

    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant
    from mqinfer.jobs.state import State

_EVENT = re.compile(EVENT, re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,13}", re.ASCII)


class ShowingJobs:
    """What shows.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        self._site = site

    async def listed(self, request: Request, tenant: Tenant) -> Response:
        """`GET /v1/jobs`: the newest first."""
        most = _number(request, "limit", LISTED, 1, MOST_LISTED)
        found = await self._site.jobs.listed(tenant=tenant.name)
        found.sort(key=lambda one: one.created, reverse=True)
        told = [views.summary(one, self._site.token(one)) for one in found[:most]]
        return answers.json(encode({"jobs": told}))

    async def show(self, request: Request, tenant: Tenant) -> Response:
        """`GET /v1/jobs/{id}`: now; or when it is another than is known, or has ended."""
        state = await self._find(request, tenant)
        waits = answers.asked_to_wait(request, self._site.options.max_wait)
        found = self._view(request, state)
        known = request.headers.get("if-none-match") is not None
        if not waits or not state.open or (known and found.status_code != 304):
            return found
        newest = [state]

        async def changed() -> None:
            async with aclosing(self._states(state)) as following:
                async for one in following:
                    newest[0] = one
                    if known and self._view(request, one).status_code != 304:
                        return

        await self._site.meanwhile(request, changed(), waits)
        found = self._view(request, newest[0])
        found.headers.update(answers.waited(waits))
        return found

    async def events(self, request: Request, tenant: Tenant) -> Response | EventStream:
        """`GET /v1/jobs/{id}/events`."""
        last = answers.behind(request, _EVENT)
        state = await self._find(request, tenant)
        if last[1] and last[0] == views.place(state):
            return Response(status_code=204)  # or an EventSource would come again for ever
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        frames = self._frames(state, last[0])
        return EventStream(frames, self._site.stopping, opened=self._site.counting)

    async def results(self, request: Request, tenant: Tenant) -> Response | Lines:
        """`GET /v1/jobs/{id}/results`: what came of the rows that are done, in their order."""
        return await self._lines(request, tenant, errors=False)

    async def errors(self, request: Request, tenant: Tenant) -> Response | Lines:
        """`GET /v1/jobs/{id}/errors`: of these the ones that have errors."""
        return await self._lines(request, tenant, errors=True)

    async def cancel(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/jobs/{id}/cancel`."""
        state = await self._find(request, tenant)
        if state.open:
            after = await self._site.jobs.cancel(state.id, tenant=tenant.name)
            if "canceled" in (after.stopping, after.status):
                return self._told(after)
            state = after
        raise Problem(409, "ended", f"the job has ended: {state.status}")

    async def retry(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/jobs/{id}/retry-failed`."""
        state = await self._find(request, tenant)
        if state.open:
            raise Problem(409, "open", "the job has not ended yet")
        if not states.can_retry(state):
            raise Problem(409, "nothing", "nothing in this job can be tried again")
        return self._told(await self._site.jobs.retry(state.id, tenant=tenant.name), 202)

    async def forget(self, request: Request, tenant: Tenant) -> Response:
        """`DELETE /v1/jobs/{id}`."""
        state = await self._find(request, tenant)
        await self._site.jobs.forget(state.id, tenant=tenant.name)
        return Response(status_code=204)

    # --- inside -----------------------------------------------------------------------------------

    async def _find(self, request: Request, tenant: Tenant) -> State:
        """The job that is asked about.

        Raises:
            Problem: there is none, or it is another's.
        """
        found = await self._site.jobs.find(request.path_params["id"], tenant=tenant.name)
        if found is None:
            raise not_found("job")
        return found

    def _view(self, request: Request, state: State) -> Response:
        headers = {"retry-after": "1"} if state.open else {}
        told = encode(views.summary(state, self._site.token(state)))
        return answers.state(request, told, 200, headers)

    def _told(self, state: State, status: int = 200) -> Response:
        return answers.json(encode(views.summary(state, self._site.token(state))), status)

    def _states(self, state: State) -> AsyncGenerator[State]:
        """A job as it changes, to its end."""
        following = self._site.jobs.follow(state.id, tenant=state.tenant)
        return cast("AsyncGenerator[State]", following)

    async def _frames(self, state: State, last: str) -> AsyncIterator[Frame]:
        """How far a job is, each time that it is further than an event said."""
        async with aclosing(self._states(state)) as following:
            try:
                async for one in following:
                    where = views.place(one)
                    if not one.open:
                        yield Frame("end", encode(views.progress(one)), where, last=True)
                    elif where != last:
                        yield Frame("progress", encode(views.progress(one)), where)
                    last = where
            except JobUnknown:
                return  # it was forgotten: whoever comes again is told

    async def _lines(self, request: Request, tenant: Tenant, *, errors: bool) -> Response | Lines:
        after = _number(request, "after", 0, 0, LAST_ROW)
        state = await self._find(request, tenant)
        if state.sizes is not None and not after:
            return self._file(request, state, errors=errors, size=state.sizes[errors])
        status = 202 if state.open else 200
        if request.method == "HEAD":
            return Response(status_code=status, media_type=MEDIA_TYPE)
        return Lines(self._site.jobs.text(state, errors=errors, after=after), status)

    def _file(self, request: Request, state: State, *, errors: bool, size: int) -> Response | Lines:
        """A file of a job that has ended, or a part of it; under its name it never changes."""
        path = places.errors(state) if errors else places.results(state)
        etag = preferences.tag(f"{path} {size}".encode())
        headers = {"etag": etag, "accept-ranges": "bytes", "cache-control": "no-cache"}
        if preferences.known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            headers["content-length"] = str(size)
            return Response(headers=headers, media_type=MEDIA_TYPE)
        given, if_range = (request.headers.get(name) for name in ("range", "if-range"))
        part = ranges.wanted(given, if_range, etag, size)
        status = 200
        if part is None:
            part = range(size)
        else:
            status, headers["content-range"] = 206, ranges.told(part, size)
        headers["content-length"] = str(len(part))
        lines = self._site.jobs.text(state, errors=errors, start=part.start)
        return Lines(lines, status, headers, len(part))


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A number in the query.

    Raises:
        Problem: it is none.
    """
    given: Any = request.query_params.get(name)
    if given is None:
        return default
    if not _NUMBER.fullmatch(given) or not least <= int(given) <= most:
        raise Problem(400, "malformed", f"{name} is a number from {least:,} to {most:,}")
    return int(given)
