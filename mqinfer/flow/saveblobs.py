"""Blobs of what is about to be published: stored first, or few and small enough to ride along.

A handler may put a blob anywhere in a message, so the encoder says which ones there are: what it
meets is what it will write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from mqinfer.codec import REFERENCE, blobs_in, wire_size
from mqinfer.errors import MqinferError

if TYPE_CHECKING:
    from mqinfer.blob import Blob, BlobStore
    from mqinfer.message import Message

HEADERS = 16 * 1024  # bytes, more than the headers of an output take: each of them is bounded


async def save_blobs(
    messages: Sequence[Message],
    store: BlobStore | None,
    *,
    inline_limit: int,
    max_payload: int,
    run: str | None = None,
) -> None:
    """Store the blobs in `messages` that do not ride inline; each object once.

    Args:
        messages: to be published next; their blobs get their final form.
        store: where blobs go.
        inline_limit: bytes of one blob that may ride in a message.
        max_payload: bytes of one message that the server takes.
        run: the replay run, whose blobs are kept in a folder of its own.

    Raises:
        BlobError: a blob cannot be stored.
        Unavailable: the store does not answer.
        MqinferError: there is no store.
    """
    chosen: dict[int, Blob] = {}
    for message in messages:
        for blob in to_save(message, inline_limit, max_payload - HEADERS):
            chosen[id(blob)] = blob
    if not chosen:
        return
    if store is None:
        raise MqinferError("no blob store is configured: set MQINFER_BLOBS")
    for blob in chosen.values():
        if run is not None:
            blob.keep_under(f"runs/{run}")
        await blob.save(store, inline_limit=-1)


def to_save(message: Message, inline_limit: int, room: int) -> list[Blob]:
    """The blobs of a message that must be stored before it is published. Pure.

    Those with a path, those above `inline_limit` bytes, and of the others the largest, until what
    is left fits into `room` bytes.

    Raises:
        Exception: whatever the encoder raises for a message that cannot be encoded.
    """
    wire = message.__mqinfer__.wire
    found, size = blobs_in(message, wire)
    times = Counter(map(id, found))
    chosen = []
    riding: list[tuple[int, Blob]] = []
    for blob in {id(one): one for one in found}.values():
        takes = wire_size(blob, wire)
        if blob.inline is not None and (blob.path is not None or len(blob.inline) > inline_limit):
            chosen.append(blob)
            takes = REFERENCE if blob.path is None else takes
        elif blob.path is None:
            riding.append((takes, blob))
        size += takes * times[id(blob)]
    for takes, blob in sorted(riding, key=itemgetter(0), reverse=True):
        if size <= room or takes <= REFERENCE:
            break
        size -= (takes - REFERENCE) * times[id(blob)]
        chosen.append(blob)
    return chosen
