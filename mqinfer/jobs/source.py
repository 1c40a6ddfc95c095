"""Source: what a user names as the rows of a job, as something that gives them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mqinfer.blob import Listed, Streamed
from mqinfer.errors import ConfigurationError
from mqinfer.jobs.sources import InThread, Read, Source, csvfile, lines, parquet, pictures
from mqinfer.jobs.sources.given import Given, GivenRows
from mqinfer.jobs.sources.pictures import StoredPictures

if TYPE_CHECKING:
    from mqinfer.blob import BlobStore
    from mqinfer.message import Message

# A file or folder here, `blob:path` of a file in the blob store, `blob:prefix/` of pictures in it,
# or rows that a program has.
Named = str | os.PathLike[str] | Iterable[Given] | AsyncIterable[Given]

STORED = "blob:"
_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMATS = ("csv", "jsonl", "parquet")


@asynccontextmanager
async def opened(
    named: Named, kind: type[Message], store: BlobStore, form: str | None = None
) -> AsyncIterator[Source]:
    """What gives the rows.

    Args:
        named: by the user.
        kind: the type of the rows' messages.
        store: of blobs.
        form: of a file: "csv", "jsonl" or "parquet"; None is what its name ends in.

    Raises:
        ConfigurationError: there is no such file, or no telling what it is.
        BlobError: it cannot be read from the store.
        Unavailable: the store does not answer.
    """
    if not isinstance(named, (str, os.PathLike)):
        yield GivenRows(named, kind)
        return
    text = os.fspath(named)
    if isinstance(named, str) and text.startswith(STORED):
        path = text.removeprefix(STORED)
        if path.endswith("/"):
            if not isinstance(store, Listed):
                raise ConfigurationError(f"{text}: this blob store cannot list what it has")
            yield StoredPictures(store, path, kind)
            return
        with tempfile.TemporaryDirectory(prefix="mqinfer-job-") as folder:
            copy = Path(folder) / "rows"
            await _copied(store, path, copy)
            try:
                yield _file(copy, path, kind, form)
            except ConfigurationError as error:  # of the blob, as whoever named it calls it
                raise ConfigurationError(str(error).replace(str(copy), path)) from None
        return
    path_here = Path(text)
    if await asyncio.to_thread(path_here.is_dir):
        yield InThread(partial(pictures.rows, path_here, kind), pictures.AT_ONCE)
    elif await asyncio.to_thread(path_here.exists):
        yield _file(path_here, text, kind, form)
    else:
        raise ConfigurationError(
            f"there is no file or folder {text!r}; what is in the blob store is blob:PATH"
        )


async def _copied(store: BlobStore, path: str, to: Path) -> None:
    """Write a blob into a file."""
    if not isinstance(store, Streamed):
        await asyncio.to_thread(to.write_bytes, await store.get(path))
        return
    with await asyncio.to_thread(to.open, "wb") as file:
        async for data in store.stream(path):
            await asyncio.to_thread(file.write, data)


def form_of(name: str) -> str | None:
    """The format of a file, as its name tells; None where it does not."""
    return _FORMATS.get(os.path.splitext(name)[1].lower())  # noqa: PTH122


def _file(path: Path, name: str, kind: type[Message], form: str | None) -> Source:
    """A file of rows, called `name`."""
    found = form or form_of(name)
    rows: dict[str, partial[Iterator[Read]]] = {
        "csv": partial(csvfile.rows, path, kind),
        "jsonl": partial(lines.rows, path),
        "parquet": partial(parquet.rows, path, kind),
    }
    if found not in rows:
        raise ConfigurationError(
            f"{name}: its name does not say what it is: say {', '.join(FORMATS)}"
        )
    return InThread(rows[found])
