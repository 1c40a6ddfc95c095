"""Asking: a body becomes a request, which nothing loses from then on."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from mqinfer.codec import CONTENT_TYPES, Codec
from mqinfer.errors import (
    BlobError,
    EncodeError,
    PayloadTooLarge,
    PublishError,
    RequestConflict,
)
from mqinfer.flow.saveblobs import save_blobs
from mqinfer.gateway import answers, bodies, forms, tracing, validation, views
from mqinfer.gateway.problems import Fault, Problem, away, invalid
from mqinfer.message import key_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.endpoint import Endpoint
    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant
    from mqinfer.message import Message
    from mqinfer.requests.state import State

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
FORM: Final = "multipart/form-data"
_SUBJECT = 1024  # bytes of a subject that NATS takes well, with what stands beside it in a line


class Asking:
    """What asks.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        self._site = site
        self._codec = Codec(site.store)

    async def ask(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/endpoints/{name}/requests`."""
        site, begun = self._site, time.perf_counter()
        endpoint = site.endpoint(request)
        key = key_of(request)
        wait = answers.asked_to_wait(request, site.options.max_wait)
        await site.load.check(endpoint.name)
        with site.room.share() as take:
            message, webhook = await self._message(request, endpoint, tenant, take)
            subject, payload, content_type = await self._encoded(message)

        async def race(state: State, ended: Callable[[], Coroutine[Any, Any, State]]) -> State:
            site.counting.accepting.observe(time.perf_counter() - begun)
            return await site.until_ended(request, state, ended)

        try:
            accepted = await site.requests.accept(
                endpoint.name,
                subject,
                payload,
                content_type,
                key=key,
                tenant=tenant.name,
                wait=wait,
                race=race,
                webhook=webhook,
                headers=tracing.trace_of(request),
            )
        except RequestConflict as error:
            raise Problem(422, "key-reused", str(error)) from None
        except PayloadTooLarge as error:
            raise Problem(413, "too-large", str(error)) from None
        except PublishError as error:
            raise away(f"the request was not accepted: {error}") from None
        if not wait:
            site.counting.accepting.observe(time.perf_counter() - begun)
        state = accepted.state
        progress = await site.progress(state) if accepted.replayed else None
        where = views.REQUESTS + state.id
        headers = {"location": where, **answers.waited(wait)}
        if accepted.replayed:
            headers["idempotent-replayed"] = "true"
        summary = views.summary(state, progress, site.token(state))
        if state.open:
            headers["retry-after"] = "1"
            return answers.state(request, views.encode(summary), 202, headers)
        result = views.result(state, await site.requests.answers(state), progress)
        return answers.state(request, views.encode({**summary, **result}), 200, headers)

    # --- inside -----------------------------------------------------------------------------------

    async def _message(
        self, request: Request, endpoint: Endpoint[Any], tenant: Tenant, take: bodies.Take
    ) -> tuple[Message, str]:
        parts: dict[str, bytes] = {}
        if is_of(request, FORM):
            body, parts = forms.asked(await self._parts(request, take), endpoint.reads)
        elif is_of(request, answers.JSON):
            body = await bodies.whole(request, self._site.options.max_body, take)
        else:
            raise unknown_type("this takes application/json or multipart/form-data")
        return await self._site.inputs.read(endpoint, tenant, body, parts)

    async def _parts(self, request: Request, take: bodies.Take) -> list[forms.Part]:
        content_type = request.headers.get("content-type", "")
        chunks = bodies.chunks(request, self._site.options.max_upload, take)
        return await forms.parts(content_type, chunks)

    async def _encoded(self, message: Message) -> tuple[str, bytes, str]:
        """Subject, payload and content type of a message, whose blobs are stored.

        Raises:
            Problem: it cannot be carried.
        """
        site, kind = self._site, type(message)
        subject, key = site.app.subject(kind), kind.__mqinfer__.key
        if key is not None:
            subject = f"{subject}.{key_token(getattr(message, key))}"
            if len(subject) > _SUBJECT:
                raise invalid([Fault(validation.pointer(("input", key)), "is too long for a key")])
        try:
            await save_blobs(
                [message],
                site.store,
                inline_limit=site.inline_limit,
                max_payload=site.broker.max_payload,
            )
            payload, wire = self._codec.write(message)
        except EncodeError as error:
            raise invalid([Fault("/input", str(error))]) from None
        except BlobError as error:
            raise away(f"a file of the request cannot be stored: {error}") from None
        return subject, payload, CONTENT_TYPES[wire]


def is_of(request: Request, wanted: str) -> bool:
    """Whether a body is said to be of a media type."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return given == wanted


def unknown_type(detail: str) -> Problem:
    """A body of another media type."""
    return Problem(415, "content-type", detail, headers={"connection": "close"})


def key_of(request: Request) -> str | None:
    """The client's key for this request.

    Raises:
        Problem: it cannot be one.
    """
    found = request.headers.getlist("idempotency-key")
    if not found:
        return None
    if len(found) > 1 or not _KEY.fullmatch(found[0]):
        raise Problem(
            400,
            "malformed",
            "an Idempotency-Key is one header of 1 to 255 visible characters of ASCII",
            headers={"connection": "close"},
        )
    return found[0]
