"""NatsObjects: blobs in a NATS Object Store bucket, over the worker's own connection (ADR-20).

A bucket is a stream `OBJ_<bucket>`. An object is some chunks on a subject of its own,
`$O.<bucket>.C.<nuid>`, and then one message that names them, `$O.<bucket>.M.<base64 of the name>`:
only when that is stored does the object exist, so a reader meets it whole or not at all. What other
clients of NATS write can be read here, and the other way round.

A writer that is killed half way leaves chunks that nobody names; they take space until they are
purged. So do the chunks of the loser when two replace one object at the same moment.

nats-py's `ObjectStore.put` publishes once and purges the chunks when an answer does not come: where
it was the last answer, the object is there and its bytes are not.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import structlog

from mqinfer.adapters.admin import (
    NO_MESSAGE,
    NOT_FOUND,
    Connection,
    JetStreamError,
    ask,
    stream_info,
    subjects,
)
from mqinfer.errors import (
    BlobError,
    BlobNotFound,
    BlobPathError,
    ConfigurationError,
    MqinferError,
    PublishError,
    PublishTimeout,
    Unavailable,
)
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import MSG_ID, header_block

log = structlog.get_logger("mqinfer.blobs")

# Larger than the 128 KiB of other clients: each chunk costs a round trip, read or written.
CHUNK = 512 * 1024
HEADERS = 1024  # room for the headers of a chunk below the server's max_payload
REPLACED = 3  # so often may an object be replaced while it is being read
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class NatsObjects:
    """An `ObjectBucket` in NATS.

    Args:
        connection: that is open when the first method is called; it is not closed here.
        bucket: its name; it is created when first used, if it is not there.
        replicas: of a bucket that is created.
        timeout: seconds after which a chunk that the stream does not take is an error.

    Raises:
        ConfigurationError: no bucket can have this name.
    """

    def __init__(
        self, connection: Connection, bucket: str, *, replicas: int = 1, timeout: float = 30.0
    ):
        if not _NAME.fullmatch(bucket):
            raise ConfigurationError(
                f"MQINFER_BLOBS='nats://{bucket}': a bucket's name has letters, digits, - and _"
            )
        self.bucket = bucket
        self.stream = f"OBJ_{bucket}"
        self._connection = connection
        self._replicas = replicas
        self._timeout = timeout
        self._known = False
        self._creating = asyncio.Lock()

    # --- ObjectBucket ---------------------------------------------------------------------------

    async def size(self, name: str) -> int | None:
        """Bytes of an object, or None if there is none."""
        info = await self._info(name)
        return None if info is None else int(info["size"])

    async def version(self, name: str) -> str | None:
        """Each time that an object is put it has another; None if there is none."""
        info = await self._info(name)
        return None if info is None else str(info["nuid"])

    async def get(self, name: str) -> bytes | None:
        """An object, checked against its digest; None if there is none.

        Raises:
            BlobError: its chunks are not there, or not what was written.
            Unavailable: NATS does not answer.
        """
        problem = ""
        seen = None
        for _ in range(REPLACED):
            info = await self._info(name)
            if info is None:
                return None
            if info["nuid"] == seen:  # nobody replaced it: it is broken
                break
            seen = info["nuid"]
            data = await self._chunks(info)
            digest = await asyncio.to_thread(hashlib.sha256, data)
            problem = _difference(info, len(data), _told(digest.digest()))
            if not problem:
                return data
        raise BlobError(f"blob {name!r} in bucket {self.bucket}: {problem}")

    async def pieces(self, name: str) -> AsyncIterator[bytes]:
        """An object, a chunk at a time; at its end it is checked against its digest.

        Raises:
            BlobNotFound: there is none.
            BlobError: its chunks are not there, or not what was written.
            Unavailable: NATS does not answer.
        """
        info = await self._info(name)
        if info is None:
            raise BlobNotFound(f"nothing is stored under {name!r}")
        digest, size = hashlib.sha256(), 0
        async for data in self._each(info):
            size += len(data)
            await asyncio.to_thread(digest.update, data)
            yield data
        if problem := _difference(info, size, _told(digest.digest())):
            raise BlobError(f"blob {name!r} in bucket {self.bucket}: {problem}")

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all, and purge what it replaces.

        Raises:
            BlobError: the stream refuses it.
            Unavailable: NATS does not answer.
        """

        async def whole() -> AsyncIterator[bytes]:
            yield data

        await self.put_pieces(name, whole())

    async def put_pieces(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Store an object that is made as it is stored; errors as of `put`, and of `pieces`."""
        before = await self._info(name)
        nuid = uuid.uuid4().hex
        chunk = min(CHUNK, self._connection.max_payload - HEADERS)
        digest, size, count = hashlib.sha256(), 0, 0
        try:
            # One after the other: a chunk that has to be sent again must not change the order.
            async for part in _sized(pieces, chunk):
                await asyncio.to_thread(digest.update, part)
                await self._publish(name, f"$O.{self.bucket}.C.{nuid}", part, f"{nuid}:{count}")
                size += len(part)
                count += 1
        except Exception:
            if count:
                await self._purge({"nuid": nuid})
            raise
        info = {
            "name": name,
            "bucket": self.bucket,
            "nuid": nuid,
            "size": size,
            "chunks": count,
            "digest": _told(digest.digest()),
            "mtime": datetime.datetime.now(datetime.UTC).isoformat(),
            "options": {"max_chunk_size": chunk},
        }
        rollup = {"Nats-Rollup": "sub"}
        # Where it is not known whether this was stored nothing is purged.
        await self._publish(
            name, self._meta(name), json.dumps(info).encode(), f"{nuid}:meta", rollup
        )
        if before is not None:
            await self._purge(before)

    async def drop(self, name: str) -> None:
        """Drop an object, as other clients do; where there is none, nothing happens.

        Raises:
            BlobError: the stream refuses that.
            Unavailable: NATS does not answer.
        """
        before = await self._info(name)
        if before is None:
            return
        gone = {
            "name": name,
            "bucket": self.bucket,
            "nuid": before["nuid"],
            "size": 0,
            "chunks": 0,
            "digest": "",
            "deleted": True,
            "mtime": datetime.datetime.now(datetime.UTC).isoformat(),
        }
        body, identity = json.dumps(gone).encode(), f"{before['nuid']}:gone"
        await self._publish(name, self._meta(name), body, identity, {"Nats-Rollup": "sub"})
        await self._purge(before)

    async def names(self) -> list[str]:
        """The names of all objects, also of those that other clients have deleted.

        Raises:
            Unavailable: NATS does not answer.
        """
        start = f"$O.{self.bucket}.M."
        found = await subjects(self._connection.client, self.stream, f"{start}*")
        return [
            base64.urlsafe_b64decode(one.removeprefix(start)).decode(errors="replace")
            for one in found
        ]

    async def close(self) -> None:
        """Nothing to do: the connection is the worker's."""

    # --- inside ---------------------------------------------------------------------------------

    def _meta(self, name: str) -> str:
        try:
            encoded = base64.urlsafe_b64encode(name.encode()).decode()
        except UnicodeEncodeError as error:
            raise BlobPathError(
                f"blob path {name[:200]!r} cannot name an object: {error}"
            ) from None
        return f"$O.{self.bucket}.M.{encoded}"

    async def _info(self, name: str) -> dict[str, Any] | None:
        subject = self._meta(name)
        await self._ensure()
        message = await self._message({"last_by_subj": subject})
        if message is None:
            return None
        try:
            info = json.loads(message[1])
            if info.get("deleted"):
                return None
            link = (info.get("options") or {}).get("link")
            if not link:
                return {
                    "nuid": str(info["nuid"]),
                    "size": int(info.get("size") or 0),
                    "chunks": int(info.get("chunks") or 0),
                    "digest": str(info.get("digest") or ""),
                }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BlobError(
                f"blob {name!r} in bucket {self.bucket}: its description is broken: {error!r}"
            ) from None
        raise BlobError(f"blob {name!r} in bucket {self.bucket} is a link, which is not followed")

    async def _chunks(self, info: dict[str, Any]) -> bytes:
        """All the chunks there are of an object."""
        return b"".join([data async for data in self._each(info)])

    async def _each(self, info: dict[str, Any]) -> AsyncIterator[bytes]:
        """One after the other."""
        subject = f"$O.{self.bucket}.C.{info['nuid']}"
        sequence = 0
        for _ in range(info["chunks"]):
            message = await self._message({"seq": sequence + 1, "next_by_subj": subject})
            if message is None:
                return
            sequence, data = message
            yield data

    async def _message(self, question: dict[str, Any]) -> tuple[int, bytes] | None:
        # From the stream's leader: a replica may not yet have what was stored just now.
        what = f"bucket {self.bucket}"
        try:
            answer = await ask(
                self._connection.client, f"STREAM.MSG.GET.{self.stream}", question, what
            )
        except JetStreamError as error:
            if error.code == NO_MESSAGE:
                return None
            if error.code in NOT_FOUND:
                self._known = False  # it was deleted under us; the next call makes it again
                return None
            raise BlobError(str(error)) from None
        message = answer["message"]
        return int(message["seq"]), base64.b64decode(message.get("data") or b"")

    async def _publish(
        self,
        name: str,
        subject: str,
        data: bytes,
        identity: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        block = header_block({MSG_ID: identity, **(headers or {})})
        try:
            await publish_stored(self._connection, subject, block, data, timeout=self._timeout)
        except PublishTimeout as error:
            raise Unavailable(f"bucket {self.bucket}: {error}") from None
        except PublishError as error:
            raise BlobError(f"blob {name!r} in bucket {self.bucket}: {error}") from None

    async def _purge(self, info: dict[str, Any]) -> None:
        """Free the chunks of an object that was replaced; failing costs space, nothing else."""
        body = {"filter": f"$O.{self.bucket}.C.{info['nuid']}"}
        try:
            await ask(
                self._connection.client,
                f"STREAM.PURGE.{self.stream}",
                body,
                f"bucket {self.bucket}",
            )
        except MqinferError as error:
            log.warning("a replaced blob keeps its space", bucket=self.bucket, reason=str(error))

    async def _ensure(self) -> None:
        if self._known:
            return
        async with self._creating:
            if self._known:
                return
            api = self._connection.client
            if await stream_info(api, self.stream) is None:
                try:
                    await ask(api, f"STREAM.CREATE.{self.stream}", self._config(), self.bucket)
                except JetStreamError as error:
                    if await stream_info(api, self.stream) is None:  # no other was quicker
                        raise BlobError(f"bucket {self.bucket} cannot be made: {error}") from None
                else:
                    log.info("bucket created", bucket=self.bucket)
            self._known = True

    def _config(self) -> dict[str, Any]:
        return {
            "name": self.stream,
            "subjects": [f"$O.{self.bucket}.C.>", f"$O.{self.bucket}.M.>"],
            "storage": "file",
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "num_replicas": self._replicas,
        }

    def __repr__(self) -> str:
        return f"NatsObjects({self.bucket!r})"


async def _sized(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of so many, but for the last."""
    left = b""
    async for piece in pieces:
        left = left + piece if left else piece
        full = len(left) - len(left) % size
        for start in range(0, full, size):
            yield left[start : start + size]
        left = left[full:]
    if left:
        yield left


def _told(digest: bytes) -> str:
    return "SHA-256=" + base64.urlsafe_b64encode(digest).decode()


def _difference(info: dict[str, Any], size: int, digest: str) -> str:
    """What is wrong with an object's bytes, or ""."""
    if size != info["size"]:
        return f"{size} of {info['size']} bytes are there"
    expected = info["digest"]
    known = expected.upper().startswith("SHA-256=")
    # Some clients leave the padding of base64 out.
    if known and digest[8:].rstrip("=") != expected[8:].rstrip("="):
        return "its bytes do not fit its digest"
    return ""
