"""What the tests of the demos share: a demo in a process, and what it has left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


@contextmanager
def running(module: str, *options: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo with its output in a pipe; killed at the end, if it still runs."""
    with piped("-m", f"examples.plants.{module}", *options, f"--dir={folder}") as process:
        yield process


@contextmanager
def piped(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A Python with its output in a pipe; killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def until_line(demo: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read what a demo says up to a line that begins like this.

    Raises:
        AssertionError: it ended before; the text has what it said.
    """
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if found := re.match(pattern, line):
            return found
    raise AssertionError(f"no line {pattern!r} in:\n{''.join(seen)}")


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        environ = process.info["environ"] or {}
        if str(folder) in " ".join(words) or str(folder) in environ.get("MQINFER_BLOBS", ""):
            found.append(" ".join(words))
    return found
