"""Processes that tests started and that outlive them: found by a mark that children inherit."""

from __future__ import annotations

import os
import time

import psutil

MARK = "PYTEST_STARTED_BY"
_RESOURCE_TRACKER = "multiprocessing.resource_tracker"  # Python's own; it ends with this process


def mark() -> str:
    """From now on every process that comes of this one bears the mark, also as an orphan."""
    os.environ[MARK] = found = f"{os.getpid()}-{time.monotonic_ns()}"
    return found


def marked(by: str) -> list[psutil.Process]:
    """The processes with the mark that live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) != by or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if _RESOURCE_TRACKER not in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it is gone, or another user's
            continue
    return found


def end(by: str, patience: float) -> list[str]:
    """Wait until no process with the mark lives; those that still do are killed.

    Args:
        by: the mark.
        patience: seconds, for those that are about to end.

    Returns:
        What was killed: pids and command lines.
    """
    deadline = time.monotonic() + patience
    while (left := marked(by)) and time.monotonic() < deadline:
        time.sleep(0.1)
    told = []
    for process in left:
        try:
            told.append(f"{process.pid} {' '.join(process.cmdline())}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return told
