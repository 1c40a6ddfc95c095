"""JetStreamBucket: a key-value bucket of NATS (ADR-8), a stream with one message a key.

`KV_<bucket>` holds the subjects `$KV.<bucket>.<key>`. A value is saved on the condition of the
revision that was read (`Nats-Expected-Last-Subject-Sequence`) and with an id of its own. A copy
that is sent again, since the answer to the first was lost, is refused as if somebody else had been
quicker (the server looks at conditions before it looks for repeats); the id in the bucket then
says who it was.

nats-py's `KeyValue.update` publishes once, with nothing by which its own value could be told from
another's after a timeout, and its `keys` makes a consumer and leaves deleted ones out.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Protocol

from mqinfer.adapters import admin
from mqinfer.adapters.publisher import WrongRevision
from mqinfer.bucket import PutDone
from mqinfer.errors import ConflictError, PublishTimeout, Unavailable
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import MSG_ID, TTL, header_block
from mqinfer.ports import PublishDone
from mqinfer.streams import Stored

_TIMEOUT = 30.0
EXPECTED = "Nats-Expected-Last-Subject-Sequence"


def seconds(ttl: float) -> str:
    """A time to live as its header has it: whole seconds, one at least."""
    return f"{max(1, math.ceil(ttl))}s"


class Connection(admin.Connection, Protocol):
    """What a bucket needs of the connection; `JetStream` has it."""

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
        placed: Callable[[int], None] | None = None,
    ) -> None:
        """Publish; `placed` is told the sequence."""


class _Placing:
    """A connection for one publish, which says where that was stored."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self.sequence = 0

    def publish(
        self,
        subject: str | bytes,
        header: bytes,
        payload: bytes,
        done: PublishDone,
        *,
        timeout: float | None = None,
    ) -> None:
        """Publish; `sequence` is that of the message when `done` is called without an error."""
        self._connection.publish(
            subject, header, payload, done, timeout=timeout, placed=self._placed
        )

    def _placed(self, sequence: int) -> None:
        self.sequence = sequence


class JetStreamBucket:
    """A `Bucket` over one connection.

    Args:
        connection: that is open when the first method is called.
        bucket: its name.
        max_age: seconds that values are kept, where the bucket is made; 0 is for ever.
        replicas: of a bucket that is made.
        ttls: whether values of a bucket that is made may have a `ttl` each (ADR-43).
        pushed: where a bucket that is made publishes what it stored: of each token of a key's two
            one wildcard, as JetStream's subject transforms have them.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: str,
        *,
        max_age: float = 0.0,
        replicas: int = 1,
        ttls: bool = False,
        pushed: str | None = None,
    ):
        self._connection = connection
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._max_age = max_age
        self._replicas = replicas
        self._ttls = ttls
        self._pushed = pushed

    async def ensure(self) -> None:
        """Create the bucket if there is none; see `Bucket.ensure`."""
        api = self._connection.client
        if await admin.stream_info(api, self._stream) is not None:
            return
        config = {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
            "max_age": int(self._max_age * admin.NANO),
            "num_replicas": self._replicas,
        }
        if self._ttls:
            config["allow_msg_ttl"] = True
        if self._pushed:
            config["republish"] = {"src": f"{self._prefix}*.*", "dest": self._pushed}
        try:
            await admin.ask(api, f"STREAM.CREATE.{self._stream}", config, f"bucket {self._bucket}")
        except admin.JetStreamError as error:
            if await admin.stream_info(api, self._stream) is None:  # else another was quicker
                raise ConflictError(str(error)) from None

    async def load(self, key: str) -> tuple[bytes, int] | None:
        """A value and its revision; see `Bucket.load`."""
        message = await self._message(key)
        return None if message is None else (message.data, message.sequence)

    async def save(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        """Set a value if `revision` is still the newest; see `Bucket.save`."""
        return await self._put(key, value, revision, {} if ttl is None else {TTL: seconds(ttl)})

    def put(
        self, key: str, value: bytes, revision: int, done: PutDone, *, ttl: float | None = None
    ) -> None:
        """Set a value if `revision` is still the newest; see `Bucket.put`."""
        # Not through `header_block`: this runs for every message of a stage that remembers.
        header = f"NATS/1.0\r\n{EXPECTED}: {revision}\r\n"
        header += "\r\n" if ttl is None else f"{TTL}: {seconds(ttl)}\r\n\r\n"
        stored: list[int] = []

        def answered(error: Exception | None, _repeat: bool) -> None:
            if error is None:
                done(stored[0], None)
            else:
                done(None, None if isinstance(error, WrongRevision) else error)

        self._connection.publish(
            f"{self._prefix}{key}", header.encode(), value, answered, placed=stored.append
        )

    async def delete(self, key: str, revision: int) -> bool:
        """Delete a value if `revision` is still the newest; see `Bucket.delete`."""
        return bool(await self._put(key, b"", revision, {"KV-Operation": "DEL"}))

    async def names(self) -> list[str]:
        """Every key, also of values that were deleted."""
        counts = await admin.subjects(self._connection.client, self._stream, f"{self._prefix}>")
        return sorted(subject.removeprefix(self._prefix) for subject in counts)

    async def _message(self, key: str) -> Stored | None:
        what, body = f"{key} in bucket {self._bucket}", {"last_by_subj": f"{self._prefix}{key}"}
        return await admin.message(self._connection.client, self._stream, body, what)

    async def _put(self, key: str, value: bytes, revision: int, headers: dict[str, str]) -> int:
        identity = uuid.uuid4().hex
        expected = {MSG_ID: identity, EXPECTED: str(revision)}
        block = header_block({**headers, **expected})
        placing = _Placing(self._connection)
        try:
            await publish_stored(placing, f"{self._prefix}{key}", block, value, timeout=_TIMEOUT)
        except (WrongRevision, PublishTimeout) as error:
            found = await self._message(key)
            if found is not None and found.headers.get(MSG_ID) == identity:
                return found.sequence  # it was stored, and the answer lost
            newest = 0 if found is None else found.sequence
            if newest != revision or isinstance(error, WrongRevision):
                return 0
            raise Unavailable(f"{key} in bucket {self._bucket}: {error}") from None
        return placing.sequence

    def __repr__(self) -> str:
        return f"JetStreamBucket({self._bucket!r})"
