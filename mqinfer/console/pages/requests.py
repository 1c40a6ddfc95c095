"""Requests and jobs: how each is, where its time went, what came of it; cancel, discard, try again.

All of it is read from what is kept: the states in their buckets, the records of what came of a
request, the parts of a job's results. Events only tell clients sooner, and nothing here needs them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from starlette.responses import Response, StreamingResponse

from mqinfer.console import payloads
from mqinfer.console.page import Filters, Form, Page, of_form, one_of, place_of_list
from mqinfer.errors import ConfigurationError, MqinferError
from mqinfer.jobs import places as job_places
from mqinfer.jobs import state as job_states
from mqinfer.operate.newest import Newest, newest
from mqinfer.requests import places, stretches
from mqinfer.requests import state as states

if TYPE_CHECKING:
    from starlette.requests import Request

    from mqinfer.app import App
    from mqinfer.console.site import Site
    from mqinfer.jobs.state import State as Job
    from mqinfer.requests.state import Answer, State
    from mqinfer.streams import Stored

_T = TypeVar("_T")
SHOWN: Final = 50
_ANSWERS: Final = 20
STATUSES: Final = (
    "open", "succeeded", "completed", "partial", "failed", "canceled", "expired",
)  # fmt: skip
MOODS: Final = {
    "open": "calm",
    "succeeded": "good",
    "completed": "good",
    "partial": "warn",
    "failed": "bad",
    "canceled": "warn",
    "expired": "bad",
}


async def look(site: Site, filters: Filters) -> dict[str, Any]:
    """The newest requests, and the jobs, those that changed last first."""
    now = time.time()
    wanted = one_of(filters, "status", STATUSES)
    endpoint = one_of(filters, "endpoint", site.app.endpoints) or "*"

    def take_request(stored: Stored) -> State | None:
        found = _decoded(states.decode, stored)
        return found if found and _wanted(found, now, wanted) else None

    def take_job(stored: Stored) -> Job | None:
        found = _decoded(job_states.decode, stored)
        return found if found and _wanted(found, now, wanted) else None

    async def page(bucket: str, take: Any, before: str) -> Newest[Any]:
        return await newest(
            site.streams,
            f"KV_{bucket}",
            take,
            subject=f"$KV.{bucket}.{endpoint}.*",
            before=place_of_list(filters.get(before, "")),
            count=SHOWN,
        )

    jobs = await page(job_places.bucket(site.app), take_job, "jobs_before")
    requests = await page(places.bucket(site.app), take_request, "before")
    return {
        "requests": requests,
        "jobs": jobs,
        "moods": MOODS,
        "statuses": STATUSES,
        "now": now,
    }


def _decoded(decode: Callable[[bytes], _T], stored: Stored) -> _T | None:
    try:
        return decode(stored.data)
    except msgspec.MsgspecError:
        return None  # a stranger's, or deleted


def _wanted(state: State | Job, now: float, status: str | None) -> bool:
    return state.expires > now and (not status or state.status == status)


# --- one of them --------------------------------------------------------------------------------


def _identity(request: Request) -> tuple[str, str]:
    return request.query_params.get("id", ""), request.query_params.get("tenant", "")


async def _request(site: Site, identity: str, tenant: str) -> State:
    found = await site.requests.find(identity, tenant=tenant) if places.parts(identity) else None
    if found is None:
        raise ConfigurationError("this request is not kept any more")
    return found


async def show(site: Site, request: Request) -> Response:
    """All that is known of a request."""
    state = await _request(site, *_identity(request))
    answers: tuple[Answer, ...] = ()
    problem = None
    try:
        answers = await site.requests.answers(state)
    except MqinferError as error:
        problem = str(error)
    settled, left = await site.requests.progress(state) if state.open else (0, 0)
    return site.render(
        request,
        "request.html",
        one=state,
        settled=settled,
        left=left,
        stretches=await stretches.stretches(site.app, site.streams, state),
        answers=[_shown(answer) for answer in answers[:_ANSWERS]],
        more=max(0, len(answers) - _ANSWERS),
        asked=None if state.asked is None else _text(state.asked.body),
        problem=problem,
        now=time.time(),
    )


def _shown(answer: Answer) -> tuple[str, str]:
    return answer.type, _text(answer.body)


def _text(body: states.Body) -> str:
    return payloads.text(body.payload, body.content_type)


async def show_job(site: Site, request: Request) -> Response:
    """All that is known of a job, with the first errors of its rows."""
    identity, tenant = _identity(request)
    state = await site.jobs.get(identity, tenant=tenant)
    failures: list[Any] = []
    problem = None
    if state.counts.failed or state.counts.partial:
        try:
            async for line in site.jobs.lines(state):
                if line.errors:
                    failures.append(line)
                if len(failures) == _ANSWERS:
                    break
        except MqinferError as error:
            problem = str(error)
    return site.render(
        request,
        "job.html",
        one=state,
        failures=failures,
        problem=problem,
        speed=_speed(state),
        can_retry=job_states.can_retry(state),
    )


def _speed(state: Job) -> float | None:
    """Rows a second since the job began, in its first round."""
    seconds = (state.ended or time.time()) - state.created
    return state.counts.rows / seconds if state.counts.rows and not state.round else None


async def results(site: Site, request: Request) -> Response:
    """The results of a job so far as a file of lines, which no browser shows."""
    identity, tenant = _identity(request)
    state = await site.jobs.get(identity, tenant=tenant)
    errors = request.query_params.get("only") == "errors"
    name = f"{state.id}-{'errors' if errors else 'results'}.jsonl"
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "content-security-policy": "default-src 'none'; sandbox",
    }

    async def lines() -> AsyncIterator[bytes]:
        async for text in site.jobs.text(state, errors=errors):
            yield text

    return StreamingResponse(lines(), media_type="application/octet-stream", headers=headers)


# --- actions ------------------------------------------------------------------------------------


def _is_job(identity: str) -> bool:
    return job_places.endpoint_of(identity) is not None


async def cancel(site: Site, request: Request, form: Form) -> Response:
    """Stop the work on a request or job."""
    identity, tenant = of_form(form, "id"), of_form(form, "tenant")
    if _is_job(identity):
        job = await site.jobs.cancel(identity, tenant=tenant)
        stops = "is canceled" if not job.open else "stops, once what is under way has ended"
        return site.said(request, f"job {identity} {stops}")
    state = await _request(site, identity, tenant)
    if not state.open:
        return site.said(request, f"request {identity} has ended: {state.status}", bad=True)
    ended = await site.requests.cancel(identity, tenant=tenant)
    return site.said(request, f"request {identity}: {ended.status}")


async def discard(site: Site, request: Request, form: Form) -> Response:
    """Forget a request or job, with all that came of it."""
    identity, tenant = of_form(form, "id"), of_form(form, "tenant")
    if _is_job(identity):
        await site.jobs.forget(identity, tenant=tenant)
    else:
        await _request(site, identity, tenant)
        await site.requests.forget(identity, tenant=tenant)
    return site.said(request, f"{identity} is forgotten, with what came of it")


async def retry(site: Site, request: Request, form: Form) -> Response:
    """Open a job again for what failed."""
    identity = of_form(form, "id")
    state = await site.jobs.retry(identity, tenant=of_form(form, "tenant"))
    return site.said(request, f"job {identity} is open again, for the rows that failed: round "
                     f"{state.round + 1}")  # fmt: skip


def _shown_for(app: App) -> bool:
    return bool(app.endpoints)


PAGE: Final = Page(
    name="requests",
    title="Requests and jobs",
    look=look,
    filters=("endpoint", "status", "before", "jobs_before"),
    parts={"request": show, "job": show_job, "results": results},
    actions={"cancel": cancel, "discard": discard, "retry": retry},
    shown=_shown_for,
)
