"""Blob stores: the one that a setting names; the folder `blobstores` has them.

All keep the promise of `BlobStore.put`: a reader finds a blob whole, or not at all. Trouble that
may pass by itself is `Unavailable`; what waiting does not mend is a `BlobError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mqinfer.adapters.blobstores import TIMEOUT, VersionedStore
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.adapters.blobstores.objects import ObjectBucket, ObjectStore
from mqinfer.blob import BlobStore
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.counts import BlobCacheMetrics


def open_store(
    url: str,
    *,
    timeout: float = TIMEOUT,
    objects: Callable[[str], ObjectBucket] | None = None,
    server: str = "",
) -> BlobStore:
    """The store that a setting names; nothing is connected or created yet.

    Args:
        url: a folder (or `file://`), `s3://bucket/prefix`, `gs://bucket/prefix`, `nats://bucket`,
            or `memory://` (a new one, for tests).
        timeout: seconds that one call may take.
        objects: makes the bucket of a `nats://` store from its name.
        server: that has it.

    Raises:
        ConfigurationError: the URL is none of these, or an extra is not installed.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        if url.strip():
            return FolderStore(url, timeout=timeout)
    elif scheme == "file" and urlsplit(url).netloc in ("", "localhost") and urlsplit(url).path:
        return FolderStore(unquote(urlsplit(url).path), timeout=timeout)
    elif scheme == "memory":
        return MemoryStore()
    elif scheme in ("s3", "gs") and rest.strip("/"):
        from mqinfer.adapters.blobstores.cloud import CloudStore

        return CloudStore(url, timeout=timeout)
    elif scheme == "nats" and rest.strip("/"):
        if objects is None:
            raise ConfigurationError(f"MQINFER_BLOBS={url!r} needs a connection to NATS")
        return ObjectStore(objects(rest.strip("/")), timeout=timeout, origin=f"{url} {server}")
    raise ConfigurationError(
        f"MQINFER_BLOBS={url!r} is no blob store: name a folder, s3://bucket/prefix, "
        "gs://bucket/prefix or nats://bucket"
    )


def through_cache(store: BlobStore, folder: str, limit: int, counts: BlobCacheMetrics) -> BlobStore:
    """A store read through copies on the local disk; one that is on a disk itself stays as it is.

    Args:
        store: that has the blobs.
        folder: for the copies.
        limit: bytes that they may take.
        counts: of what came from where.
    """
    if not isinstance(store, VersionedStore):
        return store
    from mqinfer.adapters.blobstores.cached import CachedStore
    from mqinfer.adapters.blobstores.diskcache import DiskCache

    return CachedStore(store, DiskCache(folder, limit), counts)
