"""What replays need of JetStream beside a worker's broker: the `RunStore`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mqinfer.adapters import admin
from mqinfer.adapters.bucket import JetStreamBucket
from mqinfer.adapters.scan import Scanner
from mqinfer.ports import ConsumerSpec
from mqinfer.replay.runs import Bounds

if TYPE_CHECKING:
    import datetime

    from mqinfer.adapters.jetstream import JetStream

_TRIES = 10


class JetStreamRuns(JetStreamBucket):
    """The runs' side of one connection; the bucket holds their definitions.

    Args:
        jetstream: an open connection.
        bucket: of the definitions.
        replicas: of a bucket that is made.
    """

    def __init__(self, jetstream: JetStream, bucket: str, *, replicas: int = 1):
        super().__init__(jetstream, bucket, replicas=replicas)
        self._jetstream = jetstream

    # --- the range ------------------------------------------------------------------------------

    async def bounds(self, stream: str) -> Bounds | None:
        """What a stream holds, or None if there is no such stream."""
        info = await admin.stream_info(self._jetstream.client, stream)
        if info is None:
            return None
        state = info["state"]
        return Bounds(state["first_seq"], state["last_seq"], state.get("num_deleted", 0))

    async def sequence_at(self, stream: str, moment: datetime.datetime) -> int | None:
        """The first sequence that was stored at `moment` or later, or None."""
        scan = Scanner(self._jetstream.client).messages(stream, since=moment)
        async with contextlib.aclosing(scan) as messages:
            async for message in messages:
                return message.sequence
        return None

    async def count(self, stream: str, filters: Sequence[str], start: int, end: int) -> int:
        """Messages of these subjects from `start` to `end`."""
        if start > end:
            return 0
        for _ in range(_TRIES):
            before = await self.waiting_after(stream, filters, start - 1)
            behind = await self.waiting_after(stream, filters, end)
            if before == await self.waiting_after(stream, filters, start - 1):
                return before - behind
        return max(0, before - behind)  # the stream grows faster than we can ask: about

    async def waiting_after(self, stream: str, filters: Sequence[str], end: int) -> int:
        """Messages of these subjects after `end`: what a consumer from there on has pending."""
        spec = ConsumerSpec("", stream, tuple(filters), start_sequence=max(1, end + 1))
        return await admin.pending(self._jetstream.client, spec)

    # --- discarding -----------------------------------------------------------------------------

    async def pulling(self, stream: str, prefix: str) -> list[str]:
        """The consumers with this prefix that somebody asks for messages."""
        found = []
        for name in await self._consumers(stream, prefix):
            info = await admin.consumer_info(self._jetstream.client, stream, name)
            if info is not None and info.get("num_waiting", 0):
                found.append(name)
        return found

    async def erase(self, stream: str, prefix: str, subject: str) -> None:
        """Delete the consumers with this prefix and the messages of this subject."""
        for name in await self._consumers(stream, prefix):
            await admin.delete_consumer(self._jetstream.client, stream, name)
        await self.purge(stream, subject)

    async def purge(self, stream: str, subject: str) -> None:
        """Delete the messages of this subject, if there is such a stream."""
        client, wanted = self._jetstream.client, {"filter": subject}
        try:
            await admin.ask(client, f"STREAM.PURGE.{stream}", wanted, f"stream {stream}")
        except admin.JetStreamError as error:
            if error.code not in admin.NOT_FOUND:
                raise

    async def _consumers(self, stream: str, prefix: str) -> list[str]:
        names: list[str] = []
        while True:
            answer = await admin.ask(
                self._jetstream.client,
                f"CONSUMER.NAMES.{stream}",
                {"offset": len(names)},
                f"consumers of {stream}",
            )
            page = answer.get("consumers") or []
            names += page
            if not page or len(names) >= answer.get("total", 0):
                return [name for name in names if name.startswith(prefix)]
