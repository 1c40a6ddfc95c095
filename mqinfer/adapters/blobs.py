"""Blob stores: the one that a setting names; the folder `blobstores` has them.

All keep the promise of `BlobStore.put`: a reader finds a blob whole, or not at all. Trouble that
may pass by itself is `Unavailable`; what waiting does not mend is a `BlobError`.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from mqinfer.adapters.blobstores import TIMEOUT
from mqinfer.adapters.blobstores.folder import FolderStore
from mqinfer.adapters.blobstores.memory import MemoryStore
from mqinfer.adapters.blobstores.objects import ObjectBucket, ObjectStore
from mqinfer.blob import BlobStore
from mqinfer.errors import ConfigurationError


def open_store(
    url: str,
    *,
    timeout: float = TIMEOUT,
    objects: Callable[[str], ObjectBucket] | None = None,
) -> BlobStore:
    """The store that a setting names; nothing is connected or created yet.

    Args:
        url: a folder (or `file://`), `s3://bucket/prefix`, `gs://bucket/prefix`, `nats://bucket`,
            or `memory://` (a new one, for tests).
        timeout: seconds that one call may take.
        objects: makes the bucket of a `nats://` store from its name.

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
        return ObjectStore(objects(rest.strip("/")), timeout=timeout)
    raise ConfigurationError(
        f"MQINFER_BLOBS={url!r} is no blob store: name a folder, s3://bucket/prefix, "
        "gs://bucket/prefix or nats://bucket"
    )
