"""Submitting: a body becomes a job, at once; its rows are read by a worker.

All that is done here is one write, and before it that of the rows that stand in the body. So a
client has its id before the first row is read, and nobody misses a gateway that dies then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from mqinfer.blob import checked_path
from mqinfer.errors import BlobPathError, ConfigurationError, RequestConflict
from mqinfer.gateway import answers, asking, bodies, validation
from mqinfer.gateway.jobs import views
from mqinfer.gateway.jobs.describing import LONGEST
from mqinfer.gateway.jobs.describing import body as body_schema
from mqinfer.gateway.problems import Fault, Problem, away, invalid
from mqinfer.gateway.views import encode
from mqinfer.jobs.accepting import KEEP, LASTS, Terms
from mqinfer.jobs.source import STORED, form_of
from mqinfer.times import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from mqinfer.gateway.site import Site
    from mqinfer.gateway.tenants import Tenant


class _Rows(Struct):
    rows: list[Raw] = []


_rows = msgspec.json.Decoder(_Rows).decode


class Submitting:
    """What submits.

    Args:
        site: that it belongs to.
    """

    def __init__(self, site: Site):
        from jsonschema_rs import Draft202012Validator

        self._site = site
        self._validator = Draft202012Validator(body_schema(site.app))

    async def submit(self, request: Request, tenant: Tenant) -> Response:
        """`POST /v1/jobs`."""
        site = self._site
        key = asking.key_of(request)
        if (reason := site.broker.blocked) is not None:
            raise away(f"no job can be accepted now: {reason}")
        if not asking.is_of(request, answers.JSON):
            raise asking.unknown_type("this takes application/json")
        with site.room.share() as take:
            body = await bodies.whole(request, site.options.max_body, take)
            data = self._valid(body)
            rows: str | list[bytes]
            if "file" in data:
                rows, form = await self._file(data, tenant)
            else:
                rows, form = await asyncio.to_thread(_lines, body), "jsonl"
            try:
                state, replayed = await site.jobs.accept(
                    data["endpoint"],
                    rows,
                    form=form,
                    prefix=tenant.prefix,
                    key=key,
                    tenant=tenant.name,
                    terms=_terms(data),
                )
            except RequestConflict as error:
                raise Problem(422, "key-reused", str(error)) from None
        headers = {"location": views.JOBS + state.id}
        if replayed:
            headers["idempotent-replayed"] = "true"
        if state.open:
            headers["retry-after"] = "1"
        told = encode(views.summary(state, site.token(state)))
        return answers.state(request, told, 202 if state.open else 200, headers)

    def _valid(self, body: bytes) -> dict[str, Any]:
        """A body that is what the description says, of values that fit.

        Raises:
            Problem: with everything that is wrong.
        """
        data = validation.json(body)
        faults = validation.found(self._validator, data)
        if not faults:
            both = "file" in data and "rows" in data
            if both or not ("file" in data or "rows" in data):
                why = "both `file` and `rows`: say one" if both else "`file` or `rows` is missing"
                faults.append(Fault("", why))
            if "rows" in data and "format" in data:
                faults.append(Fault("/format", "is of a file, and there is none"))
            for name in ("deadline", "keep"):
                if (why_not := _no_duration(data.get(name, 1))) is not None:
                    faults.append(Fault(f"/{name}", why_not))
        if faults:
            raise invalid(faults)
        return data  # type: ignore[no-any-return]

    async def _file(self, data: Mapping[str, Any], tenant: Tenant) -> tuple[str, str]:
        """What names a file to a worker, and its format.

        Raises:
            Problem: it is not the tenant's, there is none, or nothing says what it is.
        """
        path, form = data["file"], data.get("format", "")
        folder = path.endswith("/")
        try:
            checked_path(path.removesuffix("/"))
        except BlobPathError as error:
            raise invalid([Fault("/file", str(error))]) from None
        if not path.startswith(tenant.prefix):
            why = f"is no path of yours: yours begin with {tenant.prefix!r}"
            raise invalid([Fault("/file", why)])
        if not folder and not await self._site.store.exists(path):
            raise invalid([Fault("/file", "nothing is stored under this path")])
        if not folder and not form and form_of(path) is None:
            raise invalid([Fault("/format", "is missing: the file's name does not say what it is")])
        return STORED + path, form


def _lines(body: bytes) -> list[bytes]:
    """Rows that stand in a body, each on one line."""
    return [msgspec.json.format(bytes(row), indent=-1) for row in _rows(body).rows]


def _no_duration(value: object) -> str | None:
    """Why a value is no time that a job can be given; None if it is one."""
    try:
        seconds = parse_duration(value)  # type: ignore[arg-type]
    except ConfigurationError as error:
        return str(error)
    return None if 1 <= seconds <= LONGEST else "must be 1 second to 1000 days"


def _terms(data: Mapping[str, Any]) -> Terms:
    failures, rows = data.get("max_failures"), data.get("chunk")
    return Terms(
        max_failures=None if failures is None else int(failures),
        lasts=parse_duration(data.get("deadline", LASTS)),
        keep=parse_duration(data.get("keep", KEEP)),
        most=None if rows is None else int(rows),
    )
