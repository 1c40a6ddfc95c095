"""Dead letters: what could not be answered, with its whole story. Pure.

The payload is the original's bytes, the headers are the original's and these. A dead letter keeps
the identity of its message (`Mq-Id`), so that sending it back makes no second answer.
"""

from __future__ import annotations

import json
import time
import traceback
from typing import Final, Literal

from mqinfer.errors import DecodeError, HandlerTimeout, Reject, WorkerKilled
from mqinfer.flow.job import Job
from mqinfer.identity import ANCESTORS, IDENTITY, MSG_ID, RUN, header_block, parse_ancestors
from mqinfer.masking import mask_url

Kind = Literal["decode", "rejected", "failed", "timeout", "killed"]

PREFIX: Final = "Mq-Dead-"
STAGE: Final = PREFIX + "Stage"
SUBJECT: Final = PREFIX + "Subject"
STREAM: Final = PREFIX + "Stream"
SEQUENCE: Final = PREFIX + "Sequence"
ATTEMPTS: Final = PREFIX + "Attempts"
KIND: Final = PREFIX + "Kind"
ERROR: Final = PREFIX + "Error"
REASON: Final = PREFIX + "Reason"
TRACEBACK: Final = PREFIX + "Traceback"
TIME: Final = PREFIX + "Time"
# Set when the payload was too large to travel with this story: it is in the stream, at its place.
OMITTED: Final = PREFIX + "Payload-Omitted"
# The names of headers that did not fit; they are in the stream as well.
HEADERS_OMITTED: Final = PREFIX + "Headers-Omitted"

# JetStream refuses 64 KiB of headers and more; a dead letter that it refuses could never be stored.
MAX_HEADER = 60_000
MAX_REASON = 2_000
MAX_TRACEBACK = 8_000


def kind_of(error: BaseException) -> Kind:
    """Whether a message could not be processed at all, was rejected, or failed."""
    if isinstance(error, DecodeError):
        return "decode"
    if isinstance(error, Reject):
        return "rejected"
    if isinstance(error, HandlerTimeout):
        return "timeout"
    if isinstance(error, WorkerKilled):
        return "killed"
    return "failed"


def dead_letter(
    job: Job, stage: str, error: BaseException, *, max_payload: int, run: str | None = None
) -> tuple[bytes, bytes]:
    """Header block and payload of the dead letter for `job`.

    Args:
        job: the message.
        stage: that gave up on it.
        error: why.
        max_payload: of the server; the story is shortened, and at last the payload left out, to
            fit. (The original stays in its stream until retention takes it.)
        run: the replay run, if it is one's.
    """
    delivery = job.delivery
    pairs = {
        name: value
        for name, value in delivery.headers.items()
        # What JetStream gives a meaning of its own is kept under another name, or not at all.
        if not name.startswith(("Nats-", PREFIX))
    }
    identity = job.id
    pairs[IDENTITY] = identity
    pairs.pop(RUN, None)  # a stranger's would send a retry into that run
    if run is not None:
        pairs[RUN] = run
    original = delivery.headers.get(MSG_ID)
    if original is not None:
        pairs[PREFIX + "Msg-Id"] = original[:MAX_REASON]
    pairs |= {
        MSG_ID: f"dead:{stage}:{run or ''}:{identity}:{delivery.sequence}",
        STAGE: stage,
        SUBJECT: delivery.subject,
        STREAM: delivery.stream,
        SEQUENCE: str(delivery.sequence),
        ATTEMPTS: str(job.past.attempt),
        KIND: kind_of(error),
        ERROR: type(error).__name__,
        REASON: (mask_url(" ".join(str(error).split())) or type(error).__name__)[:MAX_REASON],
        TIME: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    story = traceback_text(error)
    if story:
        pairs[TRACEBACK] = json.dumps(story)
    header = header_block(pairs)
    if len(header) > MAX_HEADER:
        if ANCESTORS in pairs:  # bounded, and kept: rows of a retry are stored by the first one
            pairs[ANCESTORS] = " ".join(parse_ancestors(pairs[ANCESTORS]))
        header = _shortened(pairs, set(delivery.headers) - {IDENTITY, RUN, ANCESTORS})
    if len(header) + len(delivery.data) > max_payload and TRACEBACK in pairs:
        del pairs[TRACEBACK]
        header = header_block(pairs)
    if len(header) + len(delivery.data) > max_payload:
        pairs[OMITTED] = str(len(delivery.data))
        return header_block(pairs), b""
    return header, delivery.data


def _shortened(pairs: dict[str, str], original: set[str]) -> bytes:
    """The header block without the largest of the original's headers; `pairs` is changed."""
    small_first = sorted(original & set(pairs), key=lambda name: (len(pairs[name]), name))
    header = header_block(pairs)
    gone: list[str] = []
    while len(header) > MAX_HEADER and small_first:
        name = small_first.pop()
        del pairs[name]
        gone.append(name[:80])
        pairs[HEADERS_OMITTED] = " ".join(gone)[:MAX_REASON]
        header = header_block(pairs)
    return header


def traceback_text(error: BaseException) -> str:
    """The end of the traceback of a failure; "" for outcomes, whose text says it all."""
    if isinstance(error, Reject) or error.__traceback__ is None:
        return ""
    return mask_url("".join(traceback.format_exception(error)))[-MAX_TRACEBACK:]
