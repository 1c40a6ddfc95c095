"""Showing: how a request stands, what came of it, and its end by whoever asked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response

from mqinfer.errors import RequestUnknown
from mqinfer.gateway import answers, views
from mqinfer.gateway.problems import Problem, not_found
from mqinfer.requests.sofar import answers_so_far
from mqinfer.web.sse import EventStream, Frame

if TYPE_CHECKING:
    from starlette.requests import Request

    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant
    from mqinfer.requests.following import Followed
    from mqinfer.requests.state import State

# A number of the stream's; at the end, where answers come that the stream did not have, with the
# answer's id behind it.
_EVENT = re.compile(r"([0-9]{1,18})(?:(\.end)|\+([\x21-\x7e]{1,200}))?", re.ASCII)


class Showing:
    """What shows.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        self._site = site

    async def show(self, request: Request, tenant: Tenant) -> Response:
        """`GET /v1/requests/{id}`."""
        site = self._site
        state = await self._find(request, tenant)

        async def view(state: State) -> Response:
            told = views.summary(state, await site.progress(state), site.token(state))
            headers = {"retry-after": "1"} if state.open else {}
            return answers.state(request, views.encode(told), 200, headers)

        return await self._in_time(request, state, view)

    async def result(self, request: Request, tenant: Tenant) -> Response:
        """`GET /v1/requests/{id}/result`: all answers, or those that came so far."""
        site = self._site
        state = await self._find(request, tenant)

        async def view(state: State) -> Response:
            if not state.open:
                told = views.result(state, await site.requests.answers(state), None)
                return answers.state(request, views.encode(told))
            so_far = await answers_so_far(site.app, site.streams, state)
            progress = await site.progress(state)
            told = views.result(state, so_far, progress)
            return answers.state(request, views.encode(told), 202, {"retry-after": "1"})

        return await self._in_time(request, state, view)

    async def events(self, request: Request, tenant: Tenant) -> Response | EventStream:
        """`GET /v1/requests/{id}/events`."""
        site = self._site
        last = answers.behind(request, _EVENT)
        state = await self._find(request, tenant)
        if last[2] and not state.open:
            return Response(status_code=204)  # or an EventSource would come again for ever
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        frames = self._frames(state, int(last[1]), last[3])
        return EventStream(frames, site.stopping, opened=site.counting)

    async def cancel(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/requests/{id}/cancel`."""
        site = self._site
        state = await self._find(request, tenant)
        if state.open:
            after = await site.requests.cancel(state.id, tenant=tenant.name)
            if after.status == "canceled":
                told = views.summary(after, None, site.token(after))
                return answers.json(views.encode(told))
            state = after
        raise Problem(409, "ended", f"the request has ended: {state.status}")

    async def forget(self, request: Request, tenant: Tenant) -> Response:
        """`DELETE /v1/requests/{id}`."""
        state = await self._find(request, tenant)
        await self._site.requests.forget(state.id, tenant=tenant.name)
        return Response(status_code=204)

    # --- inside -----------------------------------------------------------------------------------

    async def _find(self, request: Request, tenant: Tenant) -> State:
        """The request that is asked about.

        Raises:
            Problem: there is none, or it is another's.
        """
        found = await self._site.requests.find(request.path_params["id"], tenant=tenant.name)
        if found is None:
            raise not_found()
        return found

    async def _in_time(
        self, request: Request, state: State, view: Callable[[State], Awaitable[Response]]
    ) -> Response:
        """A view of a request: now, or, if the client would wait, at its end.

        A client that knows of another state than it is in is told at once.
        """
        waits = answers.asked_to_wait(request, self._site.options.max_wait)
        if not waits or not state.open:
            return await view(state)
        if request.headers.get("if-none-match") is not None:
            found = await view(state)
            if found.status_code != 304:
                return found
        found = await view(await self._site.waited(request, state, waits))
        found.headers.update(answers.waited(waits))
        return found

    async def _frames(self, state: State, after: int, answer: str | None) -> AsyncIterator[Frame]:
        """What comes of a request behind an event, and behind an answer with the same number."""
        followed = self._site.requests.follow(
            state.id, after=after, behind=answer, tenant=state.tenant
        )
        async with aclosing(followed):
            try:
                async for one in followed:
                    yield _frame(one)
            except RequestUnknown:
                return  # it was forgotten: whoever comes again is told


def _frame(one: Followed) -> Frame:
    number = str(one.number)
    if one.answer is not None:
        place = f"{number}+{one.answer.id}" if one.rest else number
        return Frame("answer", views.encode(views.answer(one.answer)), place)
    if one.state is not None:
        told = views.summary(one.state, None)
        told["errors"] = [views.problem(error) for error in one.state.errors]
        return Frame("end", views.encode(told), f"{number}.end", last=True)
    return Frame("progress", views.encode({"settled": one.settled, "open": one.open}), number)
