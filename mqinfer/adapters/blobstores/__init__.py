"""Blob stores, one a module; here is what they share. `adapters.blobs` chooses by the setting."""

from __future__ import annotations

from mqinfer.errors import BlobTooLarge

TIMEOUT = 30.0  # seconds that one call may take, unless the settings say otherwise


def too_large(path: str, size: int, limit: int) -> BlobTooLarge:
    """The error of a blob that is larger than its reader allows."""
    return BlobTooLarge(f"blob {path!r} has {size} bytes, more than the {limit} that are allowed")
