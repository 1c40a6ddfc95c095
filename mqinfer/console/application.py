"""Application: which address leads where, who may go there, and that each failure has an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from mqinfer.console import pictures, rendering
from mqinfer.console.page import of_form
from mqinfer.errors import BadImage, BlobError, ConfigurationError, MqinferError, Unavailable
from mqinfer.origin import own_pages_only
from mqinfer.web import bodies
from mqinfer.web.sse import EventStream, Frame
from mqinfer.web.stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from mqinfer.app import App
    from mqinfer.console.entry import Entry
    from mqinfer.console.looks import Look, Seen
    from mqinfer.console.options import Options
    from mqinfer.console.page import Action, Page, Part
    from mqinfer.console.site import Site

log = structlog.get_logger("mqinfer.console")

_BODY: Final = 256 * 1024  # bytes of a form
_PAUSE: Final = bodies.PAUSE  # seconds in which something of a form must come
_ADDRESS: Final = 2000  # characters of one that somebody is led back to
_STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: browsers would then say `Origin: null` of our own pages.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_Handler = Callable[[Request], Awaitable[Response]]


class Front:
    """What answers every request, from the moment that it listens.

    Args:
        app: that is looked at.
        options: of this console.
        entry: who may look, and act.
        pages: all there are; those that the app has are served.
        stopping: of the server.

    Attributes:
        waiting_for: why NATS was not reached yet.
        streams: of events that are open.
    """

    def __init__(
        self,
        app: App,
        options: Options,
        entry: Entry,
        pages: Sequence[Page],
        stopping: Stopping,
    ):
        self.waiting_for: Callable[[], str | None] = lambda: None
        self.streams = 0
        self._app = app
        self._options = options
        self._entry = entry
        self._pages = [page for page in pages if page.shown(app)]
        self._stopping = stopping
        self._site: Site | None = None

    def open(self, site: Site) -> None:
        """Let requests in: NATS was reached."""
        self._site = site

    @property
    def opened(self) -> bool:
        """Whether NATS was reached."""
        return self._site is not None

    def asgi(self) -> ASGIApp:
        """The application."""
        routes: list[BaseRoute] = [
            Route("/", self._home),
            Route("/enter", partial(self._answer, self._enter), methods=["GET", "POST"]),
            Route("/healthz", self._healthz),
            Mount("/static", _Files(directory=_STATIC)),
            self._route("/picture", self._picture),
        ]
        for page in self._pages:
            routes.append(self._route(f"/{page.name}", partial(self._show, page)))
            routes.append(self._route(f"/{page.name}/live", partial(self._live, page)))
            for name, part in page.parts.items():
                routes.append(self._route(f"/{page.name}/{name}", partial(self._part, part)))
            for name, action in page.actions.items():
                act = partial(self._act, action)
                routes.append(self._route(f"/{page.name}/{name}", act, methods=["POST"]))
        served = Starlette(routes=routes, exception_handlers={HTTPException: self._no_route})
        any_host = not self._options.local
        return _with_headers(own_pages_only(served, any_host=any_host, navigation=True))

    # --- around every request -------------------------------------------------------------------

    def _route(self, path: str, call: _Handler, methods: Sequence[str] = ("GET",)) -> Route:
        async def answered(request: Request) -> Response:
            if not self._entry.may_look(request):
                return self._ask(request)
            return await self._answer(call, request)

        return Route(path, answered, methods=list(methods))

    async def _answer(self, call: _Handler, request: Request) -> Response:
        """What a handler answers, or why it does not."""
        try:
            return await call(request)
        except (ClientDisconnect, bodies.Gone):
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - each has its answer
            return self._failed(request, error)

    @property
    def _there(self) -> Site:
        if self._site is None:
            waits = self.waiting_for() or "connecting"
            raise Unavailable(f"the console waits for NATS: {waits}")
        return self._site

    def _failed(self, request: Request, error: Exception) -> Response:
        headers = None
        if isinstance(error, bodies.TooSlow):
            status, text = 408, "the form comes too slowly: send it again"
            headers = {"connection": "close"}
        elif isinstance(error, bodies.TooLarge):
            status, text = 413, f"the form is larger than {_BODY:,} bytes: choose fewer"
        elif isinstance(error, ConfigurationError):
            status, text = 400, str(error)
        elif isinstance(error, MqinferError):
            status, text = 503, str(error)
        else:
            log.error("a request failed", path=request.url.path, exc_info=error)
            status, text = 500, "this is a fault of the console's; it is in its log"
        if "hx-request" in request.headers:
            values = {"app": self._app, "text": text, "bad": True, "more": (), "enters": None}
            # htmx shows what is well alone.
            return HTMLResponse(rendering.page("said.html", values), headers=headers)
        title = "Not now" if status >= 500 else "Not so"
        return self._plain(request, title, text, status, headers=headers)

    def _plain(
        self,
        request: Request,
        title: str,
        text: str,
        status: int,
        page: Page | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        values = self._frame(request, title, page) | {"problem": text, "waits": status == 503}
        return HTMLResponse(rendering.page("problem.html", values), status, headers=headers)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if not self._entry.may_look(request):
            return self._ask(request)
        text = {404: "nothing is at this address", 405: "not this way"}
        return self._plain(
            request, "Not here", text.get(error.status_code, error.detail), error.status_code
        )

    # --- who may --------------------------------------------------------------------------------

    def _ask(self, request: Request, status: int = 401) -> Response:
        """Ask for the token; who gives it comes to where they wanted to be."""
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}
        onward = own_path(request.query_params.get("next", ""))
        if request.url.path != "/enter" and request.method == "GET":
            onward = _place(request)
        if "hx-request" in request.headers:
            headers["hx-refresh"] = "true"  # a part of a page: all of it is asked for again
        values = self._frame(request, "Enter") | {"wrong": status == 403, "onward": onward}
        return HTMLResponse(rendering.page("enter.html", values), status, headers=headers)

    async def _enter(self, request: Request) -> Response:
        token = request.query_params.get("token")
        onward = own_path(request.query_params.get("next", ""))
        if request.method == "POST":
            found = await _form(request)
            token, onward = of_form(found, "token"), own_path(of_form(found, "next"))
        elif token is None:
            return self._ask(request, 200)
        if not self._entry.right(token):
            await asyncio.sleep(self._entry.wait)
            return self._ask(request, 403)
        # Not a redirect: a browser that came by a link from elsewhere would follow it without the
        # cookie, which goes along only with what a page of ours asks for.
        values = self._frame(request, "Enter") | {"onward": onward}
        page = rendering.page("entered.html", values)
        return self._entry.admit(HTMLResponse(page))

    # --- pages ----------------------------------------------------------------------------------

    async def _home(self, request: Request) -> Response:
        del request
        return RedirectResponse(f"/{self._pages[0].name}", 303)

    async def _healthz(self, request: Request) -> Response:
        del request
        return PlainTextResponse("alive\n")

    def _frame(self, request: Request, title: str, page: Page | None = None) -> dict[str, Any]:
        """What the layout needs."""
        return {
            "app": self._app,
            "title": title,
            "pages": self._pages,
            "page": page,
            "build": self._edition(request),
            "can_act": self._entry.can_act(request),
            "hint": self._entry.hint(request),
            "enters": rendering.address("/enter", next=_place(request)),
            "local": self._options.local,
        }

    def _edition(self, request: Request) -> str:
        """What a page was drawn by and for: with another one it is loaded anew."""
        return rendering.build() + ("+" if self._entry.can_act(request) else "")

    def _look(self, page: Page, filters: Mapping[str, str]) -> Look:
        site = self._there
        key = (page.name, *sorted(filters.items()))
        return site.looks.of(key, partial(page.look, site, filters), page.every)

    def _values(self, request: Request, page: Page, seen: Seen) -> dict[str, Any]:
        filters = page.chosen(request)
        frame = self._frame(request, page.title, page)
        return {**frame, "filters": filters, "problem": seen.problem, **seen.state}

    async def _show(self, page: Page, request: Request) -> Response:
        filters = page.chosen(request)
        seen = await self._look(page, filters).now()
        if seen.problem is not None and seen.asked_wrongly:
            return self._plain(request, page.title, seen.problem, 400, page)
        values = self._values(request, page, seen)
        values["stream"] = rendering.address(f"/{page.name}/live", filters)
        if seen.problem is not None:
            return HTMLResponse(rendering.page("away.html", values), 503)
        return HTMLResponse(rendering.page(f"{page.name}.html", values))

    async def _live(self, page: Page, request: Request) -> Any:
        look = self._look(page, page.chosen(request))
        frames = self._frames(page, request, look)
        return EventStream(frames, self._stopping, opened=self)

    async def _frames(self, page: Page, request: Request, look: Look) -> AsyncIterator[Frame]:
        """What is seen, whenever it is another: always all of it, so that a miss does no harm."""
        seen, told = await look.now(), None
        while self._entry.may_look(request):  # a cookie may end meanwhile
            frame = self._told(page, request, seen)
            if frame != told:
                yield frame
                told = frame
            seen = await look.after(seen)

    def _told(self, page: Page, request: Request, seen: Seen) -> Frame:
        if seen.problem is not None:
            return Frame("away", json.dumps({"reason": seen.problem}).encode())
        can_act = self._entry.can_act(request)
        html = seen.drawn.get(can_act)
        if html is None:
            values = self._values(request, page, seen)
            html = seen.drawn[can_act] = rendering.block(f"{page.name}.html", "live", values)
        return Frame("state", json.dumps({"html": html, "build": self._edition(request)}).encode())

    async def _part(self, part: Part, request: Request) -> Response:
        return await part(self._there, request)

    async def _act(self, action: Action, request: Request) -> Response:
        site = self._there
        reason = self._entry.refusal(request)
        if reason is not None:
            enters = None
            if self._entry.asks(request):
                page = urlsplit(request.headers.get("hx-current-url", ""))
                onward = own_path(urlunsplit(("", "", page.path, page.query, "")))
                enters = rendering.address("/enter", next=onward)
            answer = site.said(request, reason, bad=True, enters=enters)
            # htmx shows what is well alone.
            answer.status_code = 200 if "hx-request" in request.headers else 403
            return answer
        return await action(site, request, await _form(request))

    async def _picture(self, request: Request) -> Response:
        path = request.query_params.get("path", "")
        try:
            side = int(request.query_params.get("side", "320"))
            found = await pictures.stored(self._there.store, path, side)
        except (BadImage, BlobError, ValueError) as error:
            return PlainTextResponse(f"{error}\n", 404)
        return pictures.answer(found)


class _Files(StaticFiles):
    def file_response(self, *args: Any, **keywords: Any) -> Response:
        """A file; its address has what it holds in it, so that it never changes."""
        found = super().file_response(*args, **keywords)
        found.headers["cache-control"] = "public, max-age=31536000, immutable"
        return found


async def _form(request: Request) -> dict[str, list[str]]:
    """The fields of a form.

    Raises:
        TooLarge, TooSlow, Gone: of `mqinfer.web.bodies`.
        ConfigurationError: it is none.
    """
    body = b"".join([chunk async for chunk in bodies.chunks(request, _BODY, pause=_PAUSE)])
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=20_000)
    except ValueError:  # UnicodeDecodeError is one
        raise ConfigurationError("the form cannot be read") from None


def _place(request: Request) -> str:
    """Where somebody is, as an address of ours."""
    return own_path(urlunsplit(("", "", request.url.path, request.url.query, "")))


def own_path(text: str) -> str:
    """An address of ours as it is, and "/" for any other: nobody is led elsewhere."""
    ours = text.startswith("/") and not text.startswith(("//", "/\\")) and len(text) <= _ADDRESS
    return text if ours and text.isprintable() else "/"


def _with_headers(served: Any) -> ASGIApp:
    """Say with every answer what a browser may do with it."""
    pairs = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                known = {name for name, _ in headers}
                headers += [pair for pair in pairs if pair[0] not in known]
                if b"cache-control" not in known:
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        await served(scope, receive, told)

    return application
