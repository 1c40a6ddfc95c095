"""Reader: makes of a delivery what a handler is given: its context, and the decoded message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqinfer.flow.job import DeliveryContext
from mqinfer.identity import ONLY, disown, sent_back

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
        app: its name.
        readers: consumers that read the same messages: one for another of them is passed over.
        foreign_ids: whether headers that strangers may have set say who a message is.
        context: what handlers are given.
    """

    stage: str
    consumer: str
    decode: Callable[[Delivery], Message]
    state: object = None
    blobs: BlobStore | None = None
    run: str | None = None
    app: str = ""
    readers: frozenset[str] = frozenset()
    foreign_ids: bool = True
    context: type[DeliveryContext] = DeliveryContext

    def read(self, job: Job) -> bool:
        """Read headers and payload; False when the message is for another consumer.

        Raises:
            Reject: it is no message of the type that the stage reads.
        """
        if not self.foreign_ids:
            delivery = job.delivery
            if not sent_back(delivery.headers, self.app):
                disown(delivery.headers, delivery.stream, delivery.sequence)
        headers = job.open(self.stage, self.state, self.blobs, self.run, self.context).headers
        only = headers.get(ONLY) if headers else None
        # Whoever is named answers it. Where nobody is (a stage that is no more), or where anybody
        # may have set it, it is answered here.
        if (
            only is not None
            and only != self.consumer
            and only in self.readers
            and sent_back(headers, self.app)
        ):
            return False
        job.message = self.decode(job.delivery)
        return True
