"""State: what is kept of a request, and how it changes: from open to one end, which stays. Pure.

    open ──> succeeded | partial | failed     all that came of it is settled
         ──> canceled                         by whoever asked
         ──> expired                          at its deadline

Whoever is first decides: each change is a compare-and-set, and of an ended request nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Raw, Struct

from mqinfer.completion.progress import CHANGED, COMPLETE, LATE, TOO_MANY

if TYPE_CHECKING:
    from mqinfer.completion.assemble import Died, Tale
    from mqinfer.completion.record import Payload

Status = Literal["open", "succeeded", "partial", "failed", "canceled", "expired"]
Kind = Literal["rejected", "invalid", "internal"]

INTERNAL = "what came of it could not be handled"
# Why a request has not all of its answers, where everything was settled.
SHORT: Final[Mapping[str, str]] = {
    TOO_MANY: "more came of it than a request can have",
    CHANGED: "the endpoint has other answers now than when some of them were written",
}
_JSON = "application/json"


class Body(Struct, frozen=True, omit_defaults=True):
    """A payload: as JSON where it is JSON, so that people can read it, else its bytes.

    Attributes:
        json: of JSON.
        data: of anything else.
        content_type: of that.
    """

    json: Raw = Raw()
    data: bytes = b""
    content_type: str = _JSON

    @classmethod
    def of(cls, payload: bytes, content_type: str) -> Body:
        """A payload to be kept."""
        if content_type in ("", _JSON):
            return cls(json=Raw(payload))
        return cls(data=payload, content_type=content_type)

    @property
    def payload(self) -> bytes:
        """Its bytes."""
        return bytes(self.json) if self.content_type == _JSON else self.data


class Asked(Struct, frozen=True):
    """The message that a request is, to be published again, should that be lost.

    Attributes:
        subject: full.
        body: of the message.
        headers: beside those that every such message has.
    """

    subject: str
    body: Body
    headers: dict[str, str] = {}


class Answer(Struct, frozen=True):
    """One answer.

    Attributes:
        id: of the output that it is.
        type: its subject.
        body: of the output.
    """

    id: str
    type: str
    body: Body


class Problem(Struct, frozen=True, omit_defaults=True):
    """Why something that came of a request has no answer.

    Attributes:
        kind: "rejected": a handler said so; "invalid": the request is no message of its type;
            "internal": all else, which is nobody's outside.
        reason: in words that may leave.
        letter: the id that the dead letter has.
    """

    kind: Kind
    reason: str
    letter: str = ""


class State(Struct, frozen=True, omit_defaults=True):
    """A request.

    Attributes:
        id: of the request.
        endpoint: that was asked.
        created: when it was accepted, in seconds since the epoch; so are the others:
        deadline: when it ends, whatever came of it.
        expires: when it is forgotten.
        keep: seconds for which its end is kept.
        fingerprint: of what was asked.
        tenant: who asked.
        status: "open", or its end.
        asked: the message, while it is open.
        ended: when it ended.
        answers: in the order of their causes, unless they are `stored`.
        errors: of what died.
        stored: path of the answers in the blob store, where they are too much for this.
        models: `name=version` of those that answered.
        webhook: address that is told of the end.
    """

    id: str
    endpoint: str
    created: float
    deadline: float
    expires: float
    keep: float
    fingerprint: str
    tenant: str = ""
    status: Status = "open"
    asked: Asked | None = None
    ended: float = 0.0
    answers: tuple[Answer, ...] = ()
    errors: tuple[Problem, ...] = ()
    stored: str = ""
    models: str = ""
    webhook: str = ""

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.status == "open"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(State).decode
encode_answers = msgspec.json.Encoder().encode
decode_answers = msgspec.json.Decoder(tuple[Answer, ...]).decode


class End(Struct, frozen=True):
    """How a request ends; fields as of `State`."""

    status: Status
    answers: tuple[Answer, ...] = ()
    errors: tuple[Problem, ...] = ()
    stored: str = ""
    models: str = ""


def ended(before: State, end: End, now: float) -> State:
    """A request at its end; one that has ended stays as it is.

    Args:
        before: as it is kept.
        end: how.
        now: seconds since the epoch.
    """
    if not before.open:
        return before
    return msgspec.structs.replace(
        before,
        status=end.status,
        asked=None,
        ended=now,
        expires=now + before.keep,
        answers=end.answers,
        errors=end.errors,
        stored=end.stored,
        models=end.models,
    )


def forgotten(state: State, now: float) -> State:
    """What is left of a request that nobody wants to find any more."""
    gone = {"expires": now, "answers": (), "errors": (), "stored": "", "models": "", "webhook": ""}
    return msgspec.structs.replace(state, **gone)


def lives(state: State, now: float) -> float:
    """Seconds after which the server drops a state that is written now.

    No sooner than any that it replaces: a nats-server that is killed once the newest value of a key
    has expired brings back the one before, as long as that has time left (seen with 2.15.1).
    """
    return max(state.expires, max(state.deadline, state.ended) + state.keep) - now


def end_of(told: Tale) -> End:
    """How a request ends of which all is settled, or whose deadline has passed."""
    answers = answers_of(told)
    errors = tuple(problem(one) for one in told.died if one.kind not in ("canceled", "expired"))
    passed = {one.kind for one in told.died}
    status: Status
    if told.how == LATE or "expired" in passed:
        status = "expired"
    elif "canceled" in passed:
        status, answers = "canceled", ()
    elif told.how != COMPLETE:
        status = "partial" if answers else "failed"
        errors = (*errors, Problem("internal", SHORT[told.how]))
    elif not errors:
        status = "succeeded"
    else:
        status = "partial" if answers else "failed"
    return End(status, answers, errors, models=told.models)


def answers_of(told: Tale) -> tuple[Answer, ...]:
    """The answers among what came of a request."""
    return tuple(answer(one.id, one.subject, one.payload) for one in told.outputs)


def answer(identity: str, subject: str, payload: Payload) -> Answer:
    """An output as an answer."""
    return Answer(identity, subject, Body.of(payload.data, payload.content_type))


def problem(died: Died) -> Problem:
    """What may leave of why something died."""
    if died.kind == "rejected":
        return Problem("rejected", died.reason)
    if died.kind == "decode":
        return Problem("invalid", died.reason)
    return Problem("internal", INTERNAL, f"{died.stage}/{died.id}")


def fingerprint(asked: Asked, webhook: str = "") -> str:
    """Of what is asked, and whom to tell: under one key it must be the same."""
    parts = [asked.subject, asked.body.payload, asked.body.content_type]
    if webhook:
        parts.append(webhook)
    return blake2b(msgspec.msgpack.encode(parts), digest_size=16).hexdigest()


def told_at(state: State, webhook: str) -> State:
    """A new request whose end is told at an address as well."""
    assert state.asked is not None
    whole = fingerprint(state.asked, webhook)
    return msgspec.structs.replace(state, webhook=webhook, fingerprint=whole)


def size_of(answers: Sequence[Answer]) -> int:
    """About the bytes that answers take."""
    return sum(len(one.body.payload) * 4 // 3 + len(one.id) + 100 for one in answers)
