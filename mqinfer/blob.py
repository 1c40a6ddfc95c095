"""Blob: bytes by value or by reference, as a field of a message.

On the wire a reference is its path, a plain string, so that any client can publish one; bytes by
value are `{"base64": ...}` in JSON and a binary in msgpack.

A handler makes blobs (`Blob(png)` or `Blob(png, path="p1/0.png")`) and puts them anywhere into a
message. Those that have a path, or that are larger than the inline limit, are stored *before* the
message that carries them is published, so a reference on the stream always leads to something.
Where many small ones do not fit into one message together, the largest of them are stored as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mqinfer.errors import BlobError, BlobPathError, NotConnected
from mqinfer.opened import Opened

if TYPE_CHECKING:
    from mqinfer.image import Depth, Pixels


class BlobStore(Protocol):
    """Where blobs are kept. Paths are relative, with `/` between their parts."""

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes under `path`.

        Raises:
            BlobNotFound: nothing is stored there.
            BlobPathError: the path leaves the store's root.
            BlobTooLarge: it is larger than `max_bytes`.
            BlobError: the store refuses.
            Unavailable: the store does not answer.
        """

    async def put(self, path: str, data: bytes) -> None:
        """Store `data` under `path`, whole or not at all, replacing what was there."""

    async def exists(self, path: str) -> bool:
        """Whether something is stored under `path`."""

    async def close(self) -> None:
        """Release connections."""


@runtime_checkable
class Listed(Protocol):
    """A `BlobStore` that can tell what it has."""

    def names(self, prefix: str) -> AsyncIterator[str]:
        """The paths that begin with `prefix`, which ends in `/`, in an order that stays the same.

        Raises:
            BlobPathError: the prefix leaves the store's root.
            BlobError: the store refuses.
            Unavailable: it does not answer.
        """


@runtime_checkable
class Streamed(Protocol):
    """A `BlobStore` that need not hold all of a large blob in memory."""

    def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """What is under `path`, some of it at a time; errors as of `BlobStore.get`.

        Args:
            path: of the blob.
            start: the first byte that is wanted.
        """

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """Store what `pieces` gives under `path`, as `BlobStore.put` does; its errors are raised.

        The timeout is that of each piece.
        """


async def put_pieces(store: BlobStore, path: str, pieces: AsyncIterator[bytes]) -> None:
    """Store a blob that is made as it is stored; a store that is not `Streamed` is given it whole.

    Args:
        store: where it goes.
        path: under which.
        pieces: of the blob.

    Raises:
        BlobError: the store refuses.
        Unavailable: it does not answer.
    """
    if isinstance(store, Streamed):
        await store.put_pieces(path, pieces)
    else:
        await store.put(path, b"".join([piece async for piece in pieces]))


@runtime_checkable
class Dropping(Protocol):
    """A `BlobStore` that can drop what it has."""

    async def drop(self, path: str) -> None:
        """Drop what is under `path`; where nothing is, nothing happens; errors as of `put`."""


# Of the clients that are open.
stores: Opened[BlobStore] = Opened()


class Blob:
    """Bytes that a message carries or points to.

    Args:
        data: the bytes; kept in memory until the message is published.
        path: where the store keeps them; None lets the engine decide (small ones ride inline,
            larger ones go to a path made of their SHA-256).
    """

    __slots__ = ("_data", "_path", "_store")

    def __init__(self, data: bytes | bytearray | memoryview, *, path: str | None = None):
        self._data: bytes | None = bytes(data)
        self._path = None if path is None else checked_path(path)
        self._store: BlobStore | None = None

    @classmethod
    def at(cls, path: str) -> Blob:
        """A reference to what is stored under `path` already."""
        blob = cls.__new__(cls)
        blob._data = None
        blob._path = checked_path(path)
        blob._store = None
        return blob

    @property
    def path(self) -> str | None:
        """The path in the store, or None when the bytes ride in the message."""
        return self._path

    @property
    def inline(self) -> bytes | None:
        """The bytes that are in memory, or None for a reference that was not read."""
        return self._data

    def bind(self, store: BlobStore | None) -> Blob:
        """Say where a reference is read from; done by the codec."""
        self._store = store
        return self

    async def bytes(self, *, max_bytes: int | None = None) -> bytes:
        """The content.

        Raises:
            BlobNotFound: nothing is stored under the path.
            BlobTooLarge: what the store has is larger than `max_bytes`.
            BlobError: refused by the store.
            NotConnected: it was made by hand, and there is not one client open to read it with.
        """
        if self._data is not None:
            return self._data
        path = self._path
        assert path is not None
        if self._store is not None:
            return await self._store.get(path, max_bytes=max_bytes)
        found = stores.of(None)
        if len(found) == 1:
            return await found[0].run(lambda store: store.get(path, max_bytes=max_bytes))
        raise NotConnected(
            f"blob {path!r} belongs to no store: "
            + (
                f"{len(found)} clients are open; say whose it is: `blob.bind(client.blobs)`"
                if found
                else "read it inside a worker, or while a client is open: inside "
                "`async with mqinfer.connect(app)`"
            )
        )

    async def pixels(
        self,
        *,
        min_side: int = 1,
        max_pixels: int | None = None,
        max_bytes: int | None = None,
        target: int | None = None,
        size: tuple[int, int] | None = None,
        dtype: Depth = "uint8",
    ) -> Pixels:
        """The picture as an array, decoded off the event loop, and shrunk there if a size is given.

        Args:
            min_side: fewer pixels than this in height or width is a `BadImage`.
            max_pixels: limit for height x width, checked from the file's header before any
                pixel is decoded; None takes the process's limit, `mqinfer.image.MAX_PIXELS` unless
                the settings say otherwise.
            max_bytes: limit for the encoded file, checked before it is read; None takes the
                process's limit, `mqinfer.image.MAX_BYTES` unless the settings say otherwise.
            target: the shortest side that is needed: a JPEG larger than that is decoded at 1/2,
                1/4 or 1/8 of its size, in a fraction of the time, but never below it.
            size: height and width that are wanted, such as a model's: shrunk (or enlarged) to
                them, by the mean of the area that each pixel stands for. Off the event loop, so it
                is better than shrinking in the handler; a JPEG is decoded at a part of its size
                first, as with `target`.
            dtype: "uint16" gives pictures of 16 bits as they are stored (8 bits times 257).

        Returns:
            array `[height, width, 3]` of `dtype`, RGB.

        Raises:
            BadImage: empty, truncated, too small, too large, of an unknown format, or of 16 bits
                that use so little of their range that next to nothing would be left in 8.
            ValueError: the size cannot be, or stands beside a target.
        """
        from mqinfer.image import decode_off_loop, max_image_bytes

        data = await self.bytes(max_bytes=max_image_bytes() if max_bytes is None else max_bytes)
        name = self._path or "inline image"
        return await decode_off_loop(
            data,
            name=name,
            min_side=min_side,
            max_pixels=max_pixels,
            target=target,
            size=size,
            dtype=dtype,
        )

    async def save(self, store: BlobStore, inline_limit: int) -> None:
        """Make the wire form final: store the bytes if they do not ride in the message.

        Idempotent: a redelivered message stores the same bytes under the same path.

        Args:
            store: where they go.
            inline_limit: so many bytes without a path are left to ride; -1 leaves none.

        Raises:
            BlobError: the store refuses.
            Unavailable: the store does not answer.
        """
        if self._data is None:
            return
        path = self._path
        if path is None:
            if len(self._data) <= inline_limit:
                return
            digest = hashlib.sha256(self._data).hexdigest()
            path = f"sha256/{digest[:2]}/{digest}"  # which `digest_of` reads
        await store.put(path, self._data)
        self._path, self._store = path, store

    def keep_under(self, folder: str) -> None:
        """Put bytes that have a path, and are not stored yet, into a folder of the store.

        So a replay never replaces what the live stage has stored under the same path.

        Raises:
            BlobPathError: the path becomes too long.
        """
        if self._data is not None and self._path is not None and self._store is None:
            path = self._path.removeprefix(f"{folder}/")
            self._path = checked_path(f"{folder}/{path}")

    def wire(self) -> Any:
        """What the encoder writes: the path, or the bytes of a blob that has none.

        Raises:
            BlobError: nothing is stored under the path yet.
        """
        if self._path is not None and self._data is not None and self._store is None:
            raise BlobError(
                f"blob {self._path!r} is not stored: it is in a message whose type names no Blob "
                "there; annotate the field as what it holds"
            )
        return self._path if self._path is not None else self._data

    @classmethod
    def from_wire(cls, value: Any) -> Blob:
        """The inverse of the wire forms in the module's docstring.

        Raises:
            ValueError: the value is none of them (the codec makes it a `DecodeError`).
        """
        if isinstance(value, str):
            try:
                return cls.at(value)
            except BlobPathError as error:
                raise ValueError(str(error)) from None
        if isinstance(value, (bytes, bytearray, memoryview)):
            return cls(value)
        if (
            isinstance(value, dict)
            and set(value) == {"base64"}
            and isinstance(value["base64"], str)
        ):
            try:
                return cls(base64.b64decode(value["base64"], validate=True))
            except binascii.Error as error:
                raise ValueError(f"a blob's base64 is broken: {error}") from None
        raise ValueError(
            'a blob is a path ("a/b.png"), bytes, or {"base64": "..."}, not '
            f"{type(value).__name__}"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blob):
            return NotImplemented
        return (self._path, self._data) == (other._path, other._data)

    def __hash__(self) -> int:
        return hash((self._path, self._data))

    def __repr__(self) -> str:
        size = "" if self._data is None else f"{len(self._data)} bytes"
        return f"Blob({', '.join(filter(None, (repr(self._path) if self._path else '', size)))})"


def digest_of(path: str) -> str | None:
    """The SHA-256 of what is stored under a path that `Blob.save` made; None for any other."""
    digest = path[10:]
    if re.fullmatch("[0-9a-f]{64}", digest) and path == f"sha256/{digest[:2]}/{digest}":
        return digest
    return None


def checked_path(path: str) -> str:
    """`path`, if it is one that stays inside the root of a store.

    Raises:
        BlobPathError: empty, absolute, with a drive, NUL, backslash or a part that is `.` or `..`.
    """
    parts = path.split("/")
    if (
        not path
        or len(path) > 1024
        or "\\" in path
        or any(ord(char) < 32 for char in path)
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BlobPathError(
            f"blob path {path[:200]!r} is not allowed: use a relative path such as "
            "'p1/2026-05-01/image.png', without empty, '.' or '..' parts"
        )
    return path
