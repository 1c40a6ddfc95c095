r"""LeanParser: a short way from the socket to the handlers of direct subscriptions.

The server sends `MSG <subject> <sid> [reply] <bytes>\r\n<payload>\r\n` and
`HMSG <subject> <sid> [reply] <header bytes> <bytes>\r\n<headers><payload>\r\n`
(docs.nats.io/reference/reference-protocols/nats-protocol). nats-py matches them with two regular
expressions, moves them through a buffer and makes a coroutine for each. Here whole messages are cut
out of what was read. Everything else is left to nats-py: INFO, PING, errors, malformed bytes, and
large messages that come in many pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

log = structlog.get_logger("mqinfer.nats")

# subject, reply, payload, header block (None without headers)
RawHandler = Callable[[bytes, bytes, bytes, bytes | None], None]

# The beginning of a message waits here for the rest if the whole is no longer than this; nats-py
# gathers longer ones, without looking at their first bytes again for every piece.
_SHORT = 64 * 1024
_MAX_CONTROL_LINE = 4096
_PONG = b"PONG\r\n"


class SlowParser(Protocol):
    """What is used of nats-py's parser; `buf` holds what was read and not yet understood."""

    buf: bytearray
    state: int

    async def parse(self, data: bytes = b"") -> None:
        """Take bytes, dispatch what is complete."""

    def reset(self) -> None:
        """Forget what was read: the connection is a new one."""


class LeanParser:
    """In the place of nats-py's parser.

    Args:
        slow: nats-py's own.
        direct: handlers by subscription id, as it is written.
        between: the state of nats-py's parser when it is in the middle of nothing.
    """

    def __init__(self, slow: SlowParser, direct: Mapping[bytes, RawHandler], between: int):
        self._slow = slow
        self._direct = direct
        self._between = between

    def reset(self) -> None:
        """Forget what was read."""
        self._slow.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Hand every complete message to its handler.

        Raises:
            nats.errors.ProtocolError: the bytes are none of the protocol.
        """
        slow = self._slow
        if slow.state != self._between:
            await slow.parse(data)
            return
        if slow.buf:
            data = bytes(slow.buf) + data
            slow.buf.clear()
        at = self._dispatch(data, 0)
        while data.startswith(_PONG, at):  # what is behind the answer to a ping is for us again
            await slow.parse(_PONG)
            at = self._dispatch(data, at + len(_PONG))
        if at < len(data):
            rest = data[at:]
            if self._incomplete(rest):
                slow.buf.extend(rest)
            else:
                await slow.parse(rest)

    def _dispatch(self, data: bytes, at: int) -> int:
        """Where the first thing from `at` on begins that is not a complete message for us."""
        direct, find, size = self._direct, data.find, len(data)
        while True:
            line = find(b"\r\n", at, at + _MAX_CONTROL_LINE)
            if line < 0:
                return at
            # One space each, as the server writes it: a subject may hold other blanks.
            words = data[at:line].split(b" ")
            with_headers = words[0] == b"HMSG"
            if not with_headers and words[0] != b"MSG":
                return at
            payload = begin = line + 2
            try:
                handler = direct.get(words[2])
                end = begin + int(words[-1])
                if with_headers:
                    payload += int(words[-2])
            except (ValueError, IndexError):
                return at
            if handler is None or not begin <= payload <= end <= size - 2:
                return at
            reply = words[3] if len(words) == 5 + with_headers else b""
            try:
                handler(
                    words[1],
                    reply,
                    data[payload:end],
                    data[begin:payload] if with_headers else None,
                )
            except Exception:
                # On the read loop: whatever happens here, the next message must be read.
                log.exception("a message could not be taken from the connection")
            at = end + 2

    def _incomplete(self, rest: bytes) -> bool:
        """Whether `rest` is the beginning of a short message of a direct subscription."""
        with_headers = rest.startswith(b"HMSG ")
        if not with_headers and not rest.startswith(b"MSG "):
            return False
        line = rest.find(b"\r\n")
        if line < 0:
            return len(rest) < _MAX_CONTROL_LINE
        words = rest[:line].split(b" ")
        try:
            sizes = [int(word) for word in words[-1 - with_headers :]]
            whole = line + 2 + sizes[-1] + 2
            direct = words[2] in self._direct
        except (ValueError, IndexError):
            return False
        named = len(words) - len(sizes) in (3, 4)  # with or without a reply
        return direct and named and 0 <= sizes[0] <= sizes[-1] and len(rest) < whole <= _SHORT
