r"""Publisher: many publishes in flight under one reply inbox, each with a deadline.

Promise 1 rests on it: `done(None)` is called only when JetStream has acknowledged. An answer that
does not come may still mean "stored", so the same message goes out again under the same id, which
JetStream then reports as a duplicate: a success.

Protocol: `HPUB <subject> <reply> <header bytes> <total bytes>\r\n<headers><payload>\r\n`; the
acknowledgement is JSON with `seq` and maybe `duplicate`, or `error` (ADR-1 of JetStream's API).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from mqinfer.backoff import Backoff
from mqinfer.errors import PayloadTooLarge, PermissionDenied, PublishError, PublishTimeout
from mqinfer.ports import PublishDone

log = structlog.get_logger("mqinfer.publish")


class WrongRevision(PublishError):
    """The subject's last message is not the one on whose condition this one was published."""


ACK_TIMEOUT = 5.0
RETRY = Backoff(initial=0.25, maximum=2.0)
TICK = 0.25
# Error codes of JetStream that pass by themselves (server/errors.json of nats-server): no
# resources, no leader, stream offline, maximum messages or bytes reached, message would exceed.
_PASSING = {10002, 10008, 10009, 10023, 10028, 10047, 10074, 10076, 10077, 10118, 10120, 10122}
_FULL = {10047, 10077}
# An earlier copy of this very message is on its way through a clustered stream: it is neither
# stored nor refused yet (nats-server 2.11). The next answer says which.
_IN_PROCESS = 10158

# The message is too large; the condition on its subject's last sequence does not hold.
_KINDS: dict[int, type[PublishError]] = {
    10054: PayloadTooLarge,
    10071: WrongRevision,
    10164: WrongRevision,
}

# A control line has at most 4,096 bytes (max_control_line of nats-server): subject, reply, sizes.
MAX_SUBJECT = 3_500
MAX_OUTSTANDING = 8192
MAX_OUTSTANDING_BYTES = 64 * 1024 * 1024


class _Pending(Struct, eq=False):  # a Struct, which is made in a third of a class's time
    subject: bytes
    header: bytes
    payload: bytes
    size: int  # of both, in bytes
    done: PublishDone
    deadline: float  # when to send again
    give_up: float | None  # when to report a timeout; None is never
    tries: int = 0
    sent: bool = False
    placed: Callable[[int], None] | None = None


class _Stored(Struct):
    seq: int


_stored = msgspec.json.Decoder(_Stored).decode


def _sequence(data: bytes) -> int:
    """The sequence in an acknowledgement; 0 where a stranger has sent something else."""
    try:
        return _stored(data).seq
    except (msgspec.MsgspecError, RecursionError):
        return 0


class Publisher:
    """Publishes of one connection, by number.

    Args:
        inbox: subject prefix that the acknowledgements come back on (`<inbox>.<number>`).
        write: queues protocol bytes for the socket.
        connected: whether they would leave now.
        clock: monotonic seconds.
        domain: of the JetStream whose acknowledgements count; None is any.
    """

    def __init__(
        self,
        inbox: str,
        write: Callable[[bytes], None],
        connected: Callable[[], bool],
        clock: Callable[[], float],
        domain: str | None = None,
    ):
        self._prefix = inbox.encode() + b"."
        self._write = write
        self._connected = connected
        self._clock = clock
        # A leaf node's own JetStream may have a stream of these subjects, too, and is quicker.
        self._told = None if domain is None else b'"domain":"%b"' % domain.encode()
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self.full = False  # whether a polite caller waits for `room`
        self.max_payload = 1024 * 1024
        self.duplicates = 0
        self.resent = 0
        # Why messages wait, while the stream takes none.
        self.trouble: str | None = None
        self._ended: Exception | None = None

    # --- sending --------------------------------------------------------------------------------

    def publish(
        self,
        subject: bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        timeout: float | None,
        placed: Callable[[int], None] | None = None,
    ) -> None:
        """Send; see `Broker.publish`. `placed` is told its sequence, before `done` is called."""
        if self._ended is not None:  # nobody looks at deadlines any more
            done(self._ended, False)
            return
        size = len(header) + len(payload)
        if size > self.max_payload:
            done(
                PayloadTooLarge(
                    f"a message for {subject.decode()} has {size:,} bytes with its headers, the "
                    f"server takes {self.max_payload:,}: raise max_payload there, or carry the "
                    "bytes as a Blob with a path"
                ),
                False,
            )
            return
        if len(subject) > MAX_SUBJECT:  # the server would close the connection for good
            done(
                PayloadTooLarge(
                    f"the subject {subject[:80].decode('utf-8', 'replace')}... has "
                    f"{len(subject):,} bytes, more than {MAX_SUBJECT:,}: the value of a key must "
                    "be shorter"
                ),
                False,
            )
            return
        now = self._clock()
        give_up = None if timeout is None else now + timeout
        entry = _Pending(
            subject, header, payload, size, done, now + ACK_TIMEOUT, give_up, placed=placed
        )
        number = self._number = self._number + 1
        self._pending[number] = entry
        self._bytes += size
        if len(self._pending) >= MAX_OUTSTANDING or self._bytes >= MAX_OUTSTANDING_BYTES:
            self.full = True
            self._room.clear()
        self._send(number, entry)

    def _send(self, number: int, entry: _Pending) -> None:
        if not self._connected():
            return  # sent again when the connection is back
        header = entry.header
        self._write(
            b"HPUB %b %b%d %d %d\r\n%b%b\r\n"
            % (
                entry.subject,
                self._prefix,
                number,
                len(header),
                entry.size,
                header,
                entry.payload,
            )
        )
        entry.sent = True

    async def room(self) -> None:
        """Return once fewer publishes than the bound are unacknowledged."""
        await self._room.wait()

    # --- acknowledgements -----------------------------------------------------------------------

    def on_ack(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        """An acknowledgement from the read loop."""
        try:
            number = int(subject[len(self._prefix) :])
        except ValueError:
            return
        entry = self._pending.get(number)
        if entry is None:
            return  # the answer to an earlier copy came first
        if b'"seq"' in data and b'"error"' not in data:
            if self._told is not None and self._told not in data:
                return
            if entry.placed is not None:
                entry.placed(_sequence(data))
            repeat = b'"duplicate"' in data
            self.duplicates += repeat
            self._finish(number, entry, None, repeat)
            self.trouble = None
            return
        self._refused(number, entry, data)

    def _refused(self, number: int, entry: _Pending, data: bytes) -> None:
        subject = entry.subject.decode()
        if not data:  # status 503: nobody listens on the subject
            self._again(entry, f"no stream takes {subject}")
            return
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        # Not JetStream alone may answer: whoever listens on the subject does.
        told = found.get("error") if isinstance(found, dict) else None
        error: dict[str, Any] = told if isinstance(told, dict) else {}
        code, text = error.get("err_code"), error.get("description", repr(data[:200]))
        code = code if isinstance(code, int) else 0
        if code == _IN_PROCESS:
            entry.deadline = self._clock() + RETRY.delay(1)
        elif code in _FULL:
            self._again(entry, f"the stream of {subject} is full ({text})")
        elif code in _PASSING or error.get("code") == 503:
            self._again(entry, f"the stream of {subject} takes nothing now ({text})")
        else:
            reason = f"the stream refuses a message for {subject}: {text} ({code})"
            self._finish(number, entry, _KINDS.get(code, PublishError)(reason))

    def _again(self, entry: _Pending, reason: str) -> None:
        if self.trouble is None:
            log.warning("publishers wait", reason=reason)
        self.trouble = reason
        entry.deadline = self._clock() + RETRY.delay(entry.tries + 1)

    def _finish(
        self, number: int, entry: _Pending, error: Exception | None, repeat: bool = False
    ) -> None:
        del self._pending[number]
        if not self._pending:
            self.trouble = None  # nothing is left that could show its end
        self._bytes -= entry.size
        if (
            self.full
            and len(self._pending) < MAX_OUTSTANDING
            and self._bytes < MAX_OUTSTANDING_BYTES
        ):
            self.full = False
            self._room.set()
        entry.done(error, repeat)

    # --- time -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send again what was not acknowledged in time; runs beside the connection."""
        while True:
            await asyncio.sleep(TICK)
            self.tick(self._clock())

    def tick(self, now: float) -> None:
        """One look at the deadlines."""
        for number, entry in list(self._pending.items()):
            if entry.give_up is not None and now >= entry.give_up:
                why = self.trouble or "no acknowledgement"
                self._finish(
                    number,
                    entry,
                    PublishTimeout(
                        f"{entry.subject.decode()}: {why}; it may be stored: "
                        "publish it again under the same id"
                    ),
                )
            elif now >= entry.deadline:
                entry.tries += 1
                entry.deadline = now + ACK_TIMEOUT
                self.resent += entry.sent
                self._send(number, entry)

    def on_reconnect(self) -> None:
        """Send again all that the old connection did not acknowledge."""
        now = self._clock()
        for number, entry in list(self._pending.items()):
            entry.deadline = now + ACK_TIMEOUT
            self.resent += entry.sent
            self._send(number, entry)

    def on_denied(self, text: str) -> None:
        """The server denies a subject; whoever waits for a limited time is told at once.

        A worker's outputs wait: no handling of theirs is at fault, and an operator can mend it.
        """
        self.trouble = text
        lower = text.lower()
        for number, entry in list(self._pending.items()):
            if entry.give_up is not None and f'"{entry.subject.decode().lower()}"' in lower:
                self._finish(number, entry, PermissionDenied(f"NATS: {text}"))

    def fail_all(self, error: Exception) -> None:
        """The connection is closed for good: what waits fails, and whatever comes now."""
        self._ended = error
        for number, entry in list(self._pending.items()):
            self._finish(number, entry, error)

    @property
    def outstanding(self) -> int:
        """Publishes that are not acknowledged."""
        return len(self._pending)

    def __repr__(self) -> str:
        return f"Publisher(outstanding={len(self._pending)}, trouble={self.trouble!r})"
