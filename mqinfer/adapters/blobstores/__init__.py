"""Blob stores, one a module; here is what they share. `adapters.blobs` chooses by the setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mqinfer.errors import BlobTooLarge

TIMEOUT = 30.0  # seconds that one call may take, unless the settings say otherwise


def too_large(path: str, size: int, limit: int) -> BlobTooLarge:
    """The error of a blob that is larger than its reader allows."""
    return BlobTooLarge(f"blob {path!r} has {size} bytes, more than the {limit} that are allowed")


@dataclass(frozen=True, slots=True)
class Found:
    """What a store has under a path; `version` tells it from what was there before ("": none)."""

    data: bytes
    version: str


@runtime_checkable
class VersionedStore(Protocol):
    """A `BlobStore` that can say whether a blob is still the one that is known.

    Attributes:
        origin: which store it is: two of one origin have the same blobs.
    """

    origin: str

    async def fetch(
        self, path: str, *, unless: str = "", max_bytes: int | None = None
    ) -> Found | None:
        """What `BlobStore.get` gives, with its version; None if that is still `unless`."""

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""

    async def close(self) -> None:
        """See `BlobStore.close`."""
