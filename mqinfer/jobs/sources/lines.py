"""Lines: a file of JSON, one object a line (JSONL)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mqinfer.jobs.sources import Read

BOM = b"\xef\xbb\xbf"
LONGEST = 64 * 1024 * 1024  # bytes of a line; a picture may stand in one


def rows(path: Path) -> Iterator[Read]:
    """The rows of a file; blank lines are none."""
    with path.open("rb") as file:
        for number, (line, whole) in enumerate(lines(file), 1):
            if not whole:
                yield Read(problem=f"line {number} has more than {LONGEST:,} bytes")
            elif text := line.strip():
                yield Read(data=text)


def lines(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The lines of a file with their ends, and whether each is whole.

    Of one that is too long the beginning is given, and the rest is passed over.
    """
    line = file.readline(LONGEST).removeprefix(BOM)
    while line:
        whole = len(line) < LONGEST or line.endswith(b"\n")
        yield line, whole
        while not whole:
            rest = file.readline(LONGEST)
            whole = not rest or rest.endswith(b"\n")
        line = file.readline(LONGEST)
