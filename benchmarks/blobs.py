"""blobs: five readers of one picture in S3, with the cache on disk and without."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.results import Figure, Options, Result, Row
from mqinfer.adapters.blobs import through_cache
from mqinfer.adapters.blobstores.cloud import CloudStore
from mqinfer.blob import BlobStore
from mqinfer.counts import BlobCacheMetrics

SIZE = 200_000
READERS = 5
BLOBS = 20
AWAY = 0.02  # seconds from the request to the first byte, as S3 has it within its region


async def measure(options: Options) -> Result:
    """Each blob is read five times, one reader after the other."""
    count = options.amount(BLOBS, least=3)
    pictures = [os.urandom(SIZE) for _ in range(count)]
    digests = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    chosen = [f"p/{number}.jpg" for number in range(count)]
    own = [f"sha256/{digest[:2]}/{digest}" for digest in digests]
    blobs = dict(zip(chosen + own, pictures * 2, strict=True))
    kinds = (
        ("from the store", chosen, False),
        ("cached, paths of the user's", chosen, True),
        ("cached, paths that are digests", own, True),
    )
    rows: list[Row] = []
    for away, name in ((AWAY, "20 ms away"), (0.0, "next door")):
        found: list[list[tuple[float, float]]] = [[] for _ in kinds]
        async with _s3(blobs, away) as (endpoint, sent):
            for repetition in range(options.repeat):
                for number, (_, paths, cached) in enumerate(kinds):
                    folder = options.folder / f"{away}-{repetition}-{number}"
                    before = sent[0]
                    seconds = await _read(endpoint, paths, folder if cached else None)
                    found[number].append((seconds, (sent[0] - before) / count))
        for (kind, _, _), samples in zip(kinds, found, strict=True):
            figures = {
                f"{READERS} reads, one after the other": Figure(
                    tuple(seconds * 1000 for seconds, _ in samples), "ms"
                ),
                "from the store": Figure(tuple(size / 1000 for _, size in samples), "kB"),
            }
            rows.append(Row(f"{name}, {kind}", figures))
            options.say(rows[-1].name)
    return Result(
        "blobs",
        f"{READERS} reads of each of {count} blobs of {SIZE // 1000} kB in S3",
        rows,
        notes=[
            "The store is a small HTTP server in the same process, that answers as S3 does: 200 "
            "with an ETag, or 304.",
            "Under a path of the user's the store is asked each time whether the blob is still the "
            "one; under its digest it is believed for a minute.",
        ],
    )


async def _read(endpoint: str, paths: Sequence[str], folder: Path | None) -> float:
    """Seconds that the reads of one blob take, on average."""
    counts = BlobCacheMetrics()
    store: BlobStore = CloudStore(
        "s3://bench",
        config={
            "endpoint": endpoint,
            "access_key_id": "a",
            "secret_access_key": "b",
            "region": "r",
        },
    )
    if folder is not None:
        store = through_cache(store, str(folder), 10**9, counts)
    try:
        began = time.perf_counter()
        for path in paths:
            for _ in range(READERS):
                if len(await store.get(path)) != SIZE:
                    raise RuntimeError("a blob is not what was stored")
        seconds = (time.perf_counter() - began) / len(paths)
        if folder is not None:
            once = (counts.misses, counts.miss_bytes) == (len(paths), SIZE * len(paths))
            others = counts.hits, counts.hit_bytes - (READERS - 1) * counts.miss_bytes
            if not once or others != ((READERS - 1) * len(paths), 0):
                raise RuntimeError("the cache did not work")
        return seconds
    finally:
        await store.close()


@asynccontextmanager
async def _s3(blobs: dict[str, bytes], away: float) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that has these blobs, each in one version; its URL, and the bytes that it sent."""
    sent = [0]
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await asyncio.sleep(away)
                path = request.split()[1].removeprefix("/bench/")
                same = "if-none-match:" in request.lower()
                status, body = ("304 Not Modified", b"") if same else ("200 OK", blobs[path])
                head = (
                    f'HTTP/1.1 {status}\r\nETag: "1"\r\nContent-Length: {len(body)}\r\n'
                    "Last-Modified: Fri, 01 May 2026 00:00:00 GMT\r\n\r\n"
                )
                writer.write(head.encode() + body)
                sent[0] += len(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            open_ones.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
        server.close()
        while open_ones:
            for writer in list(open_ones):
                writer.close()
            await asyncio.sleep(0.01)
