"""The stream of timers over one connection: JetStream's message schedules (ADR-51).

A message with `Nats-Schedule: @at <RFC 3339>` is stored again, under `Nats-Schedule-Target`, a
subject of the same stream, when that time has come; then all of its own subject is deleted. The two
are not one step: another message that is stored under that subject meanwhile goes with it (one in
eight of those that came within 0.4 s of the time did), so each timer has a subject of its own.
Conditions that the server checks as it stores (`Nats-Expected-Last-Subject-Sequence`, and for which
subjects with `-Sequence-Subject`) make one place of several subjects. What waits has `Nats-TTL:
never`, for what has come is kept for a limited time.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mqinfer.adapters import admin
from mqinfer.adapters.publisher import WrongRevision
from mqinfer.errors import ConfigurationError
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import header_line, parse_header_block
from mqinfer.timers.places import Entry

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream
    from mqinfer.ports import StreamSpec

# Earlier ones know schedules since 2.12, and lose some of them when they restart.
OLDEST = (2, 14)


class Timetable:
    """A `Table` over one connection.

    Args:
        connection: that is open when the first method is called.
        stream: of the timers.
    """

    def __init__(self, connection: JetStream, stream: str):
        self._connection = connection
        self._stream = stream

    async def ensure(self, spec: StreamSpec) -> None:
        """Create the stream, or change it to match; see `Table.ensure`."""
        client = self._connection.client
        if (refusal := too_old(client.server_version)) is not None:
            raise ConfigurationError(refusal)
        await admin.ensure_stream(client, spec)
        info = await admin.stream_info(client, spec.name)
        if info is not None and not info["config"].get("allow_msg_schedules"):
            raise ConfigurationError(
                f"the server made stream {spec.name} without schedules: every server of the "
                f"cluster must be nats-server {OLDEST[0]}.{OLDEST[1]} or later"
            )

    async def newest(self, place: str, kind: str | None = None) -> Entry | None:
        """The newest message of a place; see `Table.newest`."""
        below = place if kind is None else f"{place}.{kind}"
        try:
            answer = await admin.ask(
                self._connection.client,
                f"STREAM.MSG.GET.{self._stream}",
                {"last_by_subj": f"{below}.>"},
                f"timer {place}",
            )
        except admin.JetStreamError as error:
            if error.code == admin.NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        found = message["subject"].removeprefix(place).split(".")[1]
        headers = parse_header_block(base64.b64decode(message.get("hdrs") or ""))
        return Entry(int(message["seq"]), found, headers)

    async def put(self, place: str, end: str, header: bytes, payload: bytes, after: int) -> bool:
        """Store a message on a condition; see `Table.put`."""
        condition = header_line("Nats-Expected-Last-Subject-Sequence", str(after)) + header_line(
            "Nats-Expected-Last-Subject-Sequence-Subject", f"{place}.>"
        )
        block = header[:-2] + condition.encode() + b"\r\n"
        if self._connection.full:
            await self._connection.room()
        try:
            await publish_stored(self._connection, f"{place}.{end}", block, payload)
        except WrongRevision:
            return False
        return True

    async def drop(self, subject: str, before: int | None = None) -> None:
        """Delete what lies under a subject; see `Table.drop`."""
        body: dict[str, Any] = {"filter": subject}
        if before is not None:
            body["seq"] = before
        await admin.ask(
            self._connection.client, f"STREAM.PURGE.{self._stream}", body, f"timers {subject}"
        )


def too_old(version: str) -> str | None:
    """Why a server cannot keep timers, and what to do; None if it can."""
    if version_of(version) >= OLDEST:
        return None
    return (
        f"timers and schedules need nats-server {OLDEST[0]}.{OLDEST[1]} or later, and this one is "
        f"{version}: upgrade it, or take later=, @app.every and @app.cron out of the app"
    )


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of a server's version; (0, 0) for what is none."""
    parts = text.split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return (0, 0)
    return (int(parts[0]), int(parts[1]))
