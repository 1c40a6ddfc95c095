"""ContinuousPull: messages of one durable consumer without a round trip a batch.

nats-py has `fetch` alone. Here requests overlap: the runner asks for more while earlier requests
are still being filled, never for more than it has free slots (ADR-13 and ADR-37 of JetStream's
simplified client: batch, max_bytes, expires, idle_heartbeat, and the statuses that end a request).

A message does not say which request it fills; a status does, by the reply token, and says what the
request did not bring. So messages are counted against the oldest open request, while the server
fills them in turn, and a status moves the difference to the others: their sum is exact. (Bytes that
a full request did not use are given back when it is believed to be full, which may be early.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

import structlog

from mqinfer.errors import MqinferError, Unavailable
from mqinfer.identity import parse_header_block, parse_status
from mqinfer.ports import Delivery

log = structlog.get_logger("mqinfer.pull")

EXPIRES = 30.0
HEARTBEAT = 2.0
SILENCE = 2.5 * HEARTBEAT  # no message and no heartbeat for this long: ask anew
RETRY = 0.5
# Messages that belong to some request which is believed to be full; tokens begin at 1.
_SOMEWHERE = 0
# Bytes to give back when no request is open: whatever is still asked for is not.
EVERYTHING = 1 << 62
# What a request did not bring.
_MESSAGES, _BYTES = "Nats-Pending-Messages", "Nats-Pending-Bytes"


class StreamMessage:
    """A `Delivery`: the headers, and what stands in the acknowledgement subject, are parsed."""

    __slots__ = (
        "_subject",
        "attempt",
        "data",
        "headers",
        "pending",
        "published",
        "reply",
        "sequence",
        "size",
        "stream",
    )

    def __init__(self, subject: bytes, reply: bytes, data: bytes, header_block: bytes | None):
        self._subject = subject
        self.reply = reply
        self.data = data
        self.headers = parse_header_block(header_block) if header_block else {}
        # $JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending
        tokens = reply.split(b".")
        if len(tokens) >= 11:
            del tokens[2:4]
        stream, _, attempt, sequence, _, published, pending = tokens[2:9]
        self.stream = stream.decode()
        self.attempt = int(attempt)
        self.sequence = int(sequence)
        self.published = int(published)
        self.pending = int(pending)
        self.size = len(data) + len(subject) + len(reply) + len(header_block or b"")

    @property
    def subject(self) -> str:
        """What the message was published on."""
        return self._subject.decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"StreamMessage({self.subject} #{self.sequence}, attempt {self.attempt})"


class ContinuousPull:
    """The open requests of one consumer.

    Args:
        inbox: subject prefix of the requests' replies.
        next_subject: `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
        write: queues protocol bytes for the socket.
        clock: monotonic seconds.
        on_message: takes each delivery.
        on_released: takes the messages and bytes that a request will not bring any more.
        recreate: makes the consumer again after it was deleted.
        expires: seconds that a request waits at most.
    """

    def __init__(
        self,
        inbox: str,
        next_subject: str,
        write: Callable[[bytes], None],
        clock: Callable[[], float],
        *,
        on_message: Callable[[Delivery], None],
        on_released: Callable[[int, int], None],
        recreate: Callable[[], Awaitable[object]],
        expires: float | None = None,
    ):
        self._inbox = inbox.encode() + b"."
        self._next = next_subject.encode()
        self._write = write
        self._clock = clock
        self._on_message = on_message
        self._on_released = on_released
        self._recreate = recreate
        self._expires = min(expires or EXPIRES, EXPIRES)
        self._token = 0
        # token -> messages and bytes still to come, and how many there were at first
        self._open: dict[int, list[int]] = {}
        self._somewhere_since = 0.0
        self._heard = clock()
        self._not_before = 0.0
        self._gone = False
        self.closed = False
        self.resets = 0

    def request(self, messages: int, max_bytes: int) -> None:
        """Ask for more; see `Pull.request`."""
        if not self._open:
            self._heard = self._clock()
        self._token += 1
        self._open[self._token] = [messages, max_bytes, messages, max_bytes]
        body = json.dumps(
            {
                "batch": messages,
                "max_bytes": max_bytes,
                "expires": int(self._expires * 1e9),
                "idle_heartbeat": int(min(HEARTBEAT, self._expires / 2) * 1e9),
            }
        ).encode()
        self._write(
            b"PUB %b %b%d %d\r\n%b\r\n" % (self._next, self._inbox, self._token, len(body), body)
        )

    @property
    def paused(self) -> bool:
        """Whether to wait a little before the next request (the last ones ended badly)."""
        return self._gone or self._clock() < self._not_before

    @property
    def requests(self) -> int:
        """Requests that are open, as far as anybody can know here."""
        return len(self._open)

    # --- the read loop --------------------------------------------------------------------------

    def on_raw(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """A message or a status from the read loop."""
        self._heard = self._clock()
        if subject.startswith(self._inbox):
            self._status(int(subject[len(self._inbox) :]), headers or b"")
            return
        message = StreamMessage(subject, reply, data, headers)
        self._count(message.size)
        self._on_message(message)

    def _count(self, size: int) -> None:
        for token, left in self._open.items():
            left[0] -= 1
            left[1] -= size
            if left[0] <= 0:
                del self._open[token]
                if not self._open:
                    self._on_released(0, EVERYTHING)
                elif left[1] > 0:
                    self._on_released(0, left[1])
            return

    def _status(self, token: int, block: bytes) -> None:
        code, text = parse_status(block)
        if code == 100:
            return  # heartbeat
        headers = parse_header_block(block)
        self._end(token, _count(headers, _MESSAGES), _count(headers, _BYTES))
        lower = text.lower()
        if code == 503 or "consumer deleted" in lower or "not found" in lower:
            self._gone = True
        elif code == 408 or "maxbytes" in lower.replace(" ", "") or "batch comp" in lower:
            pass  # it ran its time, or the next message was larger than what was left
        elif "server shutdown" in lower or "leadership" in lower:
            self.reset(text)
        else:
            log.warning("pull ended", status=f"{code} {text}")
            self._not_before = self._clock() + RETRY

    def _end(self, token: int, messages: int | None, size: int | None) -> None:
        """A request ended; give back what it did not bring, by the server's count if it says.

        A status without a count refuses the request: it brought nothing.
        """
        believed = self._open.pop(token, [0, 0, 0, 0])
        gone_messages = believed[2] if messages is None else messages
        gone_bytes = believed[3] if size is None else size
        # What was counted against the wrong request belongs to the others.
        missing, missing_bytes = believed[0] - gone_messages, believed[1] - gone_bytes
        if missing > 0:
            if not self._open:
                self._open[_SOMEWHERE] = [0, 0, 0, 0]
                self._somewhere_since = self._clock()
            left = next(iter(self._open.values()))
            left[0] += missing
            missing = 0
        for other in list(self._open):
            if missing >= 0:
                break
            left = self._open[other]
            taken = min(left[0], -missing)
            left[0] -= taken
            missing += taken
            if left[0] <= 0:
                del self._open[other]
                missing_bytes += left[1]
        if self._open and missing_bytes:
            next(iter(self._open.values()))[1] += missing_bytes
            missing_bytes = 0
        size = max(gone_bytes + missing_bytes, 0) if self._open else EVERYTHING
        self._on_released(max(gone_messages + missing, 0), size)

    def reset(self, reason: str) -> None:
        """Forget the open requests: the server no longer knows them, or nobody hears them."""
        if self._open:
            self.resets += 1
            log.info("pull asks anew", reason=reason)
        opened, self._open = self._open, {}
        self._heard = self._clock()
        if opened:
            self._on_released(sum(left[0] for left in opened.values()), EVERYTHING)

    # --- beside it ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Notice silence and a deleted consumer; runs beside the connection."""
        while not self.closed:
            await asyncio.sleep(RETRY / 2)
            if (
                self._clock() - self._somewhere_since > 2 * self._expires
                and _SOMEWHERE in self._open
            ):
                self._end(_SOMEWHERE, *self._open[_SOMEWHERE][:2])  # no request lives that long
            if self._gone:
                await self._bring_back()
            elif self._open and self._clock() - self._heard > SILENCE:
                self.reset("no heartbeat")
                self._gone = True  # look whether the consumer still exists

    async def _bring_back(self) -> None:
        try:
            await self._recreate()
        except Unavailable as error:
            log.info("the consumer cannot be looked up yet", reason=str(error))
        except MqinferError as error:
            log.error("the consumer cannot be made again", reason=str(error))  # noqa: TRY400
        else:
            self._gone = False
            self.reset("the consumer is there")
            self._on_released(0, 0)

    def __repr__(self) -> str:
        return f"ContinuousPull(open={list(self._open.values())}, gone={self._gone})"


def _count(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isdecimal() else None
