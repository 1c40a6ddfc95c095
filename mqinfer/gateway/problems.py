"""Problems: what a client is told when it gets no answer, as RFC 9457 has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

MEDIA_TYPE = "application/problem+json"
_KIND = "urn:mqinfer:problem:"


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with a body.

    Attributes:
        pointer: where, as a JSON pointer (RFC 6901) into the body.
        detail: what.
    """

    pointer: str
    detail: str


class Problem(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        kind: what sort of problem it is, for programs: a word.
        detail: what happened, and what to do.
        errors: all that is wrong with the body.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The answer's."""
        told: dict[str, object] = {
            "type": _KIND + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            told["errors"] = self.errors
        return msgspec.json.encode(told)


def invalid(errors: Sequence[Fault]) -> Problem:
    """A body that is read, and is not what the endpoint wants."""
    many = f"{len(errors)} things are" if len(errors) != 1 else "one thing is"
    return Problem(422, "validation", f"{many} wrong with the body", errors=errors)


def unread(status: int, detail: str) -> tuple[str, bytes]:
    """Media type and body of the answer to what is no request."""
    return MEDIA_TYPE, Problem(status, "malformed", detail).body()


def not_found(what: str = "request") -> Problem:
    """Whether it never was, is forgotten, or is another's: nobody learns which."""
    return Problem(404, "unknown", f"there is no such {what}, or what came of it is kept no more")


def too_large(limit: int) -> Problem:
    """A body beyond the limit."""
    detail = f"the body is larger than the {limit:,} bytes that are taken here"
    return Problem(413, "too-large", detail, headers={"connection": "close"})


def busy(detail: str, seconds: int) -> Problem:
    """More work than can be taken now."""
    return Problem(429, "busy", detail, headers=again(seconds))


def away(detail: str, seconds: int = 2) -> Problem:
    """What is needed does not answer."""
    return Problem(503, "unavailable", detail, headers=again(seconds))


def again(seconds: int) -> dict[str, str]:
    """The headers that say when to ask again. The body of a refused request is not read."""
    return {"retry-after": str(seconds), "connection": "close"}
