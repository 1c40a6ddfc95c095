"""FolderStore: blobs as files under a folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import FileIO
from typing import TypeVar

from mqinfer.adapters.blobstores import TIMEOUT, too_large
from mqinfer.blob import checked_path
from mqinfer.errors import BlobError, BlobNotFound, BlobPathError, Unavailable

T = TypeVar("T")
THREADS = 16  # of one folder store; they wait for a disk or network, not for a processor
_CHUNK = 64 * 1024 * 1024
_PIECE = 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# A network folder that is away for now; everything else does not pass by itself.
_PASSING = {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a blob goes.

    Attributes:
        path: of the blob.
        home: the folder.
        place: of the file.
        passing: of the file until it is whole.
        made: folders that got a new entry.
    """

    path: str
    home: str
    place: str
    passing: str
    made: list[str]


class FolderStore:
    """Blobs as files under a folder, which may be shared over a network.

    A file is written beside its place under a name of its own, flushed to the disk and renamed, so
    that a reader, a kill or a power cut never meets half of one. (A kill can leave a file whose
    name begins with a dot and ends in `.tmp`; it may be deleted.) Symbolic links inside the folder
    are followed as long as they stay inside.

    Args:
        root: the folder; made by the first `put`.
        timeout: seconds that one call may take.
        durable: flush file and folder before `put` returns. Without it a power cut may lose blobs
            of the last half minute; what a killed process wrote stays either way.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, timeout: float = TIMEOUT, durable: bool = True
    ):
        self.root = os.path.realpath(root)
        self._timeout = timeout
        self._durable = durable
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mqinfer-blob")

    async def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See `BlobStore.get`."""
        return await self._run(checked_path(path), lambda: self._read(path, max_bytes))

    async def put(self, path: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        await self._run(checked_path(path), lambda: self._write(path, data))

    async def drop(self, path: str) -> None:
        """See `Dropping.drop`."""
        with contextlib.suppress(BlobNotFound):
            await self._run(checked_path(path), lambda: os.unlink(self._inside(path)))  # noqa: PTH108

    async def exists(self, path: str) -> bool:
        """See `BlobStore.exists`."""
        return await self._run(checked_path(path), lambda: os.path.isfile(self._inside(path)))  # noqa: PTH113

    async def stream(self, path: str, *, start: int = 0) -> AsyncIterator[bytes]:
        """See `Streamed.stream`."""
        file = await self._run(checked_path(path), partial(self._open, path))
        with file:
            if start:
                await self._run(path, partial(file.seek, start))
            while data := await self._run(path, partial(file.read, _PIECE)):
                yield data

    async def put_pieces(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """See `Streamed.put_pieces`."""
        to = await self._run(checked_path(path), lambda: self._begin(path))
        try:
            async for data in pieces:
                await self._run(path, partial(self._append, to, data))
            await self._run(path, partial(self._keep, to))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(to.passing)  # noqa: PTH108
            raise

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """See `Listed.names`; a folder at a time is looked into."""
        todo = [checked_path(prefix.removesuffix("/"))]
        while todo:
            path = todo.pop()
            folders = []
            for name, folder in await self._run(path, partial(self._entries, path)):
                if folder:
                    folders.append(f"{path}/{name}")
                else:
                    yield f"{path}/{name}"
            todo += reversed(folders)

    async def close(self) -> None:
        """Take no more work; calls under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, path: str, work: Callable[[], T]) -> T:
        """Run blocking file work in a thread.

        Raises:
            BlobError: what the system says, with the path.
            Unavailable: it does not answer in time.
        """
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except RuntimeError:
            raise BlobError(f"blob {path!r}: the store {self.root} is closed") from None
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError as error:
            if isinstance(error, OSError) and error.errno:
                raise self._trouble(path, error) from None
            raise Unavailable(
                f"the blob folder {self.root} does not answer within {self._timeout:g} s"
            ) from None
        except (OSError, UnicodeError) as error:
            raise self._trouble(path, error) from None

    def _trouble(self, path: str, error: OSError | UnicodeError) -> BlobError | Unavailable:
        if isinstance(error, UnicodeError) or error.errno == errno.ENAMETOOLONG:
            return BlobPathError(f"blob path {path[:200]!r} cannot name a file here: {error}")
        if error.errno in _PASSING:
            return Unavailable(f"the blob folder {self.root}: {error.strerror}")
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            missing = "" if os.path.isdir(self.root) else ", which does not exist"  # noqa: PTH112
            return BlobNotFound(f"nothing is stored under {path!r} in {self.root}{missing}")
        return BlobError(f"blob {path!r} in {self.root}: {error.strerror or error}")

    # --- in a thread --------------------------------------------------------------------------

    def _inside(self, path: str) -> str:
        """Where `path` really is.

        Raises:
            BlobPathError: a symbolic link leads out of the folder.
        """
        real = os.path.realpath(os.path.join(self.root, path))  # noqa: PTH118 - str is faster
        if not real.startswith(self.root.rstrip("/") + "/"):
            raise BlobPathError(
                f"blob path {path!r} leaves {self.root} through a symbolic link: it leads to {real}"
            )
        return real

    def _read(self, path: str, max_bytes: int | None) -> bytes:
        with self._open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise too_large(path, size, max_bytes)
            return file.readall() or b""

    def _open(self, path: str) -> FileIO:
        # Without O_NONBLOCK a named pipe would hold the thread for good.
        handle = os.open(self._inside(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = FileIO(handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise BlobNotFound(f"{path!r} in {self.root} is no file")
        return file

    def _entries(self, path: str) -> list[tuple[str, bool]]:
        """Names in a folder, in order, and whether each is a folder; what is hidden is left out."""
        try:
            with os.scandir(self._inside(path)) as entries:
                found = [(one.name, one.is_dir()) for one in entries if one.name[0] != "."]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found)

    def _write(self, path: str, data: bytes) -> None:
        to = self._target(path)
        try:
            with _still_there(to):
                handle = os.open(to.passing, _NEW, 0o666)
                try:
                    _write_all(handle, data)
                    if self._durable:
                        os.fsync(handle)
                finally:
                    os.close(handle)
                os.replace(to.passing, to.place)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(to.passing)  # noqa: PTH108
            raise
        self._sync_folders(to)

    def _begin(self, path: str) -> _Target:
        to = self._target(path)
        with _still_there(to):
            os.close(os.open(to.passing, _NEW, 0o666))
        return to

    def _append(self, to: _Target, data: bytes) -> None:
        # By its name: no handle outlives a call that was given up while it was in a thread.
        with _still_there(to):
            handle = os.open(to.passing, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                _write_all(handle, data)
            finally:
                os.close(handle)

    def _keep(self, to: _Target) -> None:
        with _still_there(to):
            if self._durable:
                handle = os.open(to.passing, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            os.replace(to.passing, to.place)  # noqa: PTH105
        self._sync_folders(to)

    def _target(self, path: str) -> _Target:
        folder, _, name = path.rpartition("/")
        # The last part may be a link: renaming replaces it, so only the folder must be inside.
        home = self._inside(folder) if folder else self.root
        made = self._make(home)
        place = f"{home}/{name}"
        if os.path.isdir(place):  # noqa: PTH112
            raise BlobError(f"blob {path!r} in {self.root}: a folder has this name")
        return _Target(path, home, place, f"{home}/.{uuid.uuid4().hex}.tmp", made)

    def _sync_folders(self, to: _Target) -> None:
        if self._durable:
            for changed in (to.home, *to.made):
                _sync_folder(changed)

    def _make(self, home: str) -> list[str]:
        """Make the folder; the folders that got a new entry by it."""
        made = []
        missing = home
        while not os.path.isdir(missing):  # noqa: PTH112
            parent = os.path.dirname(missing)  # noqa: PTH120
            made.append(parent)
            missing = parent
        try:
            os.makedirs(home, exist_ok=True)  # noqa: PTH103
        except (FileExistsError, NotADirectoryError) as error:
            raise BlobError(f"no folder {home} can be made: a file is in its place") from error
        return made

    def __repr__(self) -> str:
        return f"FolderStore({self.root!r})"


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left[:_CHUNK]) :]


@contextlib.contextmanager
def _still_there(to: _Target) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # the folder was removed under us
        raise BlobError(f"blob {to.path!r}: the folder {to.home} went away") from None


def _sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
