"""DiskCache: copies of blobs on the local disk, shared by all processes of a user on a host.

A file is a blob, whole, behind a header with its checksum and the store's version of it. Nothing
else is remembered: the time of a file's last use is its access time, and that at which the store
last said that it is so its modification time, both set by hand. So the folder may be deleted at any
moment.

Who fetches a blob holds a lock on the file that it is written into (`<key>.part`), which is renamed
into its place: others see who is at it, and a process that dies lets go. What it leaves is found by
its lock, which nobody has, and removed when room is made.

Everything here blocks; `cached` runs it in threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

log = structlog.get_logger("mqinfer.blobs")

BUSY = -1  # another one fetches the blob
_BLOCK = 4096  # a file takes whole ones of the disk
_FILLED = 0.9  # of the limit, to which the cache is emptied when it is full
_PATIENCE = 1.0  # seconds to wait for another process's accounts; it may be stopped
_MAGIC = b"mqblob1\n"
_HEADER = struct.Struct(">8s32sQH")  # magic, SHA-256, bytes of the blob, bytes of the version
_NAME = re.compile(r"[0-9a-f]{64}(\.part)?")
_CHUNK = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """A blob that the cache has.

    Attributes:
        data: its bytes; none where there are more than the reader allows.
        size: how many there are.
        version: the store's, such as an ETag; "" is none.
        confirmed: when the store last said so, seconds since the epoch.
    """

    data: bytes
    size: int
    version: str
    confirmed: float


class DiskCache:
    """Copies of blobs in a folder, the least recently used of which go first.

    Args:
        folder: in which a folder of the user's own is made, `mqinfer-<uid>`; only what this class
            has written there is ever removed.
        limit: bytes that its files may take together, each in whole blocks of 4 KiB.
    """

    def __init__(self, folder: str, limit: int):
        self.home = os.path.join(os.path.abspath(folder), f"mqinfer-{os.geteuid()}")  # noqa: PTH100, PTH118
        self.limit = limit
        self._ours = False

    def read(self, key: str, max_bytes: int | None = None) -> Entry | None:
        """The blob of `key`, used just now; None if it is not there.

        Raises:
            OSError: the disk does not give it, or the folder is not ours.
        """
        if not self._ours:
            self._make_home()
        try:
            handle = os.open(self._place(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            head = file.read(_HEADER.size)
            if len(head) == _HEADER.size:
                magic, digest, size, more = _HEADER.unpack(head)
                version = file.read(more)
                large = max_bytes is not None and size > max_bytes
                data = b"" if large else file.readall() or b""
                if magic == _MAGIC and (large or hashlib.sha256(data).digest() == digest):
                    found = os.fstat(handle)
                    with contextlib.suppress(OSError):  # read-only: the order is all that is lost
                        os.utime(handle, ns=(time.time_ns(), found.st_mtime_ns))
                    return Entry(data, size, version.decode(), found.st_mtime)
        # A power cut, or the disk: without a flush a file may be there and its bytes not.
        log.warning("a cached blob was damaged; it is fetched anew", file=self._place(key))
        self.forget(key)
        return None

    def confirm(self, key: str) -> None:
        """Note that the store said just now that the blob is as it is here."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._place(key))

    def forget(self, key: str) -> None:
        """Remove a blob; the accounts notice when room is made."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._place(key))  # noqa: PTH108

    def claim(self, key: str) -> int:
        """The right to fetch a blob, which `keep` or `release` ends; or `BUSY`.

        Raises:
            OSError: nothing can be written.
        """
        part = self._place(key) + ".part"
        try:
            if not self._ours:
                self._make_home()
            handle = _locked(part)
        except FileNotFoundError:
            self._make_home()
            handle = _locked(part)
        return BUSY if handle is None else handle

    def release(self, key: str, claim: int) -> None:
        """Give a claim up: nothing was fetched."""
        with contextlib.suppress(OSError):
            os.unlink(self._place(key) + ".part")  # noqa: PTH108
        os.close(claim)

    def keep(self, key: str, claim: int, version: str, data: bytes) -> bool:
        """Write a blob that was fetched; the claim ends, whatever happens.

        Returns:
            whether it was kept; one that is larger than the limit is not, nor one whose folder
            was deleted meanwhile, or whose accounts another process has for too long.

        Raises:
            OSError: nothing can be written.
        """
        head = _HEADER.pack(_MAGIC, hashlib.sha256(data).digest(), len(data), len(version.encode()))
        head += version.encode()
        size = len(head) + len(data)
        reserved = kept = False
        try:
            if _blocks(size) > self.limit or not self._reserve(claim, size):
                return False
            reserved = True
            for piece in (memoryview(head), memoryview(data)):
                left = piece
                while left:
                    left = left[os.write(claim, left[:_CHUNK]) :]
            os.rename(self._place(key) + ".part", self._place(key))  # noqa: PTH104
            kept = True
        except FileNotFoundError:
            return False
        finally:
            if kept:
                os.close(claim)
            else:
                self.release(key, claim)
                if reserved:
                    with contextlib.suppress(OSError), self._accounts() as used:
                        _note(used, max(0, (_noted(used) or 0) - _blocks(size)))
        return True

    # --- how much there is ------------------------------------------------------------------------

    def _reserve(self, claim: int, size: int) -> bool:
        """Have room for a file, which from here on looks as large as it will be."""
        with self._accounts() as used:
            if used is None:
                return False
            before = _noted(used)
            if before is None or before + _blocks(size) > self.limit:
                before = self._make_room(_blocks(size))
            os.ftruncate(claim, 0)  # of one that was killed
            os.ftruncate(claim, size)
            _note(used, before + _blocks(size))
        return True

    @contextlib.contextmanager
    def _accounts(self) -> Iterator[int | None]:
        """The file with the bytes that are taken, which no other has meanwhile; or None."""
        until = time.monotonic() + _PATIENCE
        while (handle := _locked(f"{self.home}/used")) is None:
            if time.monotonic() > until:
                yield None
                return
            time.sleep(0.005)
        try:
            yield handle
        finally:
            os.close(handle)

    def _make_room(self, needed: int) -> int:
        """Remove what was not used for longest until `needed` bytes fit; the bytes that remain."""
        total, files = 0, []
        with os.scandir(self.home) as entries:
            for entry in entries:
                if not _NAME.fullmatch(entry.name) or _abandoned(entry):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    total += _blocks(found.st_size)
                    if not entry.name.endswith(".part"):
                        files.append((found.st_atime_ns, _blocks(found.st_size), entry.name))
        if total + needed > self.limit:
            goal = max(0, int(self.limit * _FILLED) - needed)
            for _, size, name in sorted(files):
                if total <= goal:
                    break
                self.forget(name)
                total -= size
        return total

    def _place(self, key: str) -> str:
        return f"{self.home}/{key}"

    def _make_home(self) -> None:
        """Make the folder; it is this user's alone, or it is not used.

        Raises:
            OSError: it cannot be made, or another user has it.
        """
        os.makedirs(os.path.dirname(self.home), exist_ok=True)  # noqa: PTH103, PTH120
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.home, 0o700)  # noqa: PTH102
        found = os.lstat(self.home)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"{self.home} is not a folder of this user's own")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(self.home, 0o700)  # noqa: PTH101
        self._ours = True

    def __repr__(self) -> str:
        return f"DiskCache({self.home!r}, {self.limit})"


def _locked(place: str) -> int | None:
    """A file, made if need be, that no other has locked; None if one has."""
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have renamed or removed it before this one had the lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(place)):  # noqa: PTH116
                    return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _abandoned(entry: os.DirEntry[str]) -> bool:
    """Whether it was a part whose writer is dead; it is removed."""
    if not entry.name.endswith(".part"):
        return False
    try:
        handle = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(entry.path)):  # noqa: PTH116
            os.unlink(entry.path)  # noqa: PTH108
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    finally:
        os.close(handle)
    return True


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _noted(used: int | None) -> int | None:
    """What the accounts say; None where they say nothing."""
    text = b"" if used is None else os.pread(used, 32, 0)
    return int(text) if text.isdigit() else None


def _note(used: int | None, total: int) -> None:
    if used is not None:
        os.pwrite(used, b"%020d" % total, 0)
