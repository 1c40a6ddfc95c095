"""Machine: how busy its cores are, whoever keeps them busy; and one's own folder on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Busy:
    """The share of all cores that is busy from here on; 0 where the system does not say."""

    def __init__(self) -> None:
        self._before = _ticks()

    def share(self) -> float:
        """Since it was made."""
        after = _ticks()
        total = after[1] - self._before[1]
        return 0.0 if total <= 0 else 1 - (after[0] - self._before[0]) / total


def _ticks() -> tuple[int, int]:
    """Idle and all, since the machine began."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return fields[3] + fields[4], sum(fields)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder, removed at the end; those of runs that were killed are removed first.

    Whoever has one holds a lock in it, which the kernel takes back however the process ends.
    """
    base = Path(tempfile.gettempdir())
    name = f"mqinfer-bench-{os.geteuid()}-"
    for left in base.glob(f"{name}*"):
        _remove(left)
    folder = base / f"{name}{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove what a killed run left; nothing where its process lives."""
    with suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return
        if not (folder / "lock").exists() and time.time() - folder.stat().st_mtime < 60:
            return  # one that is just being made
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
