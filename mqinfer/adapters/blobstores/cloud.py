"""CloudStore: blobs in S3, in what speaks its protocol, and in Google's, through obstore."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from mqinfer.adapters.blobstores import TIMEOUT, Found, too_large
from mqinfer.blob import checked_path
from mqinfer.errors import BlobError, BlobNotFound, ConfigurationError, Unavailable

T = TypeVar("T")

# Of an upload in parts, of which there may be 10,000.
PART = 8 * 1024 * 1024  # bytes
AT_ONCE = 2  # that are on their way
_RETRIES = 2  # by obstore itself; who waits out an outage is the caller
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_AGAIN = ("5", "429", "408")  # how the status of an answer begins that may be another one soon


class CloudStore:
    """Blobs in S3 (or what speaks its protocol) or Google Cloud Storage.

    Credentials, region and endpoint are those of every tool of the cloud: `AWS_ACCESS_KEY_ID`,
    `AWS_REGION`, `AWS_ENDPOINT_URL`, the machine's role, `GOOGLE_SERVICE_ACCOUNT`.

    Args:
        url: `s3://bucket/prefix` or `gs://bucket/prefix`.
        timeout: seconds that one call may take, retries included.
        config: for obstore, instead of the environment's.

    Raises:
        ConfigurationError: obstore is not installed, or refuses the URL or the configuration.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, config: dict[str, Any] | None = None):
        try:
            import obstore
            from obstore import store as stores
            from obstore.exceptions import BaseError, NotModifiedError
        except ImportError:
            raise ConfigurationError(
                f"MQINFER_BLOBS={url!r} needs obstore: pip install 'mqinfer[s3]'"
            ) from None
        self.url = url
        self._timeout = timeout
        self._obstore: Any = obstore
        self._known = BaseError
        self._same = NotModifiedError
        config = config or {}
        endpoint = config.get("endpoint") or next(
            (os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), ""
        )
        self.origin = f"{url} {endpoint}"
        try:
            # Its overloads know each cloud's own options; which cloud it is only the URL says.
            from_url: Any = stores.from_url
            self._store: Any = from_url(
                url,
                config=config,
                client_options={
                    "timeout": f"{timeout:g}s",
                    "connect_timeout": f"{min(timeout, 5.0):g}s",
                    # Who names a plain http endpoint means it: a test server, a private network.
                    "allow_http": endpoint.startswith("http://"),
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": datetime.timedelta(seconds=timeout),
                },
            )
        except (BaseError, ValueError) as error:
            raise ConfigurationError(f"MQINFER_BLOBS={url!r}: {_first_line(error)}") from None

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        found = await self.fetch(path, max_bytes=max_bytes)
        assert found is not None  # nothing was said to be known
        return found.data

    async def fetch(
        self, path: str, *, unless: str = "", max_bytes: int | None = None
    ) -> Found | None:
        """See `VersionedStore.fetch`; the version is the ETag."""

        async def read() -> Found | None:
            options = {"if_none_match": unless} if unless else None
            try:
                found = await self._obstore.get_async(self._store, path, options=options)
            except self._same:
                return None
            if max_bytes is not None and found.meta["size"] > max_bytes:
                raise too_large(path, found.meta["size"], max_bytes)
            return Found(bytes(await found.bytes_async()), found.meta["e_tag"] or "")

        return await self._run(checked_path(path), read())

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        checked_path(path)
        await self._run(path, self._obstore.put_async(self._store, path, bytes(data)))

    async def drop(self, path: str) -> None:
        """See `Dropping.drop`."""
        checked_path(path)
        with contextlib.suppress(BlobNotFound):
            await self._run(path, self._obstore.delete_async(self._store, path))

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        checked_path(path)
        try:
            await self._run(path, self._obstore.head_async(self._store, path))
        except BlobNotFound:
            return False
        return True

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """See `Streamed.stream`; the timeout is that of each piece."""
        # From the byte before, which is dropped: from its end on there is nothing to be asked for.
        options = {"range": {"offset": start - 1}} if start else None
        asked = self._obstore.get_async(self._store, path, options=options)
        found = await self._run(checked_path(path), asked)
        pieces = aiter(found.stream())

        async def piece() -> Any:
            return await anext(pieces, None)

        unwanted = min(start, 1)
        while (data := await self._run(path, piece())) is not None:
            if new := bytes(data)[unwanted:]:
                yield new
            unwanted = max(0, unwanted - len(data))

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """See `Streamed.put_pieces`; what is large goes in parts, each with a timeout of its own.

        An upload that is broken off may leave parts that nobody sees, and that the bucket should
        drop by a rule for uploads that are not complete.
        """
        checked_path(path)
        failed: list[Exception] = []
        first = await _filled(pieces, PART)
        if len(first) < PART:
            await self.put(path, first)
            return

        async def rest() -> AsyncIterator[bytes]:
            yield first
            try:
                while data := await _filled(pieces, PART):
                    yield data
            except Exception as error:
                failed.append(error)
                raise

        put = self._obstore.put_async(
            self._store, path, rest(), use_multipart=True, chunk_size=PART, max_concurrency=AT_ONCE
        )
        try:
            await put
        except Exception as error:
            if failed:
                raise failed[0] from None
            if not isinstance(error, (self._known, OSError, ValueError)):
                raise
            raise self._trouble(path, error) from None

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """See `Listed.names`; some hundred at a time."""
        checked_path(prefix.removesuffix("/"))
        pages = self._obstore.list(self._store, prefix.removesuffix("/"))

        async def page() -> Any:
            return await anext(pages, None)

        while found := await self._run(prefix, page()):
            for one in found:
                yield one["path"]

    async def close(self) -> None:
        """Nothing to do: obstore's connections close when they are idle."""

    async def _run(self, path: str, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError:
            raise Unavailable(f"{self.url} does not answer within {self._timeout:g} s") from None
        except (self._known, OSError, ValueError) as error:
            raise self._trouble(path, error) from None

    def _trouble(self, path: str, error: Exception) -> BlobError | Unavailable:
        text = _first_line(error)
        missing_bucket = "NoSuchBucket" in str(error) or "bucket does not exist" in str(error)
        if isinstance(error, FileNotFoundError) and not missing_bucket:
            return BlobNotFound(f"nothing is stored under {path!r} in {self.url}")
        if missing_bucket:
            return BlobError(f"{self.url}: the bucket does not exist")
        # obstore has no class for these; it names the cause in the text.
        if "HTTP error:" in text or any(f"status code: {code}" in text for code in _AGAIN):
            return Unavailable(f"{self.url} does not answer: {text}")
        return BlobError(f"blob {path!r} in {self.url}: {text}")

    def __repr__(self) -> str:
        return f"CloudStore({self.url!r})"


async def _filled(pieces: AsyncIterator[bytes], size: int) -> bytes:
    """So many bytes at least, unless it is the end."""
    found = bytearray()
    while len(found) < size and (data := await anext(pieces, None)) is not None:
        found += data
    return bytes(found)


def _first_line(error: Exception) -> str:
    """What obstore says, without its debug source, which is long and tells users nothing."""
    return str(error).partition("\n")[0].strip()[:500]
