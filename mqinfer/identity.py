"""Identity and lineage: who a message is, what it came from, and the headers that say so.

Promise 2: the id of an output is a hash of what caused it, so whoever makes it again makes the
same id. It is the `Nats-Msg-Id`, by which JetStream drops repeats inside its window, and the row's
key, by which ClickHouse drops them for good.

No header is required on input: a message without an id is `stream:sequence`. Ids belong to a type:
what a client publishes under an id of the user's has the type's subject in its `Nats-Msg-Id`, so
that one id under two types is two messages, and the id itself in `Mq-Id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

MSG_ID: Final = "Nats-Msg-Id"
CONTENT_TYPE: Final = "Content-Type"
# The identity, where the Nats-Msg-Id must differ from it: an id that a user gave, which JetStream
# is told with its type, or a dead letter that was sent back.
IDENTITY: Final = "Mq-Id"
STAGE: Final = "Mq-Stage"
ANCESTORS: Final = "Mq-Ancestors"
MODELS: Final = "Mq-Models"
RUN: Final = "Mq-Run"
# The one consumer a message is for; others acknowledge it and go on. It counts only beside the
# message id that `dead retry` makes (`sent_back`): a stranger's copy of it hides nothing.
ONLY: Final = "Mq-Only"
# The messages that somebody waits for all that comes of; see `completion.roots`.
ROOTS: Final = "Mq-Roots"
# When nobody wants what comes of a message any more, in seconds since the epoch; see `requests`.
DEADLINE: Final = "Mq-Deadline"
# W3C Trace Context. They are handed on as they came, as the standard asks of one that records no
# span of its own: a parent that nobody has recorded would tear the trace apart.
TRACE: Final = "traceparent"
TRACE_STATE: Final = "tracestate"
SAMPLED: Final = ("1", "3")  # how a traceparent ends that somebody records
MAX_TRACE_STATE: Final = 512
# Of what tells a join: the spans that it is linked with, each as its traceparent.
LINKS: Final = "Mq-Links"
MAX_LINKS: Final = 128  # as many as OpenTelemetry keeps of a span
# JetStream's own: after which time the server drops a message.
TTL: Final = "Nats-TTL"
# And where a message of a stream that copies another comes from.
SOURCE: Final = "Nats-Stream-Source"

# Ancestors that a header names: the first input and the nearest ones.
MAX_ANCESTORS: Final = 16
# Ids longer than this, or with what a header or a list of ids cannot carry, are written otherwise.
MAX_ID: Final = 128
# Models that a header names; more than any pipeline has, and few enough for the server's limit.
MAX_MODELS: Final = 64
_NAME_UNSAFE = re.compile(r"[:\r\n]")
_ID_UNSAFE = re.compile(rb"[^!-$&-~]")  # all but printable ASCII without % and space


def output_id(parent: str, stage: str, run: str | None, index: int) -> str:
    """The id of the output number `index` that `stage` makes of the message `parent`.

    BLAKE2b with 16 bytes of digest (RFC 7693) over the parts joined by a separator that no id,
    stage or run contains; 32 hexadecimal digits.
    """
    text = f"{parent}\x1f{stage}\x1f{run or ''}\x1f{index}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def input_id(headers: Mapping[str, str] | None, stream: str, sequence: int) -> str:
    """The identity of a message: what its headers say, else its place in the stream."""
    if headers:
        found = headers.get(IDENTITY) or headers.get(MSG_ID)
        if found:
            return safe_id(found)
    return f"{stream}:{sequence}"


def given_id(subject: str, identity: str) -> dict[str, str]:
    """Headers of a message that is published under an id of the user's.

    JetStream's window knows no types: there the id is told with its own.

    Args:
        subject: of the message's type, without a key.
        identity: as `safe_id` makes it.
    """
    return {MSG_ID: f"{subject}:{identity}", IDENTITY: identity}


def retry_id(subject: str, sequence: int, moment: str) -> str:
    """The message id of a dead letter that is sent back.

    Args:
        subject: of the dead letter.
        sequence: in the dead-letter stream.
        moment: when it was stored: a number may come again in a stream that was made anew.
    """
    return f"retry:{subject}:{sequence}:{moment}"


def sent_back(headers: Mapping[str, str], app: str) -> bool:
    """Whether a message is a dead letter of `app` that was sent back."""
    return headers.get(MSG_ID, "").startswith(f"retry:dead.{app}.")


def disown(headers: dict[str, str], stream: str, sequence: int) -> None:
    """Take from the headers of a message what they say of who it is: that is its place alone."""
    for name in (ANCESTORS, MODELS, STAGE, RUN, ONLY, ROOTS, DEADLINE):
        headers.pop(name, None)
    headers[IDENTITY] = f"{stream}:{sequence}"


def safe_id(text: str) -> str:
    """`text` as an id that fits into headers and into lists of ids; most fit as they are.

    What does not is percent-encoded, cut and ended with its digest, so that different ids stay
    different. Doing so twice changes nothing more.
    """
    if len(text) <= MAX_ID and text.isascii() and text.isprintable() and " " not in text:
        return text
    raw = text.encode("utf-8", "surrogatepass")
    readable = _ID_UNSAFE.sub(lambda found: b"%%%02X" % found.group()[0], raw[:MAX_ID]).decode()
    return f"{readable[: MAX_ID // 2]}~{blake2b(raw, digest_size=16).hexdigest()}"


def parse_ancestors(value: str | None) -> tuple[str, ...]:
    """The ids in an `Mq-Ancestors` header, the first input first; bounded, whatever was sent."""
    if not value:
        return ()
    ids = value.split()
    if len(ids) > MAX_ANCESTORS:
        ids = [ids[0], *ids[-(MAX_ANCESTORS - 1) :]]
    if len(value) <= MAX_ID and value.isascii() and value.isprintable():
        return tuple(ids)  # all are safe
    return tuple([safe_id(one) for one in ids])


def extend_ancestors(ancestors: tuple[str, ...], parent: str) -> tuple[str, ...]:
    """The ancestors of a child of `parent`; keeps the first input and the nearest others."""
    chain = (*ancestors, parent)
    if len(chain) <= MAX_ANCESTORS:
        return chain
    return (chain[0], *chain[-(MAX_ANCESTORS - 1) :])


def parse_models(value: str | None) -> dict[str, str]:
    """`name=version` pairs of an `Mq-Models` header; what is no pair is passed over."""
    if not value:
        return {}
    pairs = (
        item.partition("=")
        for item in value.split()[:MAX_MODELS]
        if len(item) <= MAX_ID and item.isascii() and item.isprintable()
    )
    return {name: version for name, equals, version in pairs if name and equals}


def header_number(value: str | None) -> int:
    """A whole number in a header, of at most 18 digits; 0 for what is none."""
    return int(value) if value and len(value) <= 18 and value.isascii() and value.isdecimal() else 0


def header_text(value: str) -> str:
    """A header as text that can be written anywhere: bytes that were no UTF-8 become U+FFFD."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def format_models(models: Mapping[str, str]) -> str:
    """The inverse of `parse_models`, in the order of the names."""
    return " ".join(f"{name}={version}" for name, version in sorted(models.items()))


def header_block(pairs: Mapping[str, str]) -> bytes:
    r"""The NATS header block (`NATS/1.0\r\n` ... `\r\n\r\n`, ADR-4) of `pairs`.

    Line ends in a value would end the header: they become spaces. So does what would end a name.
    A name that is empty is left out.
    """
    lines = [b"NATS/1.0\r\n"]
    for name, value in pairs.items():
        key = _NAME_UNSAFE.sub(" ", name).strip()
        if key:
            lines.append(_bytes(header_line(key, value)))
    lines.append(b"\r\n")
    return b"".join(lines)


def output_block(head: str, identity: str, tail: str) -> bytes:
    """The header block of an output: its id between lines that it shares with others.

    Args:
        head: lines, as `header_line` makes them.
        identity: as `output_id` makes it: nothing in it can end a line.
        tail: further lines.
    """
    text = f"NATS/1.0\r\n{head}{MSG_ID}: {identity}\r\n{tail}\r\n"
    try:  # not through `_bytes`: this runs for every output
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _bytes(text)


def header_line(name: str, value: str) -> str:
    """One line of a header block; line ends in the value become spaces, the name is taken as is."""
    text = value.replace("\r", " ").replace("\n", " ")
    return f"{name}: {text}\r\n"


def _bytes(text: str) -> bytes:
    """UTF-8; bytes that were no UTF-8 come out as they came in, other lone surrogates as `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def parse_header_block(block: bytes) -> dict[str, str]:
    """The pairs of a NATS header block; a repeated name keeps its first value.

    The status line's own text ("NATS/1.0 409 Consumer Deleted") is not part of the result; see
    `parse_status`.
    """
    pairs: dict[str, str] = {}
    for line in block.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            key = name.strip().decode("ascii", "replace")
            pairs.setdefault(key, value.strip().decode("utf-8", "surrogateescape"))
    return pairs


def parse_status(block: bytes) -> tuple[int, str]:
    """Code and text of a header block's first line: (409, "Consumer Deleted"); (0, "") for none.

    A status is the server's own word, where a message has a bare "NATS/1.0".
    """
    line = block.partition(b"\r\n")[0].removeprefix(b"NATS/1.0").strip().decode("utf-8", "replace")
    code, _, text = line.partition(" ")
    return (int(code), text) if code.isascii() and code.isdigit() else (0, line)


def last_header(block: bytes, name: str) -> str:
    """The last value of a header, or "".

    What a server adds stands at the end, after what a publisher may have called the same.
    """
    _, found, rest = block.rpartition(f"\r\n{name}:".encode())
    return rest.partition(b"\r\n")[0].strip().decode("utf-8", "replace") if found else ""
