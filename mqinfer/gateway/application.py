"""Application: which address leads where, who may go there, and that each failure has an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mqinfer.errors import BlobError, ConflictError, JobUnknown, RequestUnknown, Unavailable
from mqinfer.gateway import answers, expecting, openapi, page, schemas, views, webhooks
from mqinfer.gateway.asking import Asking
from mqinfer.gateway.bodies import Gone
from mqinfer.gateway.files import Files
from mqinfer.gateway.jobs.showing import ShowingJobs
from mqinfer.gateway.jobs.submitting import Submitting
from mqinfer.gateway.problems import Problem, away, not_found
from mqinfer.gateway.searching import Searching, listed
from mqinfer.gateway.showing import Showing
from mqinfer.gateway.static import Pages
from mqinfer.gateway.tenants import Tenant
from mqinfer.gateway.tracing import STATUS, begun
from mqinfer.http import METRICS_TYPE
from mqinfer.origin import own_pages_only
from mqinfer.requests import ended
from mqinfer.web import signing

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mqinfer.app import App
    from mqinfer.gateway.counting import Counting
    from mqinfer.gateway.options import Options
    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenants

log = structlog.get_logger("mqinfer.gateway")

_Handler = Callable[[Request, Tenant], Awaitable[Any]]
_Part = TypeVar("_Part", Asking, Showing, Files, Submitting, ShowingJobs, Searching)
_ALLOWED = (
    "Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "If-Range",
    "Last-Event-ID", "Prefer", "Range", "X-API-Key",
)  # fmt: skip
_EXPOSED = (
    "Accept-Ranges", "Content-Range", "ETag", "Idempotent-Replayed", "Location",
    "Preference-Applied", "Retry-After",
)  # fmt: skip


class Front:
    """What answers every request, from the moment that it listens.

    Args:
        app: whose endpoints.
        options: of this gateway.
        tenants: who may ask.
        counting: what is done.
        secret: that tokens are signed with.
        shared: by gateways and workers, that webhooks are signed with.
        now: seconds since the epoch.

    Attributes:
        waiting_for: why NATS was not reached yet.
    """

    def __init__(
        self,
        app: App,
        options: Options,
        tenants: Tenants,
        counting: Counting,
        secret: str,
        shared: str,
        now: Callable[[], float],
    ):
        self._site: Site | None = None
        self._parts: dict[type, Any] = {}  # what answers, once NATS was reached
        self.waiting_for: Callable[[], str | None] = lambda: None
        self._app = app
        self._options = options
        self._tenants = tenants
        self._counting = counting
        self._secret = secret
        self._shared = shared
        self._now = now
        self._document = openapi.document(app, keys=tenants.needed)
        self._refs, self._schemas = schemas.components(app)

    def open(self, site: Site) -> None:
        """Let requests in: NATS was reached."""
        self._site = site
        parts = (
            *(Asking(site), Showing(site), Files(site), Submitting(site), ShowingJobs(site)),
            Searching(site),
        )
        self._parts = {type(part): part for part in parts}

    def asgi(self) -> ASGIApp:
        """The application."""

        def by(
            kind: type[_Part], call: Callable[[_Part, Request, Tenant], Awaitable[Any]]
        ) -> _Handler:
            return lambda request, tenant: call(self._opened(kind), request, tenant)

        one, job = "/v1/requests/{id}", "/v1/jobs/{id}"
        routes: list[BaseRoute] = [
            self._route("/v1/endpoints", self._endpoints),
            self._route("/v1/endpoints/{name}", self._endpoint),
            self._route("/v1/endpoints/{name}/requests", POST=by(Asking, Asking.ask)),
            self._route("/v1/files", POST=by(Files, Files.upload)),
            self._route(one, by(Showing, Showing.show), DELETE=by(Showing, Showing.forget)),
            self._route(f"{one}/result", by(Showing, Showing.result)),
            self._route(f"{one}/events", by(Showing, Showing.events)),
            self._route(f"{one}/cancel", POST=by(Showing, Showing.cancel)),
            self._route(
                "/v1/jobs",
                by(ShowingJobs, ShowingJobs.listed),
                POST=by(Submitting, Submitting.submit),
            ),
            self._route(
                job,
                by(ShowingJobs, ShowingJobs.show),
                DELETE=by(ShowingJobs, ShowingJobs.forget),
            ),
            self._route(f"{job}/events", by(ShowingJobs, ShowingJobs.events)),
            self._route(f"{job}/results", by(ShowingJobs, ShowingJobs.results)),
            self._route(f"{job}/errors", by(ShowingJobs, ShowingJobs.errors)),
            self._route(f"{job}/cancel", POST=by(ShowingJobs, ShowingJobs.cancel)),
            self._route(f"{job}/retry-failed", POST=by(ShowingJobs, ShowingJobs.retry)),
            self._route("/v1/indexes", self._indexes),
            self._route("/v1/indexes/{name}/search", POST=by(Searching, Searching.search)),
            self._route("/v1/webhook-secret", self._webhook_secret),
            self._route("/metrics", self._metrics),
            self._route("/openapi.json", self._openapi, keys=False),
            self._route("/docs", self._docs, keys=False),
            self._route("/docs/{file}", self._docs_file, keys=False),
            self._route("/healthz", self._healthz, keys=False),
            self._route("/readyz", self._readyz, keys=False),
        ]
        if self._options.site is not None:
            routes.append(Pages(self._options.site))
        middleware = []
        if self._options.origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=self._options.origins,
                    allow_methods=("GET", "POST", "DELETE"),
                    allow_headers=_ALLOWED,
                    expose_headers=_EXPOSED,
                    max_age=600,
                )
            )
        served = Starlette(
            routes=routes,
            middleware=middleware,
            exception_handlers={HTTPException: _no_route},
        )
        served.router.redirect_slashes = False
        return expecting.closing(self._from_allowed_pages(served))

    # --- around every request -------------------------------------------------------------------

    def _route(
        self, path: str, get: _Handler | None = None, *, keys: bool = True, **others: _Handler
    ) -> Route:
        """A route; the handlers of other methods than GET by the method's name."""
        handlers = others if get is None else {"GET": get, "HEAD": get, **others}

        async def answered(request: Request) -> Any:
            tracing = None if self._site is None else self._site.tracing
            try:
                tenant = self._tenant(request) if keys else Tenant("", "")
                handler = handlers[request.method]
                if tracing is None or request.method != "POST":
                    found = await handler(request, tenant)
                else:
                    with begun(tracing, path, request) as span:
                        found = await handler(request, tenant)
                        span.tell({STATUS: found.status_code})
            except Exception as error:  # noqa: BLE001 - each has its answer
                found = _failed(request, error)
            self._counting.answered[f"{request.method} {path}", found.status_code] += 1
            return found

        return Route(path, answered, methods=list(handlers))

    def _tenant(self, request: Request) -> Tenant:
        """Who asks.

        Raises:
            Problem: nobody that is known.
        """
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
        found = self._tenants.of(key)
        if (
            found is None
            and key is None
            and request.scope["path"].endswith("/events")
            and (token := request.query_params.get("token"))
        ):
            identity = request.path_params.get("id", "")
            name = signing.opened(self._secret, identity, token, self._now())
            found = None if name is None else Tenant(name, "")
        if found is None:
            detail = "send your key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"
            headers = {"www-authenticate": "Bearer", "connection": "close"}
            raise Problem(401, "key", detail, headers=headers)
        return found

    def _opened(self, kind: type[_Part]) -> _Part:
        """What answers.

        Raises:
            Problem: NATS was not reached yet.
        """
        found: _Part | None = self._parts.get(kind)
        if found is None:
            raise away(f"the gateway waits for NATS: {self.waiting_for() or 'connecting'}")
        return found

    def _from_allowed_pages(self, served: ASGIApp) -> ASGIApp:
        """Turn away what pages of other origins send, unless they are allowed."""
        # With keys a page cannot do anything: it has none. By which name it is called is then free.
        any_host = self._tenants.needed or not self._options.local
        guarded = own_pages_only(served, any_host=any_host, navigation=True)
        allowed = {origin.encode() for origin in self._options.origins}

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and allowed:
                origin = next((v for name, v in scope["headers"] if name == b"origin"), None)
                if origin in allowed:
                    await served(scope, receive, send)
                    return
            await guarded(scope, receive, send)

        return application

    # --- what needs no server -------------------------------------------------------------------

    async def _endpoints(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        told = [openapi.of_endpoint(one, self._refs) for one in self._app.endpoints.values()]
        return answers.json(views.encode({"endpoints": told, **self._components()}))

    async def _endpoint(self, request: Request, tenant: Tenant) -> Response:
        del tenant
        found = self._app.endpoints.get(request.path_params["name"])
        if found is None:
            raise Problem(404, "unknown", "there is no such endpoint")
        told = {**openapi.of_endpoint(found, self._refs), **self._components()}
        return answers.json(views.encode(told))

    async def _indexes(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        return answers.json(views.encode(listed(self._app)))

    def _components(self) -> dict[str, Any]:
        return {"components": {"schemas": self._schemas}}

    async def _webhook_secret(self, request: Request, tenant: Tenant) -> Response:
        del request
        if not self._shared or not ended.told(self._app):
            raise Problem(404, "unknown", "this server tells no addresses")
        found = webhooks.secret_of(self._shared, tenant.name)
        return answers.json(views.encode({"secret": found}))

    async def _openapi(self, request: Request, tenant: Tenant) -> Response:
        del tenant
        return answers.state(request, msgspec.json.encode(self._document))

    async def _docs(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        from html import escape

        headers = {"content-security-policy": page.POLICY}
        return HTMLResponse(page.HTML.format(title=escape(self._app.name)), headers=headers)

    async def _docs_file(self, request: Request, tenant: Tenant) -> Response:
        del tenant
        name = request.path_params["file"]
        if name == "openapi-3.0.json":
            return answers.json(msgspec.json.encode(page.in_3_0(self._document)))
        if name == "page.js":
            return Response(page.SCRIPT, media_type="text/javascript")
        if name not in page.FILES:
            raise Problem(404, "unknown", "there is no such file")
        kind = page.TYPES["." + name.rpartition(".")[2]]
        return FileResponse(page.folder() / name, media_type=kind)

    async def _healthz(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        return PlainTextResponse("alive\n")

    async def _readyz(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        why = self._not_ready()
        return PlainTextResponse(f"{why or 'ready'}\n", 200 if why is None else 503)

    def _not_ready(self) -> str | None:
        site = self._site
        if site is None:
            return self.waiting_for() or "connecting"
        return "stopping" if site.stopping.begun else site.broker.blocked

    async def _metrics(self, request: Request, tenant: Tenant) -> Response:
        del request, tenant
        return Response(self._counting.render(), media_type=METRICS_TYPE)


def _failed(request: Request, error: Exception) -> Response:
    """The answer to a request that could not be answered as it wished."""
    if isinstance(error, (Gone, ClientDisconnect)):
        return Response(status_code=499)  # nobody reads it
    if isinstance(error, Problem):
        return answers.Refused(error)
    if isinstance(error, (RequestUnknown, JobUnknown)):
        what = "job" if isinstance(error, JobUnknown) else "request"
        return answers.Refused(not_found(what))
    if isinstance(error, (Unavailable, BlobError, ConflictError)):
        return answers.Refused(away(str(error)))
    log.error("a request failed", path=request.url.path, exc_info=error)
    detail = "this is a fault of the server's; it is in its log"
    return answers.Refused(Problem(500, "internal", detail, headers={"connection": "close"}))


async def _no_route(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    headers = {**(error.headers or {}), "connection": "close"}
    details = {
        404: "nothing is at this address: /openapi.json says what is",
        405: "not this method",
    }
    detail = details.get(error.status_code, str(error.detail))
    kind = {404: "unknown", 405: "method"}.get(error.status_code, "http")
    return answers.Refused(Problem(error.status_code, kind, detail, headers=headers))
