"""Describing: the part of the OpenAPI description that is of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mqinfer.clientjobs import MOST
from mqinfer.gateway.parts import (
    COUNT,
    KEY,
    MOMENT,
    TEXT,
    accepted,
    answer,
    events,
    header,
    json,
    last_event,
    links,
    parameter,
    problems,
    wait,
)
from mqinfer.gateway.schemas import Schema, ref
from mqinfer.jobs.source import FORMATS

if TYPE_CHECKING:
    from mqinfer.app import App

LISTED: Final = 100  # jobs of one answer, unless more are asked for
MOST_LISTED: Final = 1000
LAST_ROW: Final = 10**12
EVENT: Final = r"(?:(?:[0-9]{1,18}\.){3}[0-9]{1,18}u?s?(\.end)?|0)"  # the id of one
LONGEST: Final = 1000 * 86_400  # seconds of a deadline, and for which an end is kept
_STATUSES = (
    "planning", "running", "completed", "partial", "failed", "canceled", "expired",
)  # fmt: skip
_DURATION: Schema = {
    "anyOf": [
        {"type": "number", "minimum": 1, "maximum": LONGEST},
        {"type": "string", "pattern": "^[1-9][0-9]{0,2}[smhd]$", "examples": ["12h"]},
    ]
}


def body(app: App) -> Schema:
    """The schema of the body that submits."""
    return {
        "type": "object",
        "properties": {
            "endpoint": {"type": "string", "enum": list(app.endpoints)},
            "file": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "description": "A path that POST /v1/files gave, or a prefix of your pictures, "
                "with a slash at its end.",
            },
            "format": {
                "type": "string",
                "enum": list(FORMATS),
                "description": "Of the file, where its name does not say it.",
            },
            "rows": {
                "type": "array",
                "items": {"type": "object"},
                "description": "Instead of a file. One that is no input of the endpoint's is an "
                "error of that row. `custom_id` is your own name of a row.",
            },
            "max_failures": {
                "type": "integer",
                "minimum": 0,
                "maximum": 2**53,
                "description": "The job stops once more rows than these have failed.",
            },
            "deadline": {**_DURATION, "description": "After which it ends; 24h unless said."},
            "keep": {**_DURATION, "description": "How long it is kept then; 7d unless said."},
            "chunk": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST,
                "description": "Rows that are handled together, at most.",
            },
        },
        "required": ["endpoint"],
        "oneOf": [{"required": ["file"]}, {"required": ["rows"]}],
        "additionalProperties": False,
    }


def schemas(app: App) -> dict[str, Schema]:
    """The components."""
    counts = dict.fromkeys(("done", "succeeded", "partial", "failed"), COUNT)
    error: Schema = {
        "type": "object",
        "properties": {
            "kind": {
                "type": "string",
                "enum": ["invalid", "rejected", "internal", "canceled", "expired"],
            },
            "reason": TEXT,
            "letter": TEXT,
        },
        "required": ["kind", "reason"],
    }
    return {
        "mqinfer.Submitted": {"title": "Submitted", **body(app)},
        "mqinfer.Job": {
            "title": "Job",
            "type": "object",
            "properties": {
                "id": TEXT,
                "endpoint": TEXT,
                "status": {
                    "type": "string",
                    "enum": list(_STATUSES),
                    "description": "planning: its rows are being read. partial: some rows have "
                    "failed. failed: all have, or more than may. expired: its deadline came first.",
                },
                "stopping": {
                    "type": "string",
                    "enum": ["canceled", "failed", "expired"],
                    "description": "What it comes to, once what is under way has ended.",
                },
                "reason": {**TEXT, "description": "Why it failed as a whole."},
                "rows": COUNT,
                "progress": {"type": "object", "properties": counts, "required": list(counts)},
                "round": COUNT,
                "created": MOMENT,
                "deadline": MOMENT,
                "ended": MOMENT,
                "expires": MOMENT,
                "links": {"type": "object", "additionalProperties": TEXT},
            },
            "required": [
                "id", "endpoint", "status", "progress", "round", "created", "deadline", "expires",
                "links",
            ],
        },
        "mqinfer.JobRow": {
            "title": "JobRow",
            "type": "object",
            "properties": {
                "row": {"type": "integer", "minimum": 1},
                "custom_id": TEXT,
                "status": {"type": "string", "enum": ["succeeded", "partial", "failed"]},
                "answers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"type": TEXT, "data": {}},
                        "required": ["type", "data"],
                    },
                },
                "errors": {"type": "array", "items": error},
            },
            "required": ["row", "status", "answers", "errors"],
        },
    }  # fmt: skip


def paths() -> dict[str, Any]:
    """The addresses."""
    identity = parameter("id", "path", TEXT, "Of the job.", required=True)
    known = parameter("If-None-Match", "header", TEXT, "The ETag of what is known already.")
    tag = {"ETag": header(TEXT, "Of this state.")}
    job = answer("mqinfer.Job", "As it is.", tag)
    most = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": LISTED}
    listed: Schema = {
        "type": "object",
        "properties": {"jobs": {"type": "array", "items": ref("mqinfer.Job")}},
        "required": ["jobs"],
    }
    return {
        "/v1/jobs": {
            "get": _operation(
                "jobs", "The jobs that are kept, the newest first",
                [parameter("limit", "query", most, "How many, at most.")],
                {"200": json("The jobs.", listed), **problems(400, 401, 503)},
            ),
            "post": {
                **_operation(
                    "submit", "Ask an endpoint for every row of a file",
                    [
                        parameter("Idempotency-Key", "header", KEY,
                                  "Submitted again under the same key, it is the same job."),
                    ],
                    {
                        "200": answer("mqinfer.Job", "It had ended already.", accepted()),
                        "202": {
                            **answer("mqinfer.Job", "It is accepted.", accepted()),
                            "links": links(
                                "job", "job_events", "job_results", "job_errors", "cancel_job",
                                "retry_failed", "forget_job",
                            ),
                        },
                        **problems(400, 401, 408, 413, 415, 422, 503),
                    },
                ),
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": ref("mqinfer.Submitted")}},
                },
            },
        },
        "/v1/jobs/{id}": {
            "parameters": [identity],
            "get": _operation(
                "job", "How a job stands; with If-None-Match, `Prefer: wait` waits for a change",
                [known, wait()],
                {
                    "200": job,
                    "304": {"description": "It is as it was."},
                    **problems(401, 404, 503),
                },
            ),
            "delete": _operation(
                "forget_job", "Cancel a job that is open, and forget it with its results", [],
                {"204": {"description": "It is gone."}, **problems(401, 404, 503)},
            ),
        },
        "/v1/jobs/{id}/events": {
            "parameters": [identity],
            "get": _operation(
                "job_events", "How far it is, as it comes: progress, end, reconnect",
                [
                    last_event(EVENT),
                    parameter("token", "query", TEXT, "Of the link; stands for the key."),
                ],
                {
                    "200": events("Server-sent events."),
                    "204": {"description": "The last event was known: do not come again."},
                    **problems(400, 401, 404, 503),
                },
            ),
        },
        **{
            f"/v1/jobs/{{id}}/{name}": {"parameters": [identity], "get": _lines(name, what)}
            for name, what in (("results", "What came of the rows"), ("errors", "What failed"))
        },
        "/v1/jobs/{id}/cancel": {
            "parameters": [identity],
            "post": _operation(
                "cancel_job", "Cancel a job: what is done stays", [],
                {"200": job, **problems(401, 404, 409, 503)},
            ),
        },
        "/v1/jobs/{id}/retry-failed": {
            "parameters": [identity],
            "post": _operation(
                "retry_failed", "Open a job that has ended for what failed, and what never ran", [],
                {"202": job, **problems(401, 404, 409, 503)},
            ),
        },
    }  # fmt: skip


def _lines(name: str, what: str) -> dict[str, Any]:
    after: Schema = {"type": "integer", "minimum": 0, "maximum": LAST_ROW}
    lines = {"application/jsonl": {"schema": {**TEXT, "description": "A JobRow on each line."}}}
    return _operation(
        f"job_{name}",
        f"{what}: a line of JSON each, in the order of the rows; those that are not done are "
        "left out",
        [
            parameter("after", "query", after, "Go on behind this row."),
            parameter("Range", "header", TEXT, "`bytes=FIRST-LAST`, of a job that has ended."),
            parameter("If-Range", "header", TEXT, "The ETag of what the rest is wanted of."),
            parameter("If-None-Match", "header", TEXT, "The ETag of what is known already."),
        ],
        {
            "200": {
                "description": "Of a job that has ended: all of them.",
                "headers": {
                    "ETag": header(TEXT, "Of this file."),
                    "Accept-Ranges": header(TEXT, "`bytes`, where a part of it may be asked for."),
                },
                "content": lines,
            },
            "202": {"description": "Of one that has not: those so far.", "content": lines},
            "206": {
                "description": "The bytes that were asked for.",
                "headers": {"Content-Range": header(TEXT, "Which these are, and of how many.")},
                "content": lines,
            },
            "304": {"description": "It is as it was."},
            **problems(400, 401, 404, 416, 503),
        },
    )


def _operation(
    name: str, summary: str, parameters: list[Any], responses: dict[str, Any]
) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["jobs"],
        "parameters": parameters,
        "responses": responses,
    }
