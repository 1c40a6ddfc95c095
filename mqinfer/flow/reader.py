"""Reader: makes of a delivery what a handler is given: its context, and the decoded message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.identity import ONLY

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.flow.job import Job
    from mqinfer.message import Message
    from mqinfer.ports import Delivery


@dataclass(frozen=True, slots=True)
class Reader:
    """How the deliveries of one consumer are read.

    Attributes:
        stage: its name.
        consumer: the durable's name.
        decode: makes a message of a delivery, or raises Reject.
        state: what the stage's lifespan yielded.
        blobs: the blob store.
        run: the replay run, or None.
    """

    stage: str
    consumer: str
    decode: Callable[[Delivery], Message]
    state: object = None
    blobs: BlobStore | None = None
    run: str | None = None

    def read(self, job: Job) -> bool:
        """Read headers and payload; False when the message is for another consumer.

        Raises:
            Reject: it is no message of the type that the stage reads.
        """
        headers = job.open(self.stage, self.state, self.blobs, self.run).headers
        only = headers.get(ONLY) if headers else None
        if only is not None and only != self.consumer:
            return False
        job.message = self.decode(job.delivery)
        return True
