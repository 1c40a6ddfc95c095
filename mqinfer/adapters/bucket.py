"""Bucket: a key-value bucket whose values change only where nobody was quicker.

A bucket is a stream with one message a key (ADR-8). A value is saved under the condition that the
key's last revision is the one that was read (`Nats-Expected-Last-Subject-Sequence`).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from mqinfer.adapters import admin
from mqinfer.adapters.scan import Scanner
from mqinfer.errors import PublishError
from mqinfer.flow.publishing import publish_stored
from mqinfer.identity import header_block

if TYPE_CHECKING:
    from mqinfer.adapters.jetstream import JetStream

_TIMEOUT = 30.0


class Bucket:
    """A bucket over one connection.

    Args:
        broker: an open connection.
        bucket: its name.
        replicas: copies of the bucket in a cluster.
    """

    def __init__(self, broker: JetStream, bucket: str, *, replicas: int = 1):
        self._broker = broker
        self._bucket = bucket
        self._replicas = replicas

    async def ensure(self) -> None:
        """Create the bucket if there is none; its values never grow old."""
        await self._broker.ensure_bucket(self._bucket, max_age=0, replicas=self._replicas)

    async def load(self, name: str) -> tuple[bytes, int] | None:
        """A value and its revision; a value that was deleted is empty, and has a revision.

        Raises:
            Unavailable: NATS does not answer.
        """
        client, stream = self._broker.client, f"KV_{self._bucket}"
        body = {"last_by_subj": f"$KV.{self._bucket}.{name}"}
        what = f"{name} in bucket {self._bucket}"
        try:
            answer = await admin.ask(client, f"STREAM.MSG.GET.{stream}", body, what)
        except admin.JetStreamError as error:
            if error.code in {admin.NO_MESSAGE, *admin.NOT_FOUND}:
                return None
            raise
        message = answer["message"]
        return base64.b64decode(message.get("data") or ""), int(message["seq"])

    async def save(self, name: str, value: bytes, revision: int) -> bool:
        """Set a value if `revision` (0: none) is still the newest; False if it is not.

        Raises:
            Unavailable: NATS does not answer.
        """
        return await self._put(name, value, revision, {})

    async def delete(self, name: str, revision: int) -> bool:
        """Delete a value if `revision` is still the newest; False if it is not.

        Raises:
            Unavailable: NATS does not answer.
        """
        return await self._put(name, b"", revision, {"KV-Operation": "DEL"})

    async def _put(self, name: str, value: bytes, revision: int, headers: dict[str, str]) -> bool:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(revision)
        subject, header = f"$KV.{self._bucket}.{name}", header_block(headers)
        try:
            await publish_stored(self._broker, subject, header, value, timeout=_TIMEOUT)
        except PublishError:
            # Refused; or it was stored, the answer was lost, and the second copy was refused.
            found = await self.load(name)
            return found is not None and found[0] == value and found[1] > revision
        return True

    async def names(self) -> list[str]:
        """Every key, also of values that were deleted."""
        prefix = f"$KV.{self._bucket}."
        subjects = await Scanner(self._broker.client).subjects(f"KV_{self._bucket}", f"{prefix}>")
        return sorted(subject.removeprefix(prefix) for subject in subjects)
