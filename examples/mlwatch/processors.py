"""Processor seconds: what each part of the pipeline has used, its children included."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import psutil


class Processors:
    """What is used from here on.

    Args:
        pids: processes by the name of the part.
    """

    def __init__(self, pids: Mapping[str, int]):
        self._pids = dict(pids)
        self._last = dict.fromkeys(self._pids, 0.0)
        self._before = self._seconds()

    def used(self) -> dict[str, float]:
        """Seconds by part, since it was made; of one that has ended, until somebody asked last."""
        now = self._seconds()
        return {name: now[name] - self._before[name] for name in now}

    def _seconds(self) -> dict[str, float]:
        for name, pid in self._pids.items():
            with suppress(psutil.NoSuchProcess):
                self._last[name] = _of(psutil.Process(pid))
        return dict(self._last)


def _of(process: psutil.Process) -> float:
    found = 0.0
    # Those of this process are parts of their own.
    children = [] if process.pid == os.getpid() else process.children(recursive=True)
    for one in [process, *children]:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            found += times.user + times.system
    return found
