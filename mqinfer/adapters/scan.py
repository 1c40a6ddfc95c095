r"""Looking into streams without consuming: facts, single messages, and scans in batches.

A scan uses JetStream's direct get in batches (ADR-31, nats-server 2.11 and later): one request to
`$JS.API.DIRECT.GET.<stream>` is answered by many messages on its reply subject, each with its
place in `Nats-` headers, and at last one with the status 204. No consumer is made, so a scan that
is killed leaves nothing behind. Any replica of the stream answers, also one that was cut off and
has not caught up: so the stream's leader is asked for what whoever answers does not have.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mqinfer.adapters import admin, leader
from mqinfer.adapters.timetable import too_old
from mqinfer.domain import in_domain
from mqinfer.errors import MqinferError, PermissionDenied, Unavailable
from mqinfer.identity import last_header, parse_header_block, parse_status
from mqinfer.streams import Stored

if TYPE_CHECKING:
    from mqinfer.adapters.natsclient import LeanClient
    from mqinfer.ports import ConsumerSpec, StreamSpec

_TIMEOUT = 5.0
_BATCH = {"batch": 500, "max_bytes": 4 * 1024 * 1024}
_FURTHER = 2  # times that the scan of a bucket goes on behind its end
_NO_MESSAGE = {10037, 10043}  # nothing under this sequence any more
# What JetStream cannot change once it is there (see admin.ensure_stream).
_FIXED_STREAM = ("retention", "storage")
_FIXED_CONSUMER = ("deliver_policy", "opt_start_seq", "ack_policy", "replay_policy")
_OWN = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending")


class Scanner:
    """`Streams` over one connection.

    Args:
        client: an open connection.
    """

    def __init__(self, client: LeanClient):
        self._client = client

    # --- facts ----------------------------------------------------------------------------------

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Configuration and state as JetStream gives them, or None if there is no such stream."""
        return await admin.stream_info(self._client, stream)

    async def stream_created(self, stream: str) -> str | None:
        """When the stream was made, or None if there is no such stream."""
        info = await self.stream_info(stream)
        return None if info is None else str(info["created"])

    async def consumer_info(self, stream: str, consumer: str) -> dict[str, Any] | None:
        """Configuration and state of a consumer, or None."""
        return await admin.consumer_info(self._client, stream, consumer)

    async def consumers(self, stream: str) -> list[dict[str, Any]]:
        """Every consumer of a stream; none if there is no stream."""
        return await admin.consumers(self._client, stream)

    async def pending(self, spec: ConsumerSpec) -> int:
        """Messages that a consumer would begin with; 0 if there is no stream."""
        return await admin.pending(self._client, spec)

    async def subjects(self, stream: str, subject: str = ">") -> dict[str, int]:
        """How many messages the stream holds under each subject; none if there is no stream."""
        return await admin.subjects(self._client, stream, subject)

    async def newest(self, stream: str, subject: str) -> int:
        """Where the newest message of a subject lies, as the stream's leader says; 0: nowhere."""
        return await admin.newest(self._client, stream, subject)

    # --- conflicts ------------------------------------------------------------------------------

    async def stream_conflicts(self, spec: StreamSpec) -> list[str]:
        """Why a worker could not make the stream, or change it to `spec`; changes nothing."""
        info = await self.stream_info(spec.name)
        wanted = admin.stream_config(spec)
        if info is not None:
            return [
                f"stream {spec.name} exists with {name}={info['config'].get(name)!r}, mqinfer "
                f"needs {wanted[name]!r} and JetStream cannot change it: use another app name, "
                "or delete the stream"
                for name in _FIXED_STREAM
                if info["config"].get(name) != wanted[name]
            ] + [conflict for conflict in [admin.copy_conflict(spec, info["config"])] if conflict]
        conflicts: list[str] = []
        for subject in spec.subjects:
            body = {"subject": subject}
            names = await admin.ask(self._client, "STREAM.NAMES", body, "streams")
            conflicts.extend(
                f"stream {name} holds subjects of {subject}, which stream {spec.name} needs: use "
                "another app name, or change that stream"
                for name in names.get("streams") or []
            )
        return conflicts

    async def consumer_conflicts(self, spec: ConsumerSpec) -> list[str]:
        """Why a worker could not change the consumer to `spec`; changes nothing."""
        info = await self.consumer_info(spec.stream, spec.name)
        if info is None:
            return []
        has, wanted = info["config"], admin.consumer_config(spec)
        return [
            f"consumer {spec.name} of stream {spec.stream} exists with {name}="
            f"{has.get(name)!r}, mqinfer needs {wanted.get(name)!r} and JetStream cannot change "
            "it: give the stage another name=, or delete the consumer"
            for name in _FIXED_CONSUMER
            if name not in admin.BEGINNING or spec.start_sequence is not None
            if has.get(name) != wanted.get(name)
        ]

    # --- messages -------------------------------------------------------------------------------

    async def message(
        self, stream: str, sequence: int, *, subject: str | None = None
    ) -> Stored | None:
        """The message at `sequence`; with `subject`, the first one of that subject from there on.

        Raises:
            Unavailable: the server does not answer.
        """
        body: dict[str, Any] = {"seq": sequence}
        if subject is not None:
            body["next_by_subj"] = subject
        async for stored in self._some(stream, body, {"batch": 1}):
            return stored if subject is not None or stored.sequence == sequence else None
        return None

    async def messages(
        self,
        stream: str,
        subject: str = ">",
        *,
        first: int = 1,
        last: int | None = None,
        since: datetime.datetime | None = None,
    ) -> AsyncGenerator[Stored]:
        """The messages that the stream holds now, in its order; see `Streams.messages`."""
        info = await self.stream_info(stream)
        if info is None:
            return
        end = info["state"]["last_seq"]
        end = end if last is None else min(end, last)
        # A bucket's key that is written meanwhile goes from before the end to behind it.
        bucket = last is None and info["config"].get("max_msgs_per_subject") == 1
        further, told = _FURTHER if bucket else 0, set[str]()
        body: dict[str, Any] = {"seq": max(first, 1)}
        if since is not None and since.timestamp() > 0:
            body = {"start_time": since.astimezone(datetime.UTC).isoformat()}
        while bucket or body.get("seq", 0) <= end:
            seen = 0
            async for stored in self._some(stream, {**body, "next_by_subj": subject}, _BATCH):
                seen = stored.sequence
                if seen > end:
                    if not further:
                        return
                    further -= 1
                    info = await self.stream_info(stream)
                    end = seen if info is None else max(seen, info["state"]["last_seq"])
                if seen >= first and stored.subject not in told:
                    if bucket:
                        told.add(stored.subject)
                    yield stored
            if not seen:
                return
            body = {"seq": seen + 1}

    def no_timers(self) -> str | None:
        """Why this server cannot keep timers, and what to do; None if it can."""
        return too_old(self._client.server_version)

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; False if it was not there any more."""
        try:
            answer = await admin.ask(
                self._client,
                f"STREAM.MSG.DELETE.{stream}",
                {"seq": sequence, "no_erase": True},
                f"message {sequence} of {stream}",
            )
        except admin.JetStreamError as error:
            if error.code in _NO_MESSAGE:
                return False
            raise
        return bool(answer.get("success"))

    async def _some(
        self, stream: str, body: dict[str, Any], limits: dict[str, int]
    ) -> AsyncIterator[Stored]:
        """The first messages that are asked for: a batch, or one where only the leader has it."""
        found = False
        async for stored in self._request(stream, {**body, **limits}):
            found = True
            yield stored
        if not found:
            # Credentials that may not ask have to take what there is.
            with suppress(PermissionDenied):
                late = await leader.found(
                    lambda: self.stream_info(stream),
                    lambda: admin.message(self._client, stream, body, f"messages of {stream}"),
                )
                if late is not None:
                    yield late

    async def _request(self, stream: str, body: dict[str, Any]) -> AsyncIterator[Stored]:
        """One direct get and its answers."""
        inbox = self._client.new_inbox()
        answers: asyncio.Queue[tuple[bytes, bytes | None]] = asyncio.Queue()

        def received(_subject: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
            answers.put_nowait((data, header))

        subscription = await self._client.subscribe_direct(inbox, received)
        try:
            payload = json.dumps(body).encode()
            subject = in_domain(f"$JS.API.DIRECT.GET.{stream}", self._client.domain)
            self._client.write(
                b"PUB %b %b %d\r\n%b\r\n"
                % (subject.encode(), inbox.encode(), len(payload), payload)
            )
            while True:
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        data, header = await answers.get()
                except TimeoutError:
                    raise Unavailable(
                        f"no answer from JetStream about messages of {stream} in {_TIMEOUT:g} s"
                    ) from None
                status, text = parse_status(header or b"")
                if status in (204, 404):  # end of the batch, nothing there
                    return
                if status == 503:
                    raise Unavailable(f"stream {stream} is not there, or takes no direct gets")
                if status:
                    raise MqinferError(f"JetStream refuses to show {stream}: {status} {text}")
                yield _stored(data, header or b"")
        finally:
            await self._client.unsubscribe_direct(subscription)


def _stored(data: bytes, header: bytes) -> Stored:
    pairs = parse_header_block(header)
    for name in _OWN:
        pairs.pop(name, None)
    place = {name: last_header(header, name) for name in _OWN}
    for extra in ("Nats-Last-Sequence", "Nats-UpTo-Sequence"):
        pairs.pop(extra, None)
    return Stored(
        stream=place["Nats-Stream"],
        subject=place["Nats-Subject"],
        sequence=int(place["Nats-Sequence"]),
        time=datetime.datetime.fromisoformat(place["Nats-Time-Stamp"]),
        headers=pairs,
        data=data,
    )
