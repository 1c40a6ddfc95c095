"""Counters in a mapped file: what a process counted survives its SIGKILL."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

NAMES = ("redelivered", "duplicates", "handled", "published", "limit", "reached", "inserted")
_SIZE = 8 * len(NAMES)


class Counters:
    """A handful of numbers that several processes see.

    Every number has one writer at a time.

    Args:
        path: of the file; made when it is not there, kept as it is when it is.
    """

    def __init__(self, path: Path):
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def get(self, name: str) -> int:
        """One number."""
        (value,) = struct.unpack_from("<q", self._map, 8 * NAMES.index(name))
        return int(value)

    def set(self, name: str, value: int) -> None:
        """Set one number."""
        struct.pack_into("<q", self._map, 8 * NAMES.index(name), value)

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        self.set(name, self.get(name) + count)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()
